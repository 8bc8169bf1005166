package collector

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
	"github.com/twwatch/twwatch/internal/netns"
)

// inhabit puts a process into a namespace, which is found by it.
func inhabit(t *testing.T, ns *lab.Namespace) (end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return end
}

func remote(addr string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(addr)} }

// collectIn makes a Collector of one namespace.
func collectIn(t *testing.T, ns *lab.Namespace) (c *Collector) {
	t.Helper()
	if err := ns.Do(func() (err error) { c, err = New(Config{}); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sweeper watches every namespace of this machine, those of other tests too.
func sweeper(t *testing.T, cfg Config) *Collector {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.cfg.Namespaces = Selection{All: true}
	// Tests are of one cgroup, and many at a time.
	if c.sweep, err = newSweep(c, netns.Config{MaxPerGroup: netns.DefaultMaxNamespaces}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func sweepOnce(t *testing.T, c *Collector) *snapshot.Report {
	t.Helper()
	r, err := c.Pass(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// of finds a namespace in a report, nil if it isn't there.
func of(t *testing.T, r *snapshot.Report, ns *lab.Namespace) *snapshot.Namespace {
	t.Helper()
	var id identity
	err := ns.Do(func() (err error) { id, err = identify("/proc"); return err })
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(r.Namespaces, func(n *snapshot.Namespace) bool { return n.Inode == id.inode && n.Cookie == id.cookie })
	if i < 0 {
		return nil
	}
	return r.Namespaces[i]
}

// Each namespace is seen with its own sockets and settings, and dumped again
// only if something moves in it. What is repeated meanwhile is what a dump would
// find.
func TestSweep(t *testing.T) {
	still, busy := quietNamespace(t), quietNamespace(t)
	if err := busy.Sysctl("net.ipv4.ip_local_port_range", "40000 42999"); err != nil {
		t.Fatal(err)
	}
	for ns, rows := range map[*lab.Namespace]int{still: 200, busy: 1200} {
		listen(t, ns, "127.0.0.1:1000")
		if _, err := ns.Run(t.Context(), lab.Storm{Remotes: remote("127.0.0.1:1000"), Count: rows}); err != nil {
			t.Fatal(err)
		}
		inhabit(t, ns)
	}
	c := sweeper(t, Config{CPUBudget: 1})
	var r *snapshot.Report
	lab.Eventually(t, 30*time.Second, func() error { // until the last segments have come
		r = sweepOnce(t, c)
		s, b := of(t, r, still), of(t, r, busy)
		if s == nil || b == nil {
			return fmt.Errorf("not there: %v, %v", s, b)
		}
		if s.States.TimeWait != 200 || b.States.TimeWait != 1200 {
			return fmt.Errorf("%d and %d TIME_WAIT", s.States.TimeWait, b.States.TimeWait)
		}
		return nil
	})
	if first := r.Namespaces[0]; first.Inode != c.home.id.inode && first.Kind != "host" {
		t.Errorf("the first namespace is %s", first.Name)
	}
	if got, want := of(t, r, busy).Ports.Range, 3000; got != want {
		t.Errorf("a range of %d ports, want %d", got, want)
	}

	moved := sweepOnce(t, c)
	if s, b := of(t, moved, still), of(t, moved, busy); !s.Repeated || !b.Repeated {
		t.Errorf("dumped although nothing moved: %v, %v", !s.Repeated, !b.Repeated)
	}
	if _, err := busy.Run(t.Context(), lab.Storm{Remotes: remote("127.0.0.1:1000"), Count: 10}); err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond // the kernel's, at most: what closed within it is of the next dump
	for closed := time.Now(); time.Since(closed) < tick; {
		runtime.Gosched()
	}
	moved = sweepOnce(t, c)
	s, b := of(t, moved, still), of(t, moved, busy)
	if b.Repeated || b.States.TimeWait < 1200 || b.TimeWait.Births < 10 {
		t.Errorf("busy: repeated %v, %d TIME_WAIT, %d new; want at least 1,200 and 10", b.Repeated, b.States.TimeWait, b.TimeWait.Births)
	}
	if !s.Repeated || s.TimeWait.Births != 0 || time.Since(s.SampledAt) > 10*time.Second {
		t.Errorf("still: repeated %v, %d new, as of %v", s.Repeated, s.TimeWait.Births, s.SampledAt)
	}

	// The same namespace at the same time, by a dump.
	fresh := passIn(t, still, collectIn(t, still)).Namespaces[0]
	s = of(t, sweepOnce(t, c), still)
	if diff := cmp.Diff(fresh.States, s.States); diff != "" {
		t.Errorf("dumped and repeated (-dumped +repeated):\n%s", diff)
	}
	if a, b := sum(fresh.TimeWait.OpenedPerSecond), sum(s.TimeWait.OpenedPerSecond); a != b {
		t.Errorf("%d and %d in the timelines", a, b)
	}
	if d := newest(fresh.TimeWait.OpenedPerSecond) - newest(s.TimeWait.OpenedPerSecond); d < -2 || d > 2 {
		t.Errorf("the last closes are %d s apart", d) // either is cut to whole seconds
	}
}

// newest is how many seconds ago the last connection closed.
func newest(line []uint32) int {
	for i := range line {
		if line[len(line)-1-i] > 0 {
			return i
		}
	}
	return len(line)
}

// A namespace that dies is gone from the report, and no error.
func TestSweepForgetsTheDead(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1000")
	if _, err := ns.Run(t.Context(), lab.Storm{Remotes: remote("127.0.0.1:1000"), Count: 50}); err != nil {
		t.Fatal(err)
	}
	end := inhabit(t, ns)
	c := sweeper(t, Config{CPUBudget: 1})
	if n := of(t, sweepOnce(t, c), ns); n == nil || n.States.TimeWait == 0 {
		t.Fatalf("not seen: %+v", n)
	}
	end()
	lab.Eventually(t, 10*time.Second, func() error {
		r := sweepOnce(t, c)
		for _, g := range r.Incomplete {
			return fmt.Errorf("%+v", g)
		}
		if n := of(t, r, ns); n != nil {
			return fmt.Errorf("still there: %+v", n.States)
		}
		return nil
	})
	for _, o := range c.sweep.others {
		if o.conn != nil || o.files != nil {
			t.Errorf("%s: something is open in it", o.named.name)
		}
	}
}

// A budget that is used up leaves namespaces for later, says so, and comes to
// each of them.
func TestSweepKeepsItsBudget(t *testing.T) {
	var all []*lab.Namespace
	for range 6 {
		ns := lab.NewT(t)
		listen(t, ns, "127.0.0.1:1000")
		inhabit(t, ns)
		all = append(all, ns)
	}
	c := sweeper(t, Config{CPUBudget: 0.00001, WithoutOwners: true}) // 0.5 ms, were the interval the longest
	seen, waited := map[*lab.Namespace]bool{}, false
	lab.Eventually(t, 60*time.Second, func() error {
		c.sweep.dumpCost = 0 // the estimate of a machine that does other things too
		c.homeCPU = 0
		before := len(seen)
		r := sweepOnce(t, c)
		for _, ns := range all {
			if of(t, r, ns) != nil {
				seen[ns] = true
			}
		}
		if len(seen)-before > 1 {
			t.Fatalf("%d at once", len(seen)-before)
		}
		waited = waited || slices.ContainsFunc(r.Limited, func(g snapshot.Gap) bool { return g.Stage == stageNamespaces })
		if len(seen) < len(all) {
			return fmt.Errorf("%d of %d seen", len(seen), len(all))
		}
		return nil
	})
	if !waited {
		t.Error("nothing is said of those that wait")
	}
	if got := c.stretched(); got != MaxInterval {
		t.Errorf("the interval is %v, want %v", got, MaxInterval)
	}
}

// A look that lasts knows what grew in every namespace.
func TestLookKnowsGrowthEverywhere(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1000")
	inhabit(t, ns)
	c := sweeper(t, Config{CPUBudget: 1})
	storm := ns.Go(func() error {
		_, err := ns.Run(t.Context(), lab.Storm{Remotes: remote("127.0.0.1:1000"), Rate: 100, Count: 150})
		return err
	})
	window, err := c.Look(t.Context(), time.Second)
	if err := errors.Join(err, storm()); err != nil {
		t.Fatal(err)
	}
	before, after := of(t, window[0], ns), of(t, window[1], ns)
	if before == nil || after == nil {
		t.Fatalf("not seen: before %v, after %v", before != nil, after != nil)
	}
	if before.Source != "" || after.Repeated || after.Source != sourceDiag {
		t.Errorf("the first look read the sockets (%q), or the second one didn't (%q)", before.Source, after.Source)
	}
	grown := after.Counters["TW"] - before.Counters["TW"]
	if grown == 0 || uint64(after.States.TimeWait) < grown || after.CoveredSeconds <= 0 {
		t.Errorf("%d more TIME_WAIT in %v s, %d there", grown, after.CoveredSeconds, after.States.TimeWait)
	}
}

// A small range runs out before the namespace is many sockets' or is due again.
func TestSweepOfASmallRange(t *testing.T) {
	ns := quietNamespace(t)
	if err := ns.Sysctl("net.ipv4.ip_local_port_range", "40000 40099"); err != nil {
		t.Fatal(err)
	}
	listen(t, ns, "127.0.0.1:1000")
	storm := func(count int) {
		t.Helper()
		if _, err := ns.Run(t.Context(), lab.Storm{Remotes: remote("127.0.0.1:1000"), Count: count}); err != nil {
			t.Fatal(err)
		}
	}
	storm(20)
	inhabit(t, ns)
	c := sweeper(t, Config{CPUBudget: 1})
	if n := of(t, sweepOnce(t, c), ns); n.States.TimeWait != 20 {
		t.Errorf("%d TIME_WAIT, want 20", n.States.TimeWait)
	}
	storm(80)
	if n := of(t, sweepOnce(t, c), ns); n.Repeated || n.States.TimeWait != 100 || n.Flows[0].Ports.Free != 0 {
		t.Errorf("repeated %v, %d TIME_WAIT, %d free; want 100 and none", n.Repeated, n.States.TimeWait, n.Flows[0].Ports.Free)
	}
}

// The Collector's own namespace isn't read either while nothing moves in it.
func TestOwnNamespaceStandsStill(t *testing.T) {
	ns := quietNamespace(t)
	listen(t, ns, "127.0.0.1:1000")
	storm := lab.Storm{Remotes: remote("127.0.0.1:1000"), Count: 100}
	if _, err := ns.Run(t.Context(), storm); err != nil {
		t.Fatal(err)
	}
	err := ns.Do(func() error {
		c := sweeper(t, Config{CPUBudget: 1, Namespaces: Selection{All: true}})
		look := func() *snapshot.Namespace { // beside the host's, maybe
			all := sweepOnce(t, c).Namespaces
			return all[slices.IndexFunc(all, func(n *snapshot.Namespace) bool { return n.Inode == c.home.id.inode })]
		}
		var own *snapshot.Namespace
		lab.Eventually(t, 30*time.Second, func() error { // until the last segments have come
			if own = look(); !own.Repeated {
				return fmt.Errorf("read again: %+v", own.States)
			}
			return nil
		})
		if own.States.TimeWait != 100 || own.TimeWait.Births != 0 || own.Name != c.home.id.name {
			t.Errorf("%s: %+v, %d new", own.Name, own.States, own.TimeWait.Births)
		}
		if _, err := ns.Run(t.Context(), storm); err != nil {
			return err
		}
		if own = look(); own.Repeated || own.States.TimeWait != 200 {
			t.Errorf("after another storm: repeated %v, %+v", own.Repeated, own.States)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// However busy ten namespaces are, a pass takes what its share of a core makes
// of the longest interval, and no more: what doesn't fit in waits for its turn.
func TestBudgetOfTenBusyNamespaces(t *testing.T) {
	const budget, perNamespace = 0.0005, 1500 // 25 ms in 50 s, and a dump takes several
	var all []*lab.Namespace
	for range 10 {
		ns := quietNamespace(t)
		listen(t, ns, "127.0.0.1:1000")
		inhabit(t, ns)
		all = append(all, ns)
	}
	storm := func(count int) {
		t.Helper()
		for _, ns := range all {
			if _, err := ns.Run(t.Context(), lab.Storm{Remotes: remote("127.0.0.1:1000"), Count: count}); err != nil {
				t.Fatal(err)
			}
		}
	}
	storm(perNamespace)
	c := sweeper(t, Config{CPUBudget: budget, WithoutOwners: true})
	seen := map[*lab.Namespace]bool{}
	for pass := 0; pass < 5 || len(seen) < len(all) && pass < 40; pass++ {
		r := sweepOnce(t, c)
		// The first pass learns of the namespaces too. Each begins its last dump
		// within the budget, and may end it beyond.
		if most := time.Duration(budget*float64(MaxInterval)) + 4*c.sweep.dumpCost; pass > 0 && c.cpu > most {
			t.Errorf("pass %d: %v of CPU time, want at most %v", pass, c.cpu, most)
		}
		for _, ns := range all {
			if n := of(t, r, ns); n != nil && !n.Repeated {
				seen[ns] = true
			}
		}
		storm(20)
	}
	if len(seen) != len(all) {
		t.Errorf("%d of %d came to their turn", len(seen), len(all))
	}
}
