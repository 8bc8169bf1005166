package collector

import (
	"cmp"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/netns"
)

// What the namespaces beside the first have room for in a report, together, and
// what each has at least.
const (
	roomFlows, leastFlows           = 4000, 4
	roomCloseWaits, leastCloseWaits = 4096, 4
	mostOfRest                      = 16
)

// show appends what is known of the namespaces to the report, the host's first,
// the others by name.
func (s *sweep) show(r *snapshot.Report) {
	slices.SortFunc(s.order, func(a, b *other) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.named.name, b.named.name), cmp.Compare(a.Serial, b.Serial))
	})
	n := max(1, len(s.order))
	bounds := snapshot.Bounds{
		Flows: max(leastFlows, roomFlows/n), CloseWaits: max(leastCloseWaits, roomCloseWaits/n),
		Listeners: mostOfRest, Owners: mostOfRest, HalfOpen: mostOfRest,
	}
	for _, o := range s.order {
		if o.found == nil {
			continue
		}
		if o.Kind != netns.KindHost {
			o.found = o.found.Cut(bounds) // there may be more namespaces than when it was read
		}
		if o.fresh {
			r.Namespaces = append(r.Namespaces, o.found)
		} else {
			r.Namespaces = append(r.Namespaces, o.repeated())
		}
	}
}

// rank orders the namespaces of a report: the host's is the first.
func (o *other) rank() int {
	if o.Kind == netns.KindHost {
		return 0
	}
	return 1
}

// repeated is what the last dump found. If nothing moved since it is true now,
// but for what time alone does.
func (o *other) repeated() *snapshot.Namespace {
	n := *o.found
	n.Name, n.Kind, n.Workload = o.named.name, o.kind, o.workload // may have been learnt since
	n.Repeated, n.CoveredSeconds, n.TimeWait.Births, n.Omitted.Births = true, 0, 0, 0
	n.Flows = slices.Clone(n.Flows)
	for i := range n.Flows {
		n.Flows[i].Births = 0
	}
	if !o.moved {
		age(&n, time.Duration(o.felt-o.dumpAt), int(o.pulse.TimeWait))
		n.SampledAt = o.feltAt
	}
	return &n
}

// age lets time pass in a namespace in which nothing else happened: its closed
// connections grow older, until mini of them are left in TIME_WAIT and
// FIN_WAIT2, by the kernel's own count. n.Flows is changed in place, what else
// n shares is copied.
func age(n *snapshot.Namespace, passed time.Duration, mini int) {
	seconds := int(passed / time.Second)
	w := &n.TimeWait
	w.OpenedPerSecond = shifted(w.OpenedPerSecond, seconds)
	if w.CloseRate != nil {
		w.CloseRate, w.CloseRateBy = new(mean(w.OpenedPerSecond)), "timers"
	}
	w.BucketsUsed = min(w.BucketsUsed, mini)
	all := min(int(n.States.TimeWait), mini)
	listed := 0
	for i := range n.Flows {
		ageFlow(&n.Flows[i], seconds, passed)
		listed += int(n.Flows[i].States.TimeWait)
	}
	n.States.TimeWait = uint32(max(all, listed))
	n.Omitted.States.TimeWait = n.States.TimeWait - uint32(listed)
	n.CloseWaits = slices.Clone(n.CloseWaits)
	for i := range n.CloseWaits {
		c := &n.CloseWaits[i]
		c.AgeSeconds, c.AgeAtMostSeconds, c.LastSentSeconds = later(c.AgeSeconds, passed), later(c.AgeAtMostSeconds, passed), later(c.LastSentSeconds, passed)
	}
}

func ageFlow(f *snapshot.Flow, seconds int, passed time.Duration) {
	f.CloseWait.OldestSeconds = later(f.CloseWait.OldestSeconds, passed)
	if f.States.TimeWait == 0 || seconds == 0 {
		return
	}
	f.OpenedPerSecond = shifted(f.OpenedPerSecond, seconds)
	left := sum(f.OpenedPerSecond)
	gone := f.States.TimeWait - min(f.States.TimeWait, left)
	f.States.TimeWait -= gone
	if f.CloseRate != nil {
		f.CloseRate, f.CloseRateSeconds = new(mean(f.OpenedPerSecond)), 60
		if f.SurvivorsOnly { // its rate was of the last second or so
			f.CloseRate = new(0.0)
		}
	}
	if f.Ports != nil {
		p := *f.Ports
		back := min(int(gone), p.Used)
		p.Used -= back
		p.Free += max(0, back-p.Reusable)
		p.Reusable -= min(p.Reusable, back)
		p.SecondsToExhaustion = nil
		f.Ports = &p
	}
}

// shifted is a timeline so many seconds later.
func shifted(timeline []uint32, seconds int) []uint32 {
	if len(timeline) == 0 || seconds <= 0 {
		return timeline
	}
	out := make([]uint32, len(timeline))
	copy(out, timeline[min(seconds, len(timeline)):])
	return out
}

func sum(timeline []uint32) (n uint32) {
	for _, v := range timeline {
		n += v
	}
	return n
}

func mean(timeline []uint32) float64 {
	if len(timeline) == 0 {
		return 0
	}
	return float64(sum(timeline)) / float64(len(timeline))
}

func later(seconds *float64, passed time.Duration) *float64 {
	if seconds == nil {
		return nil
	}
	return new(*seconds + passed.Seconds())
}
