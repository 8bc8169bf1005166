package flow

import (
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

// closeRate gives a flow's present rate. Where tcp_tw_reuse recycles the
// flow's sockets, only ages below the delay are complete (a true 400/s reads
// 195/s over the minute); except that ten seconds' worth which fill less than
// a fiftieth of the ports that connect() tries first can't have been recycled
// by more than a hundredth.
func (t *Table) closeRate(e *entry, recycled bool) rate {
	r := e.meanRate()
	if !recycled || t.delay <= 0 {
		return r
	}
	if r.perSecond*r.seconds*50 < float64(t.ports.count[0]) {
		return r
	}
	return rate{float64(e.young) * 1000 / float64(t.delay), float64(t.delay) / 1000}
}

// exhaustion simulates the next seconds at the present rate: each adds rate
// ports and gives back those that close their minute. It returns nil if that
// never uses up the flow's ports.
func (t *Table) exhaustion(e *entry, p *snapshot.Ports, r rate, recycled bool) *int {
	if p.Free == 0 {
		return new(int)
	}
	limit := float64(p.Used - p.Reusable + p.Free)
	used := float64(p.Used - p.Reusable)
	if recycled {
		// A port is free again after the delay.
		live := float64(p.Used) - float64(e.states[inetdiag.TimeWait])
		if hold := float64(t.delay) / 1000; live+r.perSecond*hold < limit {
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
