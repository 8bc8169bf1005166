package flow

import "github.com/twwatch/twwatch/sysctl"

// Memory is what a namespace's next pass should know of its last one. The
// zero value knows nothing. It is for one namespace and one goroutine.
//
// It holds up to 4 MiB of connections seen alive: see [MaxCookies]. Each is
// forgotten when a TIME_WAIT of it can't be there any more.
type Memory struct {
	cookies cookies
	// When live connections were first looked at, and of which flows all were
	// by the last look: of every one, or of those followed, by their hash.
	glanced  bool
	firstMS  uint32
	all      bool
	followed map[uint64]struct{}

	last []key // the flows last reported: they are followed from the first row on

	// doubtful are the client flows that hold ports of the other parity which
	// connect() may have given them: those that held some at the first look,
	// and those that were seen to use up their half of the range. They stay
	// until they hold none.
	doubtful map[key]struct{}
	tooMany  bool // more than maxDoubtful: every flow is

	watched bool // there was a pass before, under the same range
	ports   sysctl.PortRange
	changed bool // the range was another once

	looked       bool // there was a pass before
	timestamps   int
	timestampsAt int64 // when they were seen to change; 0 never
}

const maxDoubtful = 4096

// sawAllOf tells whether every other-parity port of the flow was taken while
// the namespace was watched, and none by a spill-over.
func (m *Memory) sawAllOf(k *key) bool {
	if m == nil || !m.watched || m.tooMany {
		return false
	}
	_, doubtful := m.doubtful[*k]
	return !doubtful
}

func (m *Memory) rangeChanged() bool { return m != nil && m.changed }

// setRange notes the range of the pass that begins. Sockets that were opened
// under another one say nothing by the parity of their ports.
func (m *Memory) setRange(r *sysctl.PortRange) {
	if m == nil || r == nil {
		return
	}
	if m.watched && m.ports != *r {
		m.watched, m.changed = false, true
	}
	m.ports = *r
}

// timestampsChanged tells whether tcp_timestamps was another within the life
// of a TIME_WAIT: then it can't be told which of them had timestamps.
func (m *Memory) timestampsChanged(now int, at int64) bool {
	if m == nil {
		return false
	}
	if m.looked && m.timestamps != now {
		m.timestampsAt = at
	}
	m.timestamps, m.looked = now, true
	return m.timestampsAt != 0 && at-m.timestampsAt < holdSeconds*1e9
}

// learn keeps what the pass saw. It is called when every row is in.
func (m *Memory) learn(t *Table) {
	if !t.ports.known {
		return
	}
	if m.doubtful == nil {
		m.doubtful = make(map[key]struct{})
	}
	for i := range t.entries {
		e := &t.entries[i]
		if e.key.side() != client || e.used == [2]uint32{} {
			continue
		}
		if t.ports.halfUsed(e, 0) || !m.watched && t.judgeParity(e) == unclear {
			if m.tooMany = m.tooMany || len(m.doubtful) == maxDoubtful; !m.tooMany {
				m.doubtful[e.key] = struct{}{}
			}
		}
	}
	for k := range m.doubtful {
		i := t.known(k)
		if i == noFlow || t.entries[i].used[1] == t.entries[i].blocked[1] && !t.ports.halfUsed(&t.entries[i], 0) {
			delete(m.doubtful, k)
		}
	}
	m.watched = true
}

// sweep forgets connections, from time to time.
func (m *Memory) sweep(now, keep uint32) {
	if c := &m.cookies; c.refused || c.swept == 0 || now-c.swept >= sweepMS {
		c.sweep(now, keep)
	}
}

// sweepMS is the least time between two sweeps while there is room.
const sweepMS = 10_000

// look notes that live connections were looked at, and whether all of them were
// remembered.
func (m *Memory) look(now uint32, all bool) {
	if !m.glanced {
		m.glanced, m.firstMS = true, now
	}
	m.all = all && !m.cookies.refused
	clear(m.followed)
}

// learnFollowed notes whose live connections the pass looked at.
func (m *Memory) learnFollowed(t *Table) {
	if !t.followed {
		return
	}
	m.look(t.nowMS, t.everything)
	if m.all || m.cookies.refused {
		return
	}
	if m.followed == nil {
		m.followed = make(map[uint64]struct{})
	}
	for i := range t.entries {
		if e := &t.entries[i]; e.followed && !e.cut {
			m.followed[t.seed.of(e.key)] = struct{}{}
		}
	}
}

// sawLive tells whether an earlier look, long enough ago, remembered the live
// connections of a flow.
func (m *Memory) sawLive(t *Table, e *entry) bool {
	if m == nil || !m.glanced || t.nowMS-m.firstMS < longLivedMS {
		return false
	}
	if m.all {
		return true
	}
	_, ok := m.followed[t.seed.of(e.key)]
	return ok
}
