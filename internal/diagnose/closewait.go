package diagnose

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Findings about CLOSE_WAIT: the peer has finished, and this end hasn't closed.
const (
	CloseWaitLeak        = "close-wait-leak"
	CloseWaitStalePool   = "close-wait-stale-pool"
	CloseWaitStuckReader = "close-wait-stuck-reader"
	CloseWaitNotAccepted = "close-wait-not-accepted"
	CloseWaitHalfClose   = "close-wait-half-close"
)

const (
	// closeWaitSettled is the age in seconds below which a CLOSE_WAIT is on its
	// way, and no sign of anything.
	closeWaitSettled = 2
	// goodbye is the most that a server leaves unread in an idle pooled
	// connection, with its FIN: 25 and 32 bytes were measured of TLS's
	// close_notify, 72 and 78 of an HTTP 408.
	goodbye = 512
	// withFIN in seconds: what came so long before the FIN came with it. A busy
	// server may pause between the two.
	withFIN = 1
	// stillSends is how many seconds ago a half-closed connection sent last, at
	// most.
	stillSends = 10
	// sameTime in seconds: two times of one event may look so far apart, since
	// each is whole ticks of the kernel's clock, 10 ms at most, and the looks at
	// them take their time.
	sameTime = 0.05
	// fewSockets: so many are told in any case, beside others of their process
	// of another kind; fewer only if they are fewShare of them.
	fewSockets = 3
	fewShare   = 0.1
	// tlsGoodbye is the most that a TLS alert and the FIN have: with the suites of
	// TLS 1.2 that pad most, 85 bytes and 1.
	tlsGoodbye = 86
	// growingLeak: among sockets that grow in number, so large a share whose end
	// was read makes a leak.
	growingLeak = 0.25
	// leakShare is the share of a process's descriptors that its CLOSE_WAITs
	// must have to be blamed for a lack of them.
	leakShare = 0.1
)

// closeWaitKind is what a CLOSE_WAIT waits for.
type closeWaitKind int

const (
	leaked         closeWaitKind = iota // close()
	unread                              // read()
	unaccepted                          // accept()
	stale                               // the pool's next look
	halfClosed                          // nothing: this end still sends
	closeWaitKinds                      // how many there are
)

func (k closeWaitKind) id() string {
	return [closeWaitKinds]string{CloseWaitLeak, CloseWaitStuckReader, CloseWaitNotAccepted, CloseWaitStalePool, CloseWaitHalfClose}[k]
}

func closeWaitRules() []rule {
	return []rule{{
		ids:   []string{CloseWaitLeak, CloseWaitStuckReader, CloseWaitNotAccepted, CloseWaitStalePool, CloseWaitHalfClose},
		judge: judgeCloseWaits,
		silent: func(s *scene) bool {
			return s.ns.States.CloseWait > 0 && len(s.closeWaits()) == 0 && !slices.ContainsFunc(s.ns.CloseWaits, func(w snapshot.CloseWait) bool { return w.AgeSeconds != nil })
		},
	}}
}

// closeWait is one socket and what is known of it.
type closeWait struct {
	*snapshot.CloseWait
	age     float64
	atLeast bool // it may be older
	side    snapshot.Side
	local   string // addresses
	remote  string
	port    uint16 // the service's
	flow    *snapshot.Flow
	process string // the listener's for one that wasn't accepted; "" if unknown
	pid     int    // 0 if unknown
	kind    closeWaitKind
}

// closeWaits are the namespace's, but for those on their way.
func (s *scene) closeWaits() []closeWait {
	var all []closeWait
	for i := range s.ns.CloseWaits {
		w := closeWait{CloseWait: &s.ns.CloseWaits[i]}
		var known bool
		if w.age, w.atLeast, known = s.closeWaitAge(w.CloseWait); !known || w.age < closeWaitSettled {
			continue
		}
		local, err1 := netip.ParseAddrPort(w.Local)
		remote, err2 := netip.ParseAddrPort(w.Remote)
		if err1 != nil || err2 != nil {
			continue
		}
		w.local, w.remote = plainAddr(local), plainAddr(remote)
		s.place(&w, local.Port(), remote.Port())
		w.process, w.pid, w.kind = w.Comm, w.PID, w.tell()
		if w.kind == unaccepted {
			if l := s.listener(w.local, w.port); l != nil {
				w.process, w.pid = l.Comm, l.PID
			}
		}
		all = append(all, w)
	}
	return all
}

// closeWaitAge is a socket's age in seconds. Where the kernel didn't tell it,
// it is at least the time for which it has been seen.
func (s *scene) closeWaitAge(w *snapshot.CloseWait) (age float64, atLeast, known bool) {
	if w.AgeSeconds != nil {
		return *w.AgeSeconds, w.AgeAtLeast, true
	}
	for _, m := range s.history { // oldest first
		if slices.ContainsFunc(m.ns.CloseWaits, func(o snapshot.CloseWait) bool {
			return o.Cookie == w.Cookie && o.Local == w.Local && o.Remote == w.Remote
		}) {
			return m.ago, true, true
		}
	}
	return 0, false, false
}

func plainAddr(ap netip.AddrPort) string { return ap.Addr().Unmap().WithZone("").String() }

// place finds the flow of a socket, and which end this host plays in it.
func (s *scene) place(w *closeWait, localPort, remotePort uint16) {
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		port := remotePort
		if f.Side == snapshot.Server {
			port = localPort
		}
		if f.Local == w.local && f.Remote == w.remote && f.Port == port && (w.Side == "" || w.Side == f.Side) && f.States.CloseWait > 0 {
			w.flow, w.side, w.port = f, f.Side, port
			return
		}
	}
	w.side = cmp.Or(w.Side, snapshot.Unknown)
	if w.Side == "" && s.listener(w.local, localPort) != nil {
		w.side = snapshot.Server
	}
	w.port = remotePort
	if w.side == snapshot.Server {
		w.port = localPort
	}
}

// listener is the one that accepts connections to an address and port, nil if
// there is none.
func (s *scene) listener(addr string, port uint16) *snapshot.Listener {
	var found *snapshot.Listener
	for i := range s.ns.Listeners {
		l := &s.ns.Listeners[i]
		ap, err := netip.ParseAddrPort(l.Local)
		if err != nil || ap.Port() != port {
			continue
		}
		if plainAddr(ap) == addr {
			return l
		}
		if found == nil {
			found = l
		}
	}
	return found
}

// tell says what one socket by itself looks like. The FIN counts as one byte
// of Recv-Q until the program reads the end.
func (w *closeWait) tell() closeWaitKind {
	switch {
	case w.Inode == 0 && w.side == snapshot.Server:
		return unaccepted
	case w.RecvQ == 0 && w.sends():
		return halfClosed
	case w.RecvQ == 0:
		return leaked
	case w.side == snapshot.Client && w.farewell():
		return stale
	}
	return unread
}

// sends tells whether this end has sent after the peer had finished. What was
// sent before the peer's last data came isn't.
func (w *closeWait) sends() bool {
	if w.SendQ > 0 {
		return true
	}
	return w.LastSentSeconds != nil && *w.LastSentSeconds < stillSends &&
		(w.AgeAtMostSeconds == nil || *w.LastSentSeconds < *w.AgeAtMostSeconds-sameTime)
}

// farewell tells whether the unread data look like a server's goodbye: a TLS
// alert, or little that came with the FIN. The alert's time tells nothing, since
// keepalive probes hide the FIN's.
func (w *closeWait) farewell() bool {
	if w.RecvQ <= tlsGoodbye {
		return true
	}
	return w.RecvQ <= goodbye && w.AgeSeconds != nil && w.AgeAtMostSeconds != nil && *w.AgeAtMostSeconds-*w.AgeSeconds <= withFIN
}

// closeWaitPlace is where sockets of a program are alike but for their kind.
type closeWaitPlace struct {
	process string
	side    snapshot.Side
	port    uint16
}

// closeWaitGroup is one finding: the sockets of one kind at one place.
type closeWaitGroup struct {
	closeWaitPlace
	kind    closeWaitKind
	sockets []closeWait
	growth  growth
	count   int  // of sockets
	atLeast bool // there are more
}

// judgeCloseWaits tells the kinds apart and makes one finding of each program's
// sockets of a kind at a service.
func judgeCloseWaits(s *scene) []*found {
	rows := s.closeWaits()
	byPlace := map[closeWaitPlace][]closeWait{}
	for _, w := range rows {
		p := closeWaitPlace{w.process, w.side, w.port}
		byPlace[p] = append(byPlace[p], w)
	}
	ofProcess := map[string]int{}
	ofKind := map[string]*[closeWaitKinds]int{}
	var groups []*closeWaitGroup
	for p, sockets := range byPlace {
		if ofKind[p.process] == nil {
			ofKind[p.process] = new([closeWaitKinds]int)
		}
		for _, g := range s.split(p, sockets) {
			ofProcess[p.process] += len(g.sockets)
			ofKind[p.process][g.kind] += len(g.sockets)
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b *closeWaitGroup) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(len(b.sockets), len(a.sockets)),
			cmp.Compare(a.process, b.process), cmp.Compare(a.side, b.side), cmp.Compare(a.port, b.port))
	})
	var all []*found
	for _, g := range groups {
		if n := ofKind[g.process][g.kind]; n < fewSockets && float64(n) < fewShare*float64(ofProcess[g.process]) {
			continue
		}
		s.count(g, groups)
		if f := s.closeWaitFinding(g); f != nil {
			all = append(all, f)
		}
	}
	return s.most(all)
}

// split makes groups of the sockets at one place, by kind. Where some have read
// the end and some not, it is one cause: a leak has a few sockets whose end it
// never reads, and an idle pool a few whose FIN came with the last data. The
// majority decides; where their number goes on growing, as a pool's doesn't, less
// is enough.
func (s *scene) split(p closeWaitPlace, sockets []closeWait) []*closeWaitGroup {
	trend := s.closeWaitGrowth(p)
	n := [closeWaitKinds]int{}
	for i := range sockets {
		w := &sockets[i]
		if w.kind == stale && w.RecvQ > tlsGoodbye && trend.grows() {
			w.kind = unread
		}
		n[w.kind]++
	}
	ends := func(w *closeWait) bool { return w.kind == stale || w.kind == unread && w.RecvQ == 1 }
	unnoticed := 0
	for i := range sockets {
		if ends(&sockets[i]) {
			unnoticed++
		}
	}
	enough := 0.5
	if trend.grows() {
		enough = growingLeak
	}
	isLeak := n[leaked] > 0 && float64(n[leaked]) >= enough*float64(n[leaked]+unnoticed)
	if n[leaked] == 0 && n[stale] > 0 {
		isLeak = s.crowded(sockets)
	}
	var groups [closeWaitKinds]*closeWaitGroup
	for i := range sockets {
		w := &sockets[i]
		switch {
		case isLeak && ends(w):
			w.kind = leaked
		case !isLeak && w.kind == leaked && n[stale] > 0:
			w.kind = stale
		case !isLeak && w.kind == leaked:
			w.kind = unread
		}
		if groups[w.kind] == nil {
			groups[w.kind] = &closeWaitGroup{closeWaitPlace: p, kind: w.kind, growth: trend}
		}
		groups[w.kind].sockets = append(groups[w.kind].sockets, *w)
	}
	return slices.DeleteFunc(groups[:], func(g *closeWaitGroup) bool { return g == nil })
}

// crowded tells whether these sockets take most of what descriptors their
// process may have: no pool is meant to.
func (s *scene) crowded(sockets []closeWait) bool {
	u := s.tightest(sockets)
	return u != nil && u.share() >= s.settings.Thresholds.of(descriptorsRatio, false) && 2*u.sockets >= *u.owner.Descriptors
}

// count says how many sockets a group has. Where the report doesn't hold all of
// the namespace, the flows tell, if nobody else has any there.
func (s *scene) count(g *closeWaitGroup, groups []*closeWaitGroup) {
	g.count = len(g.sockets)
	if int(s.ns.States.CloseWait) <= len(s.ns.CloseWaits) {
		return
	}
	g.atLeast = true
	others := slices.ContainsFunc(groups, func(o *closeWaitGroup) bool { return o != g && o.side == g.side && o.port == g.port })
	if !others {
		g.count = max(g.count, closeWaitsAt(s.ns, g.closeWaitPlace))
	}
}

// closeWaitsAt counts the sockets of all flows at a place, whosever they are.
func closeWaitsAt(ns *snapshot.Namespace, p closeWaitPlace) int {
	n := 0
	for i := range ns.Flows {
		if f := &ns.Flows[i]; f.Side == p.side && f.Port == p.port {
			n += int(f.States.CloseWait)
		}
	}
	return n
}

// closeWaitGrowth is that of all sockets at a place.
func (s *scene) closeWaitGrowth(p closeWaitPlace) growth {
	return s.growthOf(func(ns *snapshot.Namespace) (int, bool) {
		n := closeWaitsAt(ns, p)
		return n, n > 0 || ns != s.ns // else its flows are too many to be listed
	})
}
