package diagnose

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about ephemeral ports.
const (
	PortsSlow        = "ephemeral-ports-slow"
	PortsRunningOut  = "ephemeral-ports-running-out"
	PortsExhausted   = "ephemeral-ports-exhausted"
	BindFirst        = "bind-before-connect"
	ListenersInRange = "listeners-inside-port-range"
)

func portRules() []rule {
	unknown := func(s *scene) bool { return s.ns.Ports == nil }
	return []rule{
		{ids: []string{PortsSlow, PortsRunningOut, PortsExhausted}, judge: judgePorts, silent: unknown},
		{ids: []string{BindFirst}, judge: judgeBinds, silent: unknown},
		{ids: []string{ListenersInRange}, judge: judgeListeners, silent: unknown},
	}
}

func portConsequences() []consequence {
	var all []consequence
	for _, of := range []string{PortsExhausted, PortsRunningOut, PortsSlow} {
		all = append(all, consequence{cause: BindFirst, of: of, when: func(_ *scene, _, of *found) bool { return lostToBinds(of.flow) }})
	}
	return all
}

// judgePorts looks at each client flow's own ports: the kernel counts them
// for each source address, destination address and destination port.
func judgePorts(s *scene) []*found {
	of := map[string][]*snapshot.Flow{}
	for i := range s.ns.Flows {
		if f := &s.ns.Flows[i]; usablePorts(f) > 0 {
			id := s.portTrouble(f)
			of[id] = append(of[id], f)
		}
	}
	var all []*found
	for _, id := range []string{PortsExhausted, PortsRunningOut, PortsSlow} {
		for _, g := range s.fold(of[id], id) {
			all = append(all, s.portFinding(id, g))
		}
	}
	return s.most(all)
}

// usablePorts are those that connect() may choose from; 0 if that is unknown.
func usablePorts(f *snapshot.Flow) int {
	if f.Ports == nil {
		return 0
	}
	return max(0, f.Ports.Range-f.Ports.Reserved)
}

// taken is the share of the usable ports that connect() can't get now.
func taken(f *snapshot.Flow) float64 {
	all := usablePorts(f)
	if all == 0 {
		return 0
	}
	return 1 - float64(f.Ports.Free)/float64(all)
}

// portTrouble is which finding a flow's ports make, "" if none. Up to half of
// the range, the rate alone is the matter: see short-connections-client. Each
// range that runs dry is in its slow half first; how little time is left counts
// from the next look on, or at once if there was none before.
func (s *scene) portTrouble(f *snapshot.Flow) string {
	t := &s.settings.Thresholds
	slow := s.heldFlow(f, PortsSlow, PortsRunningOut, PortsExhausted)
	runOut := s.heldFlow(f, PortsRunningOut, PortsExhausted)
	soon := t.of(portsSeconds, false)
	if runOut {
		soon /= leaves
	}
	used, left := taken(f), f.Ports.SecondsToExhaustion
	switch {
	case f.Ports.Free <= 0:
		return PortsExhausted
	case used >= t.of(portsRunningOut, runOut):
		return PortsRunningOut
	case used <= t.of(portsSlow, slow):
		return ""
	case left != nil && float64(*left) < soon && (slow || s.firstLook()):
		return PortsRunningOut
	}
	return PortsSlow
}

// firstLook tells whether no earlier look saw the namespace's sockets.
func (s *scene) firstLook() bool {
	return !slices.ContainsFunc(s.history, func(m moment) bool { return m.ns.Source != "" })
}

func (s *scene) portFinding(id string, g group) *found {
	// The tightest speaks for all.
	f := slices.MinFunc(g.flows, func(a, b *snapshot.Flow) int { return a.Ports.Free - b.Ports.Free })
	finding := &found{
		Finding: snapshot.Finding{ID: id, Severity: snapshot.Critical, Subject: g.subject, Evidence: portEvidence(f)},
		flow:    f, flows: g.flows,
	}
	pattern := advice.Ports
	if lostToBinds(f) {
		pattern = advice.BindBeforeConnect
	}
	finding.situations = []advice.Situation{s.situation(pattern, f)}
	all := draw.Count(int64(usablePorts(f)))
	here, there := from(g.flows), destination(tightestFirst(g.flows, f))
	left, used := draw.Count(int64(f.Ports.Free)), draw.Count(int64(usablePorts(f)-f.Ports.Free))
	if f.Ports.AtMost && f.Ports.Free > 0 {
		left, used = "at most "+left, "at least "+used
	}
	tightest := ""
	if len(g.flows) > 1 {
		finding.Evidence = append(finding.Evidence, snapshot.Evidence{What: "flows in this state", Value: float64(len(g.flows)), Unit: "", Source: "inet_diag"})
		tightest = ", to the tightest"
	}
	switch id {
	case PortsExhausted:
		finding.Summary = fmt.Sprintf("No port left from %s to %s: all %s are taken%s, and connect() fails with EADDRNOTAVAIL.", here, there, all, byWhat(f, "all", "of them"))
	case PortsRunningOut:
		finding.Summary = fmt.Sprintf("Ports from %s to %s run out%s: %s of %s are left%s%s.", here, there, tightest, left, all, byWhat(f, "the others are taken", "of the others are taken"), when(f.Ports))
	default:
		finding.Severity = snapshot.Warning
		finding.Summary = fmt.Sprintf("connect() from %s to %s is in its slow half%s: %s of %s ports are taken%s%s.", here, there, tightest, used, all, byWhat(f, "all", "of them"), when(f.Ports))
	}
	return finding
}

// tightestFirst puts the flow that speaks for all first.
func tightestFirst(flows []*snapshot.Flow, f *snapshot.Flow) []*snapshot.Flow {
	return append([]*snapshot.Flow{f}, slices.DeleteFunc(slices.Clone(flows), func(o *snapshot.Flow) bool { return o == f })...)
}

// byWhat names what takes the ports, if it is TIME_WAIT or binds: all of those
// that the sentence speaks of, or some.
func byWhat(f *snapshot.Flow, all, some string) string {
	const closed = "by closed connections in TIME_WAIT"
	used, waiting := f.Ports.Used, int(f.States.TimeWait)
	switch {
	case lostToBinds(f):
		return fmt.Sprintf(", %s %s by bind(), for every destination at once", draw.Count(int64(f.Ports.Blocked)), some)
	case waiting > 0 && waiting >= used && f.Ports.Blocked == 0:
		return fmt.Sprintf(", %s %s", all, closed)
	case waiting > 0 && waiting >= used/2:
		return fmt.Sprintf(", %s %s %s", draw.Count(int64(waiting)), some, closed)
	}
	return ""
}

// lostToBinds tells whether at least half of what a flow can't get is held for
// every destination.
func lostToBinds(f *snapshot.Flow) bool {
	return f.Ports != nil && f.Ports.Blocked > 0 && f.Ports.Blocked*2 >= usablePorts(f)-f.Ports.Free
}

func when(p *snapshot.Ports) string {
	if p.SecondsToExhaustion == nil {
		return ""
	}
	return fmt.Sprintf("; at the present rate none is left in %s", draw.Duration(float64(*p.SecondsToExhaustion)))
}

func portEvidence(f *snapshot.Flow) []snapshot.Evidence {
	const source = "inet_diag, ip_local_port_range, ip_local_reserved_ports"
	p := f.Ports
	e := []snapshot.Evidence{
		{What: "free ports", Value: float64(p.Free), Unit: "ports", Source: source},
		{What: "usable range", Value: float64(usablePorts(f)), Unit: "ports", Source: "ip_local_port_range, ip_local_reserved_ports"},
		{What: "ports used by this flow", Value: float64(p.Used), Unit: "ports", Source: "inet_diag"},
		{What: "TIME_WAIT of this flow", Value: float64(f.States.TimeWait), Unit: "sockets", Source: "inet_diag"},
	}
	if p.Blocked > 0 {
		e = append(e, snapshot.Evidence{What: "ports blocked by binds", Value: float64(p.Blocked), Unit: "ports", Source: "inet_diag"})
	}
	if f.CloseRate != nil {
		e = append(e, snapshot.Evidence{What: evidenceRate, Value: finite(*f.CloseRate), Unit: "1/s", Source: sourceTimers})
	}
	return e
}

// judgeBinds looks at the ports that programs take for every destination at
// once, because they bind before they connect.
func judgeBinds(s *scene) []*found {
	p := s.ns.Ports
	all, lost := p.Range-p.Reserved, p.BlockedExplicit+p.BlockedParity
	if all <= 0 || lost <= 0 || float64(lost) < s.settings.Thresholds.of(bindBlocked, s.heldAny(BindFirst))*float64(all) {
		return nil
	}
	type binder struct {
		flow  *snapshot.Flow // the one with most
		bound int
	}
	binders := map[string]*binder{}
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if f.Ports == nil || f.Ports.Bound <= 0 {
			continue
		}
		b := binders[comm(f)]
		if b == nil {
			b = &binder{flow: f}
			binders[comm(f)] = b
		}
		if b.bound += f.Ports.Bound; f.Ports.Bound > b.flow.Ports.Bound {
			b.flow = f
		}
	}
	var names []string
	for name := range binders {
		if name != "" {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(binders[b].bound-binders[a].bound, cmp.Compare(a, b))
	})
	finding := &found{Finding: snapshot.Finding{
		ID: BindFirst, Severity: snapshot.Warning,
		Evidence: []snapshot.Evidence{
			{What: "ports lost by bind()", Value: float64(lost), Unit: "ports", Source: "inet_diag: parity of local ports, and sockets that hold an explicit bind"},
			{What: "usable range", Value: float64(all), Unit: "ports", Source: "ip_local_port_range, ip_local_reserved_ports"},
		},
	}}
	situation := s.situation(advice.BindBeforeConnect, nil)
	situation.Side = snapshot.Client
	verb := "A program here binds"
	if len(names) > 0 {
		shown := make([]string, len(names))
		for i, n := range names {
			shown[i] = foreign(n)
		}
		verb = list(shown, 3) + " bind"
		if len(names) == 1 {
			verb = shown[0] + " binds"
			finding.Subject.Process = names[0]
		}
		if p := program(binders[names[0]].flow); p != nil {
			situation.Runtime, situation.RuntimeVersion = p.Runtime, p.RuntimeVersion
		}
	}
	finding.Summary = fmt.Sprintf("%s before connect(), which takes each port for every destination at once: %s of %s ports (%s) are lost that way.",
		verb, draw.Count(int64(lost)), draw.Count(int64(all)), draw.Percent(float64(lost)/float64(all)))
	finding.situations = []advice.Situation{situation}
	return []*found{finding}
}

// judgeListeners looks for services whose port connect() may take while they
// restart. A helper that listens on whatever port it was given is none.
func judgeListeners(s *scene) []*found {
	r := s.ns.Limits.IPLocalPortRange
	if r == nil {
		return nil
	}
	busy := false
	limit := s.settings.Thresholds.of(listenersUsed, s.heldAny(ListenersInRange))
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		busy = busy || usablePorts(f) > 0 && float64(f.Ports.Used) >= limit*float64(usablePorts(f))
	}
	services := func(uint16) string { return "" }
	if s.settings.Advice != nil {
		services = s.settings.Advice.Services().Name
	}
	var inside []endpoint
	for _, l := range s.endpoints() {
		reserved := s.ns.Limits.IPLocalReservedPorts
		if !r.Contains(l.port) || reserved != nil && reserved.Contains(l.port) {
			continue
		}
		if l.service = services(l.port); l.service != "" || busy && l.wildcard {
			inside = append(inside, l)
		}
	}
	if len(inside) == 0 {
		return nil
	}
	var names []string
	for _, l := range inside {
		name := fmt.Sprint(l.port)
		if l.comm != "" {
			name += " (" + foreign(l.comm) + ")"
		} else if l.service != "" {
			name += " (usually " + foreign(l.service) + ")"
		}
		names = append(names, name)
	}
	what, it := "Port "+names[0]+" is listened on and lies", "it"
	if len(names) > 1 {
		what, it = "Ports "+list(names, 4)+" are listened on and lie", "one of them"
	}
	return []*found{{
		Finding: snapshot.Finding{
			ID: ListenersInRange, Severity: snapshot.Info,
			Summary: fmt.Sprintf("%s inside the range that connect() takes its ports from (%d to %d): while the service restarts, a connection can take %s, and it can't start.",
				what, r.Low, r.High, it),
			Evidence: []snapshot.Evidence{{
				What: "listening ports in the range, not reserved", Value: float64(len(inside)), Unit: "ports",
				Source: "ss -tln, ip_local_port_range, ip_local_reserved_ports",
			}},
		},
		situations: []advice.Situation{s.situation(advice.ListenersInRange, nil)},
	}}
}
