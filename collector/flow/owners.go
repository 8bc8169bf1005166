package flow

import (
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

const (
	// maxLive is how many live sockets are kept for the search of their
	// processes, 32 bytes each, and maxLiveFlow how many of one flow.
	maxLive     = 1 << 16
	maxLiveFlow = 1 << 14
	// fewLive is up to how many live sockets all are followed, whatever their
	// flow.
	fewLive = 4096
	// maxHeld is how many pairs of a flow and a process are counted.
	maxHeld = 1 << 15
	// usesMuch is the part of the range, as a divisor, from which on a flow's
	// processes are of interest; manyHalfClosed the number of sockets in the
	// states that a connection should pass quickly.
	usesMuch       = 4
	manyHalfClosed = 16
)

// Live is a socket that a process can hold: its inode isn't 0, and it doesn't
// listen.
type Live struct {
	Cookie uint64 // 0 from /proc/net/tcp
	Cgroup uint64 // the id of its cgroup-v2 directory, 0 if unknown
	Inode  uint32
	// Known is the process that an earlier look remembered it by, 0 if none did.
	Known uint16
	flow  uint16 // its entry; noFlow in a glance
	place uint32 // where its cookie was found
	state uint8
}

// CloseWait tells whether the socket is in CLOSE_WAIT.
func (l *Live) CloseWait() bool { return l.state == uint8(inetdiag.CloseWait) }

// Flow is a number of the socket's flow, less than [MaxFlows] and the same for
// all its sockets in one pass.
func (l *Live) Flow() int { return int(l.flow) }

// ClosedBy yields the processes that held other sockets of a live socket's flow,
// which nobody holds any more.
func (t *Table) ClosedBy(l *Live, yield func(process uint16) bool) {
	t.shares = t.held.of(t.shares[:0], l.flow)
	for _, s := range t.shares {
		if s.Closed > 0 && !yield(s.Process) {
			return
		}
	}
}

// Share is what one process has of a flow's sockets.
type Share struct {
	Process uint16 // its number
	Live    uint32 // sockets that it holds
	Closed  uint32 // sockets that nobody holds any more, but that it held when they were seen alive
}

// held is one [Share] of an entry.
type held struct {
	Share
	flow uint16
	next uint16 // the entry's next one + 1, 0: none
}

// heldTable counts by flow and process, without pointers and bounded; beyond
// that, sockets count as those of nobody known.
type heldTable struct {
	all   []held
	index []uint16 // open addressing: 1 + a number in all, 0: free
	first []uint16 // of an entry: 1 + a number in all
	last  int      // the number that was counted last
	live  []Live
	cut   bool // more sockets lived than fit
}

func (h *heldTable) reset() {
	if len(h.all) > 0 {
		clear(h.index)
		clear(h.first)
	}
	h.all, h.live, h.last, h.cut = h.all[:0], h.live[:0], 0, false
}

// at gives the count of a flow and a process, nil if there is no room for it.
func (h *heldTable) at(flow, process uint16) *Share {
	if h.last < len(h.all) {
		if l := &h.all[h.last]; l.flow == flow && l.Process == process {
			return &l.Share
		}
	}
	slot, n := h.find(flow, process)
	if n < 0 {
		if 2*(len(h.all)+1) > len(h.index) {
			if !h.grow() {
				return nil
			}
			slot, _ = h.find(flow, process)
		}
		n = len(h.all)
		h.all = append(h.all, held{Share: Share{Process: process}, flow: flow, next: h.first[flow]})
		h.index[slot], h.first[flow] = uint16(n+1), uint16(n+1)
	}
	h.last = n
	return &h.all[n].Share
}

// find gives the number of a count, or −1 and the slot that is free for it.
func (h *heldTable) find(flow, process uint16) (slot uint64, n int) {
	if len(h.index) == 0 {
		return 0, -1
	}
	mask := uint64(len(h.index) - 1)
	for slot = h.place(flow, process) & mask; h.index[slot] != 0; slot = (slot + 1) & mask {
		n := int(h.index[slot]) - 1
		if l := &h.all[n]; l.flow == flow && l.Process == process {
			return slot, n
		}
	}
	return slot, -1
}

// place needs no seed: both numbers are given out here.
func (h *heldTable) place(flow, process uint16) uint64 {
	return mix(uint64(flow)<<16|uint64(process)+1, 0x9e3779b97f4a7c15)
}

func (h *heldTable) grow() bool {
	size := max(512, 2*len(h.index))
	if size > 2*maxHeld {
		return false
	}
	if h.first == nil {
		h.first = make([]uint16, maxFlows)
	}
	h.index = make([]uint16, size)
	for i := range h.all {
		slot, _ := h.find(h.all[i].flow, h.all[i].Process)
		h.index[slot] = uint16(i + 1)
	}
	return true
}

// of appends an entry's shares to to.
func (h *heldTable) of(to []Share, flow uint16) []Share {
	if len(h.all) == 0 {
		return to
	}
	for n := h.first[flow]; n != 0; n = h.all[n-1].next {
		to = append(to, h.all[n-1].Share)
	}
	return to
}

// addLive notes a live socket of a flow for the search of its process. One
// that nobody holds any more is its process's still, if that was seen.
func (t *Table) addLive(i uint16, e *entry, s *inetdiag.Socket, state inetdiag.State) {
	inode := s.Inode()
	if inode == 0 || s.Mini() {
		switch state {
		case inetdiag.FinWait1, inetdiag.FinWait2, inetdiag.Closing, inetdiag.LastAck:
			t.countClosed(i, s)
		default: // not accepted yet, so nobody's
		}
		return
	}
	if e.live == maxLiveFlow || len(t.held.live) == maxLive {
		e.cut, t.held.cut = true, true
		return
	}
	e.live++
	cgroup, _ := s.CgroupID()
	t.held.live = append(t.held.live, Live{Cookie: s.Cookie(), Cgroup: cgroup, Inode: inode, flow: i, state: uint8(state)})
}

// countClosed counts a socket that no process holds: a FIN_WAIT2 mini-socket, or
// one on its way to close. It isn't a TIME_WAIT yet, so its memory is kept.
func (t *Table) countClosed(i uint16, s *inetdiag.Socket) {
	if t.cookies == nil {
		return
	}
	c := t.cookies.find(s.Cookie())
	if c == nil {
		return
	}
	c.seen = t.nowMS
	if c.process != 0 {
		if h := t.held.at(i, c.process); h != nil {
			h.Closed++
		}
	}
}

// Follow returns the live sockets whose processes should be known: all, if they
// are few; else those of flows that close connections, or have them half
// closed, or use much of the range. Each is then to be told to
// [Table.Attribute]. The slice is valid until the next Begin or [Table.Glance].
//
// It is called once, when every row is in.
func (t *Table) Follow() []Live {
	t.countPending()
	t.followed = true
	t.everything = len(t.held.live) <= fewLive && !t.held.cut
	r := uint32(t.ports.count[0] + t.ports.count[1])
	for i := range t.entries {
		e := &t.entries[i]
		e.followed = t.everything || e.matters(r)
	}
	if !t.everything {
		kept := t.held.live[:0]
		for _, l := range t.held.live {
			if t.entries[l.flow].followed {
				kept = append(kept, l)
			}
		}
		t.held.live = kept
	}
	t.recognize(t.held.live)
	return t.held.live
}

// recognize looks up which processes are remembered. As with TIME_WAIT rows,
// what some of them will need is touched at once.
func (t *Table) recognize(live []Live) {
	c := t.cookies
	if c == nil {
		return
	}
	var warm uint32
	for len(live) > 0 {
		n := min(len(live), pendingRows)
		for i := range live[:n] {
			live[i].place = uint32(c.place(live[i].Cookie))
			warm += c.slots[live[i].place].seen
		}
		for i := range live[:n] {
			if place, ok := c.at(live[i].Cookie, live[i].place); ok {
				live[i].place, live[i].Known = place, c.slots[place].process
			}
		}
		live = live[n:]
	}
	t.warm += slot(warm)
}

// matters tells whether somebody will ask who makes this flow's connections; r
// is the number of ports that connect() may take.
func (e *entry) matters(r uint32) bool {
	passing := e.states[inetdiag.FinWait1] + e.states[inetdiag.FinWait2] + e.states[inetdiag.LastAck] + e.states[inetdiag.SynSent]
	return e.timeWait > 0 || e.births > 0 || e.states[inetdiag.CloseWait] > 0 || passing >= manyHalfClosed ||
		r > 0 && (e.used[0]+e.used[1])*usesMuch >= r
}

// Attribute tells the process of a socket that [Table.Follow] returned, 0 if it
// isn't known. It is remembered for when the socket is a TIME_WAIT. What it
// returns is the process that the socket counts for.
func (t *Table) Attribute(l *Live, process uint16) uint16 {
	longLived, e := false, &t.entries[l.flow]
	if m := t.cfg.Memory; m != nil && l.Cookie != 0 {
		process, longLived = m.cookies.see(l.Cookie, l.place, process, t.nowMS)
	} else {
		e.cut = true
	}
	if longLived && l.state == uint8(inetdiag.Established) {
		e.longLived++
	}
	if process != 0 {
		if h := t.held.at(l.flow, process); h != nil {
			h.Live++
		}
	}
	return process
}

// Glance begins a look at live sockets alone, between two passes: each row goes
// to [Table.AddGlance], and each socket of [Table.Glanced] to [Table.See]. What
// the last pass found of flows and ports is used and kept.
func (t *Table) Glance(start int64, m *Memory) {
	t.held.live, t.held.cut = t.held.live[:0], false
	t.nowMS, t.cfg.Memory = ms(start), m
}

// AddGlance takes a row. Beside very many others, only those are kept whose flow
// the last pass followed.
func (t *Table) AddGlance(s *inetdiag.Socket) {
	inode := s.Inode()
	if inode == 0 || s.Mini() || s.DstPort() == 0 {
		return
	}
	if t.followed && !t.everything {
		if i := t.known(t.keyOf(s)); i == noFlow || !t.entries[i].followed {
			return
		}
	}
	if len(t.held.live) == maxLive {
		t.held.cut = true
		return
	}
	cgroup, _ := s.CgroupID()
	t.held.live = append(t.held.live, Live{Cookie: s.Cookie(), Cgroup: cgroup, Inode: inode, flow: noFlow, state: uint8(s.State())})
}

// Glanced ends the rows of a glance; complete, if all were there. It returns
// the sockets, valid until the next glance or Begin.
func (t *Table) Glanced(complete bool) []Live {
	if m := t.cfg.Memory; !t.followed { // there was no pass yet
		m.look(t.nowMS, complete && !t.held.cut)
	}
	if m := t.cfg.Memory; m.cookies.count > 0 {
		t.cookies = &m.cookies
		t.recognize(t.held.live)
	}
	return t.held.live
}

// See remembers a socket of a glance with its process, 0 if that isn't known.
func (t *Table) See(l *Live, process uint16) {
	t.cfg.Memory.cookies.see(l.Cookie, l.place, process, t.nowMS)
}

// ms is a time on the clock of [inetdiag.Now] as the memory of connections
// counts it.
func ms(at int64) uint32 { return uint32(at / 1e6) }

// SetSearched says that processes were looked for, in this pass or before:
// what is not known then is known to be so.
func (t *Table) SetSearched() { t.searched = true }

// fillOwners writes what is known of a flow's processes.
func (t *Table) fillOwners(f *snapshot.Flow, i uint16) {
	e := &t.entries[i]
	t.shares = t.shares[:0]
	if t.searched && e.followed {
		t.shares = t.held.of(t.shares, i)
		var known uint32
		for _, s := range t.shares {
			known += s.Live + s.Closed
		}
		share := float64(known) / float64(max(1, e.total()))
		f.Attributed = &share
		if e.longLivedKnown(t) {
			n := e.longLived
			f.LongLived = &n
		}
	}
	if t.cfg.Owned != nil {
		t.cfg.Owned(f, t.shares)
	}
}

// longLivedKnown is false where an earlier look may have seen connections of
// the flow without remembering them.
func (e *entry) longLivedKnown(t *Table) bool {
	return !e.cut && t.cfg.Memory.sawLive(t, e)
}
