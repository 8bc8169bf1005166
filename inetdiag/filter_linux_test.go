package inetdiag

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

func TestFilters(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	settle(t, c, scene(t))
	sceneBound(t)
	q := Query{States: AllStates | StatesOf(BoundInactive)}
	port := uint16(0)
	for _, s := range collect(t, c, q) {
		if s.State == Established && s.Src.Port() > 1024 {
			port = s.Src.Port()
		}
	}

	in := func(p string) netip.Prefix { return netip.MustParsePrefix(p) }
	src := func(p string) func(seen) bool {
		return func(s seen) bool { return in(p).Contains(s.Src.Addr()) }
	}
	dst := func(p string) func(seen) bool {
		return func(s seen) bool { return in(p).Contains(s.Dst.Addr()) }
	}
	tests := []struct {
		name   string
		filter Filter
		want   func(seen) bool
	}{
		{"zero", Filter{}, func(seen) bool { return true }},
		{"and of none", And(), func(seen) bool { return true }},
		{"or of none", Or(), func(seen) bool { return false }},
		{"not zero", Not(Filter{}), func(seen) bool { return false }},
		{"local port", LocalPort(82), func(s seen) bool { return s.Src.Port() == 82 }},
		{"local port, ephemeral", LocalPort(port), func(s seen) bool { return s.Src.Port() == port }},
		{"local port 0", LocalPort(0), func(s seen) bool { return s.Src.Port() == 0 }},
		{"remote port", RemotePort(80), func(s seen) bool { return s.Dst.Port() == 80 }},
		{"local ports", LocalPortRange(81, 83), func(s seen) bool { return s.Src.Port() >= 81 && s.Src.Port() <= 83 }},
		{"local ports, all", LocalPortRange(0, 65535), func(seen) bool { return true }},
		{"local ports, none", LocalPortRange(83, 81), func(seen) bool { return false }},
		{"remote ports", RemotePortRange(82, 65535), func(s seen) bool { return s.Dst.Port() >= 82 }},
		{"local address", Local(in("127.0.0.2/32")), src("127.0.0.2/32")},
		{"local prefix, v4-mapped too", Local(in("127.0.0.0/8")), src("127.0.0.0/8")},
		{"odd prefix", Local(in("127.0.0.2/31")), src("127.0.0.2/31")},
		{"every IPv4", Local(in("0.0.0.0/0")), src("0.0.0.0/0")},
		{"every IPv6", Local(in("::/0")), src("::/0")},
		{"wide IPv6", Remote(in("::/80")), dst("::/80")},
		{"IPv6 address", Remote(in("::1/128")), dst("::1/128")},
		{"v4-mapped prefix", Local(in("::ffff:127.0.0.2/127")), src("127.0.0.2/31")},
		{"remote prefix", Remote(in("127.0.0.3/32")), dst("127.0.0.3/32")},
		{"not", Not(LocalPort(80)), func(s seen) bool { return s.Src.Port() != 80 }},
		{"not not", Not(Not(LocalPort(80))), func(s seen) bool { return s.Src.Port() == 80 }},
		{
			"and", And(Local(in("127.0.0.0/8")), RemotePort(82), Filter{}),
			func(s seen) bool { return s.Src.Addr().Is4() && s.Dst.Port() == 82 },
		},
		{"or", Or(LocalPort(80), RemotePort(81), LocalPort(85)), func(s seen) bool {
			return s.Src.Port() == 80 || s.Dst.Port() == 81 || s.Src.Port() == 85
		}},
		{"or with everything", Or(LocalPort(80), Filter{}), func(seen) bool { return true }},
		{
			"or of ands", Or(And(LocalPort(80), Remote(in("127.0.0.1/32"))), And(LocalPort(81), Remote(in("::1/128")))),
			func(s seen) bool {
				return s.Src.Port() == 80 && dst("127.0.0.1/32")(s) || s.Src.Port() == 81 && dst("::1/128")(s)
			},
		},
		{"and of ors, negated", Not(And(Or(LocalPort(80), RemotePort(80)), Or(Local(in("127.0.0.1/32")), LocalPort(9)), Not(RemotePort(9)))), func(s seen) bool {
			return !((s.Src.Port() == 80 || s.Dst.Port() == 80) && (src("127.0.0.1/32")(s) || s.Src.Port() == 9) && s.Dst.Port() != 9)
		}},
	}
	for _, tt := range tests {
		for _, legacy := range []bool{true, false} {
			c.noLegacy = !legacy
			all, got := filtered(t, c, q, tt.filter)
			want := slices.DeleteFunc(all, func(s seen) bool { return !tt.want(s) })
			if diff := cmp.Diff(want, got, cmpAddr, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s, legacy=%t (-want +got):\n%s", tt.name, legacy, diff)
			}
		}
	}
}

// filtered dumps the whole table and what a filter lets through of it: a
// table that didn't move meanwhile, since handshakes end by themselves and
// TIME_WAITs expire.
func filtered(t testing.TB, c *Conn, q Query, f Filter) (all, got []seen) {
	t.Helper()
	q.Filter = f
	eventually(t, "a table that stands still", func() bool {
		whole := q
		whole.Filter = Filter{}
		all = collect(t, c, whole)
		got = collect(t, c, q)
		return slices.Equal(all, collect(t, c, whole))
	})
	return all, got
}

// TestLongFilter: programs with jumps over hundreds of operations.
func TestLongFilter(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	listener(t, "127.0.0.1:500", 1)
	listener(t, "127.0.0.1:501", 1)
	var ports []Filter
	for port := range uint16(400) {
		ports = append(ports, LocalPort(101+port))
	}
	got := collect(t, c, Query{Filter: Or(ports...)})
	if len(got) != 1 || got[0].Src.Port() != 500 {
		t.Errorf("ports 101 to 500 are %v", got)
	}
	got = collect(t, c, Query{Filter: Not(Or(ports...))})
	if len(got) != 1 || got[0].Src.Port() != 501 {
		t.Errorf("other ports are %v", got)
	}
	for len(ports) < 2000 {
		ports = append(ports, ports...)
	}
	for _, err := range c.Sockets(t.Context(), Query{Filter: Or(ports...)}) {
		var op *OpError
		if !errors.As(err, &op) || op.Op != "filter" {
			t.Errorf("a filter too long gives %v", err)
		}
	}
	for _, err := range c.Sockets(t.Context(), Query{Filter: And(LocalPort(1), Local(netip.Prefix{}))}) {
		if err == nil {
			t.Error("a filter of an invalid prefix was put to the kernel")
		}
	}
	if got := collect(t, c, Query{}); len(got) != 2 {
		t.Errorf("after a bad filter the Conn shows %v", got)
	}
}

func TestExplicitBind(t *testing.T) {
	newNamespace(t)
	setSysctl(t, "net.ipv4.tcp_tw_reuse", "0")
	l := listener(t, "127.0.0.1:80", 16)
	to := sockaddr(l.local())

	plain, _ := pair(t, l, "127.0.0.1:80")
	byPort := bound(t, "127.0.0.1:40001")
	byPort.must(unix.Connect(byPort.fd, to))
	l.accept()
	byAny := bound(t, "127.0.0.1:0")
	byAny.must(unix.Connect(byAny.fd, to))
	l.accept()
	idle := bound(t, "127.0.0.1:40002")
	gone := bound(t, "127.0.0.1:40003")
	gone.must(unix.Connect(gone.fd, to))
	s := l.accept()
	gone.close()
	s.close()

	c := dialTest(t, nil)
	var got []uint16
	for _, s := range collect(t, c, Query{States: AllStates | StatesOf(BoundInactive), Filter: ExplicitBind()}) {
		got = append(got, s.Src.Port())
	}
	slices.Sort(got)
	want := []uint16{80, byPort.local().Port(), idle.local().Port()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ports bound explicitly (-want +got; %d was not bound, %d bound to port 0):\n%s",
			plain.local().Port(), byAny.local().Port(), diff)
	}
}
