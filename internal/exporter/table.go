package exporter

import (
	"cmp"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const (
	// passes that a flow must be among the first before it gets series.
	passes = 2
	// forgotten is how long a flow's counter outlives its export.
	forgotten = 10 * time.Minute
	hour      = time.Hour

	// Of the places and of the new label sets 1/kept is for heavy flows: a
	// crowd of flows that come and go with a socket each must not keep the one
	// out that runs out of ports.
	kept           = 4
	heavyTightness = 0.05
	heavyTimeWait  = 500 // about 8 closes/s

	clientSeries = nStates + 4
	serverSeries = nStates + 1
	// partSeries is what a namespace that isn't full costs while one of its
	// flows is exported: established and syn_sent, and what is omitted.
	partSeries = 2 + nStates + 2
)

// track is what is remembered of a flow that is or was exported.
type track struct {
	key      flowKey
	protocol string // as on entry: labels don't change under way
	opened   uint64
	entered  time.Duration // on the Exporter's clock, as the others
	seen     time.Duration // last in a frame
	left     time.Duration
	now      *flowSum // in this frame; nil if not listed
	fresh    bool     // entered in this frame
}

// table decides which flows of one side are exported.
type table struct {
	side   snapshot.Side
	limit  int // flows exported at once
	cost   int // series of one
	shown  map[flowKey]*track
	gone   map[flowKey]*track // left, and their counters not yet forgotten
	streak map[flowKey]int    // passes among the first, of those not shown
}

func newTable(side snapshot.Side, limit, cost int) *table {
	return &table{
		side: side, limit: limit, cost: cost,
		shown: make(map[flowKey]*track), gone: make(map[flowKey]*track), streak: make(map[flowKey]int),
	}
}

// admission is what all tables share: how many new label sets an hour may
// make, and how many series there may be.
type admission struct {
	perHour int
	made    []time.Duration // in the last hour, oldest first
	series  int             // free
	full    nsKey
	flows   map[nsKey]int // exported of a namespace
}

// take tells whether one more flow may get series, and books it.
func (a *admission) take(now time.Duration, ns nsKey, cost int, isNew, heavy bool) bool {
	a.made = slices.DeleteFunc(a.made, func(t time.Duration) bool { return now-t >= hour })
	if a.flows[ns] == 0 && ns != a.full {
		cost += partSeries
	}
	perHour := a.perHour
	if !heavy {
		perHour -= perHour / kept
	}
	if cost > a.series || isNew && len(a.made) >= perHour {
		return false
	}
	if isNew {
		a.made = append(a.made, now)
	}
	a.series -= cost
	a.flows[ns]++
	return true
}

// book counts a flow that is exported already.
func (a *admission) book(ns nsKey, cost int) {
	if a.flows[ns] == 0 && ns != a.full {
		cost += partSeries
	}
	a.series -= cost
	a.flows[ns]++
}

func (a *admission) release(ns nsKey, cost int) {
	if a.flows[ns]--; a.flows[ns] == 0 && ns != a.full {
		cost += partSeries
	}
	a.series += cost
}

// find looks the shown flows up in this frame.
func (t *table) find(now time.Duration, sums func(flowKey) *flowSum) {
	for _, tr := range t.shown {
		tr.fresh = false
		if tr.now = sums(tr.key); tr.now != nil {
			tr.seen = now
		}
	}
}

// credit adds this frame's births to the counters of the shown flows, and to
// credited by namespace. A flow that enters in this pass counts none: so its
// counter's first sample is 0, and a reader loses no growth.
func (t *table) credit(credited map[nsKey]uint64) {
	for _, tr := range t.shown {
		if tr.now != nil && !tr.fresh {
			tr.opened += tr.now.births
			credited[tr.key.ns] += tr.now.births
		}
	}
}

// update lets flows leave and enter; top are the first of this frame, as many
// as may be exported.
func (t *table) update(now, stay time.Duration, top []*flowSum, a *admission) {
	best := make(map[flowKey]int, len(top))
	for i, f := range top {
		best[f.key] = i
	}
	for _, tr := range t.gone {
		if now-tr.left >= forgotten {
			delete(t.gone, tr.key)
		}
	}
	for _, tr := range t.shown {
		if now-tr.seen >= stay && now-tr.entered >= stay {
			t.leave(tr, now, a)
		}
	}
	streak := make(map[flowKey]int, len(top))
	for _, f := range top {
		if t.shown[f.key] == nil {
			streak[f.key] = t.streak[f.key] + 1
			if streak[f.key] >= passes {
				t.enter(now, stay, f, best, a)
			}
		}
	}
	t.streak = streak
}

// enter exports a flow if there is room, or room can be made by one that has
// stayed long enough and is no longer among the first.
func (t *table) enter(now, stay time.Duration, f *flowSum, best map[flowKey]int, a *admission) {
	tr, known := t.gone[f.key]
	heavy := f.tightness >= heavyTightness || f.states[timeWait] >= heavyTimeWait
	limit := t.limit
	if !heavy {
		limit -= limit / kept
	}
	var out *track
	if len(t.shown) >= limit {
		if out = t.replaceable(now, stay, best); out == nil {
			return
		}
		a.release(out.key.ns, t.cost)
	}
	if !a.take(now, f.key.ns, t.cost, !known, heavy) {
		if out != nil {
			a.book(out.key.ns, t.cost)
		}
		return
	}
	if out != nil {
		a.book(out.key.ns, t.cost) // leave gives it back again
		t.leave(out, now, a)
	}
	if !known {
		tr = &track{key: f.key, protocol: f.protocol}
	}
	delete(t.gone, f.key)
	tr.entered, tr.seen, tr.now, tr.fresh = now, now, f, true
	t.shown[f.key] = tr
}

// replaceable returns the shown flow that may leave and is missed least.
func (t *table) replaceable(now, stay time.Duration, best map[flowKey]int) *track {
	var out *track
	for _, tr := range t.shown {
		if _, first := best[tr.key]; first || now-tr.entered < stay {
			continue
		}
		if out == nil || missedLess(tr, out) {
			out = tr
		}
	}
	return out
}

func missedLess(a, b *track) bool {
	switch {
	case (a.now == nil) != (b.now == nil):
		return a.now == nil
	case a.now != nil:
		return cmp.Or(
			cmp.Compare(a.now.tightness, b.now.tightness),
			cmp.Compare(a.now.states[timeWait], b.now.states[timeWait]),
			compareKeys(&a.key, &b.key)) < 0
	}
	return cmp.Or(cmp.Compare(a.seen, b.seen), compareKeys(&a.key, &b.key)) < 0
}

func (t *table) leave(tr *track, now time.Duration, a *admission) {
	delete(t.shown, tr.key)
	tr.left, tr.now = now, nil
	t.gone[tr.key] = tr
	a.release(tr.key.ns, t.cost)
}

// sorted returns the shown flows in a fixed order.
func (t *table) sorted() []*track {
	out := make([]*track, 0, len(t.shown))
	for _, tr := range t.shown {
		out = append(out, tr)
	}
	slices.SortFunc(out, func(a, b *track) int { return compareKeys(&a.key, &b.key) })
	return out
}
