package flow

import (
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/sysctl"
)

// MaxFlows is how many flows a [Table] follows at once.
const MaxFlows = 16384

const (
	// maxFlows is the number of flows followed at once. The first half is
	// first come; then a flow has to prove itself heavy (admit).
	maxFlows  = MaxFlows
	firstCome = maxFlows / 2
	// A quarter is kept for flows with live sockets, come as they may, and a
	// quarter for those that prove themselves: neither can fill the other's.
	liveShare  = maxFlows / 4
	heavyShare = maxFlows / 4

	indexSize  = 4 * maxFlows // open addressing, at most a quarter full
	sightings  = 1 << 20      // small counters that tell heavy flows from the crowd
	seenShift  = 64 - 20      // a hash's upper bits choose the counter
	noFlow     = ^uint16(0)
	minuteMS   = 60_000
	timeWaitMS = 60_000 // TCP_TIMEWAIT_LEN, include/net/tcp.h
)

// Config is what a pass over one namespace has to know beforehand.
type Config struct {
	// Limits are the namespace's; a nil range means that ports can't be told.
	Limits sysctl.Limits
	// Services are the remote ports that speak for a client flow.
	Services []uint16
	// ServiceName names a flow's service, "" if unknown.
	ServiceName func(port uint16) string
	// Device names an interface.
	Device func(index uint32) string
	// Start is when the pass started, Since when the namespace's previous
	// pass did (0: none), on the clock of [inetdiag.Now].
	Start, Since int64
	// Sockets is about how many rows will come; it sets how heavy a flow
	// must be to be told from the crowd.
	Sockets int
	// Opened is TcpExt's ActiveOpens, connect() calls since the namespace was
	// made, and Entered how much TcpExt's TW grew since Since; nil: unknown.
	Opened, Entered *uint64
	// Memory is the namespace's own; nil for a single look.
	Memory *Memory
	// Interval is the time until the next pass, at most: connections are
	// remembered for that long and a TIME_WAIT's life.
	Interval time.Duration
	// WithoutOwners leaves out what only the search for processes needs.
	WithoutOwners bool
	// Owned gets each reported flow and the shares that processes have of it,
	// borrowed; none if they aren't known. Owner names the process that holds a
	// socket, 0 if it isn't known. Both are called by Fill alone, and may be
	// nil.
	Owned func(f *snapshot.Flow, shares []Share)
	Owner func(inode uint32) (pid int, comm string)
}

// entry is one flow. It holds no pointer: the garbage collector doesn't look
// into the table. What a TIME_WAIT row counts stands first, in one cache line,
// and the timeline last: the kernel's walk leaves little of the table in the
// nearer caches.
type entry struct {
	key      key
	timeWait uint32 // rows; Fill moves it to states
	births   uint32
	young    uint32 // TIME_WAIT of the last milliseconds before the pass: see window
	oldest   uint32 // age in ms of the oldest TIME_WAIT
	// Ports of R = range − reserved, own and other parity apart.
	used [2]uint32 // all

	states   [inetdiag.BoundInactive + 1]uint32
	blocked  [2]uint32 // of used, those also held by a visible explicit bind
	reusable [2]uint32 // of used, not blocked, that tcp_tw_reuse takes over now
	// window is how many ms before the pass's start no TIME_WAIT of the flow
	// can have been recycled.
	window  uint32
	overdue uint32 // TIME_WAIT past its expiry, still holding its port
	missed  uint32 // sightings before the flow was admitted, at most

	bound     uint32 // of used, those that were visibly bound before they connected
	longLived uint32 // ESTABLISHED that an earlier look saw
	live      uint16 // sockets kept for the search of their processes
	followed  bool   // these are searched for
	cut       bool   // not all of its live sockets are

	eofRead, unread, unaccepted uint32 // CLOSE_WAIT
	oldestCloseWait             Age
	explicit                    bool // some live socket of it was bound to a port of its choice
	loopback                    bool // tcp_tw_reuse=2 acts on it
	recycles                    bool // tcp_tw_reuse acts on its TIME_WAIT sockets now

	// timeline counts TIME_WAIT rows by age in whole seconds at the pass's
	// start, youngest first. A flow has less than 65,536 sockets, since they
	// differ in one port.
	timeline [60]uint16
	_        [4]byte // to whole cache lines
}

// Table groups the rows of one pass at a time: Begin, Add for every row, Bound
// for every bound socket, Follow and Attribute for the processes, then Fill.
// Its memory, about 7 MiB when full and 2.5 MiB for 65,536 live sockets and
// their processes, is kept between passes and bounded, however many sockets
// there are. It is not safe for concurrent use.
type Table struct {
	seed    seed
	entries []entry
	index   []slot
	seen    []uint8 // sightings of flows that have no entry
	prefix  prefixes
	// Flows beyond the first half, by how they came in.
	live, heavy int

	ports       portMap
	states      [inetdiag.BoundInactive + 1]uint32
	minis       uint32
	timeline    [60]uint32
	survivors   bool // some TIME_WAIT here can be recycled
	served      bool // some TIME_WAIT here is a server's
	reopened    bool // more came into TIME_WAIT than the rows show: SYNs took servers' over
	births      uint64
	foldedOther bool // a folded client socket holds an other-parity port

	boundSeen   bool
	liveInRange bool // a full socket holds a port of R that no listener blocks

	// How often a port stood at either end of a row that looksServed was asked
	// about, saturating.
	near, far [65536]uint8
	puzzled   bool // one at least

	waiting int // TIME_WAIT rows in pending
	pending [pendingRows]pendingRow
	warm    slot // see countPending

	cookies    *cookies // of the namespace's Memory; nil if there are none
	held       heldTable
	shares     []Share // scratch
	nowMS      uint32  // Start as the memory of connections counts it
	followed   bool    // Follow was called
	everything bool    // and follows all live sockets
	searched   bool

	halfOpen halfOpens

	listeners        []listener
	closeWaits       []closeWait
	closeWaitsMissed bool

	cfg     Config
	admitAt uint8
	length  int64 // of TIME_WAIT, ms
	delay   int64 // tcp_tw_reuse_delay, ms
	reuse   int   // effective tcp_tw_reuse: 0, 1, 2
	// reuseDoubt: tcp_timestamps was changed within the life of a TIME_WAIT.
	reuseDoubt bool
	covered    int64 // ms since the previous pass
	filled     int64 // FilledAt of the rows' datagram
	sinceFill  int64 // Start − filled, ms
}

// NewTable makes a Table; its memory is touched as it fills.
func NewTable() *Table {
	return &Table{
		seed:    newSeed(),
		entries: make([]entry, 0, maxFlows),
		index:   make([]slot, indexSize),
		seen:    make([]uint8, sightings),
	}
}

// Begin empties the table for the next pass.
func (t *Table) Begin(cfg Config) {
	if len(t.entries) >= firstCome { // else nobody was sighted
		clear(t.seen)
	}
	t.entries = t.entries[:0]
	clear(t.index)
	t.prefix.reset()
	t.listeners = t.listeners[:0]
	t.closeWaits = t.closeWaits[:0]
	t.closeWaitsMissed, t.survivors, t.served, t.reopened, t.foldedOther = false, false, false, false, false
	t.boundSeen, t.liveInRange = false, false
	t.held.reset()
	t.halfOpen.reset()
	t.followed, t.everything, t.searched = false, false, false
	t.states, t.timeline = [inetdiag.BoundInactive + 1]uint32{}, [60]uint32{}
	t.minis, t.births, t.filled, t.live, t.heavy, t.waiting = 0, 0, 0, 0, 0, 0

	t.cfg = cfg
	t.admitAt = uint8(min(255, max(8, 4*cfg.Sockets>>20)))
	t.length = timeWaitMS
	if v := cfg.Limits.TCPTWTimeout; v != nil { // seconds, Alibaba's kernels
		t.length = int64(*v) * 1000
	}
	t.setReuse(cfg.Limits)
	cfg.Memory.setRange(cfg.Limits.IPLocalPortRange)
	t.covered = 0
	if cfg.Since != 0 {
		t.covered = (cfg.Start - cfg.Since) / 1e6
	}
	t.recall()
	if t.puzzled {
		clear(t.near[:])
		clear(t.far[:])
		t.puzzled = false
	}
	t.ports.reset(cfg.Limits, cfg.Services)
	if cfg.Memory != nil {
		for i := range cfg.Memory.last {
			k := &cfg.Memory.last[i]
			t.insert(k, t.seed.of(*k), 0)
		}
	}
}

// recall gets the connections ready that the namespace's earlier looks saw.
func (t *Table) recall() {
	t.cookies, t.nowMS = nil, ms(t.cfg.Start)
	if m := t.cfg.Memory; m != nil && !t.cfg.WithoutOwners {
		interval := max(t.cfg.Interval.Milliseconds(), t.covered)
		m.sweep(t.nowMS, uint32(min(t.length+interval+slackMS, 1<<30)))
		if m.cookies.count > 0 {
			t.cookies = &m.cookies
		}
	}
}

// setReuse derives whether tcp_tw_reuse can act at all: it needs timestamps
// (tcp_twsk_unique, net/ipv4/tcp_ipv4.c).
func (t *Table) setReuse(l sysctl.Limits) {
	t.reuse, t.delay, t.reuseDoubt = 0, 1000, false
	if l.TCPTWReuseDelay != nil {
		t.delay = int64(*l.TCPTWReuseDelay)
	}
	if l.TCPTWReuse == nil || l.TCPTimestamps == nil {
		return
	}
	// What counts is whether the old connection had timestamps.
	t.reuseDoubt = t.cfg.Memory.timestampsChanged(*l.TCPTimestamps, t.cfg.Start)
	if *l.TCPTimestamps != 0 || t.reuseDoubt {
		t.reuse = *l.TCPTWReuse
	}
}

// Add takes one row of the dump.
func (t *Table) Add(s *inetdiag.Socket) {
	if f := s.FilledAt(); f != t.filled {
		t.filled, t.sinceFill = f, (t.cfg.Start-f)/1e6
	}
	state := s.State()
	if state == inetdiag.TimeWait {
		t.addTimeWait(s)
		return
	}
	if state >= inetdiag.NewSynRecv || state == inetdiag.Listen || state == inetdiag.Close {
		if t.addUnconnected(s, state) {
			return
		}
		state = min(state, inetdiag.NewSynRecv)
	}
	t.states[state]++
	if s.Mini() {
		t.minis++
	}
	if state == inetdiag.SynRecv || state == inetdiag.NewSynRecv {
		t.addHalfOpen(s)
	}
	sport := s.SrcPort()
	class := t.ports.class[sport]
	if class&usable != 0 && class&blocked == 0 && !s.Mini() {
		t.liveInRange = true
	}
	k := t.keyOf(s)
	i := t.find(k, state)
	if i == noFlow {
		t.fold(k.dstHi, k.dstLo, k.tail, state, class, -1, false)
		return
	}
	e := &t.entries[i]
	e.states[state]++
	if class&usable != 0 && k.side() == client {
		t.usePort(i, e, class, sport)
	}
	if state == inetdiag.CloseWait {
		t.addCloseWait(i, e, s)
	}
	if !t.cfg.WithoutOwners {
		t.addLive(i, e, s, state)
	}
}

// keyOf decides which end this host plays and so which flow the row is of.
// TIME_WAIT and live sockets alike show the device that they are bound to;
// link-local connections always are.
func (t *Table) keyOf(s *inetdiag.Socket) (k key) {
	k.srcHi, k.srcLo, k.dstHi, k.dstLo = addresses(s)
	k.tail = t.tailOf(s, t.ports.class[s.SrcPort()])
	return k
}

// tailOf is a row's key but for the addresses; class is its local port's.
func (t *Table) tailOf(s *inetdiag.Socket, class uint8) uint64 {
	sport, dport := s.SrcPort(), s.DstPort()
	switch {
	case class&listens != 0:
		return pack(sport, server, 0)
	case class&ephemeral != 0 && dport >= firstUnprivileged && t.ports.class[dport]&service == 0 && t.looksServed(sport, dport):
		return pack(sport, unknown, 0)
	case class&ephemeral != 0 || t.ports.class[dport]&service != 0:
		return pack(dport, client, s.Interface())
	case t.ports.class[dport]&ephemeral != 0:
		return pack(sport, unknown, 0)
	default:
		return pack(dport, unknown, 0)
	}
}

// chance is how often one local port may serve a client for several
// destinations, each of them new.
const chance = 2

// firstUnprivileged is the least port that a program may have as a client.
const firstUnprivileged = 1024

// looksServed decides on a row with a local port in the range and a remote one
// that is nobody's in particular: a client has many local ports for one remote
// one, the remains of a listener that has gone have it the other way round.
func (t *Table) looksServed(sport, dport uint16) bool {
	t.puzzled = true
	served := t.near[sport] > t.far[dport]+chance
	t.near[sport] += 1 - t.near[sport]>>7
	t.far[dport] += 1 - t.far[dport]>>7
	return served
}

// recycles tells whether tcp_tw_reuse acts on TIME_WAIT sockets of a client
// flow; value 2 is for loopback only.
func (t *Table) recycles(loopback bool) bool {
	return t.reuse == 1 || t.reuse == 2 && loopback
}
