// Package collector looks at this kernel: it makes one report of one pass, or
// a report per interval.
//
// It owns the descriptors that a pass needs (one netlink socket, the open
// setting files) and what one pass hands on to the next. It judges nothing:
// a report leaves here without findings. It only reads: it never writes a
// setting and never closes a socket of anybody.
package collector

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"time"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/ledger"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// Bounds of the poll interval. A TIME_WAIT lives 60 s: at most 50 s between
// passes sees each of them.
const (
	DefaultInterval  = 15 * time.Second
	MaxInterval      = 50 * time.Second
	DefaultCPUBudget = 0.02
)

// Config says how to look. Its zero value looks at the calling thread's
// network namespace with the defaults.
type Config struct {
	// Interval is the time between the starts of two passes; 0 is
	// DefaultInterval.
	Interval time.Duration
	// CPUBudget is the share of one core that passes may use on average; the
	// interval is stretched to keep it, up to MaxInterval. 0 is
	// DefaultCPUBudget, 1 and more is no limit.
	CPUBudget float64
	// Version is this program's, for the report.
	Version string
	// Proc is where procfs is mounted; "" is /proc.
	Proc string
	// ForceProc reads /proc/net/tcp although sock_diag may be there.
	ForceProc bool
	// SampleSockets is how many 4-tuples each report holds, chosen at random;
	// at most snapshot.MaxSampledSockets, 0 is none.
	SampleSockets int
}

// Collector looks at one network namespace: that of the thread which made it.
// It is for one goroutine.
type Collector struct {
	cfg       Config
	self      identity
	dial      func() (*inetdiag.Conn, error) // nil: to this kernel
	conn      *inetdiag.Conn
	files     *sysctl.Files
	services  *advice.Services
	table     *flow.Table
	reservoir *reservoir // nil: no sample
	memory    flow.Memory
	ledger    ledger.Ledger
	last      counters.Set  // of the last pass
	cpu       time.Duration // of the last pass
}

// New makes a Collector for the namespace of the calling thread, which has to
// stay in it. The error is for what makes every pass impossible; lesser
// troubles are gaps of a report.
func New(cfg Config) (*Collector, error) {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.CPUBudget == 0 {
		cfg.CPUBudget = DefaultCPUBudget
	}
	if cfg.Interval < 0 || cfg.Interval > MaxInterval {
		return nil, fmt.Errorf("collector: interval %v: give more than 0 and at most %v, or TIME_WAIT sockets pass unseen",
			cfg.Interval, MaxInterval)
	}
	if cfg.SampleSockets < 0 || cfg.SampleSockets > snapshot.MaxSampledSockets {
		return nil, fmt.Errorf("collector: a sample of %d sockets: give at most %d", cfg.SampleSockets, snapshot.MaxSampledSockets)
	}
	services, err := advice.LoadServices()
	if err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	c := &Collector{cfg: cfg, services: services, table: flow.NewTable()}
	if cfg.SampleSockets > 0 {
		c.reservoir = newReservoir(cfg.SampleSockets, rand.Uint64(), rand.Uint64())
	}
	if c.self, err = identify(cfg.Proc); err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	return c, nil
}

// Close gives the descriptors back.
func (c *Collector) Close() error {
	var errs []error
	if c.conn != nil {
		errs = append(errs, c.conn.Close())
		c.conn = nil
	}
	if c.files != nil {
		errs = append(errs, c.files.Close())
		c.files = nil
	}
	return errors.Join(errs...)
}

// Reports yields a report per interval, the first at once, until ctx ends or
// the consumer stops. A pass that fails altogether yields its error, and the
// next follows after the interval.
func (c *Collector) Reports(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
	return func(yield func(*snapshot.Report, error) bool) {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			start := time.Now()
			r, err := c.Pass(ctx)
			if ctx.Err() != nil {
				return
			}
			interval := c.stretched()
			if r != nil {
				r.IntervalSeconds = interval.Seconds()
			}
			if !yield(r, err) {
				return
			}
			timer.Reset(max(0, interval-time.Since(start)))
		}
	}
}

// stretched is the interval that keeps the CPU budget after a pass like the
// last one.
func (c *Collector) stretched() time.Duration {
	interval := c.cfg.Interval
	if c.cfg.CPUBudget < 1 {
		// Compared as numbers: a tiny budget's interval overflows a Duration.
		interval = time.Duration(max(float64(interval), min(float64(c.cpu)/c.cfg.CPUBudget, float64(MaxInterval))))
	}
	return min(interval, MaxInterval)
}

// Look gives the window for one judgement: with d > 0 the counters now and a
// full pass d later, with d = 0 a full pass alone. The reports are in the
// order of their time.
func (c *Collector) Look(ctx context.Context, d time.Duration) ([]*snapshot.Report, error) {
	var window []*snapshot.Report
	if d > 0 {
		window = append(window, c.countersOnly())
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("collector: look: %w", ctx.Err())
		case <-timer.C:
		}
	}
	r, err := c.Pass(ctx)
	if err != nil {
		return nil, err
	}
	return append(window, r), nil
}

// Stages are the names that the gaps of a report can bear: what can fail by
// itself.
func Stages() []string {
	return []string{stageCounters, stageLimits, stageDump, stageBound, stageCloseWait}
}

// netDir is the calling thread's own: /proc/self would be the main thread's.
func (c *Collector) netDir() string { return c.cfg.Proc + "/thread-self/net" }

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
