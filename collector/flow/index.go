package flow

import "github.com/twwatch/twwatch/inetdiag"

// A slot of the index: 0 if free, else an entry's number + 1 in the lower half
// and 16 more bits of its hash in the upper one, so that a stranger's entry
// isn't looked at.
type slot uint32

// loopbackDevice is the index of lo in every namespace (LOOPBACK_IFINDEX,
// include/net/flow.h).
const loopbackDevice = 1

const (
	slotMask = 1<<16 - 1
	tagMask  = slot(1<<32 - 1<<16)
)

func tagOf(h uint64) slot { return slot(h>>32) & tagMask }

// find gives the flow of a row that is not a TIME_WAIT, admitting it if it may
// be; noFlow if it has to be folded.
func (t *Table) find(k key, state inetdiag.State) uint16 {
	h := t.seed.of(k)
	i := t.lookup(k.srcHi, k.srcLo, k.dstHi, k.dstLo, k.tail, h)
	if i != noFlow {
		return i
	}
	if missed, ok := t.admit(h, state); ok {
		return t.insert(&k, h, missed)
	}
	return noFlow
}

// known gives the entry of a flow that has one, or noFlow.
func (t *Table) known(k key) uint16 {
	return t.lookup(k.srcHi, k.srcLo, k.dstHi, k.dstLo, k.tail, t.seed.of(k))
}

// lookup gives the entry of a key with the hash h, or noFlow. It takes the key
// in parts: a struct would be copied.
func (t *Table) lookup(srcHi, srcLo, dstHi, dstLo, tail, h uint64) uint16 {
	tag := tagOf(h)
	for at := h % indexSize; ; at = (at + 1) % indexSize {
		s := t.index[at]
		if s == 0 {
			return noFlow
		}
		if s&tagMask == tag {
			i := s&slotMask - 1
			if k := &t.entries[i].key; k.dstLo == dstLo && k.tail == tail && k.srcLo == srcLo && k.dstHi == dstHi && k.srcHi == srcHi {
				return uint16(i)
			}
		}
	}
}

// admit decides whether a flow that has no entry gets one: if there is room, or
// if it has been sighted often enough; missed is how many sightings, at most,
// went uncounted. A half-open handshake proves nothing, since its address may
// be forged.
func (t *Table) admit(h uint64, state inetdiag.State) (missed uint32, ok bool) {
	if state == inetdiag.SynRecv {
		return 0, false
	}
	if len(t.entries) < firstCome {
		return 0, true
	}
	if state != inetdiag.TimeWait && t.live < liveShare {
		t.live++
		return 0, true
	}
	if t.heavy == heavyShare {
		return 0, false
	}
	c := &t.seen[h>>seenShift]
	if *c < t.admitAt-1 {
		*c++
		return 0, false
	}
	t.heavy++
	return uint32(t.admitAt) - 1, true
}

// insert adds a flow that is not in the table; there must be room.
func (t *Table) insert(k *key, h uint64, missed uint32) uint16 {
	at := h % indexSize
	for t.index[at] != 0 {
		at = (at + 1) % indexSize
	}
	i := len(t.entries)
	t.entries = t.entries[:i+1]
	e := &t.entries[i]
	*e = entry{
		key:             *k,
		missed:          missed,
		oldestCloseWait: Age{AtLeast: -1},
		loopback: isLoopback(k.srcHi, k.srcLo) || isLoopback(k.dstHi, k.dstLo) ||
			k.device() == loopbackDevice,
		window: reopenWindow,
	}
	if k.side() == client && t.recycles(e.loopback) {
		e.recycles, e.window = true, uint32(max(t.delay/2, t.delay-walkMS))
	}
	t.index[at] = slot(i+1) | tagOf(h)
	return uint16(i)
}
