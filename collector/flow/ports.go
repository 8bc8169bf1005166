package flow

import (
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/sysctl"
)

// What is known of a port, in one byte: one load decides a row's side and
// whether its port counts.
const (
	listens   uint8 = 1 << iota // a listener has it
	ephemeral                   // in ip_local_port_range
	usable                      // in the range and not reserved: in R
	other                       // of R, not of the parity that connect() takes first
	blocked                     // of R, and held by a listener or a bound socket
	explicit                    // of R, and held by a socket bound before it connected
	service                     // as a remote port: a known service's

	otherBit = 3
)

// portMap is the classes of all ports, and who first held each port of the
// other parity.
//
// connect() takes ports of low's parity until its half of the range is used;
// bind(addr, 0) takes the other parity (__inet_hash_connect in
// net/ipv4/inet_hashtables.c, inet_csk_find_open_port in
// net/ipv4/inet_connection_sock.c). So a client socket on an other-parity
// port, in a flow that never used up its own half, was bound first, and its
// port is lost to every destination.
type portMap struct {
	class  [65536]uint8
	holder [65536]uint16 // of an other-parity port: entry + 1
	held   bool          // one at least
	known  bool          // the range is known
	size   int
	count  [2]int // ports of R, own and other parity
	fixed  [2]int // of these, blocked by a visible explicit bind
	pool   snapshot.PortPool
}

func (p *portMap) reset(l sysctl.Limits, services []uint16) {
	clear(p.class[:])
	if p.held {
		clear(p.holder[:])
	}
	p.held = false
	p.known, p.count, p.fixed, p.pool = false, [2]int{}, [2]int{}, snapshot.PortPool{}
	if l.IPLocalPortRange != nil && l.IPLocalPortRange.Size() > 0 {
		p.layOut(*l.IPLocalPortRange, l.IPLocalReservedPorts)
	}
	for _, port := range services {
		p.class[port] |= service
	}
}

// layOut marks the range's ports: two alternating values, by doubling copies,
// since it is done for each pass.
func (p *portMap) layOut(r sysctl.PortRange, reserved *sysctl.PortSet) {
	p.known, p.size = true, r.Size()
	p.pool.Range = p.size
	p.count = [2]int{(p.size + 1) / 2, p.size / 2}
	const own = ephemeral | usable
	ports := p.class[int(r.Low) : int(r.High)+1]
	for n := copy(ports, []uint8{own, own | other}); n < len(ports); n *= 2 {
		copy(ports[n:], ports[:n])
	}
	if reserved == nil {
		return
	}
	for gap := range reserved.All() {
		for port := max(int(gap.Low), int(r.Low)); port <= min(int(gap.High), int(r.High)); port++ {
			p.count[p.class[port]>>otherBit&1]--
			p.class[port] = ephemeral
			p.pool.Reserved++
		}
	}
}

// block marks a port held by an explicit bind; it counts once, by its first
// reason.
func (p *portMap) block(port uint16, as uint8, reason *int) {
	class := p.class[port]
	if class&usable == 0 || class&(blocked|explicit) != 0 {
		return
	}
	p.class[port] = class | as
	p.fixed[class>>otherBit&1]++
	*reason++
}

// usePort counts a client row's local port, which is in R.
func (t *Table) usePort(i uint16, e *entry, class uint8, port uint16) {
	parity := class >> otherBit & 1
	e.used[parity]++
	if class&blocked != 0 {
		e.blocked[parity]++
	} else if parity == 1 && t.ports.holder[port] == 0 {
		t.ports.holder[port], t.ports.held = i+1, true
	}
}

// holders is the holder of each port; empty if there is none.
func (p *portMap) holders() []uint16 {
	if !p.held {
		return nil
	}
	return p.holder[:]
}

// parityEvidence is what a flow's other-parity ports say.
type parityEvidence uint8

const (
	connected parityEvidence = iota // none, or all visible binds
	bound                           // taken by bind(addr, 0)
	unclear
)

// A half counts as used up from nine tenths, so that a flow which hovers about
// its half isn't taken for one that binds.
const halfUsedNum, halfUsedDen = 9, 10

// halfUsed tells whether connect() had (nearly) no port of its parity left
// for this flow, so that it went on to the other.
func (p *portMap) halfUsed(e *entry, parity int) bool {
	left := p.count[parity] - p.fixed[parity]
	return int(e.used[parity]-e.blocked[parity])*halfUsedDen >= left*halfUsedNum
}

// judgeParity decides how the flow came by its other-parity ports. It says
// bound only if connect() can't have spilled over to them, ever: connections
// of a spill-over may stay when those that filled the own half have gone.
func (t *Table) judgeParity(e *entry) parityEvidence {
	switch {
	case e.used[1] == e.blocked[1]:
		return connected
	case t.ports.halfUsed(e, 0):
		return unclear
	}
	// Fewer connect() calls since the namespace was made than the own half has
	// ports: no flow has ever used it up.
	own := t.ports.count[0] - t.ports.fixed[0]
	if t.cfg.Opened != nil && *t.cfg.Opened < uint64(own) && !t.cfg.Memory.rangeChanged() {
		return bound
	}
	if t.cfg.Memory.sawAllOf(&e.key) {
		return bound
	}
	return unclear
}

// parity is what the flows' other-parity ports say, flow by flow.
type parity struct {
	evidence []parityEvidence
	// doubt marks flows that may hold blocked ports which can't be told from
	// others; it leaves no doubt about the flow itself, whose ports all count
	// as used.
	doubt  []bool
	doubts int
}

func (p *parity) othersDoubt(i uint16) bool {
	if p.doubt[i] {
		return p.doubts > 1
	}
	return p.doubts > 0
}

// settlePorts decides, once all rows are in, which ports are blocked by
// bind(addr, 0).
func (t *Table) settlePorts() *parity {
	n, p := len(t.entries), &t.ports
	result := &parity{evidence: make([]parityEvidence, n), doubt: make([]bool, n)}
	for i := range t.entries {
		e := &t.entries[i]
		if e.key.side() == unknown && e.total() > 0 && p.class[e.key.port()]&(usable|blocked) == usable {
			// A listener that has gone blocks its port as long as a child is left.
			result.doubt[i] = true
			result.doubts++
		}
		if e.key.side() != client {
			continue
		}
		how := t.judgeParity(e)
		result.evidence[i] = how
		// A flow that binds may have bound its own-parity ports too, be it by
		// choice or since the other half was used up.
		binds := how == bound && e.used[0] > e.blocked[0] || e.explicit && e.states[inetdiag.TimeWait] > 0
		if how == unclear || binds {
			result.doubt[i] = true
			result.doubts++
		}
	}
	for port, h := range p.holders() {
		if h != 0 && result.evidence[h-1] == bound && p.class[port]&explicit == 0 {
			p.pool.BlockedParity++
		}
	}
	p.pool.BoundSeen = t.boundSeen
	p.pool.AtMost = t.anyDoubt() || result.doubts > 0
	p.pool.Blocked = p.pool.BlockedListen + p.pool.BlockedBound + p.pool.BlockedExplicit + p.pool.BlockedParity
	return result
}

// flowPorts computes free = |R| − |B ∪ U| + |T \ B| for a client flow; its
// four parts add up as they stand in the report.
func (t *Table) flowPorts(i uint16, by *parity) *snapshot.Ports {
	p := &t.ports
	if !p.known {
		return nil
	}
	e := &t.entries[i]
	used := int(e.used[0] + e.used[1])
	inBoth := int(e.blocked[0] + e.blocked[1])
	reusable := int(e.reusable[0] + e.reusable[1])
	binds := int(e.bound)
	if by.evidence[i] == bound {
		binds += int(e.used[1] - e.blocked[1])
		inBoth += int(e.used[1] - e.blocked[1])
		reusable -= int(e.reusable[1])
	}
	b := p.pool.Blocked - inBoth
	twin := t.unboundTwin(e)
	if twin > used { // of the ports of both, at least so many are not this flow's
		b += twin - used
	}
	free := p.size - p.pool.Reserved - b - used + reusable
	return &snapshot.Ports{
		Range: p.size, Reserved: p.pool.Reserved, Blocked: b, Used: used, Reusable: reusable, Free: max(0, free), Bound: binds,
		AtMost: t.anyDoubt() || by.othersDoubt(i) || e.missed > 0 || twin > 0 ||
			reusable > 0 && (t.reuseDoubt || !e.loopback), // reuse needs the peer's timestamps, which can't be seen
	}
}

// anyDoubt tells whether something blocks ports, or may, that this pass can't
// see: for every flow, free is then an upper bound.
func (t *Table) anyDoubt() bool {
	return !t.boundSeen || t.foldedOther || t.ports.size%2 == 1 // an odd range: each scan leaves one port out
}

// unboundTwin is how many ports are used by sockets that differ from the
// flow's in not being bound to a device: connect() of a bound socket doesn't
// get theirs, though they get its (inet_match, net/ipv4/inet_hashtables.c).
func (t *Table) unboundTwin(e *entry) int {
	if e.key.device() == 0 {
		return 0
	}
	k := e.key
	k.tail = pack(k.port(), client, 0)
	i := t.known(k)
	if i == noFlow {
		return 0
	}
	return int(t.entries[i].used[0] + t.entries[i].used[1])
}

// SetBoundSeen says that every bound socket has been given to [Table.Bound];
// without it, free is an upper bound.
func (t *Table) SetBoundSeen() { t.boundSeen = true }

// LiveInRange tells whether a socket seen so far, other than mini-sockets, may have
// been bound to a port of its choice before it connected. If not, there is none
// to give to [Table.Bound].
func (t *Table) LiveInRange() bool { return t.liveInRange }

// Tightest is the greatest share of R that one client flow uses, so far; 0
// while the range is unknown.
func (t *Table) Tightest() float64 {
	t.countPending()
	var used uint32
	for i := range t.entries {
		used = max(used, t.entries[i].used[0]+t.entries[i].used[1])
	}
	if r := t.ports.count[0] + t.ports.count[1]; r > 0 {
		return float64(used) / float64(r)
	}
	return 0
}
