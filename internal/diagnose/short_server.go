package diagnose

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// sustainedSeconds of the last minute must have closes before a server's are
// taken for a load: what clients leave in a burst is none.
const sustainedSeconds = 30

// An endpoint is what something listens on. One on the wildcard address has all
// addresses of its port.
type endpoint struct {
	port     uint16
	local    string // "" for the wildcard
	wildcard bool
	comm     string
	pid      int
	service  string
}

// endpoints are the namespace's listeners, each port's once where one has the
// wildcard.
func (s *scene) endpoints() []endpoint {
	var all []endpoint
	for i := range s.ns.Listeners {
		l := &s.ns.Listeners[i]
		ap, err := netip.ParseAddrPort(l.Local)
		if err != nil {
			continue
		}
		e := endpoint{port: ap.Port(), local: ap.Addr().Unmap().String(), wildcard: ap.Addr().IsUnspecified(), comm: l.Comm, pid: l.PID}
		if e.wildcard {
			e.local = ""
		}
		same := func(o endpoint) bool { return o.port == e.port && (o.wildcard || e.wildcard || o.local == e.local) }
		if j := slices.IndexFunc(all, same); j < 0 {
			all = append(all, e)
		} else if e.wildcard && !all[j].wildcard {
			all[j] = e
		}
	}
	return all
}

// served is the traffic of one endpoint, of all remotes together.
type served struct {
	group
	endpoint
	rate    float64 // closes here, 1/s
	atLeast bool
	open    uint32
	kept    uint32
	known   bool // kept is known for every flow
	local   bool // all clients are on this host
	busy    int  // seconds of the last minute with closes
}

// servers sums the flows that servers here have accepted, by listener.
func (s *scene) servers() []*served {
	listeners := s.endpoints()
	type key struct {
		local string
		port  uint16
	}
	of := map[key]*served{}
	var all []*served
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if f.Side != snapshot.Server {
			continue
		}
		e := endpoint{port: f.Port}
		j := slices.IndexFunc(listeners, func(l endpoint) bool {
			return l.port == f.Port && (l.wildcard || l.local == f.Local)
		})
		if j >= 0 {
			e = listeners[j]
		}
		k := key{e.local, e.port}
		v := of[k]
		if v == nil {
			v = &served{endpoint: e, known: true, local: true}
			v.subject = snapshot.Subject{Side: snapshot.Server, Local: e.local, Port: e.port, Service: f.Service, Process: e.comm}
			of[k], all = v, append(all, v)
		}
		v.add(f, s.own(f))
	}
	for _, v := range all {
		v.settle(s)
	}
	return all
}

func (v *served) add(f *snapshot.Flow, local bool) {
	v.flows = append(v.flows, f)
	v.rate += present(f)
	v.atLeast = v.atLeast || f.CloseRateAtLeast
	v.open += f.States.Established
	v.local = v.local && local
	if f.LongLived == nil {
		v.known = false
	} else {
		v.kept += min(*f.LongLived, f.States.Established)
	}
	if v.subject.Process == "" {
		v.subject.Process = comm(f)
	}
}

// settle counts the busy seconds, of the whole namespace where most of the
// endpoint's closes have no timeline of their own: they are of many remotes.
func (v *served) settle(s *scene) {
	line := make([]uint32, 60)
	var without float64
	for _, f := range v.flows {
		if f.OpenedPerSecond == nil {
			without += present(f)
			continue
		}
		line = together(line, f.OpenedPerSecond)
	}
	if w := &s.ns.TimeWait; without*2 > v.rate && w.CloseRate != nil && v.rate*2 >= *w.CloseRate {
		line = w.OpenedPerSecond
	}
	v.busy = busy(line)
}

func saturate(a, b uint32) uint32 {
	if a+b < a {
		return ^uint32(0)
	}
	return a + b
}

// judgeServers looks for servers that close after each request.
func judgeServers(s *scene) []*found {
	var all []*found
	t := &s.settings.Thresholds
	for _, v := range s.servers() {
		held := s.held(v.subject, ShortServer)
		limit, least := t.of(shortLifetime, false), sustainedSeconds
		if held {
			limit, least = limit/leaves, sustainedSeconds/2
		}
		// A rate that is a floor makes the lifetime a ceiling.
		if v.rate < t.of(shortServerRate, held) || v.busy < least || life(v.open-v.kept, v.rate) >= limit {
			continue
		}
		all = append(all, s.serverFinding(v))
	}
	return s.most(all)
}

func (s *scene) serverFinding(v *served) *found {
	lives := life(v.open-v.kept, v.rate)
	name := fmt.Sprintf("The server on port %d", v.port)
	if v.subject.Process != "" {
		name = fmt.Sprintf("%s (port %d)", foreign(v.subject.Process), v.port)
	}
	rate, each := draw.Rate(v.rate), "lives "+draw.Duration(lives)
	if v.atLeast {
		rate = "at least " + rate
	}
	if v.open <= v.kept || v.atLeast {
		each = "lives less than " + draw.Duration(lives)
	}
	var waiting uint32
	for _, f := range v.flows {
		waiting += f.States.TimeWait
	}
	a := s.situation(advice.ServerCloses, nil)
	f := v.flows[0]
	a.Side, a.Service, a.ServiceBy, a.Local = snapshot.Server, f.Service, f.ServiceBy, v.local
	a.Remote = netip.AddrPortFrom(netip.Addr{}, v.port)
	a.Numbers.Rate, a.Numbers.TimeWait = new(finite(v.rate)), new(int(waiting))
	if p := program(f); p != nil {
		a.Runtime, a.RuntimeVersion = p.Runtime, p.RuntimeVersion
	} else if o := s.owner(v.pid); o != nil {
		a.Runtime, a.RuntimeVersion = o.Runtime, o.RuntimeVersion
	}
	e := []snapshot.Evidence{
		{What: evidenceRate, Value: finite(v.rate), Unit: "1/s", Source: sourceTimers},
		{What: evidencePeak, Value: finite(max(v.rate, s.peakBefore(ShortServer, v.subject))), Unit: "1/s", Source: "highest of the looks kept"},
		{What: "mean lifetime, at most", Value: finite(lives), Unit: "s", Source: "Little's law: connections open and not kept / rate"},
		{What: "TIME_WAIT on the port", Value: float64(waiting), Unit: "sockets", Source: fmt.Sprintf("ss -tn state time-wait sport = :%d", v.port)},
		{What: "seconds of the last minute with closes", Value: float64(v.busy), Unit: "s", Source: sourceTimers},
	}
	if v.known {
		e = append(e, snapshot.Evidence{What: evidenceKept, Value: float64(v.kept), Unit: "sockets", Source: "seen at two looks at least, by cookie"})
	}
	return &found{
		Finding: snapshot.Finding{
			ID: ShortServer, Severity: snapshot.Info, Subject: v.subject, Evidence: e,
			Summary: fmt.Sprintf("%s closes its connections first after each request (%s, each %s): no ports are at risk, and keep-alive would save handshakes, CPU, latency and TLS.",
				name, rate, each),
		},
		flow: f, flows: v.flows, situations: []advice.Situation{a},
	}
}

// peakBefore is the peak that a finding remembers.
func (s *scene) peakBefore(id string, about snapshot.Subject) float64 {
	v, _ := evidence(s.earlier(id, about), evidencePeak)
	return v
}
