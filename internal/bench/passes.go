//go:build linux

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// serveMemoryLimit is what `twwatch serve` sets, so that its garbage
// collector's work is part of a pass here too.
const serveMemoryLimit = 40 << 20

// countedPasses is how many passes have their allocations counted.
const countedPasses = 3

// passes is what the process that measures passes found. All times are CPU
// time of that whole process in nanoseconds, index by index of one turn.
type passes struct {
	FloorNS []int64  // Conn.Drain
	PassNS  []int64  // Collector.Pass on a Collector that is kept
	BoundNS []int64  // the walk for bound, unconnected sockets, by itself
	BindsNS []int64  // the walk for connections bound before, by itself
	Mallocs []uint64 // of single passes, outside the turns
	Flows   int      // of the last report
	// BoundSeen: the measured passes included the walk for bound, unconnected
	// sockets (no table here holds live connections, so the other one is never
	// needed).
	BoundSeen bool
	// TimeWait is the fewest and the most TIME_WAITs to the table's port that a
	// pass reported.
	TimeWait [2]int
}

// passesMain is the process that measures passes: it runs in the namespace and
// holds nothing but a collector as serve keeps it. It stops early after the
// given time, since the rows don't live long.
func passesMain(ctx context.Context, args []string, out io.Writer) error {
	start := time.Now()
	flags := flag.NewFlagSet("passes", flag.ContinueOnError)
	pairs := flags.Int("pairs", 41, "turns")
	walks := flags.Int("walks", 41, "turns that measure the walks for bound sockets too")
	limit := flags.Duration("limit", 40*time.Second, "begin nothing after this time")
	profile := flags.String("cpuprofile", "", "write a profile of the turns to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	debug.SetMemoryLimit(serveMemoryLimit)
	runtime.LockOSThread()
	m, err := newMeter()
	if err != nil {
		return err
	}
	defer m.close()
	for range 2 { // the second pass knows the first one's flows
		if err := m.pass(ctx); err != nil {
			return err
		}
	}
	if *profile != "" {
		stop, err := startProfile(*profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	for i := 0; i < *pairs && time.Since(start) < *limit; i++ {
		if err := m.turn(ctx, i < *walks); err != nil {
			return err
		}
	}
	for i := 0; i < countedPasses && time.Since(start) < *limit; i++ {
		if err := m.countMallocs(ctx); err != nil {
			return err
		}
	}
	return json.NewEncoder(out).Encode(m.found)
}

func startProfile(path string) (stop func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// meter measures one table. The last two reports are kept, as serve keeps them.
type meter struct {
	conn      *inetdiag.Conn
	collector *collector.Collector
	window    [2]*snapshot.Report
	found     passes
}

func newMeter() (*meter, error) {
	conn, err := inetdiag.Dial(nil)
	if err != nil {
		return nil, err
	}
	c, err := collector.New(collector.Config{CPUBudget: 1})
	if err != nil {
		return nil, err
	}
	m := &meter{conn: conn, collector: c}
	m.found.TimeWait[0] = 1 << 30
	return m, nil
}

func (m *meter) close() {
	_ = m.conn.Close()
	_ = m.collector.Close()
}

// turn measures everything once, one after the other.
func (m *meter) turn(ctx context.Context, walks bool) error {
	t0 := processCPU()
	if _, _, err := m.conn.Drain(ctx, inetdiag.Query{}); err != nil {
		return err
	}
	t1 := processCPU()
	if err := m.pass(ctx); err != nil {
		return err
	}
	t2 := processCPU()
	if walks {
		if err := m.walk(ctx, boundSockets()); err != nil {
			return err
		}
		t3 := processCPU()
		if err := m.walk(ctx, explicitBinds()); err != nil {
			return err
		}
		m.found.BoundNS = append(m.found.BoundNS, t3-t2)
		m.found.BindsNS = append(m.found.BindsNS, processCPU()-t3)
	}
	m.found.FloorNS = append(m.found.FloorNS, t1-t0)
	m.found.PassNS = append(m.found.PassNS, t2-t1)
	return nil
}

func (m *meter) pass(ctx context.Context) error {
	r, err := m.collector.Pass(ctx)
	if err != nil {
		return err
	}
	for _, gap := range r.Incomplete {
		return fmt.Errorf("a pass was incomplete: %s: %s", gap.Stage, gap.Error)
	}
	m.window = [2]*snapshot.Report{m.window[1], r}
	n := r.Namespaces[0]
	m.found.Flows = len(n.Flows)
	m.found.BoundSeen = n.Ports != nil && n.Ports.BoundSeen
	m.found.TimeWait[0] = min(m.found.TimeWait[0], int(n.States.TimeWait))
	m.found.TimeWait[1] = max(m.found.TimeWait[1], int(n.States.TimeWait))
	return nil
}

// boundSockets and explicitBinds are what a pass asks when it looks for sockets
// that block their port for every destination.
func boundSockets() inetdiag.Query {
	return inetdiag.Query{States: inetdiag.StatesOf(inetdiag.BoundInactive)}
}

func explicitBinds() inetdiag.Query {
	return inetdiag.Query{
		States: inetdiag.AllStates &^ inetdiag.StatesOf(inetdiag.TimeWait, inetdiag.Listen),
		Filter: inetdiag.ExplicitBind(),
	}
}

func (m *meter) walk(ctx context.Context, q inetdiag.Query) error {
	for _, err := range m.conn.Sockets(ctx, q) {
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *meter) countMallocs(ctx context.Context) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := m.pass(ctx); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	m.found.Mallocs = append(m.found.Mallocs, after.Mallocs-before.Mallocs)
	return nil
}
