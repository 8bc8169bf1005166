package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// How much of one kind is said.
const (
	// foldFrom is how many flows of one program and port are at most named one
	// by one: a proxy may have hundreds of backends.
	foldFrom = 3
	// mostFindings is how many findings of one kind a namespace has at most.
	mostFindings = 10
	// knownEnough is the share of sockets from which on a program is named
	// without saying how many of its sockets are known.
	knownEnough = 0.9
	// nameBytes and addressBytes are how much of a name, or of an address with its
	// zone, is shown.
	nameBytes, addressBytes = 32, 64
)

// A group is the flows that one finding is about, the one nearest to trouble
// first.
type group struct {
	flows   []*snapshot.Flow
	subject snapshot.Subject
}

// fold makes one group of the flows of a program and a port where they are many,
// and one of each flow elsewhere. What was folded already while one of these
// findings was there stays so as long as it is more than one.
func (s *scene) fold(flows []*snapshot.Flow, ids ...string) []group {
	type key struct {
		program string
		port    uint16
	}
	var keys []key
	of := map[key][]*snapshot.Flow{}
	for _, f := range flows {
		k := key{comm(f), f.Port}
		if of[k] == nil {
			keys = append(keys, k)
		}
		of[k] = append(of[k], f)
	}
	var groups []group
	for _, k := range keys {
		all, together := of[k], foldedSubject(of[k])
		if len(all) > foldFrom || len(all) > 1 && s.held(together, ids...) {
			groups = append(groups, group{all, together})
			continue
		}
		for _, f := range all {
			groups = append(groups, group{[]*snapshot.Flow{f}, subject(f)})
		}
	}
	return groups
}

// foldedSubject is what flows of a program and a port have in common.
func foldedSubject(flows []*snapshot.Flow) snapshot.Subject {
	common := subject(flows[0])
	common.Device, common.Local, common.Remote = "", "", ""
	for _, f := range flows[1:] {
		if f.Service != common.Service {
			common.Service = ""
		}
	}
	return common
}

// heldFlow tells whether one of these findings was there before about the flow,
// or about its program's flows together.
func (s *scene) heldFlow(f *snapshot.Flow, ids ...string) bool {
	return s.held(subject(f), ids...) || s.held(foldedSubject([]*snapshot.Flow{f}), ids...)
}

// most keeps of each kind of finding the worst ones, and says how many it left
// out.
func (s *scene) most(all []*found) []*found {
	slices.SortStableFunc(all, func(a, b *found) int {
		return cmp.Or(cmp.Compare(rank(b.Severity), rank(a.Severity)), -compareBool(s.held(a.Subject, a.ID), s.held(b.Subject, b.ID)))
	})
	var kept []*found
	last, of := map[string]*found{}, map[string]int{}
	for _, f := range all {
		if of[f.ID]++; of[f.ID] <= mostFindings {
			kept, last[f.ID] = append(kept, f), f
		}
	}
	for id, n := range of {
		if n > mostFindings {
			last[id].Evidence = append(last[id].Evidence, snapshot.Evidence{
				What: "further findings like this, not listed", Value: float64(n - mostFindings), Unit: "findings", Source: "flows of this report",
			})
		}
	}
	return kept
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// comm is the name of a flow's program, "" if unknown.
func comm(f *snapshot.Flow) string {
	if p := program(f); p != nil {
		return p.Comm
	}
	return ""
}

// foreign makes a name that the host gave safe to stand in a sentence.
func foreign(name string) string {
	text, cut := draw.EscapeShort(name, nameBytes)
	if cut {
		text += "…"
	}
	return text
}

// place makes an address safe: a recording may hold anything, and a zone is a
// name.
func place(address string) string {
	text, cut := draw.EscapeShort(address, addressBytes)
	if cut {
		text += "…"
	}
	return text
}

// who names the program of flows, and says of how many of their sockets that is
// known if it isn't of nearly all; "" if none is known.
func who(flows []*snapshot.Flow) string {
	name := comm(flows[0])
	if name == "" {
		return ""
	}
	text := foreign(name)
	var all, known, first, others float64
	for _, f := range flows {
		n := float64(total(&f.States))
		share := 1.0
		if f.Attributed != nil {
			share = *f.Attributed
		}
		all, known = all+n, known+n*share
		for i := range f.Processes {
			if p := &f.Processes[i]; p.Comm == name {
				first += float64(p.Sockets)
			} else {
				others += float64(p.Sockets)
			}
		}
	}
	if others > first {
		text += " and others"
	}
	if known = max(0, known); all > 0 && known < knownEnough*all {
		text += fmt.Sprintf(" (known for %s of the sockets)", share(known/all))
	}
	return text
}

// clientSide is the subject of a sentence about client flows.
func clientSide(flows []*snapshot.Flow) string {
	if name := who(flows); name != "" {
		return name
	}
	if local := source(flows); local != "" {
		return "A client at " + local
	}
	return "A client here"
}

// source is the local address of flows, "" if they have several.
func source(flows []*snapshot.Flow) string {
	for _, f := range flows[1:] {
		if f.Local != flows[0].Local {
			return ""
		}
	}
	return place(flows[0].Local)
}

// from says where flows come from, and whose they are.
func from(flows []*snapshot.Flow) string {
	text := source(flows)
	if text == "" {
		text = "here"
	}
	if name := who(flows); name != "" {
		text += " (" + name + ")"
	}
	return text
}

// destination names the other end of client flows. A service that its port
// alone tells is never called by name.
func destination(flows []*snapshot.Flow) string {
	f := flows[0]
	service, sure := foreign(f.Service), f.ServiceBy == advice.ByProcess || f.ServiceBy == advice.ByConfig
	remote := place(f.Remote)
	address := net.JoinHostPort(remote, strconv.Itoa(int(f.Port)))
	n := draw.Count(int64(len(flows)))
	switch {
	case len(flows) > 1 && service == "":
		return fmt.Sprintf("%s destinations on port %d (first of all %s)", n, f.Port, remote)
	case len(flows) > 1 && sure:
		return fmt.Sprintf("%s destinations on port %d (%s; first of all %s)", n, f.Port, service, remote)
	case len(flows) > 1:
		return fmt.Sprintf("%s destinations on port %d (usually %s; first of all %s)", n, f.Port, service, remote)
	case service == "":
		return address
	case sure:
		return service + " at " + address
	}
	return fmt.Sprintf("%s (port %d, usually %s)", remote, f.Port, service)
}

// flowIndex finds flows by address.
type flowIndex struct {
	locals  map[string]bool
	servers map[ends]*snapshot.Flow
}

type ends struct {
	local, remote string
	port          uint16
}

func (s *scene) indexed() *flowIndex {
	if s.index == nil {
		s.index = &flowIndex{map[string]bool{}, map[ends]*snapshot.Flow{}}
		for i := range s.ns.Flows {
			f := &s.ns.Flows[i]
			s.index.locals[f.Local] = true
			if f.Side == snapshot.Server {
				s.index.servers[ends{f.Local, f.Remote, f.Port}] = f
			}
		}
	}
	return s.index
}

// twin is the other end of a client flow, where that is in this namespace; else
// nil.
func (s *scene) twin(f *snapshot.Flow) *snapshot.Flow {
	if f.Side != snapshot.Client {
		return nil
	}
	return s.indexed().servers[ends{f.Remote, f.Local, f.Port}]
}

// own tells whether the other end of a flow is on this host.
func (s *scene) own(f *snapshot.Flow) bool {
	addr, err := netip.ParseAddr(f.Remote)
	return err == nil && (addr.IsLoopback() || s.indexed().locals[f.Remote])
}

// share is a share as a sentence says it.
func share(of float64) string {
	return strings.NewReplacer("> ", "over ", "< ", "less than ").Replace(draw.Percent(of))
}

// total is all sockets of a flow.
func total(s *snapshot.States) uint32 {
	return s.Established + s.SynSent + s.SynRecv + s.FinWait1 + s.FinWait2 + s.TimeWait + s.CloseWait + s.LastAck + s.Closing
}

// list names some and says how many more there are: "a, b and 3 more".
func list(names []string, most int) string {
	switch n := len(names); {
	case n <= 1:
		return strings.Join(names, "")
	case n > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// finite keeps what a report from elsewhere may hold out of evidence: JSON has no
// infinity.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
