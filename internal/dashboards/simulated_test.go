package dashboards

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/internal/exporter"
	"github.com/twwatch/twwatch/sysctl"
)

// A trouble is what a simulated host suffers from, and the alerts that it raises.
type trouble struct {
	name   string
	raises []raised
	of     func(h *simulated, r *snapshot.Report)
}

type raised struct{ alert, netns string }

// onHost are alerts about the host's own namespace.
func onHost(alerts ...string) []raised {
	var all []raised
	for _, a := range alerts {
		all = append(all, raised{a, "host"})
	}
	return all
}

// troubles are one for each alert, and hosts that have none.
func troubles() []trouble {
	host := func(r *snapshot.Report) *snapshot.Namespace { return r.Namespaces[0] }
	return []trouble{
		{name: "quiet", of: func(*simulated, *snapshot.Report) {}},
		{name: "web", of: func(h *simulated, r *snapshot.Report) { h.serve(host(r), 4) }},
		{name: "node", of: func(h *simulated, r *snapshot.Report) { h.pods(r, 30, 0.2) }},
		{name: "client", of: func(h *simulated, r *snapshot.Report) { h.connect(host(r), 12, 0.3, 0.3) }},

		{"slow", onHost("TwwatchEphemeralPortsSlow"), func(h *simulated, r *snapshot.Report) {
			h.connect(host(r), 3, 0.6, 0.6)
			h.find(r, "ephemeral-ports-slow", snapshot.Warning, 6379, "redis")
		}},
		{"slow pod", []raised{{"TwwatchEphemeralPortsSlow", "shop/pod-3"}}, func(h *simulated, r *snapshot.Report) { h.pods(r, 20, 0.6) }},
		{"demand", onHost("TwwatchEphemeralPortDemandHigh"), func(h *simulated, r *snapshot.Report) { h.connect(host(r), 3, 0.45, 0.8) }},
		{"running out", onHost("TwwatchEphemeralPortsSlow", "TwwatchEphemeralPortDemandHigh", "TwwatchEphemeralPortsRunningOut"), func(h *simulated, r *snapshot.Report) {
			h.connect(host(r), 5, 0.97, 1.4)
			h.find(r, "ephemeral-ports-running-out", snapshot.Critical, 6379, "redis")
		}},
		{"buckets", onHost("TwwatchTimeWaitBucketsNearLimit"), func(_ *simulated, r *snapshot.Report) {
			host(r).TimeWait.BucketsUsed = 15_000
		}},
		{"overflow", onHost("TwwatchTimeWaitBucketsNearLimit", "TwwatchTimeWaitBucketsOverflow"), func(h *simulated, r *snapshot.Report) {
			host(r).TimeWait.BucketsUsed = 16_384
			host(r).Counters["TCPTimeWaitOverflow"] = uint64(50 * h.passes)
		}},
		{"short", onHost("TwwatchShortConnections"), func(h *simulated, r *snapshot.Report) {
			h.connect(host(r), 4, 0.3, 0.3)
			h.find(r, "short-connections-client", snapshot.Warning, 6379, "redis")
		}},
		{"leak", onHost("TwwatchCloseWaitLeak"), func(h *simulated, r *snapshot.Report) {
			h.closeWait(host(r), 20+2*h.passes, 30*(h.passes/20)+200, 10_000)
		}},
		{"files", onHost("TwwatchCloseWaitNearFileLimit"), func(h *simulated, r *snapshot.Report) {
			h.closeWait(host(r), 60, 930, 1024)
		}},
		{"accept queue", onHost("TwwatchFindingCritical"), func(h *simulated, r *snapshot.Report) {
			host(r).Counters["ListenOverflows"] = uint64(7 * h.passes)
			h.find(r, "accept-queue-overflow", snapshot.Critical, 443, "https")
		}},
		{"flood", onHost("TwwatchFindingWarning"), func(h *simulated, r *snapshot.Report) {
			host(r).Counters["SyncookiesSent"] = uint64(100 * h.passes)
			h.find(r, "half-open-flood", snapshot.Warning, 443, "")
		}},
		{name: "stale", raises: []raised{{alert: "TwwatchStale"}}},
		{name: "never looked", raises: []raised{{alert: "TwwatchStale"}}},
		{"errors", []raised{{alert: "TwwatchCollectErrors"}}, func(_ *simulated, r *snapshot.Report) {
			r.Incomplete = append(r.Incomplete, snapshot.Gap{Stage: "limits", Error: "not permitted"})
		}},
		{name: "down", raises: []raised{{alert: "TwwatchDown"}}},
	}
}

// A simulated host has reports that no kernel made, and metrics that the real
// exporter makes of them.
type simulated struct {
	trouble
	index int
	load  float64 // sizes differ by host

	mu       sync.Mutex
	exporter *exporter.Exporter
	registry *prometheus.Registry
	interval time.Duration // of passes
	due      time.Time     // the next pass
	clock    time.Time     // as of the newest scrape
	passes   int
	opened   uint64
}

// simulate makes n hosts whose passes begin at a time: one of each trouble, and
// then the well and the ill as they are among many.
func simulate(n int, begin time.Time, interval time.Duration) []*simulated {
	all := troubles()
	hosts := make([]*simulated, n)
	for i := range hosts {
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		kind := all[i%len(all)]
		if i >= len(all) {
			kind = all[rng.IntN(4)]
			if rng.IntN(20) == 0 { // one in twenty has something
				kind = all[4+rng.IntN(len(all)-4)]
			}
		}
		h := &simulated{trouble: kind, index: i, load: 0.5 + rng.Float64(), interval: interval, due: begin}
		h.exporter = exporter.New(exporter.Config{Now: func() time.Time { return h.clock }, Errors: h.errors})
		h.registry = prometheus.NewRegistry()
		h.registry.MustRegister(h.exporter)
		hosts[i] = h
	}
	return hosts
}

func (h *simulated) errors() map[string]uint64 {
	m := map[string]uint64{"counters": 0, "limits": 0, "dump": 0, "bound": 0, "close_wait_age": 0, "source": 0}
	if h.name == "errors" {
		m["limits"] = uint64(h.passes)
	}
	return m
}

// up tells whether the host answers scrapes; looks, whether it has passes.
func (h *simulated) up() bool    { return h.name != "down" }
func (h *simulated) looks() bool { return h.up() && h.name != "never looked" }

// scrape gives the host's metrics, after the passes that are due.
func (h *simulated) scrape(now time.Time) ([]*dto.MetricFamily, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ; !h.due.After(now); h.due = h.due.Add(h.interval) {
		h.passes++
		if h.name != "never looked" && (h.name != "stale" || h.passes <= 5) {
			h.exporter.Observe(h.report(h.due))
		}
	}
	h.clock = now
	return h.registry.Gather()
}

func (h *simulated) report(now time.Time) *snapshot.Report {
	ns := h.namespace("host", "host", now)
	r := &snapshot.Report{
		Time: now, TookSeconds: 0.01 * h.load, IntervalSeconds: h.interval.Seconds(), Namespaces: []*snapshot.Namespace{ns},
		HostLimits: &sysctl.HostLimits{NFConntrackMax: new(262_144)},
	}
	h.connect(ns, 3, 0.02, 0.02)
	h.serve(ns, 2)
	if h.of != nil {
		h.of(h, r)
	}
	h.opened += uint64(300 * h.load)
	ns.Counters["TW"] = h.opened
	return r
}

func (h *simulated) namespace(kind, name string, now time.Time) *snapshot.Namespace {
	return &snapshot.Namespace{
		Name: name, Kind: kind, Inode: uint64(4_026_531_840 + len(name)), Source: "inet_diag", SampledAt: now,
		Counters: counters.Set{"TW": 0, "TCPTimeWaitOverflow": 0, "ListenOverflows": 0, "ListenDrops": 0, "SyncookiesSent": 0},
		Ports:    &snapshot.PortPool{Range: 28_232, BoundSeen: true}, TimeWait: snapshot.TimeWait{BucketsLimit: new(16_384)},
		Conntrack: &counters.Conntrack{Entries: new(uint64(1000 * h.load))},
		States:    snapshot.States{Listen: 12},
	}
}

// services are what clients connect to, by port.
func services() []snapshot.Flow {
	return []snapshot.Flow{
		{Port: 6379, Service: "redis"},
		{Port: 3306, Service: "mysql"},
		{Port: 5432, Service: "postgresql"},
		{Port: 11211, Service: "memcached"},
		{Port: 443, Service: "https"},
		{Port: 80, Service: "http"},
		{Port: 9092, Service: "kafka"},
		{Port: 4242},
	}
}

// connect adds client flows, the first with this share of its ports in use and
// a rate that will need that share; the others are smaller.
func (h *simulated) connect(ns *snapshot.Namespace, flows int, used, demand float64) {
	all := services()
	for i := range flows {
		part := 1 / float64(i+1)
		f := all[i%len(all)]
		ports := ns.Ports.Range
		n := int(used * part * float64(ports))
		rate := demand * part * float64(ports) / 60
		f.Side, f.Local, f.Remote = snapshot.Client, "10.0.0.5", fmt.Sprintf("10.%d.%d.%d", 1+h.index/250, h.index%250, 1+i)
		f.States = snapshot.States{TimeWait: uint32(n), Established: uint32(3 * h.load)}
		f.Ports = &snapshot.Ports{Range: ports, Used: n, Free: ports - n}
		f.CloseRate, f.Births = &rate, uint64(rate*h.interval.Seconds())
		add(ns, f)
	}
}

// serve adds server flows of a few remotes each.
func (h *simulated) serve(ns *snapshot.Namespace, ports int) {
	for i := range ports {
		for j := range 5 {
			add(ns, snapshot.Flow{
				Side: snapshot.Server, Local: "10.0.0.5", Remote: fmt.Sprintf("192.0.2.%d", 1+j), Port: uint16(8080 + i), Service: "http",
				States: snapshot.States{TimeWait: uint32(40 * h.load), Established: uint32(10 * h.load)}, Births: uint64(10 * h.load),
			})
		}
	}
}

func add(ns *snapshot.Namespace, f snapshot.Flow) {
	ns.Flows = append(ns.Flows, f)
	ns.States.TimeWait += f.States.TimeWait
	ns.States.Established += f.States.Established
	ns.States.CloseWait += f.States.CloseWait
	ns.TimeWait.Births += f.Births
	ns.TimeWait.BucketsUsed = min(int(ns.States.TimeWait), 13_000)
}

// pods adds further namespaces; one of them uses its ports.
func (h *simulated) pods(r *snapshot.Report, n int, used float64) {
	for i := range n {
		ns := h.namespace("pod", fmt.Sprintf("shop/pod-%d", i), r.Time)
		ns.Inode += uint64(1000 + i)
		if i%3 == 0 {
			u := 0.01
			if i == 3 {
				u = used
			}
			h.connect(ns, 2, u, u)
		}
		r.Namespaces = append(r.Namespaces, ns)
	}
}

// closeWait adds sockets whose end was read, of a process with so many
// descriptors open.
func (h *simulated) closeWait(ns *snapshot.Namespace, sockets, open, limit int) {
	f := snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.5", Remote: "192.0.2.9", Port: 8080, States: snapshot.States{CloseWait: uint32(sockets)}}
	f.CloseWait = snapshot.CloseWaitCount{Sockets: uint32(sockets), EOFRead: uint32(sockets), OldestSeconds: new(float64(15 * h.passes))}
	ns.CloseWaits = []snapshot.CloseWait{{Inode: 9, AgeSeconds: new(float64(15 * h.passes))}}
	ns.Owners = []snapshot.Owner{{PID: 7, CloseWait: uint32(sockets), Descriptors: &open, DescriptorLimit: &limit}}
	add(ns, f)
}

func (h *simulated) find(r *snapshot.Report, id string, severity snapshot.Severity, port uint16, service string) {
	side := snapshot.Client
	if strings.HasPrefix(id, "accept") || strings.HasPrefix(id, "half") {
		side = snapshot.Server
	}
	r.Findings = append(r.Findings, snapshot.Finding{
		ID: id, Severity: severity, Namespace: "host", Subject: snapshot.Subject{Side: side, Port: port, Service: service},
	})
}

// instance is the target label of a host, and pod what the Prometheus Operator
// attaches beside it.
func (h *simulated) instance() string { return fmt.Sprintf("host-%d:10060", h.index) }
func (h *simulated) pod() string      { return fmt.Sprintf("twwatch-%d", h.index) }
