package diagnose

import (
	"fmt"
	"math"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

const (
	// spanSeconds is the least time that counters are compared over: a load
	// has to be there in two such spans where there were looks enough.
	spanSeconds = 5
	// clearShare of the short connections seen alive must be one flow's before
	// it is named.
	clearShare = 0.8
	// ownShare of the closes must be this end's before its TIME_WAIT tell the
	// flow.
	ownShare = 0.05
)

// A span is what lies between two looks, both so many seconds ago.
type span struct {
	from, to     *snapshot.Namespace
	since, until float64
}

func (p span) seconds() float64 { return p.since - p.until }

// rate is a counter's growth per second; 0 where it isn't known.
func (p span) rate(counter string) float64 {
	was, ok1 := p.from.Counters[counter]
	is, ok2 := p.to.Counters[counter]
	if !ok1 || !ok2 || is < was || p.seconds() <= 0 {
		return 0
	}
	return float64(is-was) / p.seconds()
}

// spans are the time up to now and the one before it, as far as there were
// looks.
func (s *scene) spans() []span {
	var spans []span
	to, until := s.ns, 0.0
	for i := len(s.history) - 1; i >= 0 && len(spans) < 2; i-- {
		m := s.history[i]
		if m.ago-until >= spanSeconds || i == 0 && len(spans) == 0 && m.ago > 0 {
			spans = append(spans, span{m.ns, to, m.ago, until})
			to, until = m.ns, m.ago
		}
	}
	return spans
}

// steady is a rate that holds: now, and in the span before unless the finding
// is there already. Where passes follow each other one span is no proof.
func (s *scene) steady(rate func(span) float64, least float64, held bool) (float64, bool) {
	spans := s.spans()
	if len(spans) == 0 {
		return 0, false
	}
	now := rate(spans[0])
	switch {
	case now < least:
		return now, false
	case held:
		return now, true
	case len(spans) == 2:
		return now, rate(spans[1]) >= least
	}
	return now, s.interval == 0
}

// heldAny tells whether one of these findings was there before, whatever about.
func (s *scene) heldAny(ids ...string) bool {
	return slices.ContainsFunc(s.previous, func(f snapshot.Finding) bool {
		return f.Namespace == s.ns.Name && slices.Contains(ids, f.ID)
	})
}

// clearest is the flow, or the server's port, that nearly all short connections
// seen alive are of; nil if there is no such. Only looks that tell them from
// kept ones count.
func (s *scene) clearest(sides ...snapshot.Side) *group {
	groups := map[snapshot.Subject]*group{}
	seen := map[snapshot.Subject]float64{}
	var all float64
	servers := s.servers()
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if !slices.Contains(sides, f.Side) || f.Side == snapshot.Server && len(sides) > 1 && s.own(f) {
			continue // a connection with both ends here is its client's
		}
		about := subject(f)
		flows := []*snapshot.Flow{f}
		if f.Side == snapshot.Server {
			for _, v := range servers {
				if slices.Contains(v.flows, f) {
					about, flows = v.subject, v.flows
				}
			}
		}
		n := alive(f)
		for i := range s.history {
			if m := &s.history[i]; m.ago <= growthSeconds {
				n += alive(m.flow(f))
			}
		}
		seen[about] += n
		all += n
		groups[about] = &group{flows, about}
	}
	for about, n := range seen {
		if n > 0 && n >= clearShare*all && !folded(groups[about].flows[0]) {
			return groups[about]
		}
	}
	return nil
}

// alive is how many connections of a flow are open that weren't before.
func alive(f *snapshot.Flow) float64 {
	if f == nil || f.LongLived == nil {
		return 0
	}
	open := f.States.Established + f.States.CloseWait + f.States.SynRecv
	return float64(open - min(open, *f.LongLived))
}

// judgeResets looks for connections that end by RST on purpose: they leave no
// TIME_WAIT, and so are missed by whoever counts these.
func judgeResets(s *scene) []*found {
	held := s.heldAny(ShortReset)
	least := s.settings.Thresholds.of(resetRate, held)
	rate := func(p span) float64 { return p.rate("TCPAbortOnClose") + p.rate("TCPAbortOnData") }
	now, ok := s.steady(rate, least, held)
	if !ok {
		return nil
	}
	last := s.spans()[0]
	unread, linger := last.rate("TCPAbortOnClose"), last.rate("TCPAbortOnData")
	side, sides := resetSide(last)
	g := s.clearest(sides...)
	finding := &found{Finding: snapshot.Finding{ID: ShortReset, Severity: snapshot.Warning, Evidence: []snapshot.Evidence{
		{What: "closed with unread data", Value: unread, Unit: "1/s", Source: "TcpExt TCPAbortOnClose"},
		{What: "closed with SO_LINGER 0, or sent to after the close", Value: linger, Unit: "1/s", Source: "TcpExt TCPAbortOnData"},
		{What: "connections opened here", Value: last.rate("ActiveOpens"), Unit: "1/s", Source: "Tcp ActiveOpens"},
		{What: "connections accepted here", Value: last.rate("PassiveOpens"), Unit: "1/s", Source: "Tcp PassiveOpens"},
		{What: "RSTs sent", Value: last.rate("OutRsts"), Unit: "1/s", Source: "Tcp OutRsts"},
	}}}
	whose := "whose they are can't be told, since no flow stands out by its short connections"
	var f *snapshot.Flow
	if g != nil {
		f = g.flows[0]
		finding.Subject, finding.flow, finding.flows = g.subject, f, g.flows
		whose = "by all appearance those of " + connections(g)
	} else if side != "" {
		finding.Subject.Side = side
	}
	patterns := []string{advice.ResetUnread}
	how := "closed with data unread"
	switch {
	case unread > 0 && linger >= 0.2*now && unread >= 0.2*now:
		patterns, how = []string{advice.ResetUnread, advice.ResetLinger}, "closed with data unread or with SO_LINGER 0"
	case linger > unread:
		patterns, how = []string{advice.ResetLinger}, "closed with SO_LINGER 0 (or sent data after their close)"
	}
	for _, p := range patterns {
		a := s.situation(p, f)
		if a.Side = side; f != nil {
			a.Side = f.Side
		}
		finding.situations = append(finding.situations, a)
	}
	finding.Summary = fmt.Sprintf("%s connections a second end here by RST, %s, which leaves no TIME_WAIT and can lose data: %s.", draw.Short(now), how, whose)
	return []*found{finding}
}

// connections names a group's.
func connections(g *group) string {
	if g.subject.Side == snapshot.Server {
		if p := g.subject.Process; p != "" {
			return fmt.Sprintf("%s on port %d", foreign(p), g.subject.Port)
		}
		return fmt.Sprintf("the server on port %d", g.subject.Port)
	}
	name := who(g.flows)
	if name == "" {
		name = "a client at " + place(g.flows[0].Local)
	}
	return name + " to " + destination(g.flows)
}

// resetSide tells which end of its connections this host is, by who opens them;
// "" where it is both.
func resetSide(p span) (snapshot.Side, []snapshot.Side) {
	active, passive := p.rate("ActiveOpens"), p.rate("PassiveOpens")
	switch {
	case active > 2*passive:
		return snapshot.Client, []snapshot.Side{snapshot.Client}
	case passive > 2*active:
		return snapshot.Server, []snapshot.Side{snapshot.Server}
	}
	return "", []snapshot.Side{snapshot.Client, snapshot.Server}
}

// remoteChurn is the connections that were opened here and closed first by
// another host.
type remoteChurn struct {
	rate float64 // 1/s; 0 unless it reaches its threshold
	life float64 // seconds, at most
	// reset is set if most were ended by a RST and not a FIN.
	reset bool
	flow  *snapshot.Flow
}

// remoteCloses sums up what was opened here and didn't end here: as a load that
// holds, or as it is just now.
func (s *scene) remoteCloses(holds bool) remoteChurn {
	held := s.heldAny(ShortRemoteCloses)
	t := &s.settings.Thresholds
	if lacks("ActiveOpens", "TW")(s) {
		return remoteChurn{}
	}
	least := t.of(remoteClosesRate, held || s.heldAny(ShortClient))
	rate, steady := s.steady(s.leftOver, least, held)
	if rate < least || holds && !steady {
		return remoteChurn{}
	}
	far := remoteChurn{rate: rate}
	open := s.ns.Omitted.States.Established
	var own float64
	var busiest *snapshot.Flow
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if f.Side == snapshot.Server {
			continue
		}
		kept := uint32(0)
		if f.LongLived != nil {
			kept = *f.LongLived
		}
		open += f.States.Established - min(kept, f.States.Established)
		if f.Side == snapshot.Client && !folded(f) {
			own += present(f)
			if busiest == nil || present(f) > present(busiest) {
				busiest = f
			}
		}
	}
	limit := t.of(shortLifetime, false)
	if held {
		limit /= leaves
	}
	// Where connections come evenly, their lifetime x their rate is at most one
	// more than are open at a time.
	if far.life = life(open+1, rate+own); far.life >= limit {
		return remoteChurn{}
	}
	far.reset = resetsFrom(s.spans()[0]) >= mostOf*rate
	if g := s.clearest(snapshot.Client); g != nil {
		far.flow = g.flows[0]
	} else if busiest != nil && present(busiest) >= clearShare*own && own >= ownShare*rate {
		// Who closes first is a race: some of the flow's are lost by the other end.
		far.flow = busiest
	}
	return far
}

// resetsFrom is the rate of connections that the other end has reset: all that
// were, less those that this end did away with.
func resetsFrom(p span) float64 {
	return max(0, p.rate("EstabResets")-p.rate("TCPAbortOnClose")-p.rate("TCPAbortOnData"))
}

// leftOver is the rate of connections that were opened here in a span, less all
// that is known to have become of them.
func (s *scene) leftOver(p span) float64 {
	var here, others float64 // closes into TIME_WAIT: of clients here, of servers for other hosts
	n := min(60, int(math.Round(p.since)))
	until := min(60, int(math.Round(p.until)))
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		closes := 0.0
		switch {
		case f.OpenedPerSecond != nil && n > until:
			closes = timelineSum(f, n, until) / float64(n-until)
		case folded(f):
			closes = present(f)
		}
		if f.Side != snapshot.Server {
			here += closes
		} else if !s.own(f) {
			others += closes
		}
	}
	// TW counts both, and knows of those that were recycled since.
	left := p.rate("ActiveOpens") - max(here, p.rate("TW")-others)
	for _, c := range []string{
		"AttemptFails", "TCPSynRetrans", "TCPAbortOnClose", "TCPAbortOnData", "TCPTimeWaitOverflow", "TWKilled",
		"CurrEstab", // a gauge: those that stay
	} {
		left -= p.rate(c)
	}
	if n := p.to.States.SynSent; n > p.from.States.SynSent {
		left -= float64(n-p.from.States.SynSent) / p.seconds()
	}
	return max(0, left)
}

// judgeRemoteCloses tells of short connections that leave nothing here. What a
// flow that closes some of its own loses to the other end is told there.
func judgeRemoteCloses(s *scene) []*found {
	far := s.remoteCloses(true)
	if far.rate == 0 {
		return nil
	}
	if far.flow != nil {
		c := s.churnOf(group{[]*snapshot.Flow{far.flow}, subject(far.flow)}, far)
		if s.churns(far.flow, &c) {
			return nil
		}
	}
	finding := &found{Finding: snapshot.Finding{ID: ShortRemoteCloses, Severity: snapshot.Info}, flow: far.flow}
	warned := slices.ContainsFunc(s.previous, func(f snapshot.Finding) bool {
		return f.ID == ShortRemoteCloses && f.Namespace == s.ns.Name && f.Severity != snapshot.Info
	})
	if far.rate >= s.settings.Thresholds.of(shortWarningRate, warned) {
		finding.Severity = snapshot.Warning
	}
	last := s.spans()[0]
	finding.Evidence = []snapshot.Evidence{
		{What: evidenceFar, Value: finite(far.rate), Unit: "1/s", Source: "Tcp ActiveOpens less TW, AttemptFails, aborts and connections that stay"},
		{What: "connections opened here", Value: last.rate("ActiveOpens"), Unit: "1/s", Source: "Tcp ActiveOpens"},
		{What: "TIME_WAIT entered here", Value: last.rate("TW"), Unit: "1/s", Source: "TcpExt TW"},
		{What: "mean lifetime, at most", Value: finite(far.life), Unit: "s", Source: "Little's law: connections open and not kept, and one more, / rate"},
	}
	how, after := "closes first", "the TIME_WAIT are over there, and each request pays for a handshake all the same"
	if far.reset {
		how, after = "resets it", "no TIME_WAIT stays at either end, data can be lost, and each request pays for a handshake all the same"
		finding.Evidence = append(finding.Evidence, snapshot.Evidence{
			What: "reset by the other end", Value: finite(resetsFrom(last)), Unit: "1/s", Source: "Tcp EstabResets less TcpExt TCPAbortOnClose and TCPAbortOnData",
		})
	}
	if far.flow == nil {
		finding.Summary = fmt.Sprintf("%s connections a second are opened here, and the other end %s (each lives less than %s): %s; whose they are can't be told, since no flow stands out by its short connections.",
			draw.Short(far.rate), how, draw.Duration(far.life), after)
		a := s.situation(advice.RemoteCloses, nil)
		a.Side, a.Numbers.Rate = snapshot.Client, new(far.rate)
		finding.situations = []advice.Situation{a}
		return []*found{finding}
	}
	flows := []*snapshot.Flow{far.flow}
	finding.Subject = subject(far.flow)
	all := far.rate + present(far.flow)
	finding.Evidence = append(finding.Evidence, snapshot.Evidence{
		What: evidencePeak, Value: finite(max(all, s.peakBefore(ShortRemoteCloses, finding.Subject), s.peakBefore(ShortClient, finding.Subject))),
		Unit: "1/s", Source: "highest of the looks kept",
	})
	if n := far.flow.LongLived; n != nil {
		finding.Evidence = append(finding.Evidence, snapshot.Evidence{What: evidenceKept, Value: float64(*n), Unit: "sockets", Source: "seen at two looks at least, by cookie"})
	}
	finding.Summary = fmt.Sprintf("%s opens a new connection to %s for every request, and the other end %s (%s, each lives less than %s): %s.",
		clientSide(flows), destination(flows), how, draw.Rate(all), draw.Duration(far.life), after)
	a := s.situation(advice.RemoteCloses, far.flow)
	a.Numbers.Rate, a.Numbers.Lifetime, a.Numbers.TimeWait = new(all), nil, nil // its TIME_WAIT are elsewhere
	if n := far.flow.States.Established; n > 0 {
		a.Numbers.Lifetime = new(float64(n) / all)
	}
	finding.situations = []advice.Situation{a}
	return []*found{finding}
}
