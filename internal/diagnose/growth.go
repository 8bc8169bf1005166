package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// risesOfTrend is how many looks must have found more than the one before for
// it to be a trend.
const risesOfTrend = 3

// grown is how much a counter grew, 0 if that can't be known.
func (s *scene) grown(counter string) uint64 {
	n, ok := s.growth(counter)
	if !ok {
		return 0
	}
	return n
}

// growth is by how much a number grew.
type growth struct {
	known   bool
	more    int // below 0 if there are fewer
	now     int
	looks   int // that know the number
	rises   int // looks that found more than the one before
	seconds float64
}

// grows tells whether it is more than what comes and goes, and goes on: a pool
// whose server closes it has that once.
func (g growth) grows() bool {
	return g.known && g.rises >= risesOfTrend && g.more >= fewSockets && float64(g.more) >= fewShare*float64(g.now)
}

func (g growth) perMinute() float64 { return float64(g.more) / g.seconds * 60 }

// growthOf follows a number through the looks at sockets; of says whether a look
// knows it. It begins at the newest that is growthSeconds old and has enough
// looks after it for a trend, or else at the oldest.
func (s *scene) growthOf(of func(*snapshot.Namespace) (n int, known bool)) growth {
	type count struct {
		n   int
		ago float64
	}
	now, ok := of(s.ns)
	if !ok {
		return growth{}
	}
	var counts []count
	for _, m := range s.history { // oldest first
		if n, ok := of(m.ns); ok && m.ago > 0 && m.ns.Source != "" { // some looks read counters only
			counts = append(counts, count{n, m.ago})
		}
	}
	counts = append(counts, count{now, 0})
	first := 0
	for i := range len(counts) - risesOfTrend {
		if counts[i].ago >= growthSeconds {
			first = i
		}
	}
	g := growth{known: len(counts) > 1, looks: len(counts), now: now, more: now - counts[first].n, seconds: counts[first].ago}
	for i := first + 1; i < len(counts); i++ {
		if counts[i].n > counts[i-1].n {
			g.rises++
		}
	}
	return g
}

// use is a process's descriptors.
type use struct {
	owner   *snapshot.Owner
	sockets int     // of the group
	more    float64 // CLOSE_WAITs a second; 0 if they don't grow or it isn't known
}

func (u *use) share() float64 {
	return float64(*u.owner.Descriptors) / float64(*u.owner.DescriptorLimit)
}

// left is the number of seconds until the limit is reached, false if it isn't
// or that isn't known.
func (u *use) left() (float64, bool) {
	free := *u.owner.DescriptorLimit - *u.owner.Descriptors
	return float64(max(free, 0)) / u.more, u.more > 0
}

// tightest is the process of these sockets that is nearest to its limit of
// descriptors; nil if no limit is known.
func (s *scene) tightest(sockets []closeWait) *use {
	of := map[int]int{}
	for i := range sockets {
		of[sockets[i].pid]++
	}
	var worst *use
	for _, pid := range slices.Sorted(maps.Keys(of)) {
		if u := s.useOf(pid); u != nil && (worst == nil || u.share() > worst.share()) {
			worst = u
			u.sockets = of[pid]
		}
	}
	return worst
}

// useOf is what a process has of its descriptors, nil if its limit isn't known.
func (s *scene) useOf(pid int) *use {
	o := s.owner(pid)
	if o == nil || o.Descriptors == nil || o.DescriptorLimit == nil || *o.DescriptorLimit <= 0 {
		return nil
	}
	return &use{owner: o}
}

func (u *use) evidence() []snapshot.Evidence {
	if u == nil {
		return nil
	}
	proc := "/proc/" + strconv.Itoa(u.owner.PID)
	return []snapshot.Evidence{
		{What: "open descriptors", Value: float64(*u.owner.Descriptors), Unit: "descriptors", Source: proc + "/fd"},
		{What: "limit of descriptors", Value: float64(*u.owner.DescriptorLimit), Unit: "descriptors", Source: proc + "/limits: Max open files"},
	}
}

// starves says that a listener's process has no descriptor left to accept a
// connection with (EMFILE, accept(2)).
func (u *use) starves() string {
	if u == nil || *u.owner.Descriptors < *u.owner.DescriptorLimit {
		return ""
	}
	return fmt.Sprintf("; all of its %s descriptors are open, and accept() fails without a free one", draw.Count(int64(*u.owner.DescriptorLimit)))
}

// grow tells a process's growth: of its own CLOSE_WAITs, if it was among the
// owners at looks enough for a trend, or else its part of the group's. (Of the
// looks that a daemon keeps only the newest still have their owners.)
func (s *scene) grow(u *use, g *closeWaitGroup) {
	own := s.growthOf(func(ns *snapshot.Namespace) (int, bool) {
		for i := range ns.Owners {
			if o := &ns.Owners[i]; o.PID == u.owner.PID && o.Start == u.owner.Start {
				return int(o.CloseWait), true
			}
		}
		return 0, false
	})
	switch {
	case own.grows():
		u.more = float64(own.more) / own.seconds
	case own.looks <= risesOfTrend && g.growth.grows():
		u.more = float64(g.growth.more) / g.growth.seconds * float64(u.sockets) / float64(len(g.sockets))
	}
}
