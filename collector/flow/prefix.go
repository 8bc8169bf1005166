package flow

import (
	"cmp"
	"net/netip"

	"github.com/twwatch/twwatch/inetdiag"
)

const (
	maxPrefixes     = 1024
	prefixIndexSize = 4 * maxPrefixes
)

// prefixKey names the sockets of one side and port whose remote address has
// one prefix and that have no flow of their own.
type prefixKey struct {
	hi, lo uint64 // of the remote address, masked
	tail   uint64 // port and side, no device
}

// crowd sums sockets that have no flow of their own.
type crowd struct {
	key    prefixKey
	states [inetdiag.BoundInactive + 1]uint32
	minute uint32 // TIME_WAIT of the last minute
	recent uint32 // of these, of the last rateSeconds
	births uint32
}

// prefixes is a small table, first come; the last element is the rest.
type prefixes struct {
	crowds []crowd
	rest   crowd
	index  [prefixIndexSize]uint16
}

func (p *prefixes) reset() {
	if len(p.crowds) > 0 {
		clear(p.index[:])
	}
	p.crowds = p.crowds[:0]
	p.rest = crowd{}
}

// maskLo keeps the first bytes of an address's lower half: a v4-mapped /24.
const maskLo = 0x00ffffff_ffffffff

// prefixOf gives the parts of a prefixKey for a remote address.
func prefixOf(dstHi, dstLo, tail uint64) (hi, lo, t uint64) {
	if dstHi == 0 && dstLo&0xffffffff == mapped {
		lo = dstLo & maskLo
	}
	return dstHi, lo, tail & 0xffffffff
}

func (k prefixKey) prefix() netip.Prefix {
	a := addr(k.hi, k.lo)
	if a.Is4() {
		return netip.PrefixFrom(a, 24)
	}
	return netip.PrefixFrom(a, 64)
}

func (p *prefixes) find(s *seed, dstHi, dstLo, tail uint64) *crowd {
	hi, lo, tail := prefixOf(dstHi, dstLo, tail)
	slot := mix(mix(hi^s[0], lo^s[1])^s[2], tail^s[3]) % prefixIndexSize
	for ; p.index[slot] != 0; slot = (slot + 1) % prefixIndexSize {
		if c := &p.crowds[p.index[slot]-1]; c.key.lo == lo && c.key.hi == hi && c.key.tail == tail {
			return c
		}
	}
	if len(p.crowds) == maxPrefixes {
		return &p.rest
	}
	p.crowds = append(p.crowds, crowd{key: prefixKey{hi, lo, tail}})
	p.index[slot] = uint16(len(p.crowds))
	return &p.crowds[len(p.crowds)-1]
}

// fold counts a row that has no flow of its own, by its remote address and its
// key's tail; second is the age of a TIME_WAIT in whole seconds, −1 if it has
// none.
func (t *Table) fold(dstHi, dstLo, tail uint64, state inetdiag.State, class uint8, second int, birth bool) {
	c := t.prefix.find(&t.seed, dstHi, dstLo, tail)
	c.states[state]++
	if second >= 0 {
		c.minute++
		if second < rateSeconds {
			c.recent++
		}
	}
	if birth {
		c.births++
	}
	if class&other != 0 && side(tail>>16) == client {
		t.foldedOther = true
	}
}

func (k prefixKey) compare(o prefixKey) int {
	return cmp.Or(cmp.Compare(k.hi, o.hi), cmp.Compare(k.lo, o.lo), cmp.Compare(k.tail, o.tail))
}
