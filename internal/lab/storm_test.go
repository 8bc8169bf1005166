//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRunLeavesExactlyItsTimeWaits(t *testing.T) {
	Require(t, "ss")
	const n = 300
	for name, c := range map[string]struct {
		storm  Storm
		mode   Mode
		tw     int
		filter string // ss's words for the end that keeps the TIME_WAIT
	}{
		"client":       {Storm{}, CloseByClient, n, "dport = :900"},
		"client holds": {Storm{Hold: 200 * time.Millisecond}, CloseByClient, n, "dport = :900"},
		"orphan":       {Storm{Orphan: true}, CloseByClient, n, "dport = :900"},
		"server":       {Storm{Closer: ServerEnd}, CloseByServer, n, "sport = :900"},
		"reset":        {Storm{Closer: Reset}, CloseByClient, 0, "dport = :900"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := NewT(t)
			must(t, ns.Sysctl("net.ipv4.tcp_tw_reuse", "0"), ns.Sysctl("net.ipv4.tcp_rfc1337", "1"))
			s := listenT(t, ns, loopback(900), ListenOptions{Mode: c.mode})
			c.storm.Remotes, c.storm.Count, c.storm.Times = one(s), n, true
			r, err := ns.Run(t.Context(), c.storm)
			must(t, err, r.FirstError, equal("opened", n, r.Opened), equal("closed", n, r.Closed))
			Eventually(t, 30*time.Second, func() error {
				out, err := ns.Command(t.Context(), "ss", "-Htan", "state", "time-wait", c.filter)
				must(t, err)
				all, err := ns.TimeWaits()
				must(t, err)
				return errors.Join(
					equal("TIME_WAITs by ss", c.tw, strings.Count(out, "\n")),
					equal("TIME_WAITs by sockstat", c.tw, all),
					equal("TcpExt TW", int64(c.tw), counter(t, ns, "TcpExt", "TW")),
					equal("accepted", n, s.Accepted()), equal("closed by the server", n, s.Closed()))
			})
			if len(r.Times) != n || !slices.IsSorted(r.Times) || r.Times[0] < c.storm.Hold || r.Times[n-1] != r.Elapsed {
				t.Errorf("closing times: %d, from %v to %v, storm took %v", len(r.Times), r.Times[0], r.Times[n-1], r.Elapsed)
			}
		})
	}
}

func TestRunServerDelay(t *testing.T) {
	ns := NewT(t)
	const after = 30 * time.Millisecond
	s := listenT(t, ns, loopback(900), ListenOptions{Mode: CloseByServer, After: after})
	r, err := ns.Run(t.Context(), Storm{Remotes: one(s), Count: 10, Closer: ServerEnd, Times: true})
	must(t, err, r.FirstError, equal("closed", 10, r.Closed))
	if r.Times[0] < after {
		t.Errorf("closed after %v, before the server's %v", r.Times[0], after)
	}
	reset := listenT(t, ns, loopback(901), ListenOptions{Mode: ResetByServer, After: after})
	r, err = ns.Run(t.Context(), Storm{Remotes: one(reset), Count: 10, Closer: ServerEnd})
	must(t, err, equal("resets", 10, r.Failed[unix.ECONNRESET]), equal("closed", 0, r.Closed))
}

// Every connection is made, none before its time; a busy machine may let them
// be late, and the result tells by how much.
func TestRunHoldsItsRate(t *testing.T) {
	t.Parallel()
	const rate, seconds = 400, 5
	ns := NewT(t)
	must(t, ns.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
	s := listenT(t, ns, loopback(900), ListenOptions{})
	r, err := ns.Run(t.Context(), Storm{Remotes: one(s), Rate: rate, Duration: seconds * time.Second, Times: true})
	must(t, err, r.FirstError, equal("closed", rate*seconds, r.Closed), equal("TW", int64(rate*seconds), counter(t, ns, "TcpExt", "TW")))
	for i, at := range r.Times {
		// The i-th to close is not the i-th to start, if that was late; but i
		// others have started before it.
		if due := time.Duration(i) * time.Second / rate; at < due {
			t.Fatalf("connection %d closed at %v and was due at %v", i, at, due)
		}
		// Late it may be, and by no more than the result says, beside the time
		// that connect() and close() take.
		if due := time.Duration(i) * time.Second / rate; at > due+r.MaxLate+time.Second {
			t.Fatalf("connection %d closed at %v, was due at %v, and the worst is said to be %v late", i, at, due, r.MaxLate)
		}
	}
}

func TestRunCountsFailuresByErrno(t *testing.T) {
	ns, dst := tight(t)
	r, err := ns.Run(t.Context(), Storm{Remotes: []netip.AddrPort{dst}, Count: 15, Closer: Reset, Hold: 300 * time.Millisecond, Rate: 1000})
	must(t, err, equal("opened", 10, r.Opened), equal("closed", 10, r.Closed),
		equal("without a port", 5, r.Failed[unix.EADDRNOTAVAIL]), equal("failed", 5, r.FailedTotal()))
	if !errors.Is(r.FirstError, unix.EADDRNOTAVAIL) || !strings.Contains(r.FirstError.Error(), "ip_local_port_range") {
		t.Errorf("first error: %v", r.FirstError)
	}
	if r.FirstFailure < 10*time.Millisecond || r.FirstFailure > 200*time.Millisecond+r.MaxLate {
		t.Errorf("the 11th of 1,000 a second failed first, at %v, the worst %v late", r.FirstFailure, r.MaxLate)
	}
	r, err = ns.Run(t.Context(), Storm{Remotes: []netip.AddrPort{loopback(999)}, Count: 3})
	must(t, err, equal("refused", 3, r.Failed[unix.ECONNREFUSED]))
	// A server that never closes: the client's wait for its end is bounded.
	r, err = ns.Run(t.Context(), Storm{Remotes: []netip.AddrPort{loopback(901)}, Count: 1, Timeout: 20 * time.Millisecond})
	must(t, err, equal("timed out", 1, r.Failed[syscall.ETIMEDOUT]))
}

func TestRunBinds(t *testing.T) {
	Require(t, "ss")
	ns := NewT(t)
	must(t, ns.Sysctl("net.ipv4.ip_local_port_range", "40000 40099"), ns.Sysctl("net.ipv4.tcp_rfc1337", "1"), ns.AddAddress(netip.MustParsePrefix("10.77.0.1/32")))
	s := listenT(t, ns, netip.MustParseAddrPort("0.0.0.0:900"), ListenOptions{})
	for name, c := range map[string]struct {
		storm  Storm
		filter string
	}{
		"address": {Storm{Local: netip.MustParseAddr("127.0.0.7")}, "src 127.0.0.7"},
		"ports":   {Storm{Local: netip.MustParseAddr("10.77.0.1"), LocalPorts: [2]uint16{50000, 50019}}, "src 10.77.0.1 and sport >= :50000 and sport <= :50019"},
		"port 0":  {Storm{Bind: BindAddrPort0}, "src 127.0.0.1 and sport >= :40000 and sport <= :40099"},
		"device":  {Storm{Device: "lo", Local: netip.MustParseAddr("127.0.0.8")}, "src 127.0.0.8"},
	} {
		c.storm.Remotes, c.storm.Count = one(s), 20
		r, err := ns.Run(t.Context(), c.storm)
		must(t, err, r.FirstError)
		out, err := ns.Command(t.Context(), "ss", "-Htan", "state", "time-wait", c.filter)
		must(t, err, equal(name, 20, strings.Count(out, "\n")))
	}
}

func TestRunSpreadsOverRemotesAndFamilies(t *testing.T) {
	Require(t, "ss")
	ns := NewT(t)
	s := listenT(t, ns, netip.MustParseAddrPort("[::]:900"), ListenOptions{DualStack: true})
	remotes := []netip.AddrPort{s.Addr(), loopback(900), netip.MustParseAddrPort("[::ffff:127.0.0.1]:900")}
	must(t, ns.Sysctl("net.ipv4.tcp_tw_reuse", "0"), ns.Sysctl("net.ipv4.tcp_rfc1337", "1"))
	r, err := ns.Run(t.Context(), Storm{Remotes: remotes, Count: 30})
	must(t, err, r.FirstError)
	for want, filter := range map[int]string{10: "dst [::1]", 20: "dst 127.0.0.1"} {
		Eventually(t, 30*time.Second, func() error {
			out, err := ns.Command(t.Context(), "ss", "-Htan", "state", "time-wait", filter)
			return errors.Join(err, equal(filter, want, strings.Count(out, "\n")))
		})
	}
}

func TestRunEnds(t *testing.T) {
	ns := NewT(t)
	s := listenT(t, ns, loopback(900), ListenOptions{})
	r, err := ns.Run(t.Context(), Storm{Remotes: one(s), Rate: 200, Duration: 250 * time.Millisecond})
	must(t, err, equal("connections of a rate for a time", 50, r.Closed))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	r, err = ns.Run(ctx, Storm{Remotes: one(s), Rate: 100, Count: 1_000_000, Hold: time.Minute})
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") || time.Since(start) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	if r.Opened == 0 || r.Closed != 0 {
		t.Errorf("opened %d, closed %d", r.Opened, r.Closed)
	}
	Eventually(t, 30*time.Second, func() error {
		states, err := ns.States()
		return errors.Join(err, equal("connections left", 0, states[1]))
	})
}

func TestRunRefusesWhatCannotWork(t *testing.T) {
	ns := NewT(t)
	to := []netip.AddrPort{loopback(900)}
	for i, s := range []Storm{
		{Count: 1},
		{Remotes: to},
		{Remotes: to, Count: 1, Rate: -1},
		{Remotes: to, Count: 1, LocalPorts: [2]uint16{50000, 50001}},
		{Remotes: to, Count: 1, Local: to[0].Addr(), LocalPorts: [2]uint16{50001, 50000}},
	} {
		if _, err := ns.Run(t.Context(), s); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// shortestTimer is the least that ss shows of the TIME_WAITs' remaining seconds.
func shortestTimer(t *testing.T, ns *Namespace) time.Duration {
	t.Helper()
	out, err := ns.Command(t.Context(), "ss", "-Htano", "state", "time-wait")
	must(t, err)
	shortest := time.Hour
	for line := range strings.Lines(out) {
		_, timer, _ := strings.Cut(line, "timer:(timewait,")
		timer, _, _ = strings.Cut(timer, ",")
		d, err := time.ParseDuration(strings.NewReplacer("min", "m", "sec", "s").Replace(timer))
		must(t, err)
		shortest = min(shortest, d)
	}
	return shortest
}

func TestFillTimeWaitAndRearm(t *testing.T) {
	Require(t, "ss")
	t.Parallel()
	const rows, remotes = 6400, 64
	ns := NewT(t)
	f, err := ns.FillTimeWait(t.Context(), Fill{Rows: rows, Remotes: remotes})
	must(t, err, equal("rows", rows, f.Rows))
	for name, want := range map[string]string{
		"net.ipv4.ip_local_port_range": "1024\t65535", "net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_rfc1337": "1",
	} {
		got, err := ns.ReadSysctl(name)
		must(t, err, equal(name, want, got))
	}
	n, err := ns.TimeWaits()
	must(t, err, equal("TIME_WAITs", rows, n), equal("TW", int64(rows), counter(t, ns, "TcpExt", "TW")))
	out, err := ns.Command(t.Context(), "ss", "-Htan", "state", "time-wait", "dport = :1000")
	must(t, err)
	byRemote := map[string]int{}
	for line := range strings.Lines(out) {
		byRemote[strings.Fields(line)[3]]++
	}
	must(t, equal("remotes", remotes, len(byRemote)))
	for i := range remotes {
		must(t, equal(fmt.Sprint("rows of remote ", i), rows/remotes, byRemote[RemoteAddr(i).String()+":1000"]))
	}
	// Untouched since then, a row can't have more than this left, as ss rounds.
	atMost := func(since time.Time) time.Duration { return 61*time.Second - time.Since(since) }
	renewed := func(since time.Time) func() error {
		return func() error {
			limit := atMost(since)
			if shortest := shortestTimer(t, ns); shortest <= limit {
				return fmt.Errorf("a row has %v left, untouched ones have at most %v", shortest, limit)
			}
			return nil
		}
	}
	made := f.Start.Add(f.Elapsed)
	Eventually(t, 30*time.Second, func() error {
		if limit := atMost(made); limit > 58*time.Second {
			return fmt.Errorf("too early to tell: %v", limit)
		}
		return nil
	})
	if renewed(made)() == nil {
		t.Fatal("the rows live longer than 60 s by themselves")
	}
	sent, err := f.Rearm(t.Context())
	must(t, err, equal("rearmed", rows, sent), renewed(made)())
	since := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	kept := make(chan error)
	go func() { kept <- f.keep(ctx, 500*time.Millisecond) }()
	Eventually(t, 30*time.Second, renewed(since))
	cancel()
	must(t, <-kept)
	n, err = ns.TimeWaits()
	must(t, err, equal("TIME_WAITs after Rearm", rows, n), equal("TW after Rearm", int64(rows), counter(t, ns, "TcpExt", "TW")))
}

func TestFillTimeWaitOneRemoteEach(t *testing.T) {
	ns := NewT(t)
	f, err := ns.FillTimeWait(t.Context(), Fill{Rows: 2000, Remotes: 2000})
	must(t, err, equal("rows", 2000, f.Rows))
	// A second fill adds to the first; all of these remotes belong to one thread.
	even := []netip.Addr{RemoteAddr(4000), RemoteAddr(4002)}
	_, err = ns.FillTimeWait(t.Context(), Fill{Rows: 100, Destinations: even, Workers: 2})
	must(t, err)
	n, err := ns.TimeWaits()
	must(t, err, equal("TIME_WAITs", 2100, n))
}

func TestFillTimeWaitRefusesAndEnds(t *testing.T) {
	ns := NewT(t)
	for i, f := range []Fill{
		{Rows: 65_000, Remotes: 1},
		{Rows: 1, Destinations: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
	} {
		if _, err := ns.FillTimeWait(t.Context(), f); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%d: %v", i, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f, err := ns.FillTimeWait(ctx, Fill{Rows: 1_000_000})
	if !errors.Is(err, context.DeadlineExceeded) || f == nil || f.Rows == 0 || f.Rows == 1_000_000 {
		t.Errorf("cancelled: %v, %+v", err, f)
	}
}

// BenchmarkFillTimeWait: how fast TIME_WAITs are made, and made young again.
func BenchmarkFillTimeWait(b *testing.B) {
	const rows = 50_000
	for _, remotes := range []int{64, rows} {
		b.Run(fmt.Sprintf("remotes=%d", remotes), func(b *testing.B) {
			var fill, rearm time.Duration
			for b.Loop() {
				ns := NewT(b)
				f, err := ns.FillTimeWait(b.Context(), Fill{Rows: rows, Remotes: remotes})
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if _, err := f.Rearm(b.Context()); err != nil {
					b.Fatal(err)
				}
				rearm += time.Since(start)
				fill += f.Elapsed
				if err := ns.Close(); err != nil {
					b.Fatal(err)
				}
			}
			total := float64(b.N) * rows
			b.ReportMetric(total/fill.Seconds(), "rows/s")
			b.ReportMetric(total/rearm.Seconds(), "rearmed/s")
		})
	}
}
