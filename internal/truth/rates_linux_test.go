package truth

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// Bursts of known size land in the second of the timeline in which they were
// closed, and the sum is exact.
func TestTimelineBursts(t *testing.T) {
	b := newBench(t, "net.ipv4.ip_local_port_range", "20000 60999")
	b.serve(server)
	type burst struct {
		size     int
		from, to time.Time // within which it was closed
	}
	var bursts []burst
	for i, size := range []int{150, 40, 310, 25} {
		// Apart by 1.7 s, so that they fall on different places of a second.
		if i > 0 {
			at := bursts[i-1].from.Add(1700 * time.Millisecond)
			lab.Eventually(t, 30*time.Second, func() error {
				if time.Now().Before(at) {
					return fmt.Errorf("burst %d is due at %v", i, at)
				}
				return nil
			})
		}
		from := time.Now()
		b.churn(size, lab.Storm{Remotes: remotes(server)})
		bursts = append(bursts, burst{size, from, time.Now()})
	}
	// What a pass reads late may seem to have been closed after it began; the
	// next pass holds it.
	var r *snapshot.Report
	lab.Eventually(t, 30*time.Second, func() error {
		r = reportFor(t, b.ns, 0)
		sum := 0
		for _, v := range r.Namespaces[0].TimeWait.OpenedPerSecond {
			sum += int(v)
		}
		if sum != 525 {
			return fmt.Errorf("the timeline holds %d closes, want 525", sum)
		}
		return nil
	})
	n := r.Namespaces[0]
	tick := lateness(r)
	for _, burst := range bursts {
		first := 59 - int(n.SampledAt.Sub(burst.from.Add(-tick)).Seconds())
		last := 59 - int(n.SampledAt.Sub(burst.to.Add(tick)).Seconds())
		got := 0
		for i := first; i <= min(last, 59); i++ {
			got += int(n.TimeWait.OpenedPerSecond[i])
		}
		if got != burst.size {
			t.Errorf("seconds %d to %d hold %d closes, want %d: %v", first, last, got, burst.size, n.TimeWait.OpenedPerSecond)
		}
	}
}

// lateness is by how much an age may be wrong: the kernel's timers tick every
// 4 to 10 ms, and a busy machine may keep a pass waiting between a datagram's
// filling and the reading of the clock, within the time that the pass took.
func lateness(r *snapshot.Report) time.Duration {
	return 10*time.Millisecond + time.Duration(r.TookSeconds*float64(time.Second))
}

// A steady load on loopback under tcp_tw_reuse=2, the kernel's default,
// recycles its own sockets: rows/60 reads half of 400/s and a sixth of
// 1,500/s. No rate shown may be wrong, from the first seconds to beyond the
// minute.
func TestSteadyRatesUnderReuse(t *testing.T) {
	for _, perSecond := range []float64{400, 1500} {
		t.Run(fmt.Sprint(perSecond), func(t *testing.T) {
			t.Parallel()
			ns := lab.NewT(t)
			sysctls(t, ns, "net.ipv4.tcp_tw_reuse", "2", "net.ipv4.ip_local_port_range", "32768 60999")
			must[*lab.Server](t)(ns.Listen(addrPort(server), lab.ListenOptions{}))
			const whole = 75 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), whole+30*time.Second)
			defer cancel()
			done := make(chan lab.Result, 1)
			go func() {
				res, _ := ns.Run(ctx, lab.Storm{
					Remotes: []netip.AddrPort{addrPort(server)}, Rate: perSecond, Duration: whole, Times: true,
				})
				done <- res
			}()
			looks := looksDuring(t, ns, 5*time.Second, done)
			if len(looks) < 14 {
				t.Fatalf("%d looks in 75 s", len(looks))
			}
			res := <-done
			if res.FirstError != nil || float64(res.Closed) < 0.99*perSecond*whole.Seconds() {
				t.Fatalf("the load itself was not steady: %d closed, %v", res.Closed, res.FirstError)
			}
			for _, r := range looks {
				checkRates(t, r, &res, snapshot.Client)
			}
		})
	}
}

// looksDuring looks at every interval while the storm runs, as the daemon does.
func looksDuring(t *testing.T, ns *lab.Namespace, interval time.Duration, done chan lab.Result) []*snapshot.Report {
	t.Helper()
	var looks []*snapshot.Report
	err := ns.Do(func() error {
		c, err := collector.New(collector.Config{Interval: interval, CPUBudget: 1})
		if err != nil {
			return err
		}
		defer c.Close()
		for r, err := range c.Reports(t.Context()) {
			if err != nil {
				return err
			}
			if len(done) > 0 {
				return nil
			}
			looks = append(looks, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return looks
}

// checkRates holds every rate of a report against the storm's own record.
func checkRates(t *testing.T, r *snapshot.Report, res *lab.Result, side snapshot.Side) {
	t.Helper()
	n := r.Namespaces[0]
	since := n.SampledAt.Sub(res.Start)
	closedIn := func(from, to time.Duration) float64 {
		count := 0
		for _, at := range res.Times {
			if at > from && at <= to {
				count++
			}
		}
		return float64(count)
	}
	f := flow(n, side, "127.0.0.1", 1000)
	if f == nil {
		if since > 2*time.Second {
			t.Errorf("at %v: the flow is missing", since)
		}
		return
	}
	if since < time.Second {
		return // nothing may have closed yet
	}
	if !f.SurvivorsOnly || !n.TimeWait.OpenedPerSecondFloor {
		t.Errorf("at %v: survivors_only %v, floor %v", since, f.SurvivorsOnly, n.TimeWait.OpenedPerSecondFloor)
	}
	if f.CloseRate == nil {
		t.Fatalf("at %v: no rate", since)
	}
	window := time.Duration(f.CloseRateSeconds * float64(time.Second))
	if window <= 0 {
		t.Errorf("at %v: the rate is the mean of %v", since, window)
		return
	}
	// The storm notes a close when the call returns: what lies within slack of
	// the window's edges may fall on either side. Of a window that began before
	// the storm, the closes that happened count.
	const slack = 25 * time.Millisecond
	between := func(name string, got float64, window time.Duration, atLeast bool) {
		t.Helper()
		// A pass that was kept waiting sees both edges that much earlier.
		low, high := math.Inf(1), 0.0
		for kept := time.Duration(0); kept.Seconds() <= r.TookSeconds; kept += 5 * time.Millisecond {
			low = min(low, closedIn(since-kept-window+slack, since-kept-slack)/window.Seconds())
			high = max(high, closedIn(since-kept-window-slack, since-kept+slack)/window.Seconds())
		}
		if got < low && !atLeast || got > high {
			t.Errorf("at %v, in a pass of %v s: %s %v over %v, true between %v and %v", since, r.TookSeconds, name, got, window, low, high)
		}
	}
	between("the flow's rate", *f.CloseRate, window, f.CloseRateAtLeast)
	if w := n.TimeWait; w.CloseRateBy == "counter" {
		between("the namespace's rate by "+w.CloseRateBy, *w.CloseRate, time.Duration(n.CoveredSeconds*float64(time.Second)), false)
	}
}

// A client that comes back to the same port takes the server's TIME_WAIT over,
// and no counter tells. What the server's rows show is then a lower bound, and
// called one; the namespace's rate is right.
func TestServerRateWhenReopened(t *testing.T) {
	b := newBench(t) // 200 ports: each comes again after 2 to 4 s
	must[*lab.Server](t)(b.ns.Listen(addrPort(server), lab.ListenOptions{Mode: lab.CloseByServer}))
	done := make(chan lab.Result, 1)
	go func() {
		res, _ := b.ns.Run(t.Context(), lab.Storm{
			Remotes: remotes(server), Closer: lab.ServerEnd, Rate: 50, Duration: 20 * time.Second, Times: true,
		})
		done <- res
	}()
	looks := looksDuring(t, b.ns, 3*time.Second, done)
	res := <-done
	if res.FirstError != nil || res.Closed < 990 {
		t.Fatalf("the load itself was not steady: %d closed, %v", res.Closed, res.FirstError)
	}
	judged := 0
	for _, r := range looks {
		if since := r.Namespaces[0].SampledAt.Sub(res.Start); since > 8*time.Second { // every port has come again
			judged++
			checkRates(t, r, &res, snapshot.Server)
			if f := flow(r.Namespaces[0], snapshot.Server, "127.0.0.1", 1000); !f.CloseRateAtLeast || *f.CloseRate < 25 {
				t.Errorf("at %v: rate %v, at least %v, true 50", since, *f.CloseRate, f.CloseRateAtLeast)
			}
			if by := r.Namespaces[0].TimeWait.CloseRateBy; by != "counter" {
				t.Errorf("at %v: the namespace's rate is by %s", since, by)
			}
		}
	}
	if judged < 3 {
		t.Fatalf("%d looks at a steady load", judged)
	}
}
