package inetdiag

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newNamespace moves the calling test, and nothing else, into a network
// namespace of its own, with the loopback device up. Its thread is locked for
// good and dies with the test, and the namespace with it. Subtests run on
// goroutines of their own and need a call of their own.
func newNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		lacking(t, "netns", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

// setSysctl writes a setting of the test's own namespace.
func setSysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
		lacking(t, "sysctl", err)
	}
}

func dialTest(t testing.TB, cfg *Config) *Conn {
	t.Helper()
	c, err := Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// endpoint is one TCP socket of a test.
type endpoint struct {
	t    testing.TB
	fd   int
	open bool
}

func newEndpoint(t testing.TB, fd int) *endpoint {
	e := &endpoint{t: t, fd: fd, open: true}
	t.Cleanup(e.close)
	return e
}

func (e *endpoint) close() {
	if e.open {
		e.open = false
		unix.Close(e.fd)
	}
}

func (e *endpoint) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// socketFor makes a socket of the family of a.
func socketFor(t testing.TB, a netip.AddrPort) *endpoint {
	t.Helper()
	family := unix.AF_INET6
	if a.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return newEndpoint(t, fd)
}

// bound makes a socket bound to addr, which may have port 0.
func bound(t testing.TB, addr string) *endpoint {
	t.Helper()
	a := netip.MustParseAddrPort(addr)
	e := socketFor(t, a)
	e.must(unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	e.must(unix.Bind(e.fd, sockaddr(a)))
	return e
}

func listener(t testing.TB, addr string, backlog int) *endpoint {
	t.Helper()
	e := bound(t, addr)
	e.must(unix.Listen(e.fd, backlog))
	return e
}

func connected(t testing.TB, to string) *endpoint {
	t.Helper()
	a := netip.MustParseAddrPort(to)
	e := socketFor(t, a)
	e.must(unix.Connect(e.fd, sockaddr(a)))
	return e
}

// connecting begins a connection and doesn't wait for it.
func connecting(t testing.TB, to string) *endpoint {
	t.Helper()
	a := netip.MustParseAddrPort(to)
	e := socketFor(t, a)
	e.must(unix.SetNonblock(e.fd, true))
	if err := unix.Connect(e.fd, sockaddr(a)); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("connect to %s: %v, want EINPROGRESS", to, err)
	}
	return e
}

func (e *endpoint) accept() *endpoint {
	e.t.Helper()
	fd, _, err := unix.Accept4(e.fd, unix.SOCK_CLOEXEC)
	e.must(err)
	return newEndpoint(e.t, fd)
}

func (e *endpoint) local() netip.AddrPort {
	e.t.Helper()
	sa, err := unix.Getsockname(e.fd)
	e.must(err)
	return addrPort(sa)
}

func (e *endpoint) remote() netip.AddrPort {
	e.t.Helper()
	sa, err := unix.Getpeername(e.fd)
	e.must(err)
	return addrPort(sa)
}

// pair is a connection to a listener, both ends in hand.
func pair(t testing.TB, l *endpoint, to string) (client, server *endpoint) {
	t.Helper()
	client = connected(t, to)
	return client, l.accept()
}

// eventually polls until ok, for at most ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
		<-tick.C
	}
}

// ss runs ss in the test's namespace.
func ss(t testing.TB, args ...string) []string {
	t.Helper()
	path, err := exec.LookPath("ss")
	if err != nil {
		lacking(t, "ss", err)
	}
	out, err := exec.Command(path, args...).Output()
	if err != nil {
		t.Fatalf("ss %v: %v", args, err)
	}
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
}

// many makes n sockets in TIME_WAIT, and one that listens, which it returns.
func many(t testing.TB, n int) *endpoint {
	t.Helper()
	for name, value := range map[string]string{
		"net.ipv4.ip_local_port_range": "1024 65535", "net.ipv4.tcp_tw_reuse": "0",
		"net.ipv4.tcp_rfc1337": "1", "net.ipv4.tcp_max_tw_buckets": "2000000",
	} {
		setSysctl(t, name, value)
	}
	l := listener(t, "0.0.0.0:80", 64)
	grow(t, l, n)
	return l
}

// grow adds n sockets in TIME_WAIT, 20,000 to a destination.
func grow(t testing.TB, l *endpoint, n int) {
	t.Helper()
	for i := range n {
		to := &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, byte(i / 20_000), 1}}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		l.must(err)
		l.must(unix.Connect(fd, to))
		s, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		l.must(err)
		unix.Close(fd)
		unix.Close(s)
	}
}
