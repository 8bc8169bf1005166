package owner

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// A tree is an open directory of procfs or of cgroup v2. Names are given as
// bytes, since they are put together in buffers.
type tree struct{ fd int }

func openTree(path string) (tree, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return tree{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return tree{fd}, nil
}

func (t tree) close() { unix.Close(t.fd) }

func (t tree) open(name []byte, flags int) (int, error) {
	for {
		fd, err := unix.Openat(t.fd, string(name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// read reads a file into b, and returns what fitted in.
func (t tree) read(name, b []byte) ([]byte, error) {
	fd, err := t.open(name, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, b)
}

func readAll(fd int, b []byte) ([]byte, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return b[:n], err
		case m == 0:
			return b[:n], nil
		default:
			n += m
		}
	}
	return b, nil
}

// link reads a link into b.
func (t tree) link(name, b []byte) ([]byte, error) {
	n, err := unix.Readlinkat(t.fd, string(name), b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// entries calls f for the entries of an open directory from where it stands,
// until f returns false. It reports whether the end was reached.
func entries(fd int, buffer []byte, f func(dirent) bool) (bool, error) {
	for {
		n, err := unix.ReadDirent(fd, buffer)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, err
		case n == 0:
			return true, nil
		}
		for rest := buffer[:n]; ; {
			d, after, ok := parseDirent(rest)
			if !ok {
				break
			}
			rest = after
			if !f(d) {
				return false, nil
			}
		}
	}
}

// refused tells errors for want of a right from those of a process that is
// gone or going.
func refused(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

// Descriptors returns how many descriptors a process has open and how many it
// may have: the soft limit RLIMIT_NOFILE of /proc/PID/limits, math.MaxInt if
// it has none. start is the process's, 0 for whatever process has that pid. The
// count comes from stat (Linux 6.2, needs no right), else from reading
// /proc/PID/fd, up to 1,048,576. The error is ErrGone, or names the file.
func (f *Finder) Descriptors(pid int, start uint64) (used, limit int, err error) {
	f.buffers()
	proc, err := openTree(f.config.Proc)
	if err != nil {
		return 0, 0, err
	}
	defer proc.close()
	fail := func(name string, err error) error {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			err = ErrGone
		}
		return &fs.PathError{Op: "read", Path: f.config.Proc + "/" + name, Err: err}
	}
	at := appendPID(nil, int32(pid))
	name := func(file string) []byte { return append(slices.Clip(at), file...) }
	text, err := proc.read(name("/limits"), f.text)
	if err != nil {
		return 0, 0, fail(string(name("/limits")), err)
	}
	limit, ok := parseOpenFiles(text)
	if !ok {
		return 0, 0, fail(string(name("/limits")), errors.New(`no line "Max open files"`))
	}
	used, err = countDescriptors(proc, name("/fd"), f.dirents)
	if err != nil {
		return 0, 0, fail(string(name("/fd")), err)
	}
	text, err = proc.read(name("/stat"), f.text)
	if st, ok := parseStat(text); err != nil || !ok || start != 0 && st.start != start {
		return 0, 0, fail(string(name("/stat")), ErrGone)
	}
	return used, limit, nil
}

func countDescriptors(proc tree, name, buffer []byte) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(proc.fd, string(name), &st, 0); err != nil {
		return 0, err
	}
	var fsys unix.Statfs_t
	if st.Size > 0 && unix.Fstatfs(proc.fd, &fsys) == nil && fsys.Type == unix.PROC_SUPER_MAGIC {
		return int(st.Size), nil
	}
	fd, err := proc.open(name, unix.O_DIRECTORY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	const most = 1 << 20
	n := 0
	_, err = entries(fd, buffer, func(d dirent) bool {
		if _, ok := parsePID(d.name); ok {
			n++
		}
		return n < most
	})
	return n, err
}

// buffers makes the buffers on first use.
func (f *Finder) buffers() {
	if f.dirents == nil {
		f.dirents = make([]byte, 8<<10)
		f.text = make([]byte, 8<<10)
	}
}
