package diagnose

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about handshakes that don't end.
const (
	HalfOpenFlood  = "half-open-flood"
	AcceptOverflow = "accept-queue-overflow"
)

// halfOpenFew is the number of half-open handshakes below which a port has no
// flood by number: a listener with a tiny queue has a few at any time.
const halfOpenFew = 8

func handshakeRules() []rule {
	return []rule{
		{ids: []string{HalfOpenFlood}, judge: judgeHalfOpen},
		{ids: []string{AcceptOverflow}, judge: judgeAcceptQueues},
	}
}

// synQueue is the handshakes of one port that wait for their third segment.
type synQueue struct {
	port     uint16
	sockets  int
	room     int // 0: unknown
	networks int
	more     bool // there are more networks
	top      *snapshot.HalfOpen
	listener *snapshot.Listener // one of them; nil if none was seen
	choked   bool               // its accept queue is full: what is half open waits for that
}

// synQueues are the ports with half-open handshakes, most first.
func (s *scene) synQueues() []*synQueue {
	var all []*synQueue
	of := func(port uint16) *synQueue {
		i := slices.IndexFunc(all, func(q *synQueue) bool { return q.port == port })
		if i < 0 {
			all = append(all, &synQueue{port: port})
			i = len(all) - 1
		}
		return all[i]
	}
	for i := range s.ns.HalfOpen {
		h := &s.ns.HalfOpen[i]
		if h.Port == 0 {
			continue // of many ports: more than one listener is met, and none is filled
		}
		q := of(h.Port)
		q.sockets += int(h.Sockets)
		if h.Remote == "" {
			q.more = true
			continue
		}
		q.networks++
		if q.top == nil || h.Sockets > q.top.Sockets {
			q.top = h
		}
	}
	for i := range s.ns.Listeners {
		l := &s.ns.Listeners[i]
		ap, err := netip.ParseAddrPort(l.Local)
		if err != nil || !slices.ContainsFunc(all, func(q *synQueue) bool { return q.port == ap.Port() }) {
			continue
		}
		q := of(ap.Port())
		q.room += s.synRoom(l)
		q.choked = q.choked || l.Queue > l.Backlog
		if q.listener == nil {
			q.listener = l
		}
	}
	slices.SortStableFunc(all, func(a, b *synQueue) int {
		return cmp.Or(cmp.Compare(b.sockets, a.sockets), cmp.Compare(a.port, b.port))
	})
	return all
}

// synRoom is how many half-open handshakes a listener takes before it answers
// with cookies or not at all: its backlog (inet_csk_reqsk_queue_is_full). Where
// cookies are off, unknown peers are shut out from three quarters of
// tcp_max_syn_backlog on (tcp_conn_request).
func (s *scene) synRoom(l *snapshot.Listener) int {
	room := int(l.Backlog)
	if c, most := s.ns.Limits.TCPSyncookies, s.ns.Limits.TCPMaxSynBacklog; c != nil && *c == 0 && most != nil {
		room = min(room, *most-*most/4)
	}
	return max(room, 1)
}

func (q *synQueue) full(ratio float64) bool {
	return !q.choked && q.room > 0 && q.sockets >= halfOpenFew && float64(q.sockets) >= ratio*float64(q.room)
}

// judgeHalfOpen looks at what is half open now, and at what the kernel did for
// want of room. SyncookiesSent tells it, and not TCPReqQFullDoCookies: that
// grows with a full accept queue too. With tcp_syncookies=2 each SYN gets a
// cookie, and they tell nothing.
func judgeHalfOpen(s *scene) []*found {
	cookies := s.grown("SyncookiesSent")
	if c := s.ns.Limits.TCPSyncookies; c != nil && *c == 2 {
		cookies = 0
	}
	dropped := s.grown("TCPReqQFullDrop")
	queues := s.synQueues()
	var all []*found
	for _, q := range queues {
		subject := q.subject()
		if q.full(s.threshold(halfOpenRatio, subject, HalfOpenFlood)) {
			all = append(all, s.halfOpenFinding(q, subject, cookies, dropped))
		}
	}
	if len(all) == 0 && cookies+dropped > 0 {
		q := &synQueue{}
		if len(queues) > 0 {
			q = queues[0]
		}
		all = append(all, s.halfOpenFinding(q, q.subject(), cookies, dropped))
	}
	return s.most(all)
}

func (q *synQueue) subject() snapshot.Subject {
	if q.port == 0 {
		return snapshot.Subject{}
	}
	subject := snapshot.Subject{Side: snapshot.Server, Port: q.port}
	if q.listener != nil {
		subject.Process = q.listener.Comm
	}
	return subject
}

func (s *scene) halfOpenFinding(q *synQueue, subject snapshot.Subject, cookies, dropped uint64) *found {
	f := &found{Finding: snapshot.Finding{ID: HalfOpenFlood, Severity: snapshot.Warning, Subject: subject}}
	life := ""
	if r := s.ns.Limits.TCPSynackRetries; r != nil {
		life = ", each for up to " + draw.Duration(advice.HandshakeLife(*r))
	}
	switch {
	case q.full(s.settings.Thresholds.of(halfOpenRatio, true)):
		f.Summary = fmt.Sprintf("Half-open handshakes fill the queue of %s: %s of %s%s%s", portOf(q.port, q.listener),
			draw.Count(int64(q.sockets)), draw.Count(int64(q.room)), q.from(), life)
	case q.port != 0:
		f.Summary = fmt.Sprintf("Half-open handshakes have overflowed a listener's queue: now there are %s, most on %s%s%s",
			draw.Count(int64(s.ns.States.SynRecv)), portOf(q.port, q.listener), q.from(), life)
	default:
		f.Summary = "Half-open handshakes have overflowed a listener's queue, and are gone"
	}
	switch {
	case dropped > 0:
		f.Severity = snapshot.Critical
		f.Summary += fmt.Sprintf("; SYN cookies are off, and %s SYNs were dropped in %s: new clients can't connect.", draw.Count(int64(dropped)), draw.Duration(s.seconds))
	case cookies > 0:
		f.Summary += fmt.Sprintf("; %s SYN cookies were sent in %s, with which real clients still get in.", draw.Count(int64(cookies)), draw.Duration(s.seconds))
	default:
		f.Summary += "."
	}
	f.Evidence = s.halfOpenEvidence(q)
	a := s.situation(advice.HalfOpen, nil)
	s.atListener(&a, q.port, q.listener)
	f.situations = []advice.Situation{a}
	return f
}

// from says where the handshakes claim to come from.
func (q *synQueue) from() string {
	if q.top == nil {
		return ""
	}
	if q.networks == 1 && !q.more {
		return fmt.Sprintf(", all from %s, which may be forged", foreign(q.top.Remote))
	}
	n := draw.Count(int64(q.networks)) + " networks"
	if q.more {
		n = "more than " + n
	}
	return fmt.Sprintf(", from %s that may be forged (most from %s: %s)", n, foreign(q.top.Remote), draw.Count(int64(q.top.Sockets)))
}

func (s *scene) halfOpenEvidence(q *synQueue) []snapshot.Evidence {
	e := []snapshot.Evidence{{What: "half-open handshakes", Value: float64(s.ns.States.SynRecv), Unit: "sockets", Source: "ss -tn state syn-recv"}}
	if q.port != 0 {
		e = append(e, snapshot.Evidence{What: fmt.Sprintf("of these on port %d", q.port), Value: float64(q.sockets), Unit: "sockets", Source: fmt.Sprintf("ss -tn state syn-recv sport = :%d", q.port)})
	}
	if q.room > 0 {
		e = append(e, snapshot.Evidence{What: "room for these", Value: float64(q.room), Unit: "sockets", Source: "ss -ltn: Send-Q; tcp_max_syn_backlog where tcp_syncookies is 0"})
	}
	if q.networks > 0 {
		e = append(e, snapshot.Evidence{What: "networks (/24, /64)", Value: float64(q.networks), Unit: "networks", Source: "ss -tn state syn-recv"})
	}
	if n, ok := s.growth("SyncookiesSent"); ok {
		e = append(e, snapshot.Evidence{What: "SYN cookies sent", Value: float64(n), Unit: "cookies", Source: "TcpExt SyncookiesSent"})
	}
	if n, ok := s.growth("TCPReqQFullDrop"); ok {
		e = append(e, snapshot.Evidence{What: "SYNs dropped", Value: float64(n), Unit: "segments", Source: "TcpExt TCPReqQFullDrop"})
	}
	return e
}

// portOf names a listening port and its program.
func portOf(port uint16, l *snapshot.Listener) string {
	text := fmt.Sprintf("port %d", port)
	switch {
	case l == nil || l.Comm == "":
		return text
	case l.PID == 0:
		return fmt.Sprintf("%s (%s)", text, foreign(l.Comm))
	}
	return fmt.Sprintf("%s (%s, pid %d)", text, foreign(l.Comm), l.PID)
}

// atListener adds what is known of a listener to a situation.
func (s *scene) atListener(a *advice.Situation, port uint16, l *snapshot.Listener) {
	a.Side = snapshot.Server
	a.Remote = netip.AddrPortFrom(netip.Addr{}, port)
	if l == nil {
		return
	}
	a.Numbers.Backlog = new(int(l.Backlog))
	if o := s.owner(l.PID); o != nil {
		a.Runtime, a.RuntimeVersion = o.Runtime, o.RuntimeVersion
		a.Numbers.Descriptors, a.Numbers.DescriptorLimit = o.Descriptors, o.DescriptorLimit
	}
}

// acceptQueue is the queue of one address, over all sockets that listen there.
type acceptQueue struct {
	listener       *snapshot.Listener
	local          netip.AddrPort
	queue, backlog int
	over           bool    // now
	ago            float64 // else: when it was
}

// judgeAcceptQueues looks for listeners whose queue is over its limit, which
// the kernel lets it be by one. ListenOverflows tells that some listener of the
// namespace had no room; it counts each try of a client, and the listener may
// be gone since.
func judgeAcceptQueues(s *scene) []*found {
	refused := s.grown("ListenOverflows")
	var all []*found
	for _, q := range s.overQueues(refused > 0) {
		all = append(all, s.acceptFinding(&q, refused))
	}
	if len(all) == 0 && refused > 0 {
		f := &found{Finding: snapshot.Finding{ID: AcceptOverflow, Severity: snapshot.Warning, Evidence: s.acceptEvidence(nil)}}
		f.Summary = fmt.Sprintf("The accept queue of some listener overflowed %s in %s, and each time a client found no room; no queue was over its limit when it was looked at.",
			times(refused), draw.Duration(s.seconds))
		a := s.situation(advice.AcceptQueue, nil)
		a.Side = snapshot.Server
		f.situations = []advice.Situation{a}
		all = append(all, f)
	}
	return s.most(all)
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return draw.Count(int64(n)) + " times"
}

// overQueues are those over their limit now, or, if the past counts, in the
// time that growth is counted over.
func (s *scene) overQueues(past bool) []acceptQueue {
	all := queuesOver(s.ns, 0)
	for i := range s.history {
		m := &s.history[len(s.history)-1-i] // newest first
		if !past || m.ago > s.seconds {
			break
		}
		for _, q := range queuesOver(m.ns, m.ago) {
			if !slices.ContainsFunc(all, func(o acceptQueue) bool { return o.local == q.local && o.listener.Device == q.listener.Device }) {
				all = append(all, q)
			}
		}
	}
	return all
}

func queuesOver(ns *snapshot.Namespace, ago float64) []acceptQueue {
	var all []acceptQueue
	for i := range ns.Listeners {
		l := &ns.Listeners[i]
		ap, err := netip.ParseAddrPort(l.Local)
		if err != nil || l.Queue <= l.Backlog {
			continue
		}
		j := slices.IndexFunc(all, func(q acceptQueue) bool { return q.local == ap && q.listener.Device == l.Device })
		if j < 0 {
			all = append(all, acceptQueue{listener: l, local: ap, over: ago == 0, ago: ago})
			j = len(all) - 1
		}
		all[j].queue += int(l.Queue)
		all[j].backlog += int(l.Backlog)
	}
	return all
}

func (s *scene) acceptFinding(q *acceptQueue, refused uint64) *found {
	l := q.listener
	u := s.useOf(l.PID)
	f := &found{Finding: snapshot.Finding{
		ID: AcceptOverflow, Severity: snapshot.Warning, Evidence: append(s.acceptEvidence(q), u.evidence()...),
		Subject: snapshot.Subject{Side: snapshot.Server, Device: l.Device, Local: q.local.Addr().String(), Port: q.local.Port(), Process: l.Comm},
	}}
	name := portOf(q.local.Port(), l)
	many := fmt.Sprintf("%s wait where the limit is %s", draw.Count(int64(q.queue)), draw.Count(int64(q.backlog)))
	try := ""
	if refused > 0 {
		try = fmt.Sprintf(", and %s in %s a client found no room", times(refused), draw.Duration(s.seconds))
	}
	switch {
	case q.over && refused > 0:
		f.Severity = snapshot.Critical
		f.Summary = fmt.Sprintf("The accept queue of %s overflows: %s%s%s.", name, many, try, u.starves())
	case q.over:
		f.Summary = fmt.Sprintf("The accept queue of %s is full: %s, and the next client finds no room%s.", name, many, u.starves())
	default:
		f.Summary = fmt.Sprintf("The accept queue of %s was full %s ago: %s waited where the limit is %s%s.", name, draw.Duration(q.ago),
			draw.Count(int64(q.queue)), draw.Count(int64(q.backlog)), try)
	}
	a := s.situation(advice.AcceptQueue, nil)
	s.atListener(&a, q.local.Port(), l)
	f.situations = []advice.Situation{a}
	return f
}

func (s *scene) acceptEvidence(q *acceptQueue) []snapshot.Evidence {
	var e []snapshot.Evidence
	if q != nil {
		e = append(e,
			snapshot.Evidence{What: "accept queue", Value: float64(q.queue), Unit: "connections", Source: "ss -ltn: Recv-Q"},
			snapshot.Evidence{What: "its limit", Value: float64(q.backlog), Unit: "connections", Source: "ss -ltn: Send-Q"})
	}
	if n, ok := s.growth("ListenOverflows"); ok {
		e = append(e, snapshot.Evidence{What: "SYNs and finished handshakes without room", Value: float64(n), Unit: "tries", Source: "TcpExt ListenOverflows"})
	}
	if n, ok := s.growth("ListenDrops"); ok {
		e = append(e, snapshot.Evidence{What: "dropped at listeners, for any reason", Value: float64(n), Unit: "segments", Source: "TcpExt ListenDrops"})
	}
	return e
}
