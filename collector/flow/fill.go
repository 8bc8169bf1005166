package flow

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// How the flows that a report lists are chosen: the union of the first of
// each ranking.
const (
	topTimeWait  = 400
	topPorts     = 250
	topCloseWait = 100
	topBirths    = 100
	topTotal     = 100
	topPrefixes  = snapshot.MaxFlows - topTimeWait - topPorts - topCloseWait - topBirths - topTotal
)

// Fill writes what the pass found into n: states, time_wait (but for its
// limit), ports, flows, omitted, listeners and close_waits.
func (t *Table) Fill(n *snapshot.Namespace) {
	t.countPending()
	t.settleTimeWait()
	t.settleCloseWaits()
	by := t.settlePorts()
	n.States = toStates(&t.states)
	t.fillTimeWait(&n.TimeWait)
	n.CoveredSeconds = float64(t.covered) / 1000
	if t.ports.known {
		pool := t.ports.pool
		n.Ports = &pool
	}

	chosen := t.choose()
	n.Flows = make([]snapshot.Flow, 0, len(chosen)+len(t.prefix.crowds))
	for _, i := range chosen {
		n.Flows = append(n.Flows, t.flow(i, by))
	}
	crowds := t.chooseCrowds()
	for _, c := range crowds {
		n.Flows = append(n.Flows, t.crowdFlow(c))
	}
	n.Flows = sorted(n.Flows, byTrouble)
	t.fillOmitted(n, len(crowds))
	t.fillListeners(n)
	t.fillCloseWaits(n)
	t.fillHalfOpen(n)
	t.remember(chosen)
}

// settleTimeWait puts where it belongs what the hot path counted apart.
func (t *Table) settleTimeWait() {
	for i := range t.entries {
		e := &t.entries[i]
		e.states[inetdiag.TimeWait] = e.timeWait
		t.survivors = t.survivors || e.recycles && e.timeWait > 0
		t.served = t.served || e.key.side() == server && e.timeWait > 0
	}
	// A SYN of the client may take a server's TIME_WAIT over (tcp_timewait_state_process,
	// net/ipv4/tcp_minisocks.c); no counter tells, but TW then outgrows the rows.
	// It counts new FIN_WAIT2 mini-sockets too.
	if t.cfg.Entered != nil && t.covered > 0 {
		known := t.births + t.births/50 + uint64(t.minis) + 10
		t.reopened = *t.cfg.Entered > known
	}
}

func (t *Table) fillTimeWait(w *snapshot.TimeWait) {
	w.BucketsUsed = int(t.minis + t.states[inetdiag.TimeWait])
	w.Births = t.births
	w.OpenedPerSecondFloor = t.survivors || t.reopened || t.cfg.Entered == nil && t.served
	w.OpenedPerSecond = make([]uint32, 60)
	for i, n := range t.timeline {
		w.OpenedPerSecond[59-i] = n
	}
	var sum float64
	for i := range t.entries {
		e := &t.entries[i]
		if e.states[inetdiag.TimeWait] == 0 {
			continue
		}
		r, known := t.closeRate(e)
		if !known {
			return
		}
		sum += r.perSecond
	}
	for i := range t.prefix.crowds {
		sum += t.prefix.crowds[i].rate().perSecond
	}
	sum += t.prefix.rest.rate().perSecond
	w.CloseRate, w.CloseRateBy = &sum, "timers"
}

func (c *crowd) rate() rate { return meanRate(c.recent, c.minute) }

func toStates(c *[inetdiag.BoundInactive + 1]uint32) snapshot.States {
	return snapshot.States{
		Established: c[inetdiag.Established], SynSent: c[inetdiag.SynSent],
		SynRecv:  c[inetdiag.SynRecv] + c[inetdiag.NewSynRecv],
		FinWait1: c[inetdiag.FinWait1], FinWait2: c[inetdiag.FinWait2], TimeWait: c[inetdiag.TimeWait],
		Close: c[inetdiag.Close] + c[inetdiag.BoundInactive], CloseWait: c[inetdiag.CloseWait],
		LastAck: c[inetdiag.LastAck], Listen: c[inetdiag.Listen], Closing: c[inetdiag.Closing],
	}
}

func (e *entry) total() (n uint32) {
	for _, c := range e.states {
		n += c
	}
	return n
}

// choose gives the entries that the report lists, none twice.
func (t *Table) choose() []uint16 {
	all := make([]uint16, 0, len(t.entries))
	for i := range t.entries {
		if t.entries[i].total() > 0 {
			all = append(all, uint16(i))
		}
	}
	if len(all) <= snapshot.MaxFlows-topPrefixes {
		return all
	}
	picked := make([]bool, len(t.entries))
	var chosen []uint16
	heap := make([]ranked, 0, topTimeWait)
	pick := func(n int, weight func(*entry) uint32) {
		heap = t.heaviest(heap[:0], all, n, weight)
		for _, r := range heap {
			if !picked[r.entry] {
				picked[r.entry] = true
				chosen = append(chosen, r.entry)
			}
		}
	}
	pick(topPorts, func(e *entry) uint32 { return e.used[0] + e.used[1] })
	pick(topTimeWait, func(e *entry) uint32 { return e.states[inetdiag.TimeWait] })
	pick(topCloseWait, func(e *entry) uint32 { return e.states[inetdiag.CloseWait] })
	pick(topBirths, func(e *entry) uint32 { return e.births })
	pick(topTotal, (*entry).total)
	return chosen
}

// ranked is an entry with its weight in some ranking.
type ranked struct {
	weight uint32
	entry  uint16
}

// heaviest gives the n entries of the greatest weight, which is more than 0,
// in no order; among equals the keys decide. It keeps the lightest of the best
// at the top of a heap, so that most of the many aren't worth more than a
// look.
func (t *Table) heaviest(heap []ranked, all []uint16, n int, weight func(*entry) uint32) []ranked {
	lighter := func(a, b ranked) bool {
		if a.weight != b.weight {
			return a.weight < b.weight
		}
		return t.entries[a.entry].key.compare(&t.entries[b.entry].key) > 0
	}
	sink := func(i int) {
		for {
			least := i
			for _, child := range [2]int{2*i + 1, 2*i + 2} {
				if child < len(heap) && lighter(heap[child], heap[least]) {
					least = child
				}
			}
			if least == i {
				return
			}
			heap[i], heap[least] = heap[least], heap[i]
			i = least
		}
	}
	for _, i := range all {
		r := ranked{weight(&t.entries[i]), i}
		switch {
		case r.weight == 0:
		case len(heap) < n:
			heap = append(heap, r)
			if len(heap) == n {
				for i := n/2 - 1; i >= 0; i-- {
					sink(i)
				}
			}
		case lighter(heap[0], r):
			heap[0] = r
			sink(0)
		}
	}
	return heap
}

// chooseCrowds gives the heaviest prefixes.
func (t *Table) chooseCrowds() []*crowd {
	all := make([]*crowd, len(t.prefix.crowds))
	for i := range all {
		all[i] = &t.prefix.crowds[i]
	}
	slices.SortFunc(all, func(a, b *crowd) int {
		if c := cmp.Compare(b.total(), a.total()); c != 0 {
			return c
		}
		return a.key.compare(b.key)
	})
	return all[:min(topPrefixes, len(all))]
}

func (c *crowd) total() (n uint32) {
	for _, v := range c.states {
		n += v
	}
	return n
}

func (t *Table) flow(i uint16, by *parity) snapshot.Flow {
	e := &t.entries[i]
	f := snapshot.Flow{
		Side:  e.key.side().snapshot(),
		Local: e.key.local().String(), Remote: e.key.remote().String(), Port: e.key.port(),
		States: toStates(&e.states), MissedAtMost: e.missed, Births: uint64(e.births),
		SurvivorsOnly: t.survivorsOnly(e),
		CloseWait: snapshot.CloseWaitCount{
			Sockets: e.states[inetdiag.CloseWait], EOFRead: e.eofRead, Unread: e.unread, Unaccepted: e.unaccepted,
		},
		Processes: []snapshot.Process{},
	}
	if d := e.key.device(); d != 0 {
		f.Device = t.device(d)
	}
	t.name(&f)
	if oldest := e.oldestCloseWait; oldest.known() {
		f.CloseWait.OldestSeconds, f.CloseWait.OldestAtLeast = seconds(oldest.AtLeast), oldest.atLeast()
	}
	r, known := t.closeRate(e)
	if known {
		f.CloseRate, f.CloseRateSeconds, f.CloseRateAtLeast = &r.perSecond, r.seconds, t.atLeast(e)
	}
	if live := e.states[inetdiag.Established]; live > 0 && r.perSecond > 0 && !f.CloseRateAtLeast {
		mean := float64(live) / r.perSecond // Little's law
		f.MeanLifetimeSeconds = &mean
	}
	if slices.Max(e.timeline[:]) > 0 {
		f.OpenedPerSecond = make([]uint32, 60)
		for i, n := range e.timeline {
			f.OpenedPerSecond[59-i] = uint32(n)
		}
	}
	if e.key.side() == client {
		f.Ports = t.flowPorts(i, by)
		if f.Ports != nil {
			f.Ports.SecondsToExhaustion = t.exhaustion(e, f.Ports, r)
		}
	}
	t.fillOwners(&f, i)
	return f
}

func (t *Table) crowdFlow(c *crowd) snapshot.Flow {
	r := c.rate()
	f := snapshot.Flow{
		Side: side(c.key.tail >> 16).snapshot(), Remote: c.key.prefix().String(), Port: uint16(c.key.tail),
		States: toStates(&c.states), Births: uint64(c.births),
		CloseRate: &r.perSecond, CloseRateSeconds: r.seconds,
		CloseWait: snapshot.CloseWaitCount{Sockets: c.states[inetdiag.CloseWait]},
		Processes: []snapshot.Process{},
	}
	t.name(&f)
	if t.cfg.Owned != nil {
		t.cfg.Owned(&f, nil)
	}
	return f
}

func (t *Table) name(f *snapshot.Flow) {
	if t.cfg.ServiceName == nil {
		return
	}
	if f.Service = t.cfg.ServiceName(f.Port); f.Service != "" {
		f.ServiceBy = "port"
	}
}

func (t *Table) device(index uint32) string {
	if t.cfg.Device == nil {
		return "if" + strconv.FormatUint(uint64(index), 10)
	}
	return t.cfg.Device(index)
}

// fillOmitted gives what the flows leave of the namespace's sockets, so that
// the sums close. Listening and merely bound sockets belong to no flow.
func (t *Table) fillOmitted(n *snapshot.Namespace, crowds int) {
	left := n.States
	left.Listen, left.Close = 0, 0
	births := t.births
	for i := range n.Flows {
		left.Subtract(&n.Flows[i].States)
		births -= n.Flows[i].Births
	}
	flows := len(t.prefix.crowds) - crowds
	for i := range t.entries {
		if t.entries[i].total() > 0 {
			flows++
		}
	}
	if t.prefix.rest.total() > 0 {
		flows++
	}
	n.Omitted = snapshot.Omitted{Flows: flows - (len(n.Flows) - crowds), States: left, Births: births}
}

func (t *Table) fillListeners(n *snapshot.Namespace) {
	n.Listeners = make([]snapshot.Listener, 0, len(t.listeners))
	for _, l := range t.listeners {
		s := snapshot.Listener{
			Local: l.id.Src().String(), Queue: l.queue, Backlog: l.backlog, Inode: l.inode, UID: l.uid,
		}
		if d := l.id.Interface(); d != 0 {
			s.Device = t.device(d)
		}
		s.PID, s.Comm = t.owner(l.inode)
		n.Listeners = append(n.Listeners, s)
	}
	slices.SortFunc(n.Listeners, func(a, b snapshot.Listener) int {
		return cmp.Or(comparePorts(a.Local, b.Local), cmp.Compare(a.Local, b.Local), cmp.Compare(a.Inode, b.Inode))
	})
}

func comparePorts(a, b string) int {
	x, _ := netip.ParseAddrPort(a)
	y, _ := netip.ParseAddrPort(b)
	return cmp.Compare(x.Port(), y.Port())
}

func (t *Table) fillCloseWaits(n *snapshot.Namespace) {
	sortByAge(t.closeWaits)
	rows := t.closeWaits[:min(len(t.closeWaits), snapshot.MaxCloseWaits)]
	n.CloseWaits = make([]snapshot.CloseWait, 0, len(rows))
	for _, c := range rows {
		w := snapshot.CloseWait{
			Local: c.id.Src().String(), Remote: c.id.Dst().String(), Cookie: c.id.Cookie(),
			RecvQ: c.recvQ, SendQ: c.sendQ, Inode: c.inode, UID: c.uid,
			Side: t.entries[c.entry].key.side().snapshot(),
		}
		w.PID, w.Comm = t.owner(c.inode)
		if c.sent >= 0 {
			w.LastSentSeconds = seconds(c.sent)
		}
		if c.age.known() {
			w.AgeSeconds, w.AgeAtLeast, w.AgeAtMostSeconds = seconds(c.age.AtLeast), c.age.atLeast(), seconds(c.age.AtMost)
		}
		n.CloseWaits = append(n.CloseWaits, w)
	}
}

// owner is who holds a socket, as far as that is known.
func (t *Table) owner(inode uint32) (pid int, comm string) {
	if t.cfg.Owner == nil || inode == 0 {
		return 0, ""
	}
	return t.cfg.Owner(inode)
}

func seconds(ms int64) *float64 {
	s := float64(ms) / 1000
	return &s
}

// remember keeps, for the namespace's next pass, the flows reported now and
// those that used up their half of the range.
func (t *Table) remember(chosen []uint16) {
	m := t.cfg.Memory
	if m == nil {
		return
	}
	m.last = m.last[:0]
	for _, i := range chosen {
		m.last = append(m.last, t.entries[i].key)
	}
	m.learn(t)
	m.learnFollowed(t)
}

// sorted returns the flows in order. A Flow is large: they move once, and not at
// every step of the sort.
func sorted(flows []snapshot.Flow, compare func(a, b *snapshot.Flow) int) []snapshot.Flow {
	order := make([]*snapshot.Flow, len(flows))
	for i := range flows {
		order[i] = &flows[i]
	}
	slices.SortStableFunc(order, compare)
	out := make([]snapshot.Flow, len(flows))
	for i, f := range order {
		out[i] = *f
	}
	return out
}

// byTrouble puts first what is nearest to trouble: ports used, then
// TIME_WAIT, then CLOSE_WAIT; then by name, so that the same sockets give the
// same bytes.
func byTrouble(a, b *snapshot.Flow) int {
	used := func(f *snapshot.Flow) int {
		if f.Ports == nil {
			return 0
		}
		return f.Ports.Used + f.Ports.Blocked
	}
	return cmp.Or(
		cmp.Compare(used(b), used(a)),
		cmp.Compare(b.States.TimeWait, a.States.TimeWait),
		cmp.Compare(b.States.CloseWait, a.States.CloseWait),
		cmp.Compare(b.States.Established, a.States.Established),
		cmp.Compare(a.Side, b.Side), cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Local, b.Local), cmp.Compare(a.Device, b.Device),
	)
}
