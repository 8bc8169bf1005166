package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// startLocked runs fn on a thread of its own that dies with fn: the goroutine
// stays locked, so the runtime never gives its thread, which has changed
// namespace, to anybody else. The main thread is never taken: /proc/self/net
// is the main thread's view, and it can't be killed.
func startLocked(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			fn()
			return
		}
		// While this goroutine holds the main thread, another lands elsewhere.
		elsewhere := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(elsewhere)
			fn()
		}()
		<-elsewhere
		runtime.UnlockOSThread()
	}()
}

// thread is one locked thread inside a namespace, serving one call at a time.
type thread struct {
	tid   int
	calls chan call
	gone  chan struct{} // closed when the goroutine has ended
}

type call struct {
	fn   func() error
	done chan<- outcome
}

// outcome of a call. exited: fn ended its goroutine (t.Fatal, t.Skip), and the
// thread died with it.
type outcome struct {
	err      error
	exited   bool
	panicked any
	stack    []byte
}

// startThread starts a locked thread; enter moves it into its namespace.
func startThread(enter func() error) (*thread, error) {
	th := &thread{calls: make(chan call), gone: make(chan struct{})}
	ready := make(chan error)
	startLocked(func() {
		defer close(th.gone)
		th.tid = unix.Gettid()
		err := enter()
		ready <- err
		if err != nil {
			return
		}
		for c := range th.calls {
			serve(c, enter)
		}
	})
	if err := <-ready; err != nil {
		<-th.gone
		return nil, err
	}
	return th, nil
}

// serve runs one call, entering the namespace anew: an earlier fn may have
// left it.
func serve(c call, enter func() error) {
	out := outcome{exited: true}
	defer func() {
		if p := recover(); p != nil {
			out.exited, out.panicked, out.stack = false, p, debug.Stack()
		}
		c.done <- out
	}()
	if out.err = enter(); out.err == nil {
		out.err = c.fn()
	}
	out.exited = false
}

// finish gives the outcome to whoever asked for the call, as if fn had run in
// its goroutine.
func (o outcome) finish() error {
	if o.exited {
		runtime.Goexit()
	}
	if o.panicked != nil {
		panic(fmt.Sprintf("%v\n\non the namespace's thread:\n%s", o.panicked, o.stack))
	}
	return o.err
}

// await ends when the thread's task has left the process: its goroutine ends a
// moment earlier.
func (th *thread) await() {
	<-th.gone
	_ = poll(time.Second, func() error {
		_, err := os.Stat("/proc/self/task/" + strconv.Itoa(th.tid))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return errors.New("thread still there")
	})
}
