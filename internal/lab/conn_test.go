//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's numbers in /proc/net/tcp, and ss's words for them.
var stateNames = map[int]string{
	1: "ESTAB", 2: "SYN-SENT", 3: "SYN-RECV", 4: "FIN-WAIT-1", 5: "FIN-WAIT-2", 6: "TIME-WAIT",
	7: "UNCONN", 8: "CLOSE-WAIT", 9: "LAST-ACK", 10: "LISTEN", 11: "CLOSING",
}

// seen is the namespace's states but LISTEN, as "ESTAB 2, TIME-WAIT 1", from
// ss and from /proc, which must agree.
func seen(t *testing.T, ns *Namespace) (string, error) {
	out, err := ns.Command(t.Context(), "ss", "-Htan")
	must(t, err)
	bySS := map[string]int{}
	for line := range strings.Lines(out) {
		if state, _, _ := strings.Cut(line, " "); state != "LISTEN" {
			bySS[state]++
		}
	}
	states, err := ns.States()
	must(t, err)
	byProc := map[string]int{}
	for n, count := range states {
		if name := stateNames[n]; name != "LISTEN" {
			byProc[name] += count
		}
	}
	ss, proc := show(bySS), show(byProc)
	return ss, equal("ss and /proc/net/tcp", ss, proc)
}

func show(m map[string]int) string {
	var list []string
	for name, n := range m {
		list = append(list, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func wantStates(t *testing.T, ns *Namespace, want string) {
	t.Helper()
	Eventually(t, 30*time.Second, func() error {
		got, err := seen(t, ns)
		return errors.Join(err, equal("states", want, got))
	})
}

func TestStates(t *testing.T) {
	Require(t, "ss")
	manual := func(t *testing.T, ns *Namespace) *Server {
		return listenT(t, ns, loopback(900), ListenOptions{Mode: Manual})
	}
	pairOf := func(t *testing.T, ns *Namespace) *Pair { return pair(t, ns, manual(t, ns)) }
	for _, c := range []struct {
		name, want string
		do         func(t *testing.T, ns *Namespace)
	}{
		{"established", "ESTAB 2", func(t *testing.T, ns *Namespace) { pairOf(t, ns) }},
		{"close-wait", "CLOSE-WAIT 1, FIN-WAIT-2 1", func(t *testing.T, ns *Namespace) {
			must(t, pairOf(t, ns).Client.Close())
		}},
		{"close-wait never accepted", "CLOSE-WAIT 1, FIN-WAIT-2 1", func(t *testing.T, ns *Namespace) {
			c, err := ns.Open(manual(t, ns).Addr(), ConnOptions{})
			must(t, err, c.Close())
		}},
		{"fin-wait-2 full", "CLOSE-WAIT 1, FIN-WAIT-2 1", func(t *testing.T, ns *Namespace) {
			must(t, pairOf(t, ns).Client.Shutdown())
			n, err := ns.TimeWaits()
			must(t, err, equal("minis", 0, n))
		}},
		{"fin-wait-2 mini", "CLOSE-WAIT 1, FIN-WAIT-2 1", func(t *testing.T, ns *Namespace) {
			must(t, pairOf(t, ns).Client.Close())
			Eventually(t, 30*time.Second, func() error {
				n, err := ns.TimeWaits()
				return errors.Join(err, equal("minis", 1, n))
			})
		}},
		{"fin-wait-1", "ESTAB 1, FIN-WAIT-1 1", func(t *testing.T, ns *Namespace) {
			p := pairOf(t, ns)
			must(t, p.Server.Deafen(true), p.Client.Shutdown())
		}},
		{"closing", "CLOSING 1, FIN-WAIT-1 1", func(t *testing.T, ns *Namespace) {
			p := pairOf(t, ns)
			must(t, p.Server.Deafen(true), p.Client.Deafen(true), p.Client.Shutdown(), p.Server.Shutdown(), p.Client.Deafen(false))
		}},
		{"last-ack", "FIN-WAIT-2 1, LAST-ACK 1", func(t *testing.T, ns *Namespace) {
			p := pairOf(t, ns)
			must(t, p.Client.Shutdown())
			Eventually(t, 30*time.Second, func() error {
				state, err := p.Client.State()
				return errors.Join(err, equal("state", 5, state))
			})
			must(t, p.Client.Deafen(true), p.Server.Close())
		}},
		{"time-wait", "TIME-WAIT 1", func(t *testing.T, ns *Namespace) {
			p := pairOf(t, ns)
			must(t, p.Client.Close(), p.Server.Close())
		}},
		{"reset", "", func(t *testing.T, ns *Namespace) { must(t, pairOf(t, ns).Client.Reset()) }},
		{"syn-recv", "ESTAB 1, SYN-RECV 1", func(t *testing.T, ns *Namespace) {
			s := listenT(t, ns, loopback(900), ListenOptions{Mode: Manual, DeferAccept: true})
			_, err := ns.Open(s.Addr(), ConnOptions{})
			must(t, err)
		}},
		{"syn-sent behind a full queue", "ESTAB 2, SYN-SENT 1", func(t *testing.T, ns *Namespace) {
			s := listenT(t, ns, loopback(900), ListenOptions{Mode: Manual, Backlog: -1})
			_, err := ns.Open(s.Addr(), ConnOptions{})
			must(t, err)
			_, err = ns.Open(s.Addr(), ConnOptions{NoWait: true})
			must(t, err)
		}},
		{"syn-sent into a sink", "SYN-SENT 1", func(t *testing.T, ns *Namespace) {
			Require(t, "veth")
			must(t, ns.AddSink("hole", netip.MustParsePrefix("10.77.0.1/24")))
			_, err := ns.Open(netip.MustParseAddrPort("10.77.0.9:80"), ConnOptions{NoWait: true})
			must(t, err)
		}},
		{"syn-sent over ipv6", "SYN-SENT 1", func(t *testing.T, ns *Namespace) {
			Require(t, "veth")
			must(t, ns.AddSink("hole", netip.MustParsePrefix("fd00:77::1/64")))
			_, err := ns.Open(netip.MustParseAddrPort("[fd00:77::9]:80"), ConnOptions{NoWait: true})
			must(t, err)
		}},
		{"ipv4 client of [::]", "ESTAB 2", func(t *testing.T, ns *Namespace) {
			s := listenT(t, ns, netip.MustParseAddrPort("[::]:900"), ListenOptions{Mode: Manual, DualStack: true})
			_, err := ns.Open(loopback(900), ConnOptions{})
			must(t, err)
			c, err := s.Accept()
			must(t, err)
			if !c.Remote().Addr().Is4In6() {
				t.Errorf("the server's remote: %v", c.Remote())
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns := NewT(t)
			c.do(t, ns)
			wantStates(t, ns, c.want)
		})
	}
}

// recvQ is ss's Recv-Q of the namespace's only socket in a state.
func recvQ(t *testing.T, ns *Namespace, state string) (string, error) {
	out, err := ns.Command(t.Context(), "ss", "-Htan", "state", state)
	must(t, err)
	f := strings.Fields(out)
	if len(f) == 0 {
		return "", fmt.Errorf("no socket in %s", state)
	}
	return f[0], nil
}

func TestCloseWaitQueues(t *testing.T) {
	Require(t, "ss")
	for name, c := range map[string]struct {
		want string
		do   func(p *Pair) error
	}{
		"end unread":   {"1", func(p *Pair) error { return p.Client.Close() }},
		"bytes unread": {"33", func(p *Pair) error { return errors.Join(p.Client.Write(make([]byte, 32)), p.Client.Close()) }},
		"all read": {"0", func(p *Pair) error {
			err := errors.Join(p.Client.Write(make([]byte, 32)), p.Client.Close())
			n, derr := p.Server.Drain()
			return errors.Join(err, derr, equal("drained", 32, n))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := NewT(t)
			must(t, c.do(pair(t, ns, listenT(t, ns, loopback(900), ListenOptions{Mode: Manual}))))
			Eventually(t, 30*time.Second, func() error {
				got, err := recvQ(t, ns, "close-wait")
				return errors.Join(err, equal("Recv-Q", c.want, got))
			})
		})
	}
}

func TestConnNames(t *testing.T) {
	ns := NewT(t)
	s := listenT(t, ns, loopback(900), ListenOptions{Mode: Manual})
	p := pair(t, ns, s)
	must(t, equal("addresses", p.Client.Local(), p.Server.Remote()), equal("addresses", s.Addr(), p.Client.Remote()))
	inode, err := p.Client.Inode()
	must(t, err)
	a, err := p.Client.Cookie()
	must(t, err)
	b, err := p.Server.Cookie()
	must(t, err)
	if inode == 0 || a == 0 || a == b {
		t.Errorf("inode %d, cookies %d and %d", inode, a, b)
	}
	must(t, p.Client.Write([]byte("ping")))
	buf := make([]byte, 4)
	must(t, p.Server.ReadFull(buf), equal("read", "ping", string(buf)))
	must(t, p.Client.Close(), p.Client.Close(), equal("descriptor", -1, p.Client.FD()))
	if err := p.Server.ReadFull(buf); !errors.Is(err, unix.ENODATA) {
		t.Errorf("read at the end: %v", err)
	}
	bound, err := ns.Bind(loopback(950), ConnOptions{})
	must(t, err, equal("bound", loopback(950), bound.Local()), equal("bound", netip.AddrPort{}, bound.Remote()))
}

func TestAcceptEndsWithTheServer(t *testing.T) {
	ns := NewT(t)
	s := listenT(t, ns, loopback(900), ListenOptions{Mode: Manual})
	got := make(chan error)
	go func() { _, err := s.Accept(); got <- err }()
	must(t, s.Close())
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Errorf("Accept on a closed server: %v", err)
	}
}
