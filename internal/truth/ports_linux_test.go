package truth

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// The range of these tests: 200 ports.
const (
	rangeText = "40000 40199"
	rangeSize = 200
)

// bench is a namespace with that range and a server on 127.0.0.1:1000 and
// elsewhere; what connects to it stays in the accept queue.
type bench struct {
	*testing.T
	ns *lab.Namespace
}

func newBench(t *testing.T, settings ...string) *bench {
	t.Parallel()
	b := &bench{t, lab.NewT(t)}
	sysctls(t, b.ns, append([]string{
		"net.ipv4.ip_local_port_range", rangeText,
		"net.ipv4.tcp_tw_reuse", "0",
		"net.ipv4.tcp_rfc1337", "1", // so that a late RST takes no TIME_WAIT away
	}, settings...)...)
	return b
}

func (b *bench) serve(addr string) {
	b.Helper()
	must[*lab.Server](b.T)(b.ns.Listen(addrPort(addr), lab.ListenOptions{}))
}

// hold accepts nothing: connections to it stay established.
func (b *bench) hold(addr string) {
	b.Helper()
	must[*lab.Server](b.T)(b.ns.Listen(addrPort(addr), lab.ListenOptions{Mode: lab.Never, Backlog: 1000}))
}

// churn leaves n TIME_WAIT at the client's end.
func (b *bench) churn(n int, s lab.Storm) {
	b.Helper()
	s.Count = n
	res, err := b.ns.Run(b.Context(), s)
	if err != nil || res.Closed != n {
		b.Fatalf("storm: closed %d of %d: %v, first error %v", res.Closed, n, err, res.FirstError)
	}
}

func (b *bench) open(n int, dst string, o lab.ConnOptions) []*lab.Conn {
	b.Helper()
	var conns []*lab.Conn
	for range n {
		conns = append(conns, must[*lab.Conn](b.T)(b.ns.Open(addrPort(dst), o)))
	}
	return conns
}

// free compares what one pass says of a destination with the number of
// connect() calls that the kernel then grants.
func (b *bench) free(dst string, o lab.ConnOptions, atMost bool) *snapshot.Flow {
	b.Helper()
	return b.compare(look(b.T, b.ns), dst, o, atMost)
}

// compare holds what a pass said of a destination against the kernel.
func (b *bench) compare(n *snapshot.Namespace, dst string, o lab.ConnOptions, atMost bool) *snapshot.Flow {
	b.Helper()
	to := addrPort(dst)
	said, flow := b.said(n, to, o)
	granted, release, err := b.ns.Connects(to, o, rangeSize+10)
	release()
	if !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EADDRINUSE) {
		b.Fatalf("%s: %d granted, and then %v", dst, granted, err)
	}
	switch {
	case said.Free != granted && !(said.AtMost && said.Free > granted):
		b.Errorf("%s: free %d (%+v), the kernel granted %d", dst, said.Free, said, granted)
	case said.AtMost != atMost:
		b.Errorf("%s: at_most %v, want %v (free %d, granted %d)", dst, said.AtMost, atMost, said.Free, granted)
	}
	if got := said.Range - said.Reserved - said.Blocked - said.Used + said.Reusable; got != said.Free {
		b.Errorf("%s: the parts of %+v sum up to %d", dst, said, got)
	}
	return flow
}

// said is what the pass says of a destination: of its flow, or of every flow
// that has no socket yet.
func (b *bench) said(n *snapshot.Namespace, to netip.AddrPort, o lab.ConnOptions) (snapshot.Ports, *snapshot.Flow) {
	b.Helper()
	for i := range n.Flows {
		f := &n.Flows[i]
		if f.Ports == nil {
			continue
		}
		if f.Remote == to.Addr().Unmap().String() && f.Port == to.Port() && f.Device == o.Device &&
			(!o.Local.IsValid() || f.Local == o.Local.Addr().String()) {
			return *f.Ports, f
		}
	}
	if n.Ports == nil {
		b.Fatal("no ports in the report")
	}
	return snapshot.Ports{
		Range: n.Ports.Range, Reserved: n.Ports.Reserved, Blocked: n.Ports.Blocked,
		Free: n.Ports.Range - n.Ports.Reserved - n.Ports.Blocked, AtMost: n.Ports.AtMost,
	}, nil
}

const server = "127.0.0.1:1000"

func remotes(dst string) []netip.AddrPort { return []netip.AddrPort{addrPort(dst)} }

func TestFreeTimeWait(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.churn(70, lab.Storm{Remotes: remotes(server)})
	f := b.free(server, lab.ConnOptions{}, false)
	if f.States.TimeWait != 70 || f.Ports.Used != 70 || f.Ports.Free != 130 {
		t.Errorf("%d TIME_WAIT, %+v", f.States.TimeWait, f.Ports)
	}
}

func TestFreeMixedWithEstablished(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.churn(30, lab.Storm{Remotes: remotes(server)})
	b.open(25, server, lab.ConnOptions{})
	f := b.free(server, lab.ConnOptions{}, false)
	if f.States.TimeWait != 30 || f.States.Established != 25 || f.Ports.Free != 145 {
		t.Errorf("%+v, %+v", f.States, f.Ports)
	}
}

func TestFreeReservedPorts(t *testing.T) {
	b := newBench(t, "net.ipv4.ip_local_reserved_ports", "40010,40100-40118,50000")
	b.serve(server)
	b.churn(30, lab.Storm{Remotes: remotes(server)})
	if f := b.free(server, lab.ConnOptions{}, false); f.Ports.Reserved != 20 || f.Ports.Free != 150 {
		t.Errorf("%+v", f.Ports)
	}
}

func TestFreeListenersInsideTheRange(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.hold("127.0.0.1:40005")
	b.hold("0.0.0.0:40100")
	b.hold("[::1]:40101")
	b.churn(30, lab.Storm{Remotes: remotes(server)})
	if f := b.free(server, lab.ConnOptions{}, false); f.Ports.Blocked != 3 {
		t.Errorf("%+v", f.Ports)
	}
}

func TestFreeBoundUnconnected(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	must[*lab.Conn](t)(b.ns.Bind(addrPort("127.0.0.1:40007"), lab.ConnOptions{}))
	must[*lab.Conn](t)(b.ns.Bind(addrPort("0.0.0.0:0"), lab.ConnOptions{}))
	b.churn(10, lab.Storm{Remotes: remotes(server)})
	if f := b.free(server, lab.ConnOptions{}, false); f.Ports.Blocked != 2 {
		t.Errorf("%+v", f.Ports)
	}
}

func TestFreeAnotherDestination(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.hold("127.0.0.1:1001")
	b.hold("127.0.0.2:1000")
	b.churn(60, lab.Storm{Remotes: remotes(server)})
	b.open(5, "127.0.0.1:1001", lab.ConnOptions{})
	b.free("127.0.0.1:1001", lab.ConnOptions{}, false)
	b.free("127.0.0.2:1000", lab.ConnOptions{}, false)
	b.free(server, lab.ConnOptions{}, false)
}

func TestFreeExhausted(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.churn(rangeSize, lab.Storm{Remotes: remotes(server)})
	if f := b.free(server, lab.ConnOptions{}, false); f.Ports.Free != 0 || f.Ports.SecondsToExhaustion == nil || *f.Ports.SecondsToExhaustion != 0 {
		t.Errorf("%+v", f.Ports)
	}
	// It spilled over its half of the range: what holds the other half can't
	// be told from bind(addr, 0) by a look that comes later.
	b.hold("127.0.0.2:1000")
	b.free("127.0.0.2:1000", lab.ConnOptions{}, true)
}

// Reuse takes over a TIME_WAIT when it is older than tcp_tw_reuse_delay.
func TestFreeWithReuse(t *testing.T) {
	for _, tt := range []struct{ value, server string }{{"1", server}, {"2", server}, {"2", "[::1]:1000"}} {
		t.Run(tt.value+" to "+tt.server, func(t *testing.T) {
			b := newBench(t, "net.ipv4.tcp_tw_reuse", tt.value, "net.ipv4.tcp_tw_reuse_delay", "1000")
			server := tt.server
			b.serve(server)
			b.churn(150, lab.Storm{Remotes: remotes(server)})
			b.open(10, server, lab.ConnOptions{})
			lab.Eventually(t, 30*time.Second, func() error {
				f := flow(look(t, b.ns), snapshot.Client, addrPort(server).Addr().String(), 1000)
				if f.Ports.Reusable != 150 {
					return fmt.Errorf("%d of 150 reusable", f.Ports.Reusable)
				}
				return nil
			})
			if f := b.free(server, lab.ConnOptions{}, false); f.Ports.Free != 190 || !f.SurvivorsOnly {
				t.Errorf("%+v", f.Ports)
			}
		})
	}
}

func TestFreeReuseTwoIsForLoopback(t *testing.T) {
	b := newBench(t, "net.ipv4.tcp_tw_reuse", "2", "net.ipv4.tcp_tw_reuse_delay", "1")
	if err := b.ns.AddAddress(netip.MustParsePrefix("10.9.0.1/32")); err != nil {
		t.Fatal(err)
	}
	const dst = "10.9.0.1:1000"
	b.serve(dst)
	b.churn(50, lab.Storm{Remotes: remotes(dst)})
	if f := b.free(dst, lab.ConnOptions{}, false); f.Ports.Reusable != 0 || f.SurvivorsOnly {
		t.Errorf("%+v", f.Ports)
	}
}

// In a range of odd size each connect() leaves one port out, and which one
// changes.
func TestFreeOddRange(t *testing.T) {
	b := newBench(t, "net.ipv4.ip_local_port_range", "40000 40100")
	b.serve(server)
	b.churn(30, lab.Storm{Remotes: remotes(server)})
	b.free(server, lab.ConnOptions{}, true)
}

func TestFreeFinWait2Minis(t *testing.T) {
	b := newBench(t)
	b.hold(server) // never closes its end
	for _, c := range b.open(40, server, lab.ConnOptions{}) {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	lab.Eventually(t, 30*time.Second, func() error { // until the server's acknowledgements are in
		if n := look(t, b.ns).States.FinWait2; n != 40 {
			return fmt.Errorf("%d of 40 in FIN_WAIT2", n)
		}
		return nil
	})
	f := b.free(server, lab.ConnOptions{}, false)
	if f.States.FinWait2 != 40 || f.Ports.Used != 40 {
		t.Errorf("%+v, %+v", f.States, f.Ports)
	}
}

func TestFreeSecondSourceAddress(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.churn(60, lab.Storm{Remotes: remotes(server)})
	b.churn(20, lab.Storm{Remotes: remotes(server), Local: addr("127.0.0.5")})
	b.free(server, lab.ConnOptions{Local: addrPort("127.0.0.5:0")}, false)
	b.free(server, lab.ConnOptions{Local: addrPort("127.0.0.1:0")}, false)
}

func TestFreeTwoDevices(t *testing.T) {
	lab.Require(t, "veth")
	b := newBench(t)
	far := lab.NewT(t)
	for i, device := range []string{"va", "vb"} {
		near, there := netip.MustParsePrefix(fmt.Sprintf("10.7.%d.1/24", i)), netip.MustParsePrefix(fmt.Sprintf("10.7.%d.2/24", i))
		if err := b.ns.AddVeth(device, near, far, device, there); err != nil {
			t.Fatal(err)
		}
	}
	// One address behind both devices, the same source: only the device differs.
	if err := far.AddAddress(netip.MustParsePrefix("10.8.0.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := b.ns.AddAddress(netip.MustParsePrefix("10.8.0.9/32")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		ns       *lab.Namespace
		to       string
		gateways []string
	}{{b.ns, "10.8.0.1", []string{"10.7.0.2", "10.7.1.2"}}, {far, "10.8.0.9", []string{"10.7.0.1", "10.7.1.1"}}} {
		for i, gw := range r.gateways {
			if _, err := r.ns.Command(t.Context(), "ip", "route", "add", r.to, "via", gw, "dev", []string{"va", "vb"}[i],
				"metric", fmt.Sprint(i+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, device := range []string{"va", "vb"} { // so that replies take the same way
		must[*lab.Server](t)(far.Listen(addrPort("0.0.0.0:1000"), lab.ListenOptions{Device: device}))
	}
	const dst = "10.8.0.1:1000"
	va := lab.ConnOptions{Local: addrPort("10.8.0.9:0"), Device: "va"}
	vb := lab.ConnOptions{Local: addrPort("10.8.0.9:0"), Device: "vb"}
	b.churn(60, lab.Storm{Remotes: remotes(dst), Local: addr("10.8.0.9"), Device: "va"})
	b.churn(20, lab.Storm{Remotes: remotes(dst), Local: addr("10.8.0.9"), Device: "vb"})
	if f := b.free(dst, va, false); f == nil || f.Ports.Used != 60 {
		t.Errorf("on va: %+v", f)
	}
	if f := b.free(dst, vb, false); f == nil || f.Ports.Used != 20 {
		t.Errorf("on vb: %+v", f)
	}
}

func TestFreeIPv6(t *testing.T) {
	b := newBench(t)
	b.serve("[::1]:1000")
	b.churn(80, lab.Storm{Remotes: remotes("[::1]:1000")})
	b.free("[::1]:1000", lab.ConnOptions{}, false)
}

// An IPv6 socket that connects to a v4-mapped address shares the ports of its
// IPv4 twin.
func TestFreeMappedSharesTheDomain(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.churn(30, lab.Storm{Remotes: remotes(server)})
	b.churn(30, lab.Storm{Remotes: remotes("[::ffff:127.0.0.1]:1000")})
	if f := b.free(server, lab.ConnOptions{}, false); f.Ports.Used != 60 {
		t.Errorf("%+v", f.Ports)
	}
}

// bind(addr, port) before connect() blocks the port for every destination.
// While it lives it can be seen; the TIME_WAIT that it leaves can't.
func TestFreeExplicitBind(t *testing.T) {
	b := newBench(t)
	b.hold(server)
	b.hold("127.0.0.2:1000")
	for i := range 20 {
		b.open(1, server, lab.ConnOptions{Local: netip.AddrPortFrom(addr("127.0.0.1"), uint16(40040+i))})
	}
	b.free(server, lab.ConnOptions{}, false)
	if b.free("127.0.0.2:1000", lab.ConnOptions{}, false); b.Failed() {
		return
	}
	n := look(t, b.ns)
	if n.Ports.BlockedExplicit != 20 {
		t.Errorf("%+v, want 20 blocked by explicit binds", n.Ports)
	}
}

// bind(addr, 0) before connect() takes ports of the other parity, live or in
// TIME_WAIT, and blocks them for every destination.
func TestFreeBindZero(t *testing.T) {
	for _, state := range []string{"live", "TIME_WAIT"} {
		t.Run(state, func(t *testing.T) {
			b := newBench(t)
			second, third := "127.0.0.2:1000", "127.0.0.3:1000"
			for _, a := range []string{server, second, third} {
				b.serve(a)
			}
			if state == "live" {
				b.open(60, server, lab.ConnOptions{Local: addrPort("127.0.0.1:0"), Bind: lab.BindAddrPort0})
				b.open(30, second, lab.ConnOptions{})
			} else {
				b.churn(60, lab.Storm{Remotes: remotes(server), Local: addr("127.0.0.1"), Bind: lab.BindAddrPort0})
				b.churn(30, lab.Storm{Remotes: remotes(second)})
			}
			n := look(t, b.ns)
			for dst, want := range map[string]int{server: 140, second: 110, third: 140} {
				if f := b.compare(n, dst, lab.ConnOptions{}, false); f != nil && f.Ports.Free != want {
					t.Errorf("%s: free %d, want %d", dst, f.Ports.Free, want)
				}
			}
			if n.Ports.BlockedParity != 60 {
				t.Errorf("%+v, want 60 blocked by parity", n.Ports)
			}
		})
	}
}

// A flow that binds and also connects plainly, and has used up a half: what
// else it blocks can't be told, and that is said.
func TestFreeAtMost(t *testing.T) {
	b := newBench(t)
	second := "127.0.0.2:1000"
	b.serve(server)
	b.serve(second)
	b.churn(60, lab.Storm{Remotes: remotes(server), Local: addr("127.0.0.1"), Bind: lab.BindAddrPort0})
	b.churn(110, lab.Storm{Remotes: remotes(server)})
	b.churn(5, lab.Storm{Remotes: remotes(second)})
	b.free(server, lab.ConnOptions{}, false) // its own ports are never in doubt
	b.free(second, lab.ConnOptions{}, true)
}

// Connections of a spill-over outlive those that filled the own half: their
// ports are free for every other destination, and aren't taken for bound ones.
func TestFreeAfterASpill(t *testing.T) {
	b := newBench(t)
	b.hold(server)
	b.hold("127.0.0.2:1000")
	for _, c := range b.open(160, server, lab.ConnOptions{}) {
		if port := c.Local().Port(); port%2 == 0 && port < 40140 {
			if err := c.Reset(); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := look(t, b.ns)
	b.compare(n, server, lab.ConnOptions{}, false)
	b.compare(n, "127.0.0.2:1000", lab.ConnOptions{}, true)
}

// A socket that is bound to a device doesn't get the ports of those that are
// not; they get its.
func TestFreeUnboundTwin(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.churn(50, lab.Storm{Remotes: remotes(server)})
	lo := lab.ConnOptions{Device: "lo"}
	b.open(1, server, lo)
	n := look(t, b.ns)
	b.compare(n, server, lo, true)
	b.compare(n, server, lab.ConnOptions{}, false)
}

// tcp_tw_reuse=2 acts on sockets that are bound to the loopback device,
// whatever their addresses.
func TestFreeReuseTwoOnLoopbackDevice(t *testing.T) {
	b := newBench(t, "net.ipv4.tcp_tw_reuse", "2")
	if err := b.ns.AddAddress(netip.MustParsePrefix("10.9.0.1/32")); err != nil {
		t.Fatal(err)
	}
	const dst = "10.9.0.1:1000"
	b.serve(dst)
	b.churn(50, lab.Storm{Remotes: remotes(dst), Device: "lo"})
	lab.Eventually(t, 5*time.Second, func() error {
		if f := flow(look(t, b.ns), snapshot.Client, "10.9.0.1", 1000); f.Ports.Reusable != 50 {
			return fmt.Errorf("%d of 50 reusable", f.Ports.Reusable)
		}
		return nil
	})
	b.free(dst, lab.ConnOptions{Device: "lo"}, false)
}

// What a listener in the range leaves behind when it goes is no client's: one
// flow of an unknown side, and a port that others may not get.
func TestFreeClosedListener(t *testing.T) {
	for _, state := range []string{"TIME_WAIT", "live"} {
		t.Run(state, func(t *testing.T) {
			b := newBench(t, "net.ipv4.ip_local_port_range", "45000 60999") // of the clients
			b.hold(server)
			const gone = "127.0.0.1:40050"
			mode := lab.Manual
			if state == "TIME_WAIT" {
				mode = lab.CloseByServer
			}
			listener := must[*lab.Server](t)(b.ns.Listen(addrPort(gone), lab.ListenOptions{Mode: mode}))
			if state == "TIME_WAIT" {
				b.churn(100, lab.Storm{Remotes: remotes(gone), Closer: lab.ServerEnd})
			} else {
				for range 20 {
					must[*lab.Pair](t)(b.ns.Pair(listener, lab.ConnOptions{}))
				}
			}
			if err := listener.Close(); err != nil {
				t.Fatal(err)
			}
			sysctls(t, b.ns, "net.ipv4.ip_local_port_range", rangeText)
			n := look(t, b.ns)
			var served uint32
			for _, f := range n.Flows {
				if f.Side == snapshot.Unknown && f.Port == 40050 {
					served += f.States.TimeWait + f.States.Established
				}
			}
			if want := uint32(map[string]int{"TIME_WAIT": 100, "live": 20}[state]); served < want-3 { // the first ones could be anybody's
				t.Errorf("%d of %d sockets of the listener in its flow, %d flows", served, want, len(n.Flows))
			}
			b.compare(n, server, lab.ConnOptions{}, true)
		})
	}
}
