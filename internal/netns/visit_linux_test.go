package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// where tells the calling thread and its namespace.
func where(t *testing.T) (thread int, inode uint64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Error(err)
	}
	return unix.Gettid(), st.Ino
}

// A visit is inside, on the Watcher's own thread; afterwards that is at home.
func TestVisit(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	children := []*child{inNamespace(t), inNamespace(t)}
	refresh(t, w)
	var threads []int
	for _, c := range append(children, children[0]) {
		want := errors.New("from inside")
		err := w.Visit(find(t, w, c.inode()), func() error {
			thread, inode := where(t)
			if inode != c.inode() {
				t.Errorf("inside is net:[%d], want %d", inode, c.inode())
			}
			threads = append(threads, thread)
			other := make(chan uint64)
			go func() { _, inode := where(t); other <- inode }()
			if inode := <-other; inode != w.visitor.homeInode {
				t.Errorf("a goroutine started inside is in net:[%d]", inode)
			}
			return want
		})
		if err != want { //nolint:errorlint // this very one
			t.Errorf("the function's error is returned as %v", err)
		}
		var after unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/self/task/%d/ns/net", threads[0]), &after); err != nil || after.Ino != w.visitor.homeInode {
			t.Errorf("the thread is in net:[%d] after the visit (%v)", after.Ino, err)
		}
	}
	if threads[0] == unix.Getpid() || threads[0] != threads[1] || threads[0] != threads[2] {
		t.Errorf("threads %d in process %d, want one that isn't the main thread", threads, unix.Getpid())
	}
	err := w.Visit(w.List()[0], func() error {
		if thread, inode := where(t); thread != threads[0] || inode != w.visitor.homeInode {
			t.Errorf("home is visited on thread %d in net:[%d]", thread, inode)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// Its process is elsewhere since the last Refresh, and a mount still leads to it.
	left := start(t, exec.Command("sh", "-c", `echo started; read line; exec nsenter --net=/proc/1/ns/net sh -c "echo home; exec cat"`), unix.CLONE_NEWNET)
	left.line()
	inode := left.inode()
	mount(t, left, "/run/netns/left")
	refresh(t, w)
	if _, err := left.in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	left.line()
	err = w.Visit(find(t, w, inode), func() error {
		if _, now := where(t); now != inode {
			t.Errorf("inside is net:[%d], want %d", now, inode)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	children[0].end()
	if err := w.Visit(find(t, w, w.List()[1].Inode), func() error { return nil }); !errors.Is(err, ErrGone) {
		t.Errorf("a visit to what has died since the last Refresh: %v", err)
	}
}

// gone waits until a thread has ended.
func gone(t *testing.T, thread int) {
	t.Helper()
	eventually(t, func() error {
		if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(thread)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("thread %d is still there (%w)", thread, err)
		}
		return nil
	})
}

// A thread that couldn't return, or whose function ended its goroutine, is never
// used again, and doesn't hold the namespace.
func TestSpentThread(t *testing.T) {
	inside(t)
	spoil := map[string]func(*Watcher) error{
		"no way home": func(w *Watcher) error {
			return unix.Close(w.visitor.home)
		},
		"Goexit": func(*Watcher) error {
			runtime.Goexit()
			return nil
		},
	}
	for name, f := range spoil {
		t.Run(name, func(t *testing.T) {
			w := watch(t, Config{})
			c := inNamespace(t)
			died := c.witness()
			refresh(t, w)
			n := find(t, w, c.inode())
			keep, err := unix.FcntlInt(uintptr(w.visitor.home), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			var first int
			err = w.Visit(n, func() error {
				first = unix.Gettid()
				return f(w)
			})
			var e *Error
			if err == nil || name == "no way home" && (!errors.As(err, &e) || e.Op != "return") {
				t.Errorf("the spoilt visit: %v", err)
			}
			if name == "no way home" {
				w.visitor.home = keep
			} else {
				unix.Close(keep)
			}
			gone(t, first)
			if err := w.Visit(n, func() error {
				if thread, inode := where(t); thread == first || inode != n.Inode {
					t.Errorf("the next visit is on thread %d in net:[%d]", thread, inode)
				}
				return nil
			}); err != nil {
				t.Errorf("the next visit: %v", err)
			}
			c.end()
			died.wait(t)
		})
	}
}

// A thread of its own isn't the main thread, even if the goroutine got that.
func TestApart(t *testing.T) {
	t.Parallel()
	var offered, used int
	done := make(chan bool)
	apart(func() bool { offered = unix.Gettid(); return true }, func() {
		used = unix.Gettid()
		close(done)
	})
	<-done
	if offered == used || offered == 0 {
		t.Errorf("thread %d was offered as the main one, and %d was used", offered, used)
	}
}
