package flow

import (
	"cmp"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

const (
	// maxHalfOpen is how many networks are told apart, port by port; a forged
	// source may name any number.
	maxHalfOpen       = 1024
	halfOpenIndexSize = 4 * maxHalfOpen
	// ownRows is how many networks have a row of their own in the report; the
	// rest of it is for the sums of ports.
	ownRows = snapshot.MaxHalfOpen - maxHalfOpenPorts - 1
	// maxHalfOpenPorts is how many ports are told apart among the rest.
	maxHalfOpenPorts = 15
)

// halfOpenCount counts handshakes in SYN_RECV; those of a whole port have no
// address.
type halfOpenCount struct {
	key     prefixKey // tail is the local port
	sockets uint32
}

// halfOpens counts handshakes by port and network: first come, then by port,
// then all together.
type halfOpens struct {
	networks []halfOpenCount
	index    [halfOpenIndexSize]uint16
	ports    [maxHalfOpenPorts]halfOpenCount
	rest     uint32
}

func (h *halfOpens) reset() {
	if len(h.networks) > 0 {
		clear(h.index[:])
	}
	h.networks, h.ports, h.rest = h.networks[:0], [maxHalfOpenPorts]halfOpenCount{}, 0
}

// addHalfOpen counts a socket in SYN_RECV, in whatever flow it is.
func (t *Table) addHalfOpen(s *inetdiag.Socket) {
	_, _, dstHi, dstLo := addresses(s)
	h := &t.halfOpen
	hi, lo, tail := prefixOf(dstHi, dstLo, uint64(s.SrcPort()))
	slot := mix(mix(hi^t.seed[0], lo^t.seed[1])^t.seed[2], tail^t.seed[3]) % halfOpenIndexSize
	for ; h.index[slot] != 0; slot = (slot + 1) % halfOpenIndexSize {
		if c := &h.networks[h.index[slot]-1]; c.key.lo == lo && c.key.hi == hi && c.key.tail == tail {
			c.sockets++
			return
		}
	}
	if len(h.networks) == maxHalfOpen {
		h.addPort(uint16(tail), 1)
		return
	}
	h.networks = append(h.networks, halfOpenCount{key: prefixKey{hi, lo, tail}, sockets: 1})
	h.index[slot] = uint16(len(h.networks))
}

// addPort counts handshakes whose network isn't told.
func (h *halfOpens) addPort(port uint16, sockets uint32) {
	for i := range h.ports {
		if c := &h.ports[i]; c.sockets == 0 || c.key.tail == uint64(port) {
			c.key.tail = uint64(port)
			c.sockets += sockets
			return
		}
	}
	h.rest += sockets
}

// fillHalfOpen writes the networks with most handshakes, and what they leave
// by port; a port of 0 is for what even that leaves.
func (t *Table) fillHalfOpen(n *snapshot.Namespace) {
	h := &t.halfOpen
	if len(h.networks) == 0 {
		return
	}
	slices.SortFunc(h.networks, func(a, b halfOpenCount) int {
		return cmp.Or(cmp.Compare(b.sockets, a.sockets), a.key.compare(b.key))
	})
	clear(h.index[:]) // it has lost its sense
	own := h.networks
	if len(own) > ownRows {
		for _, c := range own[ownRows:] {
			h.addPort(uint16(c.key.tail), c.sockets)
		}
		own = own[:ownRows]
	}
	for _, c := range own {
		n.HalfOpen = append(n.HalfOpen, snapshot.HalfOpen{Port: uint16(c.key.tail), Remote: c.key.prefix().String(), Sockets: c.sockets})
	}
	for _, c := range h.ports {
		if c.sockets > 0 {
			n.HalfOpen = append(n.HalfOpen, snapshot.HalfOpen{Port: uint16(c.key.tail), Sockets: c.sockets})
		}
	}
	if h.rest > 0 {
		n.HalfOpen = append(n.HalfOpen, snapshot.HalfOpen{Sockets: h.rest})
	}
	slices.SortStableFunc(n.HalfOpen, func(a, b snapshot.HalfOpen) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Remote, b.Remote))
	})
	h.networks = h.networks[:0]
}
