package flow

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// maxCloseWaits is how many CLOSE_WAIT sockets are looked at one by one.
const maxCloseWaits = 4096

type listener struct {
	id             inetdiag.ID
	queue, backlog uint32
	inode, uid     uint32
}

type closeWait struct {
	id           inetdiag.ID
	entry        uint16
	recvQ, sendQ uint32
	inode, uid   uint32
	age          Age
	sent         int64 // ms since this end sent data, −1 if unknown
}

// Age bounds the time since the peer's FIN, in ms.
type Age struct{ AtLeast, AtMost int64 }

const (
	// Bounds that are two ticks of the kernel's clock apart are one number:
	// each is whole ticks, of 10 ms on the coarsest kernel (CONFIG_HZ=100).
	sameAge = 20
	ageless = math.MaxInt64 // no bound
)

// Tell writes the age into d.
func (a Age) Tell(d *snapshot.Socket) {
	d.AgeSeconds, d.AgeAtLeast, d.AgeAtMostSeconds = seconds(a.AtLeast), a.atLeast(), seconds(a.AtMost)
}

func unknownAge() Age { return Age{-1, ageless} }

func (a Age) known() bool { return a.AtLeast >= 0 }

// atLeast tells whether the age may be greater than its lower bound.
func (a Age) atLeast() bool { return a.AtMost-a.AtLeast > sameAge }

// Bound takes a socket that is bound and not connected (BOUND_INACTIVE), or
// one that was bound to a port of its choice before it connected (it fails the
// kernel's INET_DIAG_BC_AUTO filter). They come after the last Add, in walks
// of their own, then SetBoundSeen.
func (t *Table) Bound(s *inetdiag.Socket) {
	t.countPending()
	port := s.SrcPort()
	if s.DstPort() == 0 {
		if s.State() != inetdiag.Listen {
			t.states[inetdiag.Close]++
			t.ports.block(port, blocked, &t.ports.pool.BlockedBound)
		}
		return
	}
	class := t.ports.class[port]
	if class&usable == 0 || class&blocked != 0 {
		return // its flow counted it as blocked when the row came by
	}
	t.ports.block(port, explicit, &t.ports.pool.BlockedExplicit)
	k := t.keyOf(s)
	if i := t.known(k); i != noFlow && k.side() == client {
		t.entries[i].blocked[class>>otherBit&1]++
		t.entries[i].bound++
		t.entries[i].explicit = true
	}
}

// addUnconnected takes listeners and merely bound sockets, which belong to no
// flow; false if the row is of neither kind.
func (t *Table) addUnconnected(s *inetdiag.Socket, state inetdiag.State) bool {
	port := s.SrcPort()
	switch {
	case state == inetdiag.Listen:
		t.states[inetdiag.Listen]++
		t.ports.block(port, blocked, &t.ports.pool.BlockedListen)
		t.ports.class[port] |= listens
		if len(t.listeners) < snapshot.MaxListeners {
			t.listeners = append(t.listeners, listener{
				id: s.ID(), queue: s.RQueue(), backlog: s.WQueue(), inode: s.Inode(), uid: s.UID(),
			})
		}
	case state == inetdiag.Close || s.DstPort() == 0: // BOUND_INACTIVE
		t.states[inetdiag.Close]++
		t.ports.block(port, blocked, &t.ports.pool.BlockedBound)
	default:
		return false
	}
	return true
}

// addCloseWait notes a CLOSE_WAIT socket. Its Recv-Q counts the FIN as one
// byte; without an inode no accept() has taken it yet.
func (t *Table) addCloseWait(i uint16, e *entry, s *inetdiag.Socket) {
	switch s.RQueue() {
	case 0:
		e.eofRead++
	case 1: // the FIN alone
	default:
		e.unread++
	}
	if s.Inode() == 0 && e.key.side() == server {
		e.unaccepted++
	}
	if len(t.closeWaits) == maxCloseWaits {
		t.closeWaitsMissed = true
		return
	}
	t.closeWaits = append(t.closeWaits, makeCloseWait(i, s))
}

func makeCloseWait(i uint16, s *inetdiag.Socket) closeWait {
	return closeWait{
		id: s.ID(), entry: i, recvQ: s.RQueue(), sendQ: s.WQueue(), inode: s.Inode(), uid: s.UID(), age: unknownAge(), sent: -1,
	}
}

// CloseWaits yields the CLOSE_WAIT sockets of this pass; set tells the age of
// the one at hand. complete is false if there were more than fit: then all of
// them should be told to [Table.AddAge].
func (t *Table) CloseWaits(yield func(id inetdiag.ID, set func(Age))) (complete bool) {
	var c *closeWait
	set := func(age Age) { t.setAge(c, age) }
	for i := range t.closeWaits {
		c = &t.closeWaits[i]
		yield(c.id, set)
	}
	return !t.closeWaitsMissed
}

func (t *Table) setAge(c *closeWait, age Age) {
	c.age = age
	e := &t.entries[c.entry]
	e.oldestCloseWait.AtLeast = max(e.oldestCloseWait.AtLeast, age.AtLeast)
	e.oldestCloseWait.AtMost = max(e.oldestCloseWait.AtMost, age.AtMost)
}

// ForgetCloseWaits makes room for a walk over all of them with AddAge, and
// then SetAllAged.
func (t *Table) ForgetCloseWaits() { t.closeWaits, t.closeWaitsMissed = t.closeWaits[:0], true }

// SetAllAged says that every CLOSE_WAIT socket has been given to
// [Table.AddAge]; without it, the oldest age is a lower bound.
func (t *Table) SetAllAged() { t.closeWaitsMissed = false }

// settleCloseWaits takes it into account that a socket whose age isn't known
// may be the oldest.
func (t *Table) settleCloseWaits() {
	for i := range t.entries {
		if e := &t.entries[i]; t.closeWaitsMissed && e.states[inetdiag.CloseWait] > 0 {
			e.oldestCloseWait.AtMost = ageless
		}
	}
	for i := range t.closeWaits {
		if c := &t.closeWaits[i]; !c.age.known() {
			t.entries[c.entry].oldestCloseWait.AtMost = ageless
		}
	}
}

// AddAge takes a CLOSE_WAIT row and its age from a walk of its own; the
// oldest are kept.
func (t *Table) AddAge(s *inetdiag.Socket, age Age) {
	t.countPending()
	k := t.keyOf(s)
	i := t.known(k)
	if i == noFlow {
		return // folded, or opened since
	}
	if len(t.closeWaits) == maxCloseWaits {
		sortByAge(t.closeWaits)
		t.closeWaits = t.closeWaits[:snapshot.MaxCloseWaits]
	}
	t.closeWaits = append(t.closeWaits, makeCloseWait(i, s))
	t.setAge(&t.closeWaits[len(t.closeWaits)-1], age)
}

// sortByAge sorts the oldest first, unknown ages last.
func sortByAge(c []closeWait) {
	slices.SortFunc(c, func(a, b closeWait) int {
		return cmp.Or(cmp.Compare(b.age.AtLeast, a.age.AtLeast), a.id.Src().Compare(b.id.Src()), a.id.Dst().Compare(b.id.Dst()))
	})
}

// CloseWaitInodes yields the inodes of CLOSE_WAIT sockets that a process holds.
func (t *Table) CloseWaitInodes(yield func(inode uint32) bool) {
	for i := range t.closeWaits {
		if inode := t.closeWaits[i].inode; inode != 0 && !yield(inode) {
			return
		}
	}
}

// Listeners yields where the listeners listen, and their inodes.
func (t *Table) Listeners(yield func(at netip.AddrPort, inode uint32) bool) {
	for i := range t.listeners {
		if l := &t.listeners[i]; !yield(l.id.Src(), l.inode) {
			return
		}
	}
}

// HalfClosed yields the CLOSE_WAIT sockets that will be reported and whose
// program has read the end: if it still sends, the connection is half-closed
// and no leak. sent tells how long before the pass's start it last did, in ms.
func (t *Table) HalfClosed(yield func(id inetdiag.ID, sent func(ms int64))) {
	sortByAge(t.closeWaits)
	for i := range t.closeWaits[:min(len(t.closeWaits), snapshot.MaxCloseWaits)] {
		if c := &t.closeWaits[i]; c.recvQ == 0 {
			yield(c.id, func(ms int64) { c.sent = max(ms, 0) })
		}
	}
}
