package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of our own with loopback up. Its methods may
// be called by several goroutines at once.
type Namespace struct {
	fd     int     // of the namespace
	holder *thread // lives in the namespace, does nothing, gives Path its task

	mu     sync.Mutex
	closed bool
	idle   []*thread
	all    map[*thread]bool
	things map[io.Closer]bool // servers, sockets, held connections
}

// New makes a private network namespace and brings its loopback up. The error
// is an *Error that says what is missing and what to do.
func New(opts Options) (*Namespace, error) {
	return open(opts, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return &Error{"make a network namespace", err, explainUnshare(err)}
		}
		return nil
	})
}

// Here is the private namespace that InPrivateNamespace started this process
// in. Any other namespace is refused: it may be the host's.
func Here(opts Options) (*Namespace, error) {
	if !Inside() {
		return nil, &Error{"use this process's network namespace", ErrBadRequest, "it was not started in a private one"}
	}
	return open(opts, func() error { return nil })
}

func open(opts Options, enter func() error) (*Namespace, error) {
	ns := &Namespace{fd: -1, all: map[*thread]bool{}, things: map[io.Closer]bool{}}
	holder, err := startThread(func() error {
		if err := enter(); err != nil {
			return err
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &Error{"open the new namespace", err, "is /proc mounted?"}
		}
		ns.fd = fd
		return loopbackUp()
	})
	if err != nil {
		if ns.fd >= 0 {
			_ = unix.Close(ns.fd)
		}
		return nil, err
	}
	ns.holder = holder
	for _, name := range slices.Sorted(maps.Keys(opts.Sysctls)) {
		if err := ns.Sysctl(name, opts.Sysctls[name]); err != nil {
			return nil, errors.Join(err, ns.Close())
		}
	}
	return ns, nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return &Error{"bring loopback up", err, explainLoopback(err)}
	}
	return nil
}

// Path names the namespace while it is open: /proc/PID/task/TID/ns/net.
func (ns *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), ns.holder.tid)
}

// FD is a descriptor of the namespace, owned by it and valid until Close.
func (ns *Namespace) FD() int { return ns.fd }

// Do runs fn on a thread of the namespace and returns its error. Every socket
// and every file under /proc/thread-self/net and /proc/sys/net that fn opens
// belongs to the namespace for good; goroutines that fn starts are not in it.
// Calls may nest and run at once, each has a thread of its own. A panic or a
// t.Fatal in fn takes effect in the caller.
func (ns *Namespace) Do(fn func() error) error { return ns.Go(fn)() }

// Go is Do in the background; wait returns what fn returned, and must be called
// exactly once, before Close.
func (ns *Namespace) Go(fn func() error) (wait func() error) {
	wait, err := ns.start(fn)
	if err != nil {
		return func() error { return err }
	}
	return wait
}

// start is Go that says at once when there is no thread to be had.
func (ns *Namespace) start(fn func() error) (wait func() error, err error) {
	done := make(chan outcome, 1)
	th, err := ns.send(call{fn, done})
	if err != nil {
		return nil, err
	}
	return func() error {
		out := <-done
		ns.giveBack(th, out.exited)
		return out.finish()
	}, nil
}

// send hands c to an idle thread, or to a new one. It holds the lock until the
// thread has taken it, so that Close can't end the thread in between.
func (ns *Namespace) send(c call) (*thread, error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil, &Error{"enter the namespace", ErrClosed, ""}
	}
	var th *thread
	if n := len(ns.idle); n > 0 {
		th, ns.idle = ns.idle[n-1], ns.idle[:n-1]
	} else {
		var err error
		if th, err = startThread(ns.enter); err != nil {
			return nil, err
		}
		ns.all[th] = true
	}
	th.calls <- c
	return th, nil
}

func (ns *Namespace) enter() error {
	if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
		return &Error{"enter the namespace", err, "needs CAP_SYS_ADMIN"}
	}
	return nil
}

func (ns *Namespace) giveBack(th *thread, dead bool) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if dead {
		delete(ns.all, th)
		return
	}
	ns.idle = append(ns.idle, th)
}

// keep registers what Close must close.
func (ns *Namespace) keep(c io.Closer) error {
	ns.mu.Lock()
	closed := ns.closed
	if !closed {
		ns.things[c] = true
	}
	ns.mu.Unlock()
	if closed {
		return errors.Join(&Error{"open a socket", ErrClosed, ""}, c.Close())
	}
	return nil
}

func (ns *Namespace) drop(c io.Closer) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	delete(ns.things, c)
}

// Close resets the sockets that are still open, ends the servers and threads
// and gives up the namespace; the kernel then frees it with its TIME_WAITs.
// It waits for running calls of Do, so it can't be called from one. A second
// Close does nothing.
func (ns *Namespace) Close() error {
	ns.mu.Lock()
	if ns.closed {
		ns.mu.Unlock()
		return nil
	}
	ns.closed = true
	things := slices.Collect(maps.Keys(ns.things))
	clear(ns.things)
	ns.mu.Unlock()

	var errs []error
	for _, c := range things {
		if conn, ok := c.(*Conn); ok {
			errs = append(errs, conn.Reset())
			continue
		}
		errs = append(errs, c.Close())
	}
	ns.mu.Lock()
	all := append(slices.Collect(maps.Keys(ns.all)), ns.holder)
	ns.mu.Unlock()
	for _, th := range all {
		close(th.calls)
	}
	for _, th := range all {
		th.await()
	}
	errs = append(errs, unix.Close(ns.fd))
	return errors.Join(errs...)
}

// sysctlPath maps "net.ipv4.tcp_tw_reuse", or the form with slashes, to its
// file; as sysctl(8) does, a slash in a dotted name stands for a dot
// ("net.ipv4.conf.eth0/1.rp_filter").
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		name = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	return "/proc/sys/" + name
}

// Sysctl sets one of the namespace's settings ("net.ipv4.ip_local_port_range").
func (ns *Namespace) Sysctl(name, value string) error {
	return ns.Do(func() error { return writeSysctl(name, value) })
}

func writeSysctl(name, value string) error {
	f, err := os.OpenFile(sysctlPath(name), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return &Error{fmt.Sprintf("set %s=%q", name, value), bare(err), explainSysctl(err)}
	}
	return nil
}

// ReadSysctl reads one of the namespace's settings, without the final newline.
func (ns *Namespace) ReadSysctl(name string) (value string, err error) {
	err = ns.Do(func() error {
		b, err := os.ReadFile(sysctlPath(name))
		if err != nil {
			return &Error{"read " + name, bare(err), explainSysctl(err)}
		}
		value = strings.TrimSuffix(string(b), "\n")
		return nil
	})
	return value, err
}

// Command runs a program (ss, ip) inside the namespace and returns its standard
// output. The error carries what it said on standard error.
func (ns *Namespace) Command(ctx context.Context, name string, args ...string) (string, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// A child inherits the namespace of the thread that forks it.
	err := ns.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("lab: run %s: %w: %s", name, err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}

// bare takes the path off a file's error: the operation names it already.
func bare(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
