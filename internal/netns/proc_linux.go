package netns

import (
	"errors"
	"io/fs"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A tree is procfs, open as a directory: names in it are shorter than paths, and
// can't be led astray by what is mounted over it later.
type tree struct{ fd int }

func openTree(path string) (tree, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return tree{-1}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return tree{fd}, nil
}

func (t tree) close() { unix.Close(t.fd) }

// open opens a file for reading, whatever it is, without waiting.
func (t tree) open(name string) (int, error) {
	for {
		fd, err := unix.Openat(t.fd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// read reads a file into b, and returns what fitted in.
func (t tree) read(name string, b []byte) ([]byte, error) {
	fd, err := t.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
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

// namespace reads which namespace a link of procfs names: "123/ns/net" is of
// the kind "net".
func (t tree) namespace(name, kind string) (uint64, error) {
	var b [64]byte
	n, err := unix.Readlinkat(t.fd, name, b[:])
	if err != nil {
		return 0, err
	}
	inode, ok := parseLink(b[:n], kind)
	if !ok {
		return 0, unix.EINVAL
	}
	return inode, nil
}

// processes calls f for the processes, by ascending number as the kernel lists
// them. dir is the inode number of a process's directory, which another process
// of the same number doesn't have.
func (t tree) processes(buffer []byte, f func(pid int32, dir uint64)) error {
	fd, err := t.open(".")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.ReadDirent(fd, buffer)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		for rest := buffer[:n]; ; {
			d, after, ok := parseDirent(rest)
			if !ok {
				break
			}
			rest = after
			if pid, ok := parsePID(d.name); ok {
				f(pid, d.inode)
			}
		}
	}
}

// ofProcess is the name of a process's file.
func ofProcess(pid int32, file string) string { return strconv.Itoa(int(pid)) + "/" + file }

// refused tells errors for want of a right from those of what is gone.
func refused(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

// vanished tells the errors of a process that has ended meanwhile.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// dead reads from an open /proc/sys file of a namespace, and tells whether that
// is dead.
func dead(token int) bool {
	var b [32]byte
	for {
		_, err := unix.Pread(token, b[:], 0)
		if !errors.Is(err, unix.EINTR) {
			return errors.Is(err, unix.ENOENT)
		}
	}
}

// OwnCookie is the cookie of the calling thread's namespace, which unlike the
// inode is never used again; 0 where the kernel has none (before Linux 5.14).
func OwnCookie() uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return cookie
}

// Inode numbers that the kernel gives to the first namespaces
// (include/linux/proc_ns.h).
const (
	firstCgroup = 0xEFFFFFFB
	firstPID    = 0xEFFFFFFC
)

// cgroupRoots finds where in the tree of each hierarchy this process's cgroup
// namespace begins; nil is at its root. It is false if that can't be told.
func (t tree) cgroupRoots() (roots map[string]string, ok bool) {
	ours, err := t.namespace("thread-self/ns/cgroup", "cgroup")
	if err != nil || ours == firstCgroup {
		return nil, err == nil || errors.Is(err, unix.ENOENT) // none before Linux 4.6
	}
	if first, err := t.namespace("1/ns/cgroup", "cgroup"); err != nil || first == ours {
		return nil, err == nil
	}
	done := make(chan bool)
	apart(isMainThread, func() { // the thread ends with this, so it needn't go back
		defer close(done)
		roots, ok = t.compareCgroups()
	})
	<-done
	return roots, ok
}

// compareCgroups leaves the calling thread in PID 1's cgroup namespace.
func (t tree) compareCgroups() (roots map[string]string, ok bool) {
	fd, err := t.open("1/ns/cgroup")
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	inside, err1 := t.read("thread-self/cgroup", make([]byte, textSize))
	err2 := unix.Setns(fd, unix.CLONE_NEWCGROUP)
	outside, err3 := t.read("thread-self/cgroup", make([]byte, textSize))
	if errors.Join(err1, err2, err3) != nil {
		return nil, false
	}
	return parseCgroupRoots(inside, outside)
}

func isMainThread() bool { return unix.Gettid() == unix.Getpid() }

// apart runs a function on a thread of its own, which ends with it: the
// goroutine stays locked, so the runtime gives the thread to nobody else. The
// main thread can't be ended, and /proc/self shows its view, so it isn't taken.
func apart(onMain func() bool, f func()) {
	go func() {
		runtime.LockOSThread()
		if !onMain() {
			f()
			return
		}
		// While this goroutine holds the main thread, another lands elsewhere.
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			f()
		}()
		<-elsewhere
		runtime.UnlockOSThread()
	}()
}
