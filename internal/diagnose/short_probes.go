package diagnose

import (
	"fmt"
	"math"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// How health checks and scrapes are told by their period.
const (
	fewCloses   = 10 // at a time, at most
	mostGap     = 1  // seconds that a gap may differ from the others
	leastEvents = 5  // four periods
	// eachSecond is how long a period of about a second must have held: short
	// of that, chance looks like it too.
	eachSecond = 20
	// mostEachSecond is what a period of a second makes, and a little more:
	// requests at a steady rate come as evenly.
	mostEachSecond = 1.2
	// mostStray is how many closes the sum may be off a straight line.
	mostStray = 1.5
)

// healthChecks finds flows that open and close at a constant period, a few at a
// time. One alone is nothing to speak of.
func (s *scene) healthChecks() []*found {
	type key struct {
		program string
		port    uint16 // only where no program is known
	}
	var keys []key
	probes := map[key]*probe{}
	var flows []*snapshot.Flow
	var periods []float64
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if f.Side != snapshot.Client || folded(f) || present(f) >= s.settings.Thresholds.of(shortRate, false) {
			continue
		}
		if period, ok := period(f.OpenedPerSecond); ok {
			flows, periods = append(flows, f), append(periods, period)
		}
	}
	programs := programsByPort(flows)
	for i, f := range flows {
		period := periods[i]
		k := key{program: programs(f)}
		if k.program == "" {
			k.port = f.Port
		}
		p := probes[k]
		if p == nil {
			p = &probe{shortest: period, longest: period}
			probes[k], keys = p, append(keys, k)
		}
		p.add(f, period)
	}
	var all []*found
	for _, k := range keys {
		if f := probes[k].finding(s); f != nil {
			all = append(all, f)
		}
	}
	return all
}

// programsByPort tells the program of a flow. Probes last too short for each of
// them to be seen, so one whose program isn't known is of the only program that
// is seen to probe the same port.
func programsByPort(flows []*snapshot.Flow) func(*snapshot.Flow) string {
	only, several := map[uint16]string{}, map[uint16]bool{}
	for _, f := range flows {
		name := comm(f)
		if name == "" {
			continue
		}
		several[f.Port] = several[f.Port] || only[f.Port] != "" && only[f.Port] != name
		only[f.Port] = name
	}
	return func(f *snapshot.Flow) string {
		if name := comm(f); name != "" || several[f.Port] {
			return name
		}
		return only[f.Port]
	}
}

// probe is what one program checks.
type probe struct {
	flows             []*snapshot.Flow
	shortest, longest float64 // periods, seconds
	waiting           int
}

func (p *probe) add(f *snapshot.Flow, period float64) {
	p.flows = append(p.flows, f)
	if comm(p.flows[0]) == "" { // the first names all
		last := len(p.flows) - 1
		p.flows[0], p.flows[last] = f, p.flows[0]
	}
	p.shortest, p.longest = min(p.shortest, period), max(p.longest, period)
	p.waiting += int(f.States.TimeWait)
}

func (p *probe) finding(s *scene) *found {
	f := p.flows[0]
	about := subject(f)
	if len(p.flows) > 1 {
		about = foldedSubject(p.flows)
		for _, o := range p.flows {
			if o.Port != f.Port {
				about.Port, about.Service = 0, ""
			}
		}
	}
	if float64(p.waiting) < s.threshold(healthCheckSockets, about, ShortClient) {
		return nil
	}
	to := destination(p.flows)
	switch {
	case len(p.flows) > 1 && about.Port == 0:
		to = fmt.Sprintf("each of %d destinations", len(p.flows))
	case len(p.flows) > 1:
		to = fmt.Sprintf("each of %d destinations on port %d", len(p.flows), f.Port)
	}
	every := draw.Duration(math.Round(p.longest))
	if math.Round(p.shortest) != math.Round(p.longest) {
		every = draw.Duration(math.Round(p.shortest)) + " to " + every
	}
	situation := s.situation(advice.HealthCheck, f)
	if len(p.flows) > 1 {
		situation.Numbers.Rate, situation.Numbers.TimeWait = nil, new(p.waiting)
	}
	return &found{
		Finding: snapshot.Finding{
			ID: ShortClient, Severity: snapshot.Info, Subject: about,
			Summary: fmt.Sprintf("%s opens and closes a connection to %s every %s, as health checks and scrapes do: %s TIME_WAIT, and no reason to act.",
				clientSide(p.flows), to, every, draw.Count(int64(p.waiting))),
			Evidence: []snapshot.Evidence{
				{What: "TIME_WAIT", Value: float64(p.waiting), Unit: "sockets", Source: "inet_diag (ss -tn state time-wait)"},
				{What: "longest period", Value: p.longest, Unit: "s", Source: sourceTimers},
				{What: "destinations", Value: float64(len(p.flows)), Unit: "", Source: "inet_diag"},
			},
		},
		flow: f, flows: p.flows, situations: []advice.Situation{situation},
	}
}

// period is the constant gap between closes, in seconds, that a timeline of
// seconds shows; false if there is none.
func period(line []uint32) (seconds float64, ok bool) {
	first, last, events := -1, -1, 0
	shortest, longest := len(line), 0
	var sum uint32
	for i, n := range line {
		if n == 0 {
			continue
		}
		if n > fewCloses {
			return 0, false
		}
		sum += n
		if last == i-1 && last >= 0 { // two seconds that touch: one event, or a period of a second
			shortest = 1
		}
		if first < 0 {
			first = i
		} else if shortest != 1 {
			shortest, longest = min(shortest, i-last), max(longest, i-last)
		}
		last = i
		events++
	}
	if events < leastEvents {
		return 0, false
	}
	if shortest > 1 {
		gap := float64(last-first) / float64(events-1)
		still := float64(len(line)-1-last) <= gap+mostGap // it goes on
		return gap, longest-shortest <= 2*mostGap && still
	}
	return evenly(line[first:], sum)
}

// evenly tells whether closes come as evenly as a clock: the sum up to each
// second is never far from the straight line. Chance strays by the root of the
// number.
func evenly(line []uint32, sum uint32) (seconds float64, ok bool) {
	if len(line) < eachSecond || line[len(line)-1]+line[len(line)-2]+line[len(line)-3] == 0 {
		return 0, false
	}
	each := float64(sum) / float64(len(line))
	if each > mostEachSecond {
		return 0, false
	}
	most := 0.0
	var so float64
	for i, n := range line {
		so += float64(n)
		most = max(most, math.Abs(so-each*float64(i+1)))
	}
	if most > mostStray {
		return 0, false
	}
	return max(1, 1/each), true
}
