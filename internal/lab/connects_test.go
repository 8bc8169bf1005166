//go:build linux

package lab

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// tight is a namespace with ten ephemeral ports, and a server below them that
// holds what it accepts, on every local address, IPv4 and IPv6.
func tight(t *testing.T) (*Namespace, netip.AddrPort) {
	t.Helper()
	ns := NewT(t)
	must(t, ns.Sysctl("net.ipv4.ip_local_port_range", "40000 40009"), ns.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
	for _, port := range []uint16{900, 901} {
		listenT(t, ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port), ListenOptions{Mode: Never, DualStack: true})
	}
	return ns, loopback(900)
}

// grants checks how many connections dst gets, and why no more; they stay.
func grants(t *testing.T, ns *Namespace, dst netip.AddrPort, opts ConnOptions, want int, reason error) {
	t.Helper()
	got, _, err := ns.Connects(dst, opts, 20)
	if got != want || !errors.Is(err, reason) {
		t.Errorf("%v %+v: want %d, then %v; got %d, then %v", dst, opts, want, reason, got, err)
	}
}

func local(addr string) ConnOptions {
	return ConnOptions{Local: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)}
}

func TestConnectsGrantsWhatTheRangeHolds(t *testing.T) {
	ns, dst := tight(t)
	const none = unix.EADDRNOTAVAIL
	grants(t, ns, dst, ConnOptions{}, 10, none)
	grants(t, ns, dst, ConnOptions{}, 0, none)
	grants(t, ns, loopback(901), ConnOptions{}, 10, none)
	grants(t, ns, netip.MustParseAddrPort("127.0.0.2:900"), ConnOptions{}, 10, none)
	grants(t, ns, dst, local("127.0.0.9"), 10, none)
	grants(t, ns, netip.MustParseAddrPort("[::ffff:127.0.0.1]:900"), ConnOptions{}, 0, none)
	grants(t, ns, netip.MustParseAddrPort("[::1]:900"), ConnOptions{}, 10, none)
}

func TestConnectsReleaseLeavesNothing(t *testing.T) {
	ns, dst := tight(t)
	for range 3 {
		n, release, err := ns.Connects(dst, ConnOptions{}, 20)
		if n != 10 || !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Fatalf("got %d, %v", n, err)
		}
		release()
		release()
	}
	n, _, err := ns.Connects(dst, ConnOptions{}, 4)
	must(t, err, equal("granted within the limit", 4, n))
	tw, err := ns.TimeWaits()
	must(t, err, equal("TIME_WAITs", 0, tw))
}

func TestConnectsCountsWhatBlocks(t *testing.T) {
	const none = unix.EADDRNOTAVAIL
	for name, c := range map[string]struct {
		block func(t *testing.T, ns *Namespace, dst netip.AddrPort)
		opts  ConnOptions
		want  int
		why   error
	}{
		"listener in the range": {block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			listenT(t, ns, loopback(40004), ListenOptions{Mode: Manual})
		}, want: 9, why: none},
		"bound socket in the range": {block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			_, err := ns.Bind(loopback(40004), ConnOptions{})
			must(t, err)
		}, want: 9, why: none},
		"bound to any port": {block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			_, err := ns.Bind(loopback(0), ConnOptions{})
			must(t, err)
		}, want: 9, why: none},
		"two reserved": {block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			must(t, ns.Sysctl("net.ipv4.ip_local_reserved_ports", "40001,40002"))
		}, want: 8, why: none},
		"time-waits": {block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			s := listenT(t, ns, loopback(902), ListenOptions{})
			r, err := ns.Run(t.Context(), Storm{Remotes: one(s), Count: 4})
			must(t, err, r.FirstError)
			grants(t, ns, s.Addr(), ConnOptions{}, 6, none)
		}, want: 10, why: none},
		"syn-sent": {block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			s := listenT(t, ns, loopback(902), ListenOptions{Mode: Manual, Backlog: -1})
			_, err := ns.Open(s.Addr(), ConnOptions{})
			must(t, err)
			grants(t, ns, s.Addr(), ConnOptions{NoWait: true}, 9, none)
		}, want: 10, why: none},
		"fin-wait-2 minis": {block: func(t *testing.T, ns *Namespace, dst netip.AddrPort) {
			for range 3 {
				c, err := ns.Open(dst, ConnOptions{})
				must(t, err, c.Close())
			}
		}, want: 7, why: none},
		"bind(addr, 0)": {block: func(t *testing.T, ns *Namespace, dst netip.AddrPort) {
			opts := ConnOptions{Local: loopback(0), Bind: BindAddrPort0}
			grants(t, ns, loopback(901), opts, 10, unix.EADDRINUSE)
			grants(t, ns, dst, opts, 0, unix.EADDRINUSE)
		}, want: 0, why: none},
		"no-port bind": {opts: local("127.0.0.1"), block: func(t *testing.T, ns *Namespace, _ netip.AddrPort) {
			grants(t, ns, loopback(901), local("127.0.0.1"), 10, none)
		}, want: 10, why: none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns, dst := tight(t)
			c.block(t, ns, dst)
			grants(t, ns, dst, c.opts, c.want, c.why)
		})
	}
}

// Two devices are two domains, though addresses and ports are the same.
func TestConnectsOverTwoDevices(t *testing.T) {
	Require(t, "veth")
	ns, far := NewT(t), NewT(t)
	must(t, ns.Sysctl("net.ipv4.ip_local_port_range", "40000 40009"))
	here, there := netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.2/24")
	dst := netip.AddrPortFrom(there.Addr(), 900)
	for _, name := range []string{"left", "right"} {
		must(t, ns.AddVeth(name, here, far, name, there))
		listenT(t, far, dst, ListenOptions{Mode: Never, Device: name, ReusePort: true})
	}
	grants(t, ns, dst, ConnOptions{Device: "left"}, 10, unix.EADDRNOTAVAIL)
	grants(t, ns, dst, ConnOptions{Device: "left"}, 0, unix.EADDRNOTAVAIL)
	grants(t, ns, dst, ConnOptions{Device: "right"}, 10, unix.EADDRNOTAVAIL)
}

func TestEchoOverVeth(t *testing.T) {
	Require(t, "veth")
	ns, far := NewT(t), NewT(t)
	for _, a := range []struct{ here, there, dst string }{
		{"10.77.0.1/24", "10.77.0.2/24", "10.77.0.2:900"},
		{"fd00:77::1/64", "fd00:77::2/64", "[fd00:77::2]:901"},
	} {
		name := "v" + a.dst[len(a.dst)-1:]
		must(t, ns.AddVeth(name, netip.MustParsePrefix(a.here), far, name, netip.MustParsePrefix(a.there)))
		listenT(t, far, netip.MustParseAddrPort(a.dst), ListenOptions{Echo: true})
		c, err := ns.Open(netip.MustParseAddrPort(a.dst), ConnOptions{Device: name})
		must(t, err, c.Write([]byte("hello")), c.Shutdown())
		buf := make([]byte, 5)
		must(t, c.ReadFull(buf), equal("echo", "hello", string(buf)))
	}
}
