package exporter

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const (
	maxFindings  = 40
	perNamespace = 4 // series that a further namespace may add
	// pressing is the share of ports or descriptors from which on a further
	// namespace shows it, and maxPressing how many may at once.
	pressing    = 0.5
	maxPressing = 10
	// stale is from what age on a further namespace shows when it was looked at:
	// one that moves is read every 55 s at least.
	stale = time.Minute
)

// view is one frame as metrics, ready to be handed out.
type view struct {
	metrics []prometheus.Metric
	sampled []sampled
	seen    map[string]bool // label sets, so that none is made twice
	room    int
	dropped int
}

// sampled is when a namespace's sockets were read.
type sampled struct {
	label string
	at    time.Time
	least time.Duration // the age that shows
}

// put adds a series. One that can't be (a value that is no number, labels that
// are there already, no room) is left out and counted: it must not cost the
// others.
func (v *view) put(f *family, value float64, labels ...string) {
	id := f.name + "\xff" + strings.Join(labels, "\xff") // no byte of valid UTF-8
	if v.room <= 0 || !usable(value) || v.seen[id] {
		v.dropped++
		return
	}
	m, err := prometheus.NewConstMetric(f.desc, f.kind, value, labels...)
	if err != nil {
		v.dropped++
		return
	}
	v.room--
	v.seen[id] = true
	v.metrics = append(v.metrics, m)
}

func putKnown[N int | uint64](v *view, f *family, value *N, labels ...string) {
	if value != nil && *value >= 0 {
		v.put(f, float64(*value), labels...)
	}
}

// render makes the metrics of a frame, the important ones first, should the
// room not last.
func (e *Exporter) render(r *snapshot.Report, scenes []*scene) *view {
	v := &view{
		room: e.cfg.MaxSeries + perNamespace*max(0, len(scenes)-1),
		seen: make(map[string]bool, e.cfg.MaxSeries),
	}
	e.renderPass(v, r)
	byID := make(map[nsKey]*scene, len(scenes))
	for _, s := range scenes {
		byID[s.id] = s
		if s.full {
			e.renderFull(v, s)
		} else {
			e.renderBrief(v, s)
		}
	}
	e.renderPressing(v, scenes)
	renderStale(v, scenes)
	e.renderProtocols(v)
	e.renderProcesses(v)
	e.renderFlows(v, byID)
	for _, s := range scenes {
		e.renderOmitted(v, s)
	}
	e.renderFindings(v, r, scenes)
	v.room++ // its own place
	v.put(e.families.droppedN, float64(v.dropped))
	v.seen = nil
	return v
}

func (e *Exporter) renderPass(v *view, r *snapshot.Report) {
	f := e.families
	v.put(f.duration, r.TookSeconds)
	if r.IntervalSeconds > 0 {
		v.put(f.interval, r.IntervalSeconds)
	}
	if !r.Time.IsZero() {
		v.put(f.timestamp, float64(r.Time.UnixMilli())/1000)
	}
	if h := r.HostLimits; h != nil {
		putKnown(v, f.conntrackLimit, h.NFConntrackMax)
	}
	for _, feature := range features(r) {
		v.put(f.feature, feature.value, feature.name)
	}
}

type feature struct {
	name  string
	value float64
}

// features are the abilities that a pass may lack: sock_diag, and the stages
// of a gap. Other namespaces and a container runtime are there only where the
// report shows that they were asked for.
func features(r *snapshot.Report) []feature {
	all := []feature{{"bound", 1}, {"close_wait_age", 1}, {"counters", 1}, {"limits", 1}, {"owner", 1}}
	gaps := slices.Concat(r.Incomplete, r.Limited)
	lacks := func(stage string) bool {
		return slices.ContainsFunc(gaps, func(g snapshot.Gap) bool { return g.Stage == stage })
	}
	if len(r.Namespaces) > 1 || lacks("namespaces") {
		all = append(all, feature{"namespaces", 1})
	}
	if lacks("cri") {
		all = append(all, feature{"cri", 1})
	}
	for i := range all {
		if lacks(all[i].name) {
			all[i].value = 0
		}
	}
	if len(r.Namespaces) > 0 {
		diag := feature{"inet_diag", 1}
		if slices.ContainsFunc(r.Namespaces, func(ns *snapshot.Namespace) bool { return ns != nil && ns.Source != "inet_diag" }) {
			diag.value = 0
		}
		all = append(all, diag)
	}
	return all
}

// renderFull gives all of a namespace's own metrics.
func (e *Exporter) renderFull(v *view, s *scene) {
	f, ns := e.families, s.ns
	for state, n := range ns.States.Named {
		if state != "close" || ns.Ports != nil && ns.Ports.BoundSeen { // else nobody looked
			v.put(f.sockets, float64(n), s.label, state)
		}
	}
	v.put(f.buckets, float64(ns.TimeWait.BucketsUsed), s.label)
	limit := ns.TimeWait.BucketsLimit
	if limit == nil {
		limit = ns.Limits.TCPMaxTWBuckets
	}
	putKnown(v, f.bucketsLimit, limit, s.label)
	for _, c := range []struct {
		f    *family
		name string
	}{
		{f.opened, "TW"},
		{f.overflows, "TCPTimeWaitOverflow"},
		{f.listenOverflows, "ListenOverflows"},
		{f.listenDrops, "ListenDrops"},
		{f.syncookies, "SyncookiesSent"},
	} {
		if n, ok := ns.Counters[c.name]; ok {
			v.put(c.f, float64(n), s.label)
		}
	}
	putKnown(v, f.ephemeralPorts, s.ports, s.label)
	e.renderPortsUsed(v, s)
	if s.demand != nil {
		v.put(f.portDemandMax, *s.demand, s.label)
	}
	e.renderCloseWait(v, s)
	if ns.Conntrack != nil {
		putKnown(v, f.conntrackEntries, ns.Conntrack.Entries, s.label)
	}
	e.renderInfo(v, s)
	if !ns.SampledAt.IsZero() {
		v.room--
		v.sampled = append(v.sampled, sampled{s.label, ns.SampledAt, 0})
	}
}

// renderBrief gives the four series of a further namespace; those of its
// exported flows come with them.
func (e *Exporter) renderBrief(v *view, s *scene) {
	v.put(e.families.sockets, float64(s.ns.States.TimeWait), s.label, "time_wait")
	v.put(e.families.sockets, float64(s.ns.States.CloseWait), s.label, "close_wait")
	e.renderPortsUsed(v, s)
	e.renderInfo(v, s)
}

func (e *Exporter) renderPortsUsed(v *view, s *scene) {
	if s.tight != nil {
		v.put(e.families.portsUsedMax, *s.tight, s.label)
	}
}

// renderPressing gives two more series of the further namespaces that need
// them: being absent says that the value is below pressing.
func (e *Exporter) renderPressing(v *view, scenes []*scene) {
	for _, c := range []struct {
		f  *family
		of func(*scene) *float64
	}{
		{e.families.portDemandMax, func(s *scene) *float64 { return s.demand }},
		{e.families.closeWaitDescriptors, func(s *scene) *float64 { return descriptorsUsed(s.ns) }},
	} {
		worst := make(map[*scene]float64)
		for _, s := range scenes {
			if value := c.of(s); !s.full && value != nil && *value >= pressing {
				worst[s] = *value
			}
		}
		// Stable, and scenes come in the report's order: the same input gives
		// the same series.
		order := slices.DeleteFunc(slices.Clone(scenes), func(s *scene) bool { return worst[s] == 0 })
		slices.SortStableFunc(order, func(a, b *scene) int { return cmp.Compare(worst[b], worst[a]) })
		for _, s := range order[:min(len(order), maxPressing)] {
			v.put(c.f, worst[s], s.label)
		}
	}
}

// renderStale has the further namespaces that were looked at longest ago show
// that once it is too long.
func renderStale(v *view, scenes []*scene) {
	order := slices.DeleteFunc(slices.Clone(scenes), func(s *scene) bool { return s.full || s.ns.SampledAt.IsZero() })
	slices.SortStableFunc(order, func(a, b *scene) int { return a.ns.SampledAt.Compare(b.ns.SampledAt) })
	for _, s := range order[:min(len(order), maxPressing)] {
		v.room--
		v.sampled = append(v.sampled, sampled{s.label, s.ns.SampledAt, stale})
	}
}

func (e *Exporter) renderInfo(v *view, s *scene) {
	w := s.ns.Workload
	if w == nil {
		w = &snapshot.Workload{}
	}
	v.put(e.families.netnsInfo, 1, s.label, clean(s.ns.Kind), clean(w.Namespace), clean(w.Pod), clean(w.PodUID), clean(w.Container))
}

// renderFlows gives the exported flows. A flow that the report doesn't list
// has no socket if the report left nothing out, and else isn't known.
func (e *Exporter) renderFlows(v *view, scenes map[nsKey]*scene) {
	f := e.families
	for _, tr := range slices.Concat(e.clients.sorted(), e.servers.sorted()) {
		s := scenes[tr.key.ns]
		if s == nil {
			continue
		}
		labels := []string{s.label, string(tr.key.side), tr.key.localLabel(), tr.key.remoteLabel(), strconv.Itoa(int(tr.key.port)), tr.protocol}
		v.put(f.flowOpened, float64(tr.opened), labels...)
		if tr.now == nil && !s.all {
			continue
		}
		sum := tr.now
		if sum == nil {
			sum = &flowSum{demand: -1}
		}
		for i, n := range sum.states {
			v.put(f.flowSockets, float64(n), append(labels, stateName(i))...)
		}
		if p := sum.ports; p != nil {
			putKnown(v, f.flowPortsFree, &p.Free, labels...)
			putKnown(v, f.flowPortsUsed, &p.Used, labels...)
		}
		if sum.demand >= 0 {
			v.put(f.flowDemand, sum.demand, labels...)
		}
	}
}

// renderOmitted closes the sums of a namespace that is full or has an
// exported flow.
func (e *Exporter) renderOmitted(v *view, s *scene) {
	if !s.full && e.admit.flows[s.id] == 0 {
		return
	}
	f := e.families
	left := countStates(&s.ns.States)
	shown := 0
	for _, t := range []*table{e.clients, e.servers} {
		for _, tr := range t.shown {
			if tr.key.ns != s.id || tr.now == nil {
				continue
			}
			shown += tr.now.rows
			for i, n := range tr.now.states {
				left[i] -= min(left[i], n)
			}
		}
	}
	all := countStates(&s.ns.States)
	for i, n := range left {
		v.put(f.flowSocketsOmitted, float64(n), s.label, stateName(i))
		if !s.full && (i == established || i == synSent) {
			v.put(f.sockets, float64(all[i]), s.label, stateName(i))
		}
	}
	v.put(f.flowsOmitted, float64(max(0, s.rows-shown)+max(0, s.ns.Omitted.Flows)), s.label)
	if o := e.omitted[s.id]; o != nil {
		v.put(f.flowOpenedOmitted, float64(o.total), s.label)
	}
}

// renderFindings gives the gravest findings, one for each label set.
func (e *Exporter) renderFindings(v *view, r *snapshot.Report, scenes []*scene) {
	type row struct {
		value  float64
		labels [5]string
	}
	byLabels := make(map[[5]string]float64)
	for i := range r.Findings {
		fd := &r.Findings[i]
		value := severity(fd.Severity)
		if value == 0 || value == 1 && !e.cfg.Info {
			continue
		}
		port := ""
		if fd.Subject.Port != 0 {
			port = strconv.Itoa(int(fd.Subject.Port))
		}
		labels := [5]string{
			findingLabel(fd.Namespace, scenes), clean(fd.ID), clean(string(fd.Subject.Side)), port, clean(fd.Subject.Service),
		}
		byLabels[labels] = max(byLabels[labels], value)
	}
	rows := make([]row, 0, len(byLabels))
	for labels, value := range byLabels {
		rows = append(rows, row{value, labels})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.value, a.value), slices.Compare(a.labels[:], b.labels[:]))
	})
	for i := range rows {
		if i == maxFindings {
			v.dropped += len(rows) - i
			break
		}
		v.put(e.families.finding, rows[i].value, rows[i].labels[:]...)
	}
}

// findingLabel is the label of the one namespace of that name; where several
// have it, the finding doesn't say which, and the label is the bare name.
func findingLabel(name string, scenes []*scene) string {
	label, found := clean(name), 0
	for _, s := range scenes {
		if s.ns.Name == name {
			label = s.label
			found++
		}
	}
	if found > 1 {
		return clean(name)
	}
	return label
}

func severity(s snapshot.Severity) float64 {
	switch s {
	case snapshot.Info:
		return 1
	case snapshot.Warning:
		return 2
	case snapshot.Critical:
		return 3
	}
	return 0
}
