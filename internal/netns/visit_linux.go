package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A visitor has a thread of its own that enters namespaces. It goes home after
// each visit, since a thread holds the namespace that it is in. One that could
// not go home ends, and the next visit gets another. It is for one goroutine.
type visitor struct {
	proc      tree
	home      int // a descriptor of the namespace to go back to
	homeInode uint64
	jobs      chan job // nil: no thread
}

type job struct {
	inode uint64
	ways  []string // names in proc, or paths
	run   func() error
	done  chan outcome
}

type outcome struct {
	err   error
	spent bool // the thread is not to be used again
}

// visit runs a function on a thread that is in a namespace, by the first of the
// ways that leads to this inode number. Whether it is the right namespace of
// that number is for the function to tell.
func (v *visitor) visit(inode uint64, ways []string, run func() error) error {
	if v.jobs == nil {
		v.jobs = make(chan job)
		jobs := v.jobs
		apart(isMainThread, func() { v.work(jobs) })
	}
	done := make(chan outcome, 1)
	v.jobs <- job{inode, ways, run, done}
	o := <-done
	if o.spent {
		v.jobs = nil
	}
	return o.err
}

func (v *visitor) close() {
	if v.jobs != nil {
		close(v.jobs)
		v.jobs = nil
	}
}

// work serves visits until one spoils the thread.
func (v *visitor) work(jobs <-chan job) {
	var failed error
	// A new thread begins in the namespace of its maker.
	if inode, err := v.proc.namespace("thread-self/ns/net", "net"); err != nil || inode != v.homeInode {
		failed = v.goHome()
	}
	for j := range jobs {
		if failed != nil {
			j.done <- outcome{failed, true}
			return
		}
		if !v.serve(j) {
			return
		}
	}
}

func (v *visitor) serve(j job) (again bool) {
	err := errors.New("netns: the visit's function ended its goroutine")
	// Goexit runs this too, and would leave the caller waiting.
	defer func() { j.done <- outcome{err, !again} }()
	again, err = v.run(j)
	return again
}

// run goes in, runs the function and goes home. atHome is false if the thread
// may be anywhere.
func (v *visitor) run(j job) (atHome bool, err error) {
	if j.inode == v.homeInode { // held open, so no other namespace has its number
		return true, j.run()
	}
	fd, err := v.open(j)
	if err != nil {
		return true, err
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	unix.Close(fd)
	if err != nil {
		return true, &Error{Op: "enter", Path: fmt.Sprintf("net:[%d]", j.inode), Err: err}
	}
	err = j.run()
	if failed := v.goHome(); failed != nil {
		return false, errors.Join(err, failed)
	}
	return true, err
}

func (v *visitor) goHome() error {
	if err := unix.Setns(v.home, unix.CLONE_NEWNET); err != nil {
		return &Error{Op: "return", Path: fmt.Sprintf("net:[%d]", v.homeInode), Err: err}
	}
	return nil
}

// open opens a namespace by the first way that leads to it.
func (v *visitor) open(j job) (int, error) {
	err := ErrGone
	for _, way := range j.ways {
		fd, e := v.proc.open(way)
		if e != nil {
			if !vanished(e) {
				err = &Error{Op: "open", Path: way, Err: e}
			}
			continue
		}
		var st unix.Stat_t
		if e := unix.Fstat(fd, &st); e == nil && st.Ino == j.inode {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, err
}
