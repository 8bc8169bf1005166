package exporter

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors/version"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Defaults of Config.
const (
	DefaultFlows     = 20
	DefaultMaxNew    = 50
	DefaultStay      = 10 * time.Minute
	DefaultMaxSeries = 500
)

// Config bounds what is exported. Its zero value is the default.
type Config struct {
	// Flows is how many client flows, and how many server flows, have series
	// at once; 0 is DefaultFlows, below 0 is none.
	Flows int
	// ServerRemotes gives server flows a remote label, and each remote its
	// own series. By default a server flow sums its remotes.
	ServerRemotes bool
	// Info exports findings of severity info too.
	Info bool
	// MaxNew is how many new label sets of flows may be made in any hour; 0
	// is DefaultMaxNew.
	MaxNew int
	// Stay is how long a flow has series at least; 0 is DefaultStay.
	Stay time.Duration
	// MaxSeries bounds the series of one namespace's host; each further
	// namespace may add four. 0 is DefaultMaxSeries, or what Flows needs if
	// that is more.
	MaxSeries int
	// Errors returns the errors so far by stage; nil if nobody counts them.
	Errors func() map[string]uint64
	// Now is the clock that ages at a scrape are told by; nil is time.Now.
	Now func() time.Time
}

// reserved is the part of MaxSeries that flows can't have: what the host has
// anyway, findings, errors, and room for the process's own metrics.
const reserved = 200

func (c Config) withDefaults() Config {
	if c.Flows == 0 {
		c.Flows = DefaultFlows
	}
	c.Flows = max(c.Flows, 0)
	if c.MaxNew == 0 {
		c.MaxNew = DefaultMaxNew
	}
	if c.Stay == 0 {
		c.Stay = DefaultStay
	}
	if c.MaxSeries == 0 {
		c.MaxSeries = max(DefaultMaxSeries, reserved+c.Flows*(clientSeries+serverSeries))
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// An Exporter is a prometheus.Collector of the newest frame observed. Its
// methods are safe for concurrent use.
type Exporter struct {
	cfg      Config
	families *families
	build    prometheus.Collector
	view     atomic.Pointer[view]

	mu      sync.Mutex // of what Observe remembers
	clock   time.Duration
	last    *snapshot.Report
	clients *table
	servers *table
	admit   admission
	omitted map[nsKey]*omittedBirths
	known   protocols
	holders processes
}

// omittedBirths is one namespace's counter of births that no flow counts.
type omittedBirths struct {
	total uint64
	seen  time.Duration
}

// New makes an Exporter, to be registered with a prometheus.Registry.
func New(cfg Config) *Exporter {
	cfg = cfg.withDefaults()
	return &Exporter{
		cfg: cfg, families: newFamilies(), build: version.NewCollector("twwatch"),
		clients: newTable(snapshot.Client, cfg.Flows, clientSeries),
		servers: newTable(snapshot.Server, cfg.Flows, serverSeries),
		admit:   admission{perHour: cfg.MaxNew},
		omitted: make(map[nsKey]*omittedBirths),
		known:   newProtocols(),
		holders: processes{shown: make(map[string]*holder)},
	}
}

// Observe takes the next frame. It is to be called with every frame, once and
// in order, since counters grow by it. The frame isn't written to.
func (e *Exporter) Observe(r *snapshot.Report) {
	if r == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tick(r)
	scenes := survey(r, e.cfg.ServerRemotes)
	e.choose(scenes)
	e.count(scenes)
	e.holders.observe(e.clock, scenes)
	e.view.Store(e.render(r, scenes))
}

// tick moves the clock on by the time between two frames: by their uptime,
// which no step of the wall clock disturbs, where both have one of one boot.
func (e *Exporter) tick(r *snapshot.Report) {
	if l := e.last; l != nil {
		d := r.Time.Sub(l.Time)
		if r.Uptime > 0 && l.Uptime > 0 && r.BootID == l.BootID {
			d = seconds(r.Uptime - l.Uptime)
		}
		e.clock += max(0, d)
	}
	// Only the times are needed of the last frame, not what hangs on it.
	e.last = &snapshot.Report{Time: r.Time, Uptime: r.Uptime, BootID: r.BootID}
}

func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), 1e9) * float64(time.Second))
}

// choose decides which flows are exported from now on.
func (e *Exporter) choose(scenes []*scene) {
	byID := make(map[nsKey]*scene, len(scenes))
	for _, s := range scenes {
		byID[s.id] = s
	}
	sums := func(k flowKey) *flowSum {
		if s := byID[k.ns]; s != nil {
			return s.flows[k]
		}
		return nil
	}
	e.admit.series = max(0, e.cfg.MaxSeries-reserved)
	e.admit.flows = make(map[nsKey]int)
	if len(scenes) > 0 {
		e.admit.full = scenes[0].id
	}
	tables := []*table{e.clients, e.servers}
	for _, t := range tables {
		t.find(e.clock, sums)
		for _, tr := range t.shown {
			e.admit.book(tr.key.ns, t.cost)
		}
	}
	for _, t := range tables {
		t.update(e.clock, e.cfg.Stay, ranked(scenes, t.side, t.limit), &e.admit)
	}
}

// count gives each birth of this frame to one counter.
func (e *Exporter) count(scenes []*scene) {
	credited := make(map[nsKey]uint64)
	e.clients.credit(credited)
	e.servers.credit(credited)
	for _, s := range scenes {
		e.known.count(s)
		o := e.omitted[s.id]
		if o == nil {
			o = &omittedBirths{}
			e.omitted[s.id] = o
		}
		o.seen = e.clock
		if all, flows := s.ns.TimeWait.Births, credited[s.id]; all > flows {
			o.total += all - flows
		}
	}
	for id, o := range e.omitted {
		if e.clock-o.seen >= forgotten {
			delete(e.omitted, id)
		}
	}
}

// Describe implements prometheus.Collector.
func (e *Exporter) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range e.families.all {
		ch <- f.desc
	}
	e.build.Describe(ch)
}

// Collect implements prometheus.Collector: it hands out the newest frame's
// metrics, and what is only known at the scrape: ages and errors.
func (e *Exporter) Collect(ch chan<- prometheus.Metric) {
	e.build.Collect(ch)
	e.collectErrors(ch)
	v := e.view.Load()
	if v == nil {
		return
	}
	for _, m := range v.metrics {
		ch <- m
	}
	now := e.cfg.Now()
	for _, s := range v.sampled {
		age := max(0, now.Sub(s.at))
		if age < s.least {
			continue
		}
		if m, err := prometheus.NewConstMetric(e.families.dumpAge.desc, prometheus.GaugeValue, age.Seconds(), s.label); err == nil {
			ch <- m
		}
	}
}

func (e *Exporter) collectErrors(ch chan<- prometheus.Metric) {
	if e.cfg.Errors == nil {
		return
	}
	const maxStages = 20
	counts := make(map[string]uint64) // two stages may have one label
	for stage, n := range e.cfg.Errors() {
		counts[clean(stage)] += n
	}
	stages := make([]string, 0, len(counts))
	for stage := range counts {
		stages = append(stages, stage)
	}
	slices.Sort(stages)
	for _, stage := range stages[:min(len(stages), maxStages)] {
		if m, err := prometheus.NewConstMetric(e.families.errors.desc, prometheus.CounterValue, float64(counts[stage]), stage); err == nil {
			ch <- m
		}
	}
}

func usable(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
