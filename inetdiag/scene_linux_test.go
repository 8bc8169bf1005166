package inetdiag

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// seen is what tests compare of a row.
type seen struct {
	Family   Family
	State    State
	Mini     bool
	Src, Dst netip.AddrPort
}

func (s seen) String() string {
	return fmt.Sprintf("%s %s mini=%t %s %s", s.Family, s.State, s.Mini, s.Src, s.Dst)
}

func seenOf(s *Socket) seen { return seen{s.Family(), s.State(), s.Mini(), s.Src(), s.Dst()} }

func sorted(rows []seen) []seen {
	slices.SortFunc(rows, func(a, b seen) int { return strings.Compare(a.String(), b.String()) })
	return rows
}

// collect reads a whole dump.
func collect(t testing.TB, c *Conn, q Query) []seen {
	t.Helper()
	var rows []seen
	for s, err := range c.Sockets(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, seenOf(s))
	}
	return sorted(rows)
}

// scene opens sockets of every kind that a loopback device can show, and
// returns what a dump of all states must show: by what was opened, not by
// what any tool says.
func scene(t testing.TB) []seen {
	t.Helper()
	setSysctl(t, "net.ipv4.tcp_tw_reuse", "0")
	var want []seen
	add := func(f Family, s State, mini bool, src, dst netip.AddrPort) {
		want = append(want, seen{f, s, mini, src, dst})
	}
	none4, none6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")

	for _, at := range []struct {
		listen, connect string
		client, server  Family
	}{
		{"127.0.0.1:80", "127.0.0.1:80", FamilyIPv4, FamilyIPv4},
		{"[::1]:81", "[::1]:81", FamilyIPv6, FamilyIPv6},
		{"[::]:82", "127.0.0.2:82", FamilyIPv4, FamilyIPv6},          // the listener's rows are v4-mapped
		{"[::]:83", "[::ffff:127.0.0.3]:83", FamilyIPv6, FamilyIPv6}, // both ends are
	} {
		l := listener(t, at.listen, 16)
		la := netip.MustParseAddrPort(at.listen)
		if la.Addr().Is4() {
			add(at.server, Listen, false, la, none4)
		} else {
			add(at.server, Listen, false, la, none6)
		}

		// Established.
		c, s := pair(t, l, at.connect)
		add(at.client, Established, false, c.local(), c.remote())
		add(at.server, Established, false, s.local(), s.remote())

		// The client has closed, the server has not.
		c, s = pair(t, l, at.connect)
		add(at.client, FinWait2, true, c.local(), c.remote())
		add(at.server, CloseWait, false, s.local(), s.remote())
		c.close()

		// The client has shut down its sending half only.
		c, s = pair(t, l, at.connect)
		add(at.client, FinWait2, false, c.local(), c.remote())
		add(at.server, CloseWait, false, s.local(), s.remote())
		c.must(unix.Shutdown(c.fd, unix.SHUT_WR))

		// Closed by the client first, then by the server first.
		c, s = pair(t, l, at.connect)
		add(at.client, TimeWait, true, c.local(), c.remote())
		c.close()
		s.close()
		c, s = pair(t, l, at.connect)
		add(at.server, TimeWait, true, s.local(), s.remote())
		s.close()
		c.close()
	}

	// An accept queue of one that is full: whoever comes next waits.
	full := listener(t, "127.0.0.1:84", 0)
	add(FamilyIPv4, Listen, false, full.local(), none4)
	c := connected(t, "127.0.0.1:84")
	add(FamilyIPv4, Established, false, c.local(), c.remote())
	add(FamilyIPv4, Established, false, c.remote(), c.local())
	c = connecting(t, "127.0.0.1:84")
	add(FamilyIPv4, SynSent, false, c.local(), netip.MustParseAddrPort("127.0.0.1:84"))

	// A listener that waits for data keeps the handshake half open.
	lazy := listener(t, "127.0.0.1:85", 16)
	lazy.must(unix.SetsockoptInt(lazy.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30))
	add(FamilyIPv4, Listen, false, lazy.local(), none4)
	c = connected(t, "127.0.0.1:85")
	add(FamilyIPv4, Established, false, c.local(), c.remote())
	add(FamilyIPv4, SynRecv, false, c.remote(), c.local())

	return sorted(want)
}

// sceneBound adds sockets that are bound and nothing else.
func sceneBound(t testing.TB) []seen {
	t.Helper()
	none4, none6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")
	a, b, c := bound(t, "127.0.0.1:90"), bound(t, "127.0.0.1:0"), bound(t, "[::1]:91")
	return sorted([]seen{
		{FamilyIPv4, Close, false, a.local(), none4},
		{FamilyIPv4, Close, false, b.local(), none4},
		{FamilyIPv6, Close, false, c.local(), none6},
	})
}

// ssRows is the table as ss sees it. It doesn't tell families of IPv4 apart
// from v4-mapped ones otherwise than by the address's spelling.
func ssRows(t testing.TB) []string {
	t.Helper()
	var rows []string
	for _, line := range ss(t, "-Htan") {
		f := strings.Fields(line)
		if len(f) < 5 {
			t.Fatalf("ss says %q", line)
		}
		state, err := ParseState(f[0])
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, fmt.Sprintf("%s %s %s", state, f[3], f[4]))
	}
	slices.Sort(rows)
	return rows
}

// asSS writes rows in the spelling of ss.
func asSS(rows []seen) []string {
	addr := func(f Family, a netip.AddrPort) string {
		port := fmt.Sprint(a.Port())
		if a.Port() == 0 {
			port = "*"
		}
		switch {
		case a.Addr() == netip.IPv6Unspecified():
			return "*:" + port
		case f == FamilyIPv6 && a.Addr().Is4():
			return "[::ffff:" + a.Addr().String() + "]:" + port
		case f == FamilyIPv6:
			return "[" + a.Addr().String() + "]:" + port
		}
		return a.Addr().String() + ":" + port
	}
	var lines []string
	for _, r := range rows {
		src, dst := addr(r.Family, r.Src), addr(r.Family, r.Dst)
		if r.Family == FamilyIPv6 && r.State == Listen && r.Src.Addr() != netip.IPv6Unspecified() {
			dst = "[::]:*"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", r.State, src, dst))
	}
	slices.Sort(lines)
	return lines
}
