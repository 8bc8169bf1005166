package flow

import "github.com/twwatch/twwatch/inetdiag"

// pendingRows is how many TIME_WAIT rows are counted at once. The kernel's walk
// over its sockets leaves nothing of the index in the caches: one after the
// other, rows would each wait for memory; together they wait once.
const pendingRows = 16

// tickMS is the grain of the kernel's timers at its coarsest (HZ=100): a socket
// closed just before the pass's start may look as much younger.
const tickMS = 10

// pendingRow is a TIME_WAIT row on its way into the table. Its age is the length
// of TIME_WAIT less what its timer still has to run (inet_twsk_diag_fill,
// net/ipv4/inet_diag.c).
type pendingRow struct {
	srcHi, srcLo, dstHi, dstLo, tail uint64 // its key
	hash                             uint64
	cookie                           uint64
	place                            uint32 // of the cookie
	age                              int64  // ms, when the datagram was filled
	ago                              int64  // ms from its beginning to the pass's start
	port                             uint16
	class                            uint8 // of port
	overdue                          bool
}

// addTimeWait and what it calls are the hot path: a pass over a million sockets
// is a million of these.
func (t *Table) addTimeWait(s *inetdiag.Socket) {
	w := &t.pending[t.waiting]
	w.port = s.SrcPort()
	w.class = t.ports.class[w.port]
	srcHi, srcLo, dstHi, dstLo := addresses(s)
	tail := t.tailOf(s, w.class)
	w.srcHi, w.srcLo, w.dstHi, w.dstLo, w.tail = srcHi, srcLo, dstHi, dstLo, tail
	w.hash = t.seed.hash(srcHi, srcLo, dstHi, dstLo, tail)
	w.cookie = s.Cookie()
	expires := int64(s.Expires())
	w.overdue = expires == 0
	w.age = t.length - expires
	w.ago = w.age + t.sinceFill
	if t.waiting++; t.waiting == pendingRows {
		t.countPending()
	}
}

// countPending counts the rows that wait. It first touches what they will need, all
// at once.
func (t *Table) countPending() {
	rows := t.pending[:t.waiting]
	t.waiting = 0
	var warm slot
	for i := range rows {
		warm += t.index[rows[i].hash%indexSize]
	}
	if len(t.entries) >= firstCome {
		for i := range rows {
			warm += slot(t.seen[rows[i].hash>>seenShift])
		}
	}
	if t.cookies != nil {
		for i := range rows {
			rows[i].place = uint32(t.cookies.place(rows[i].cookie))
			warm += slot(t.cookies.slots[rows[i].place].seen)
		}
	}
	t.warm = warm // so that the loads are made
	for i := range rows {
		t.countTimeWait(&rows[i])
	}
}

// countTimeWait counts a row. One whose timer has run out still holds its port
// until the timer wheel gets to it, but belongs to no second.
func (t *Table) countTimeWait(w *pendingRow) {
	t.states[inetdiag.TimeWait]++
	second := -1
	birth := false
	if !w.overdue && w.ago >= -tickMS {
		if w.ago < minuteMS {
			second = int(uint32(max(w.ago, 0)) / 1000)
			t.timeline[second]++
		}
		if w.ago >= 0 && w.ago < t.covered { // since the previous pass
			birth = true
			t.births++
		}
	}
	i := t.lookup(w.srcHi, w.srcLo, w.dstHi, w.dstLo, w.tail, w.hash)
	if i == noFlow {
		missed, ok := t.admit(w.hash, inetdiag.TimeWait)
		if !ok {
			t.survivors = t.survivors || t.recycles(isLoopback(w.srcHi, w.srcLo) || isLoopback(w.dstHi, w.dstLo))
			t.fold(w.dstHi, w.dstLo, w.tail, inetdiag.TimeWait, w.class, second, birth)
			return
		}
		i = t.insert(&key{w.srcHi, w.srcLo, w.dstHi, w.dstLo, w.tail}, w.hash, missed)
	}
	e := &t.entries[i]
	e.timeWait++
	if second >= 0 {
		e.timeline[second]++
	} else if w.overdue {
		e.overdue++
	}
	if birth {
		e.births++
	}
	if w.ago >= 0 && w.ago < int64(e.window) {
		e.young++
	}
	if t.cookies != nil {
		if at, ok := t.cookies.at(w.cookie, w.place); ok && t.cookies.slots[at].process != 0 {
			if h := t.held.at(i, t.cookies.slots[at].process); h != nil {
				h.Closed++
			}
		}
	}
	age := uint32(max(w.age, 0))
	e.oldest = max(e.oldest, age)
	if side(w.tail>>16) != client || w.class&usable == 0 {
		return
	}
	t.usePort(i, e, w.class, w.port)
	parity := w.class >> otherBit & 1
	if t.reuse != 0 && e.recycles && w.class&blocked == 0 && w.age > t.delay {
		e.reusable[parity]++
	}
}
