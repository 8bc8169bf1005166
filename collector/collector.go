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
	"github.com/twwatch/twwatch/internal/netns"
	"github.com/twwatch/twwatch/internal/owner"
	"github.com/twwatch/twwatch/sysctl"
)

// Bounds of the poll interval. A TIME_WAIT lives 60 s: at most 50 s between
// passes sees each of them.
const (
	DefaultInterval  = 15 * time.Second
	MaxInterval      = 50 * time.Second
	DefaultCPUBudget = 0.02
	// MinLiveEvery is the least Config.LiveEvery: each dump walks the kernel's
	// whole table.
	MinLiveEvery = 100 * time.Millisecond
)

// Where the kubelet keeps the logs of pods, and not to look there.
const (
	DefaultPodLogs = "/var/log/pods"
	NoPodLogs      = "-"
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
	// LiveEvery, if it isn't 0, is how often live sockets are looked at between
	// passes, so that more of those which don't last get their processes known.
	// What that costs is told by each report's LiveDumps and is no part of
	// CPUBudget: an operator who asks for it means it.
	LiveEvery time.Duration
	// WithoutOwners leaves the processes of sockets out, and which connections
	// last: no descriptor of any process is looked at.
	WithoutOwners bool
	// Namespaces are those to look at beside the Collector's own.
	Namespaces Selection
	// PodLogs is the kubelet's directory of pod logs, whose names name pods; "" is
	// DefaultPodLogs, NoPodLogs none.
	PodLogs string
	// CRI is the socket of a container runtime to ask for the names of pods, and
	// for those Labels of theirs; "" asks none.
	CRI    string
	Labels []string
	// Names are what the operator calls remote addresses.
	Names []Name
	// Knowledge names services and runtimes; nil is the embedded library.
	Knowledge *advice.Library
}

// Collector looks at the network namespace of the thread which made it. It is
// for one goroutine.
type Collector struct {
	cfg       Config
	dial      func() (*inetdiag.Conn, error) // nil: to this kernel
	knowledge *advice.Library
	services  *advice.Services
	table     *flow.Table
	reservoir *reservoir    // nil: no sample
	home      *view         // the namespace of the thread that made it
	sweep     *sweep        // the others; nil: they are not looked at
	cpu       time.Duration // of the last pass
	homeCPU   time.Duration // the part of it that home took
	owners    owners
	remotes   remotes
	glances   snapshot.LiveDumps // since the last report
}

// A view is one namespace, with what a pass over it hands on to the next.
type view struct {
	id     identity
	conn   *inetdiag.Conn // nil: the next dump makes one
	files  *sysctl.Files  // nil: the next pass opens them
	memory flow.Memory
	ledger ledger.Ledger
	last   counters.Set // of the last pass
}

// Close gives the descriptors back. The view can be used again.
func (v *view) Close() error {
	var errs []error
	if v.conn != nil {
		errs = append(errs, v.conn.Close())
		v.conn = nil
	}
	if v.files != nil {
		errs = append(errs, v.files.Close())
		v.files = nil
	}
	return errors.Join(errs...)
}

// A sight is a Collector with the namespace that it looks at now.
type sight struct {
	*Collector
	*view
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
	if cfg.LiveEvery < 0 || cfg.LiveEvery > 0 && cfg.LiveEvery < MinLiveEvery {
		return nil, fmt.Errorf("collector: a dump of live sockets every %v: give at least %v, or 0 for none", cfg.LiveEvery, MinLiveEvery)
	}
	if cfg.SampleSockets < 0 || cfg.SampleSockets > snapshot.MaxSampledSockets {
		return nil, fmt.Errorf("collector: a sample of %d sockets: give at most %d", cfg.SampleSockets, snapshot.MaxSampledSockets)
	}
	library := cfg.Knowledge
	if library == nil {
		var err error
		if library, err = advice.Load(); err != nil {
			return nil, fmt.Errorf("collector: %w", err)
		}
	}
	c := &Collector{cfg: cfg, knowledge: library, services: library.Services(), table: flow.NewTable(), home: &view{}, remotes: newRemotes(cfg.Names)}
	c.owners.finder = owner.New(owner.Config{Proc: cfg.Proc})
	if cfg.SampleSockets > 0 {
		c.reservoir = newReservoir(cfg.SampleSockets, rand.Uint64(), rand.Uint64())
	}
	var err error
	if c.home.id, err = identify(cfg.Proc); err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	if cfg.Namespaces.any() {
		if c.sweep, err = newSweep(c, netns.Config{}); err != nil {
			return nil, fmt.Errorf("collector: %w", err)
		}
	}
	return c, nil
}

// Close gives the descriptors back.
func (c *Collector) Close() error {
	err := c.home.Close()
	if c.sweep != nil {
		err = errors.Join(err, c.sweep.close())
	}
	return err
}

// Reports yields a report per interval, the first at once, until ctx ends or
// the consumer stops. A pass that fails altogether yields its error, and the
// next follows after the interval.
func (c *Collector) Reports(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
	return func(yield func(*snapshot.Report, error) bool) {
		for ctx.Err() == nil {
			start := time.Now()
			r, err := c.Pass(ctx)
			if ctx.Err() != nil {
				return
			}
			interval := c.stretched()
			if r != nil {
				r.IntervalSeconds = interval.Seconds()
			}
			if !yield(r, err) || !c.wait(ctx, start.Add(interval)) {
				return
			}
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
// order of their time. Where that isn't much, the live sockets are looked at in
// the beginning too, so that it is known which of them last, and whose the
// TIME_WAIT sockets are that they leave.
func (c *Collector) Look(ctx context.Context, d time.Duration) ([]*snapshot.Report, error) {
	var window []*snapshot.Report
	if d > 0 {
		until := time.Now().Add(d)
		first, sockets := c.countersOnly(ctx)
		window = append(window, first)
		if sockets < fewSockets {
			sight{c, c.home}.glance(ctx)
		}
		if !c.wait(ctx, until) {
			return nil, fmt.Errorf("collector: look: %w", ctx.Err())
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
	return []string{stageCounters, stageLimits, stageDump, stageBound, stageCloseWait, stageNamespaces}
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
