package collector

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// quietNamespace has a range in which the kernel takes no TIME_WAIT away.
func quietNamespace(t *testing.T) *lab.Namespace {
	t.Helper()
	ns := lab.NewT(t)
	for name, value := range map[string]string{"net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_rfc1337": "1"} {
		if err := ns.Sysctl(name, value); err != nil {
			t.Fatal(err)
		}
	}
	return ns
}

func listen(t *testing.T, ns *lab.Namespace, addr string) *lab.Server {
	t.Helper()
	s, err := ns.Listen(netip.MustParseAddrPort(addr), lab.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// flowTo is the client flow to a port.
func flowTo(t *testing.T, r *snapshot.Report, port uint16) *snapshot.Flow {
	t.Helper()
	return sideOf(t, r, snapshot.Client, port)
}

func sideOf(t *testing.T, r *snapshot.Report, side snapshot.Side, port uint16) *snapshot.Flow {
	t.Helper()
	for i := range r.Namespaces[0].Flows {
		if f := &r.Namespaces[0].Flows[i]; f.Side == side && f.Port == port {
			return f
		}
	}
	t.Fatalf("no %s flow of port %d: %+v", side, port, r.Namespaces[0].Flows)
	return nil
}

// settled passes until the flow has so many sockets in TIME_WAIT and nothing
// else, as connections close one after the other.
func settled(t *testing.T, ns *lab.Namespace, c *Collector, port uint16, want int) (r *snapshot.Report) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, func() error {
		r = passIn(t, ns, c)
		if s := flowTo(t, r, port).States; int(s.TimeWait) != want || s.Total() != want {
			return fmt.Errorf("%+v, want %d in TIME_WAIT", s, want)
		}
		return nil
	})
	return r
}

// found passes until the processes of all live sockets are known.
func found(t *testing.T, ns *lab.Namespace, c *Collector, port uint16) (r *snapshot.Report) {
	t.Helper()
	lab.Eventually(t, 20*time.Second, func() error {
		r = passIn(t, ns, c)
		if f := flowTo(t, r, port); *f.Attributed != 1 {
			return fmt.Errorf("attributed %v", *f.Attributed)
		}
		return nil
	})
	if len(r.Limited) != 0 {
		t.Errorf("limited: %+v", r.Limited)
	}
	return r
}

func checkShare(t *testing.T, f *snapshot.Flow, i int, want snapshot.Process) {
	t.Helper()
	if i >= len(f.Processes) {
		t.Fatalf("%d programs: %+v", len(f.Processes), f.Processes)
	}
	p := f.Processes[i]
	if p.PID != want.PID || p.Comm != want.Comm || p.Sockets != want.Sockets || p.By != want.By || p.Count != want.Count ||
		math.Abs(p.Share-want.Share) > 1e-9 {
		t.Errorf("program %d of port %d: %+v, want %+v", i, f.Port, p, want)
	}
}

// Each connection that was seen alive leaves a TIME_WAIT whose process is known,
// also when the process has gone.
func TestTimeWaitsHaveTheProcessOfTheirConnection(t *testing.T) {
	const n = 1000
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1004")
	app := start(t, ns, "app")
	app.do("open 127.0.0.1:1004 %d", n)
	c := newCollector(t, ns, Config{})
	if f := flowTo(t, passIn(t, ns, c), 1004); f.LongLived != nil {
		t.Errorf("a first look knows %d long-lived connections", *f.LongLived)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if f := flowTo(t, found(t, ns, c, 1004), 1004); f.LongLived == nil || *f.LongLived != n {
			return fmt.Errorf("long-lived: %v", f.LongLived)
		}
		return nil
	})
	r := found(t, ns, c, 1004)
	f := flowTo(t, r, 1004)
	checkShare(t, f, 0, snapshot.Process{PID: app.pid, Comm: "app", Sockets: n, By: snapshot.ByInode, Count: 1, Share: 1})
	server := sideOf(t, r, snapshot.Server, 1004)
	if len(server.Processes) != 1 || server.Processes[0].Sockets != n || server.Processes[0].PID == app.pid {
		t.Errorf("the server's end: %+v", server.Processes)
	}
	checkOwners(t, r, app.pid, n)

	app.do("close - %d", n)
	r = settled(t, ns, c, 1004, n)
	want := snapshot.Process{PID: app.pid, Comm: "app", Sockets: n, By: snapshot.ByCookie, Count: 1, Share: 1}
	checkShare(t, flowTo(t, r, 1004), 0, want)
	app.exit()
	r = passIn(t, ns, c)
	f = flowTo(t, r, 1004)
	checkShare(t, f, 0, want)
	if *f.Attributed != 1 || f.LongLived == nil || *f.LongLived != 0 {
		t.Errorf("attributed %v, long-lived %v", f.Attributed, f.LongLived)
	}
}

func checkOwners(t *testing.T, r *snapshot.Report, pid, sockets int) {
	t.Helper()
	for _, o := range r.Namespaces[0].Owners {
		if o.PID != pid {
			continue
		}
		if int(o.Sockets) != sockets || o.Start == 0 || o.CloseWait != 0 || o.Descriptors == nil || *o.Descriptors < sockets ||
			o.DescriptorLimit == nil || *o.DescriptorLimit < *o.Descriptors {
			t.Errorf("owner %+v, want %d sockets", o, sockets)
		}
		return
	}
	t.Errorf("%d is no owner: %+v", pid, r.Namespaces[0].Owners)
}

// The share that a flow's programs are said to have is their true share, short
// connections that nobody saw included; nothing is extrapolated.
func TestSharesAreTrue(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1004")
	big, small, twin := start(t, ns, "big"), start(t, ns, "small"), start(t, ns, "small")
	big.do("open 127.0.0.1:1004 300")
	small.do("open 127.0.0.1:1004 70")
	twin.do("open 127.0.0.1:1004 30")
	c := newCollector(t, ns, Config{})
	found(t, ns, c, 1004)
	for _, p := range []*program{big, small, twin} {
		p.do("close - 30")
	}
	small.do("short 127.0.0.1:1004 200") // between two looks: nobody saw them
	var f *snapshot.Flow
	lab.Eventually(t, 10*time.Second, func() error {
		f = flowTo(t, passIn(t, ns, c), 1004)
		if s := f.States; s.TimeWait != 290 || s.Total() != 600 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if *f.Attributed != 400.0/600 {
		t.Errorf("attributed %v, want %v", *f.Attributed, 400.0/600)
	}
	checkShare(t, f, 0, snapshot.Process{PID: big.pid, Comm: "big", Sockets: 300, By: snapshot.ByInode, Count: 1, Share: 300.0 / 600})
	checkShare(t, f, 1, snapshot.Process{PID: small.pid, Comm: "small", Sockets: 100, By: snapshot.ByCookie, Count: 2, Share: 100.0 / 600})
	if got, want := fmt.Sprint(f.Processes[1].PIDs), fmt.Sprint([]int{small.pid, twin.pid}); got != want {
		t.Errorf("processes %v, want %v", got, want)
	}
	if f.Processes[0].PIDs != nil {
		t.Errorf("one process is listed: %v", f.Processes[0].PIDs)
	}
}

// Without the right to look at others' descriptors that is said once, as a
// limit, and everything else is there.
func TestWithoutRights(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1004")
	start(t, ns, "app").do("open 127.0.0.1:1004 5")
	r, err := snapshot.Decode([]byte(start(t, ns, "nobody").answer()))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Limited) != 1 || r.Limited[0].Stage != stageOwner || r.Limited[0].Fix == "" || len(r.Incomplete) != 0 {
		t.Errorf("limited %+v, incomplete %+v", r.Limited, r.Incomplete)
	}
	f := flowTo(t, r, 1004)
	if f.States.Established != 5 || f.Attributed == nil || *f.Attributed != 0 || len(f.Processes) != 0 {
		t.Errorf("flow %+v", f)
	}
}

// Where no socket is held, nobody's descriptors are read and nothing is claimed.
func TestNobodyIsSearchedForTimeWaits(t *testing.T) {
	ns := lab.NewT(t)
	if _, err := ns.FillTimeWait(t.Context(), lab.Fill{Rows: 500, Remotes: 1}); err != nil {
		t.Fatal(err)
	}
	c := newCollector(t, ns, Config{})
	for range 2 {
		r := passIn(t, ns, c)
		f := flowTo(t, r, 1000)
		if f.Attributed != nil || f.LongLived != nil || len(f.Processes) != 0 || len(r.Limited) != 0 || c.owners.searched {
			t.Errorf("attributed %v, long-lived %v, %+v, limited %+v", f.Attributed, f.LongLived, f.Processes, r.Limited)
		}
	}
}

// A server whose connections were too short to be seen has its listener as
// evidence, and no share.
func TestListenerIsEvidence(t *testing.T) {
	ns := quietNamespace(t)
	s, err := ns.Listen(netip.MustParseAddrPort("127.0.0.1:1004"), lab.ListenOptions{Mode: lab.CloseByServer})
	if err != nil {
		t.Fatal(err)
	}
	storm := lab.Storm{Remotes: []netip.AddrPort{s.Addr()}, Count: 20, Closer: lab.ServerEnd}
	if _, err := ns.Run(t.Context(), storm); err != nil {
		t.Fatal(err)
	}
	r := passIn(t, ns, newCollector(t, ns, Config{}))
	f := sideOf(t, r, snapshot.Server, 1004)
	checkShare(t, f, 0, snapshot.Process{PID: r.Namespaces[0].Listeners[0].PID, Comm: r.Namespaces[0].Listeners[0].Comm, By: snapshot.ByListener, Count: 1})
	if f.Processes[0].PID == 0 || *f.Attributed != 0 {
		t.Errorf("%+v, attributed %v", f.Processes, *f.Attributed)
	}
}

// A connection that lives between two passes is seen by a glance.
func TestLiveEvery(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1004")
	app := start(t, ns, "app")
	for _, tt := range []struct {
		every      time.Duration
		attributed float64
	}{{0, 0}, {MinLiveEvery, 0.5}} {
		c := newCollector(t, ns, Config{LiveEvery: tt.every})
		if r := passIn(t, ns, c); r.LiveDumps != nil {
			t.Errorf("every %v: %+v", tt.every, r.LiveDumps)
		}
		app.do("open 127.0.0.1:1004 10")
		if err := ns.Do(func() error { c.wait(t.Context(), time.Now().Add(3*MinLiveEvery+MinLiveEvery/2)); return nil }); err != nil {
			t.Fatal(err)
		}
		app.do("close - 10")
		n := 10
		if tt.every > 0 {
			n = 20 // those of the first half nobody saw
		}
		r := settled(t, ns, c, 1004, n)
		f := flowTo(t, r, 1004)
		if *f.Attributed != tt.attributed {
			t.Errorf("every %v: attributed %v, want %v", tt.every, *f.Attributed, tt.attributed)
		}
		if tt.every > 0 {
			checkShare(t, f, 0, snapshot.Process{PID: app.pid, Comm: "app", Sockets: 10, By: snapshot.ByCookie, Count: 1, Share: 0.5})
		}
	}
}

// A look that lasts knows at its end which connections last, and whose the
// TIME_WAIT sockets are.
func TestLookBeginsWithTheLive(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1004")
	app := start(t, ns, "app")
	app.do("open 127.0.0.1:1004 30")
	lab.Eventually(t, time.Minute, func() error { // a machine that is too busy doesn't end the search in time
		c := newCollector(t, ns, Config{})
		var window []*snapshot.Report
		if err := ns.Do(func() (err error) { window, err = c.Look(t.Context(), time.Second); return err }); err != nil {
			t.Fatal(err)
		}
		r := window[len(window)-1]
		f := flowTo(t, r, 1004)
		if f.LongLived == nil || *f.LongLived != 30 || r.LiveDumps == nil || r.LiveDumps.Count != 1 || r.LiveDumps.CPUSeconds <= 0 {
			t.Fatalf("long-lived %v, dumps %+v", f.LongLived, r.LiveDumps)
		}
		if *f.Attributed != 1 {
			return fmt.Errorf("attributed %v", *f.Attributed)
		}
		return nil
	})
}
