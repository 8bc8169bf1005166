package exporter

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// The states that a flow's sockets are exported by, in the order of
// flowStates.
const (
	timeWait = iota
	closeWait
	established
	synSent
	nStates
)

func stateName(i int) string {
	return [nStates]string{"time_wait", "close_wait", "established", "syn_sent"}[i]
}

// flowStates are the counts of the exported states.
type flowStates [nStates]uint64

func countStates(s *snapshot.States) flowStates {
	return flowStates{
		timeWait: uint64(s.TimeWait), closeWait: uint64(s.CloseWait),
		established: uint64(s.Established), synSent: uint64(s.SynSent),
	}
}

// flowKey is what makes a flow's labels distinct: two flows of one key are one
// flow here.
type flowKey struct {
	ns            nsKey
	side          snapshot.Side
	local, remote netip.Addr
	device        string // clean
	port          uint16
}

// flowSum is one exportable flow in one frame.
type flowSum struct {
	key      flowKey
	protocol string
	states   flowStates
	births   uint64
	rows     int // flows of the report that it sums
	// Of client flows; nil or negative where unknown.
	ports     *snapshot.Ports
	tightness float64 // share of the ports that are not free
	demand    float64 // share of the ports that the present rate will hold
}

// scene is one namespace in one frame.
type scene struct {
	ns    *snapshot.Namespace
	id    nsKey
	label string
	// full namespaces have all metrics; of the others there is a few, and
	// those of their exported flows.
	full bool
	// all is true if the report left no flow out: one that is not listed has
	// no socket.
	all   bool
	flows map[flowKey]*flowSum
	rows  int      // flows listed, with those that have no key
	ports *int     // range − reserved; nil: unknown
	tight *float64 // of the tightest client flow; nil: unknown
	// demand is the greatest of any client flow; nil: unknown.
	demand *float64
	// births are those of flows with a known service.
	births map[protocolKey]uint64
}

// survey makes the scenes of a frame, the full one first.
func survey(r *snapshot.Report, serverRemotes bool) []*scene {
	seen := make(map[nsKey]bool, len(r.Namespaces))
	var all []*snapshot.Namespace
	for _, ns := range r.Namespaces {
		if ns == nil || seen[identify(ns)] {
			continue
		}
		seen[identify(ns)] = true
		all = append(all, ns)
	}
	slices.SortStableFunc(all, func(a, b *snapshot.Namespace) int { return -compareBool(own(a), own(b)) })
	labels := netnsLabels(all)
	scenes := make([]*scene, 0, len(all))
	for i, ns := range all {
		s := &scene{ns: ns, id: identify(ns), full: i == 0, all: ns.Omitted.Flows == 0 && !cutShort(r, ns)}
		s.flows = make(map[flowKey]*flowSum, len(ns.Flows))
		s.births = make(map[protocolKey]uint64)
		s.label = labels[s.id]
		s.addPorts()
		for j := range ns.Flows {
			s.add(&ns.Flows[j], serverRemotes)
		}
		scenes = append(scenes, s)
	}
	return scenes
}

// cutShort tells whether something is missing from the namespace's dump.
func cutShort(r *snapshot.Report, ns *snapshot.Namespace) bool {
	return slices.ContainsFunc(r.Incomplete, func(g snapshot.Gap) bool {
		return g.Stage == "dump" && (g.Namespace == ns.Name || g.Namespace == "")
	})
}

func (s *scene) addPorts() {
	n, known := 0, false
	if p := s.ns.Ports; p != nil {
		n, known = p.Range-p.Reserved, true
	} else if r := s.ns.Limits.IPLocalPortRange; r != nil {
		n, known = r.Size(), true
		if reserved := s.ns.Limits.IPLocalReservedPorts; reserved != nil {
			n -= reserved.CountIn(*r)
		}
	}
	if known && n >= 0 {
		s.ports, s.tight, s.demand = &n, new(float64), new(float64)
	}
}

// add takes a flow of the report. What can't have labels (a prefix, a side
// that isn't known) stays out of flows, and is part of what is omitted.
func (s *scene) add(f *snapshot.Flow, serverRemotes bool) {
	s.rows++
	if f.Service != "" && (f.Side == snapshot.Client || f.Side == snapshot.Server) {
		s.births[protocolKey{f.Side, clean(f.Service)}] += f.Births
	}
	var tight, demand float64 = -1, -1
	if f.Side == snapshot.Client && f.Ports != nil {
		tight, demand = tightness(f.Ports), portDemand(f, s.ns)
		if s.tight != nil {
			*s.tight, *s.demand = max(*s.tight, tight), max(*s.demand, demand)
		}
	}
	local, zone, ok := parseAddress(f.Local)
	if !ok { // a prefix row may hold any flow
		s.all = false
		return
	}
	if f.Side != snapshot.Client && f.Side != snapshot.Server {
		return
	}
	key := flowKey{ns: s.id, side: f.Side, local: local, port: f.Port, device: cut(clean(cmp.Or(f.Device, zone)), maxDevice)}
	if f.Side == snapshot.Client || serverRemotes {
		if key.remote, _, ok = parseAddress(f.Remote); !ok {
			s.all = false
			return
		}
	}
	// An address that only ever sent a SYN may be forged.
	onlySyn := f.States.Total() == int(f.States.SynRecv)
	sum := s.flows[key]
	if sum == nil {
		if onlySyn {
			return
		}
		sum = &flowSum{key: key, protocol: clean(f.Service), tightness: -1, demand: -1}
		s.flows[key] = sum
	}
	sum.rows++
	sum.births += f.Births
	for i, n := range countStates(&f.States) {
		sum.states[i] += n
	}
	sum.demand = max(sum.demand, demand)
	if tight > sum.tightness {
		sum.tightness, sum.ports = tight, f.Ports
	}
}

// tightness is the share of a client flow's ports that are not free.
func tightness(p *snapshot.Ports) float64 {
	all := p.Range - p.Reserved
	if all <= 0 {
		return 1
	}
	return min(1, max(0, float64(all-p.Free)/float64(all)))
}

// portDemand is close rate × hold time / ports, negative if unknown.
func portDemand(f *snapshot.Flow, ns *snapshot.Namespace) float64 {
	const timeWaitSeconds = 60 // TCP_TIMEWAIT_LEN, include/net/tcp.h
	ports := f.Ports.Range - f.Ports.Reserved - f.Ports.Blocked
	if f.CloseRate == nil || ports <= 0 {
		return -1
	}
	hold := float64(timeWaitSeconds)
	if f.SurvivorsOnly {
		hold = 1 // a fixed second before the delay became a setting
		if d := ns.Limits.TCPTWReuseDelay; d != nil {
			hold = float64(*d) / 1000
		}
	}
	if d := *f.CloseRate * hold / float64(ports); d >= 0 && !math.IsInf(d, 0) {
		return d
	}
	return -1
}

// ranked returns the n most telling flows of one side over all scenes, best
// first.
func ranked(scenes []*scene, side snapshot.Side, n int) []*flowSum {
	best := make([]*flowSum, 0, n+1)
	for _, s := range scenes {
		for _, f := range s.flows {
			if f.key.side != side || len(best) == n && (n == 0 || compareSums(best[n-1], f) < 0) {
				continue
			}
			i, _ := slices.BinarySearchFunc(best, f, compareSums)
			best = slices.Insert(best, i, f)
			best = best[:min(n, len(best))]
		}
	}
	return best
}

func compareSums(a, b *flowSum) int {
	return cmp.Or(
		cmp.Compare(b.tightness, a.tightness),
		cmp.Compare(b.states[timeWait], a.states[timeWait]),
		cmp.Compare(b.states[closeWait], a.states[closeWait]),
		cmp.Compare(b.states[established], a.states[established]),
		compareKeys(&a.key, &b.key),
	)
}

func compareKeys(a, b *flowKey) int {
	if a.ns != b.ns {
		x, y := a.ns.Value(), b.ns.Value()
		return cmp.Or(strings.Compare(x.name, y.name), cmp.Compare(x.inode, y.inode), cmp.Compare(x.cookie, y.cookie))
	}
	return cmp.Or(
		strings.Compare(string(a.side), string(b.side)), a.remote.Compare(b.remote), cmp.Compare(a.port, b.port),
		a.local.Compare(b.local), strings.Compare(a.device, b.device),
	)
}
