package owner

import (
	"bytes"
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// members visits the processes of the cgroups of sockets that are looked for.
func (s *search) members() {
	for _, id := range s.groups {
		if s.pending == 0 || !s.more() {
			return
		}
		if id == rootCgroup {
			continue // those are all processes, and the sweep's
		}
		pids := s.processes(id)
		for n := range pids {
			if s.pending == 0 || !s.more() {
				s.f.groupTurn += n // a large cgroup is begun elsewhere next time
				return
			}
			s.visitNext(pids[(s.f.groupTurn+n)%len(pids)])
		}
	}
	s.f.groupTurn = 0
}

const rootCgroup = 1

// processes reads cgroup.procs of a cgroup, up to 4 KiB of pids.
func (s *search) processes(id uint64) []int32 {
	root := s.f.cgroupRoot()
	if root == "" {
		return nil
	}
	mount, err := openTree(root)
	if err != nil {
		return nil
	}
	defer mount.close()
	const most = 4 << 10
	b := make([]byte, most)
	dir, err := openByID(mount, id)
	if err != nil {
		where, known := s.f.groups[id]
		if !known {
			return nil
		}
		b, _ = mount.read([]byte(where[1:]+"/cgroup.procs"), b)
	} else {
		b, _ = tree{dir}.read([]byte("cgroup.procs"), b)
		unix.Close(dir)
	}
	s.spent += visitCost
	var pids []int32
	for line := range bytes.Lines(b) {
		// Without its line end a pid may be cut off; 0 is of another pid namespace.
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		if pid, ok := parsePID(line); ok && whole && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// openByID opens a cgroup's directory by its id, which is a file handle of
// that file system (type 0xfe, Linux 5.5). It needs CAP_DAC_READ_SEARCH, as
// reading the descriptors of its processes does.
func openByID(mount tree, id uint64) (int, error) {
	const kernfs = 0xfe
	// The mount has to be open for reading, not by path only.
	fd, err := mount.open([]byte("."), unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	handle := unix.NewFileHandle(kernfs, binary.NativeEndian.AppendUint64(nil, id))
	return unix.OpenByHandleAt(fd, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
}

// cgroupRoot is where cgroup v2 is mounted, "" if nowhere. On hybrid mounts
// it is beside the hierarchies of v1.
func (f *Finder) cgroupRoot() string {
	if f.rooted {
		return f.groupRoot
	}
	f.rooted = true
	f.groupRoot = f.config.Cgroup
	if f.groupRoot != "" {
		return f.groupRoot
	}
	for _, path := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var fsys unix.Statfs_t
		if unix.Statfs(path, &fsys) == nil && fsys.Type == unix.CGROUP2_SUPER_MAGIC {
			f.groupRoot = path
			return path
		}
	}
	return ""
}

// learn remembers the id of a cgroup by its path, for where openByID can't.
func (f *Finder) learn(path string) {
	const most = 1024
	root := f.cgroupRoot()
	if root == "" || len(path) < 2 || len(path) == maxCgroup || strings.Contains(path, "/..") {
		return // the last is outside of this cgroup namespace
	}
	var st unix.Stat_t
	if unix.Stat(root+path, &st) != nil || st.Ino <= rootCgroup {
		return
	}
	if f.groups == nil || len(f.groups) == most {
		f.groups = map[uint64]string{}
	}
	f.groups[st.Ino] = path
}
