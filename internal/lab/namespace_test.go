//go:build linux

package lab

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// netnsOf is the calling thread's namespace.
func netnsOf(t *testing.T, path string) string {
	t.Helper()
	link, err := os.Readlink(path)
	must(t, err)
	return link
}

func TestDoRunsInsideAndLeavesTheCallerOutside(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	outside := netnsOf(t, "/proc/thread-self/ns/net")
	ns := NewT(t)
	inside := netnsOf(t, ns.Path())
	if inside == outside {
		t.Fatalf("the namespace is the caller's: %s", inside)
	}
	must(t, ns.Do(func() error {
		if unix.Gettid() == os.Getpid() {
			t.Error("on the main thread, whose namespace /proc/self/net shows")
		}
		return errors.Join(equal("in Do", inside, netnsOf(t, "/proc/thread-self/ns/net")),
			ns.Do(func() error { return equal("nested", inside, netnsOf(t, "/proc/thread-self/ns/net")) }))
	}))
	must(t, equal("afterwards", outside, netnsOf(t, "/proc/thread-self/ns/net")))
	must(t, equal("of the process", outside, netnsOf(t, "/proc/self/ns/net")))
	var st1, st2 unix.Stat_t
	must(t, unix.Fstat(ns.FD(), &st1), unix.Stat(ns.Path(), &st2))
	must(t, equal("inode", st1.Ino, st2.Ino))
}

func TestDoReentersAfterFnLeft(t *testing.T) {
	ns, other := NewT(t), NewT(t)
	want := netnsOf(t, ns.Path())
	must(t, ns.Do(func() error { return unix.Setns(other.FD(), unix.CLONE_NEWNET) }))
	must(t, ns.Do(func() error { return equal("namespace", want, netnsOf(t, "/proc/thread-self/ns/net")) }))
}

func TestDoPassesOnErrorPanicAndExit(t *testing.T) {
	ns := NewT(t)
	want := errors.New("mine")
	if err := ns.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("error: want %v, got %v", want, err)
	}
	func() {
		defer func() {
			if p, ok := recover().(string); !ok || !strings.Contains(p, "boom") || !strings.Contains(p, "namespace_test.go") {
				t.Errorf("panic: want boom with its stack, got %v", p)
			}
		}()
		_ = ns.Do(func() error { panic("boom") })
		t.Error("Do returned after a panic")
	}()
	ended := make(chan bool)
	go func() { // as t.Fatal does
		reached := false
		defer func() { ended <- reached }()
		_ = ns.Do(func() error { runtime.Goexit(); return nil })
		reached = true
	}()
	if <-ended {
		t.Error("Do returned after Goexit")
	}
	if err := ns.Do(func() error { return nil }); err != nil {
		t.Errorf("Do after all that: %v", err)
	}
}

func TestSysctl(t *testing.T) {
	ns := NewT(t)
	must(t, ns.Sysctl("net.ipv4.ip_local_port_range", "40000 40009"))
	got, err := ns.ReadSysctl("net/ipv4/ip_local_port_range")
	must(t, err, equal("range", "40000\t40009", got))
	other, err := NewT(t).ReadSysctl("net.ipv4.ip_local_port_range")
	must(t, err)
	if other == got {
		t.Errorf("another namespace has the range too: %q", other)
	}
	var lab *Error
	err = ns.Sysctl("net.ipv4.no_such_thing", "1")
	if !errors.As(err, &lab) || !errors.Is(err, unix.ENOENT) || !strings.Contains(lab.Fix, "lacks") {
		t.Errorf("a setting that doesn't exist: %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	if _, err := New(Options{Sysctls: map[string]string{"net.ipv4.tcp_tw_reuse": "x"}}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("New with a bad value: %v", err)
	}
}

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.tcp_tw_reuse":            "/proc/sys/net/ipv4/tcp_tw_reuse",
		"net/ipv4/tcp_tw_reuse":            "/proc/sys/net/ipv4/tcp_tw_reuse",
		"net/ipv4/conf/eth0.1/rp_filter":   "/proc/sys/net/ipv4/conf/eth0.1/rp_filter",
		"net.ipv4.conf.eth0/1.rp_filter":   "/proc/sys/net/ipv4/conf/eth0.1/rp_filter",
		"net.netfilter.nf_conntrack_count": "/proc/sys/net/netfilter/nf_conntrack_count",
	} {
		if got := sysctlPath(name); got != want {
			t.Errorf("%s: want %s, got %s", name, want, got)
		}
	}
}

func TestCommand(t *testing.T) {
	ns := NewT(t)
	out, err := ns.Command(t.Context(), "readlink", "/proc/self/ns/net")
	must(t, err, equal("namespace", netnsOf(t, ns.Path()), strings.TrimSpace(out)))
	_, err = ns.Command(t.Context(), "readlink", "--no-such-flag")
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("want what the program said, got %v", err)
	}
}

// inventory counts this process's threads that are in another namespace than
// its own, and its descriptors.
func inventory(t *testing.T) (foreign, fds int) {
	t.Helper()
	own := netnsOf(t, "/proc/self/ns/net")
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	for _, task := range tasks {
		link, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil && link != own {
			foreign++
		}
	}
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return foreign, len(list)
}

func TestCloseLeavesNothing(t *testing.T) {
	use := func() {
		ns, err := New(Options{})
		must(t, err)
		s := listenT(t, ns, loopback(900), ListenOptions{})
		_, err = ns.Run(t.Context(), Storm{Remotes: one(s), Count: 20, Hold: time.Millisecond})
		must(t, err)
		never := listenT(t, ns, loopback(901), ListenOptions{Mode: Never})
		_, _, err = ns.Connects(never.Addr(), ConnOptions{}, 5)
		must(t, err)
		manual := listenT(t, ns, loopback(902), ListenOptions{Mode: Manual})
		p := pair(t, ns, manual)
		must(t, p.Client.Close())
		late := listenT(t, ns, loopback(903), ListenOptions{Mode: CloseByServer, After: time.Hour})
		_, err = ns.Open(late.Addr(), ConnOptions{})
		must(t, err)
		foreign, _ := inventory(t)
		if foreign == 0 {
			t.Fatal("no thread is in the namespace: the test can't see any")
		}
		must(t, ns.Close(), ns.Close())
		if err := ns.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Do after Close: %v", err)
		}
		if _, err := ns.Open(never.Addr(), ConnOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("Open after Close: %v", err)
		}
	}
	use() // the runtime opens its own epoll at first use
	_, before := inventory(t)
	for range 3 {
		use()
	}
	foreign, after := inventory(t)
	must(t, equal("threads in other namespaces", 0, foreign), equal("descriptors", before, after))
}

func one(s *Server) []netip.AddrPort { return []netip.AddrPort{s.Addr()} }
