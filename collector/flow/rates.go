package flow

import (
	"math"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

const (
	// rateSeconds is the time that a rate is the mean of, if it holds at
	// least rateEnough closes; else the whole minute is taken.
	rateSeconds = 10
	rateEnough  = 10
	// youngMS is how long a flow must have closed connections before the
	// mean is taken from its first close on.
	youngMS = 1000
	// sureSeconds is how long it must have done so before the future is told
	// from that; until then the closes count as those of rateSeconds.
	sureSeconds = 2
	// wheelSlack is how long the timer wheel keeps a TIME_WAIT past its time,
	// in seconds (0.1 to 2 s at HZ=250).
	wheelSlack = 2
	// holdSeconds is how long a closed connection holds its port.
	holdSeconds = 60 + wheelSlack
)

// rate is closes per second, and the seconds that it is the mean of.
type rate struct{ perSecond, seconds float64 }

func meanRate(recent, minute uint32) rate {
	if recent >= rateEnough {
		return rate{float64(recent) / rateSeconds, rateSeconds}
	}
	return rate{float64(minute) / 60, 60}
}

// meanRate of a flow counts from its first close if that is less than
// rateSeconds ago and the closes have come evenly since; after a burst it
// doesn't, so that a restart isn't taken for a load.
func (e *entry) meanRate() rate {
	var recent, minute uint32
	for i, n := range e.timeline {
		if i < rateSeconds {
			recent += uint32(n)
		}
		minute += uint32(n)
	}
	if recent != minute || recent < rateEnough || e.oldest < youngMS || e.oldest >= rateSeconds*1000 {
		return meanRate(recent, minute)
	}
	since := float64(e.oldest) / 1000
	r := rate{float64(recent) / since, since}
	for _, n := range e.timeline[:e.oldest/1000] {
		if float64(n) < r.perSecond/2 {
			return meanRate(recent, minute)
		}
	}
	return r
}

const (
	// walkMS is how late after the pass's start a row may be read: a
	// TIME_WAIT that is old enough to be recycled may be gone by then.
	walkMS = 250
	// reopenWindow is how far back, in ms, the youngest of a server's TIME_WAIT
	// sockets are looked at: the fewer that a SYN can have taken over already,
	// the better.
	reopenWindow = 750
	// shortestDelay is the least tcp_tw_reuse_delay, in ms, from which ages
	// tell a rate: the kernel's timers tick every 4 ms or so.
	shortestDelay = 100
	// fewYoung is how many closes make a rate over a fraction of a second.
	fewYoung = 10
)

// survivorsOnly tells whether TIME_WAIT sockets of the flow may have been
// recycled, so that older ages show only what is left.
func (t *Table) survivorsOnly(e *entry) bool {
	return e.recycles || t.reopened && e.key.side() == server && e.timeWait > 0
}

// atLeast tells whether SYNs may have taken TIME_WAIT sockets of the flow over,
// so that more have closed than the rows show: at any age.
func (t *Table) atLeast(e *entry) bool {
	return e.key.side() == server && e.timeWait > 0 && (t.reopened || t.cfg.Entered == nil)
}

// closeRate gives a flow's present rate; false if it can't be known.
//
// Where sockets are recycled only the youngest are complete (under
// tcp_tw_reuse a true 400/s reads 195/s over the minute). But ten seconds'
// worth which fill less than a fiftieth of the ports that connect() tries
// first can't have been recycled by more than a hundredth. And a server's
// flow, whose sockets the client's next SYN may take over, has its rate from
// the youngest if they show significantly more.
func (t *Table) closeRate(e *entry) (r rate, known bool) {
	r = e.meanRate()
	window := float64(e.window) / 1000
	young := rate{float64(e.young) / window, window}
	switch {
	case e.recycles && t.delay < shortestDelay:
		return rate{}, false
	case e.recycles:
		if r.perSecond*r.seconds*50 < float64(t.ports.count[0]) {
			return r, true
		}
		idle := e.young == 0 && slices.Max(e.timeline[:rateSeconds]) == 0
		return young, e.young >= fewYoung || idle
	case e.key.side() == server:
		if t.reopened && e.young >= fewYoung || young.perSecond-r.perSecond > 3*math.Sqrt(float64(e.young))/window {
			return young, true
		}
	}
	return r, true
}

// exhaustion simulates the next seconds at the present rate: each adds rate
// ports and gives back those that close their minute. It returns nil if that
// never uses up the flow's ports, and where the rate is unknown.
func (t *Table) exhaustion(e *entry, p *snapshot.Ports, r rate) *int {
	if p.Free == 0 {
		return new(int)
	}
	limit := float64(p.Used - p.Reusable + p.Free)
	used := float64(p.Used - p.Reusable)
	if e.recycles {
		// A port is free again after the delay.
		live := float64(p.Used) - float64(e.states[inetdiag.TimeWait])
		if hold := float64(t.delay) / 1000; r.perSecond == 0 || live+r.perSecond*hold < limit {
			return nil
		}
		s := int((limit - used) / r.perSecond)
		return &s
	}
	if r.seconds < sureSeconds {
		r = rate{r.perSecond * r.seconds / rateSeconds, rateSeconds}
	}
	if r.perSecond*holdSeconds < limit-float64(p.Used)+float64(e.states[inetdiag.TimeWait]) {
		return nil
	}
	for s := range holdSeconds {
		used += r.perSecond
		switch back := s - wheelSlack; {
		case back >= 0:
			used -= float64(e.timeline[59-back])
		case back == -1:
			used -= float64(e.overdue)
		}
		if used >= limit {
			s++
			return &s
		}
	}
	return nil
}
