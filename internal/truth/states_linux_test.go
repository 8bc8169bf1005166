package truth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/lab"
)

// ssRow is a line of `ss -Htan`.
type ssRow struct {
	state         inetdiag.State
	local, remote netip.AddrPort
}

func ss(t *testing.T, ns *lab.Namespace) []ssRow {
	t.Helper()
	lab.Require(t, "ss")
	var rows []ssRow
	for line := range strings.Lines(must[string](t)(ns.Command(t.Context(), "ss", "-Htan"))) {
		f := strings.Fields(line)
		r := ssRow{state: must[inetdiag.State](t)(inetdiag.ParseState(f[0]))}
		r.local, r.remote = ssAddr(t, f[3]), ssAddr(t, f[4])
		rows = append(rows, r)
	}
	return rows
}

// ssAddr parses an address as ss writes it: "*:80", "127.0.0.1%lo:*", "[::1]:80".
func ssAddr(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	i := strings.LastIndexByte(s, ':')
	host, port := strings.Trim(s[:i], "[]"), s[i+1:]
	if host == "*" {
		host = "::"
	}
	host, _, _ = strings.Cut(host, "%")
	if port == "*" {
		port = "0"
	}
	p := netip.MustParseAddrPort("0.0.0.0:" + port).Port()
	return netip.AddrPortFrom(netip.MustParseAddr(host).Unmap(), p)
}

// flowName is what tells flows apart.
type flowName struct {
	side          snapshot.Side
	local, remote string
	port          uint16
}

// bySS groups ss's rows as flows are defined: by the ports that listen.
func bySS(rows []ssRow) (states map[string]uint32, flows map[flowName]map[string]uint32) {
	states, flows = map[string]uint32{}, map[flowName]map[string]uint32{}
	listening := map[uint16]bool{}
	for _, r := range rows {
		states[r.state.String()]++
		if r.state == inetdiag.Listen {
			listening[r.local.Port()] = true
		}
	}
	for _, r := range rows {
		if r.state == inetdiag.Listen {
			continue
		}
		name := flowName{snapshot.Client, r.local.Addr().String(), r.remote.Addr().String(), r.remote.Port()}
		if listening[r.local.Port()] {
			name.side, name.port = snapshot.Server, r.local.Port()
		}
		if flows[name] == nil {
			flows[name] = map[string]uint32{}
		}
		flows[name][r.state.String()]++
	}
	return states, flows
}

func named(s *snapshot.States) map[string]uint32 {
	m := map[string]uint32{}
	s.Named(func(name string, n uint32) bool {
		if n > 0 {
			m[name] = n
		}
		return true
	})
	return m
}

func TestStatesFlowsAndSides(t *testing.T) {
	b := &bench{t, lab.NewT(t)}
	sysctls(t, b.ns, "net.ipv4.tcp_tw_reuse", "0", "net.ipv4.tcp_rfc1337", "1")
	b.serve("127.0.0.1:1000")
	b.serve("[::1]:1001")
	must[*lab.Server](t)(b.ns.Listen(addrPort("[::]:1002"), lab.ListenOptions{DualStack: true}))
	must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1003"), lab.ListenOptions{Mode: lab.CloseByServer}))
	manual := must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1004"), lab.ListenOptions{Mode: lab.Manual}))
	b.hold("127.0.0.1:1005")

	b.churn(30, lab.Storm{Remotes: remotes("127.0.0.1:1000")})
	b.churn(20, lab.Storm{Remotes: remotes("[::1]:1001")})
	b.churn(10, lab.Storm{Remotes: remotes("127.0.0.1:1002")}) // an IPv4 client of an [::] listener
	b.churn(15, lab.Storm{Remotes: remotes("127.0.0.1:1003"), Closer: lab.ServerEnd})
	b.open(4, "[::1]:1002", lab.ConnOptions{})
	b.open(3, "127.0.0.1:1002", lab.ConnOptions{})
	for range 6 { // the server closes, the client forgets to: CLOSE_WAIT, and FIN_WAIT2 at the server
		p := must[*lab.Pair](t)(b.ns.Pair(manual, lab.ConnOptions{}))
		if err := p.Server.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
	must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1006"), lab.ListenOptions{Mode: lab.Manual}))
	for _, c := range append(b.open(7, "127.0.0.1:1005", lab.ConnOptions{}), // FIN_WAIT2 minis
		b.open(3, "127.0.0.1:1006", lab.ConnOptions{})...) { // and CLOSE_WAIT that nobody accepted
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]uint32{
		"time_wait": 75, "established": 14, "close_wait": 16, "fin_wait2": 16, "listen": 7,
	}
	var n *snapshot.Namespace
	lab.Eventually(t, 30*time.Second, func() error {
		n = look(t, b.ns)
		if diff := cmp.Diff(want, named(&n.States)); diff != "" {
			return fmt.Errorf("states (-opened +report):\n%s", diff)
		}
		if n.TimeWait.BucketsUsed != 75+10 {
			return fmt.Errorf("buckets used %d, want 75 TIME_WAIT and 10 FIN_WAIT2 minis", n.TimeWait.BucketsUsed)
		}
		if f := flow(n, snapshot.Server, "127.0.0.1", 1005); f == nil || f.CloseWait.Unaccepted != 0 {
			return fmt.Errorf("not all CLOSE_WAIT on port 1005 are accepted yet: %+v", f)
		}
		return nil
	})
	states, flows := bySS(ss(t, b.ns))
	if diff := cmp.Diff(states, named(&n.States)); diff != "" {
		t.Errorf("states (-ss +report):\n%s", diff)
	}
	got := map[flowName]map[string]uint32{}
	for i := range n.Flows {
		f := &n.Flows[i]
		got[flowName{f.Side, f.Local, f.Remote, f.Port}] = named(&f.States)
	}
	if diff := cmp.Diff(flows, got, cmp.AllowUnexported(flowName{})); diff != "" {
		t.Errorf("flows (-ss +report):\n%s", diff)
	}
	if f := flow(n, snapshot.Server, "127.0.0.1", 1006); f == nil || f.CloseWait.Unaccepted != 3 || f.CloseWait.Sockets != 3 {
		t.Errorf("CLOSE_WAIT that nobody accepted: %+v", f)
	}
	if f := flow(n, snapshot.Server, "127.0.0.1", 1005); f == nil || f.CloseWait.Unaccepted != 0 || f.CloseWait.Sockets != 7 {
		t.Errorf("CLOSE_WAIT that was accepted: %+v", f)
	}
}

// The age of a CLOSE_WAIT counts from the peer's FIN, not from the first look.
func TestCloseWaitAge(t *testing.T) {
	b := &bench{t, lab.NewT(t)}
	manual := must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1004"), lab.ListenOptions{Mode: lab.Manual}))
	p := must[*lab.Pair](t)(b.ns.Pair(manual, lab.ConnOptions{}))
	if err := p.Server.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := p.Server.Shutdown(); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	lab.Eventually(t, 30*time.Second, func() error {
		r := reportFor(t, b.ns, 0)
		n := r.Namespaces[0]
		if len(n.CloseWaits) != 1 || n.CloseWaits[0].AgeSeconds == nil {
			return fmt.Errorf("no CLOSE_WAIT with an age: %+v", n.CloseWaits)
		}
		w, slack := n.CloseWaits[0], lateness(r).Seconds()
		low, high := n.SampledAt.Sub(after).Seconds()-slack, n.SampledAt.Sub(before).Seconds()+slack
		if *w.AgeSeconds < low || *w.AgeSeconds > high {
			t.Fatalf("age %v, true between %v and %v", *w.AgeSeconds, low, high)
		}
		if f := flow(n, snapshot.Client, "127.0.0.1", 1004); *f.CloseWait.OldestSeconds != *w.AgeSeconds || f.CloseWait.Unread != 1 || w.RecvQ != 6 {
			t.Fatalf("flow %+v, socket %+v: 5 bytes and the FIN are unread", f.CloseWait, w)
		}
		if *w.AgeSeconds < 1 {
			return fmt.Errorf("only %v old", *w.AgeSeconds)
		}
		return nil
	})
}
