package diagnose

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// aDay is how far a summary looks ahead, in seconds: later the rate is another.
const aDay = 24 * 3600

// closeWaitFinding says what a group is, nil if it is too young to be told.
func (s *scene) closeWaitFinding(g *closeWaitGroup) *found {
	f := &found{Finding: snapshot.Finding{ID: g.kind.id(), Severity: snapshot.Warning, Subject: g.subject()}, flow: g.flow()}
	oldest := g.oldest()
	limit := closeWaitSeconds
	if g.kind == unaccepted {
		limit = closeWaitUnaccepted
	}
	u := s.tightest(g.sockets)
	if u != nil {
		s.grow(u, g)
	}
	critical := g.kind == leaked && u != nil && s.exhausts(u, f)
	old := oldest.age >= s.threshold(limit, f.Subject, f.ID)
	// What takes half of the descriptors needn't be old to be told.
	if !old && !(critical && 2*u.sockets >= *u.owner.Descriptors) {
		return nil
	}
	f.Evidence = s.closeWaitEvidence(g, oldest, u)
	who, where, age := g.who(), g.where(), g.age(oldest)
	n := g.number("connection")
	switch g.kind {
	case leaked:
		if critical {
			f.Severity = snapshot.Critical
		}
		f.Summary = fmt.Sprintf("%s forgets to close: %s %s that %s %s in CLOSE_WAIT, the oldest for %s%s%s.",
			who, n, where, g.theyClosed(), g.are("stays", "stay"), age, g.grows(), u.says(g.growth.grows()))
	case stale:
		f.Severity = snapshot.Info
		f.Summary = fmt.Sprintf("%s keeps %s %s that the server has closed, the oldest %s ago: an idle pool that hasn't looked, and the next use of %s can fail.",
			who, n, where, age, g.are("it", "each"))
	case unread:
		f.Summary = fmt.Sprintf("%s doesn't read: %s, the oldest for %s%s.", who, g.unread(n, where), age, g.grows())
	case unaccepted:
		f.Summary = fmt.Sprintf("%s doesn't accept on port %d: %s %s in its queue%s although %s closed already, the oldest for %s%s.",
			who, g.port, n, g.are("waits", "wait"), s.queueOf(g), g.are("its client has", "their clients have"), age, u.starves())
	case halfClosed:
		f.Severity = snapshot.Info
		f.Summary = fmt.Sprintf("%s of %s %s %s half closed, the oldest for %s: the other end has finished sending and this one still sends, as TCP allows; no leak.",
			n, who, where, g.are("is", "are"), age)
	}
	f.situations = []advice.Situation{s.closeWaitSituation(g, oldest, u)}
	return f
}

// exhausts tells whether these sockets use up their process's descriptors.
func (s *scene) exhausts(u *use, f *found) bool {
	held := s.wasCritical(f.ID, f.Subject)
	if u.share() >= s.settings.Thresholds.of(descriptorsRatio, held) && float64(u.sockets) >= leakShare*float64(*u.owner.Descriptors) {
		return true
	}
	soon := s.settings.Thresholds.of(closeWaitLimitSeconds, false)
	if held {
		soon /= leaves
	}
	left, ok := u.left()
	return ok && left <= soon
}

// oldest is the one that has waited longest.
func (g *closeWaitGroup) oldest() *closeWait {
	o := &g.sockets[0]
	for i := range g.sockets {
		if w := &g.sockets[i]; w.age > o.age {
			o = w
		}
	}
	return o
}

// flow is the one that all the sockets are of, nil if they are of several.
func (g *closeWaitGroup) flow() *snapshot.Flow {
	for i := range g.sockets {
		if g.sockets[i].flow != g.sockets[0].flow {
			return nil
		}
	}
	return g.sockets[0].flow
}

// one tells the addresses that all sockets share, and their service; "" for
// what they don't.
func (g *closeWaitGroup) one() (local, remote, service, by string) {
	first := &g.sockets[0]
	local, remote = first.local, first.remote
	if first.flow != nil {
		service, by = first.flow.Service, first.flow.ServiceBy
	}
	for i := range g.sockets {
		w := &g.sockets[i]
		if w.local != local {
			local = ""
		}
		if w.remote != remote {
			remote = ""
		}
		if w.flow == nil || w.flow.Service != service {
			service, by = "", ""
		}
	}
	return local, remote, service, by
}

func (g *closeWaitGroup) subject() snapshot.Subject {
	subject := snapshot.Subject{Side: g.side, Port: g.port, Process: g.process}
	subject.Local, subject.Remote, subject.Service, _ = g.one()
	if f := g.flow(); f != nil {
		subject.Device = f.Device
	}
	return subject
}

// who names the program and its process.
func (g *closeWaitGroup) who() string {
	if g.process == "" {
		return "A program that can't be seen from here"
	}
	pids := map[int]bool{}
	one := 0
	for i := range g.sockets {
		if pid := g.sockets[i].pid; pid != 0 {
			pids[pid], one = true, pid
		}
	}
	switch len(pids) {
	case 0:
		return foreign(g.process)
	case 1:
		return fmt.Sprintf("%s (pid %d)", foreign(g.process), one)
	}
	return fmt.Sprintf("%s (%d processes)", foreign(g.process), len(pids))
}

// where says which connections they are.
func (g *closeWaitGroup) where() string {
	_, remote, service, _ := g.one()
	switch {
	case g.side == snapshot.Server:
		return fmt.Sprintf("on its port %d", g.port)
	case g.flow() != nil:
		return "to " + destination([]*snapshot.Flow{g.flow()})
	case remote != "":
		return "to " + net.JoinHostPort(remote, strconv.Itoa(int(g.port)))
	case service != "":
		return fmt.Sprintf("to several hosts (port %d, usually %s)", g.port, foreign(service))
	}
	return fmt.Sprintf("to port %d of several hosts", g.port)
}

// number counts things: "at least 256 connections".
func (g *closeWaitGroup) number(thing string) string {
	if g.count != 1 {
		thing += "s"
	}
	n := draw.Count(int64(g.count)) + " " + thing
	if g.atLeast {
		return "at least " + n
	}
	return n
}

func (g *closeWaitGroup) are(one, many string) string {
	if g.count == 1 {
		return one
	}
	return many
}

// theyClosed names the other end, which has closed.
func (g *closeWaitGroup) theyClosed() string {
	switch {
	case g.side == snapshot.Client:
		return "the server has closed"
	case g.side == snapshot.Server && g.count != 1:
		return "the clients have closed"
	case g.side == snapshot.Server:
		return "the client has closed"
	}
	return "the other end has closed"
}

func (g *closeWaitGroup) age(oldest *closeWait) string {
	if oldest.atLeast {
		return "at least " + draw.Duration(oldest.age)
	}
	return draw.Duration(oldest.age)
}

func (g *closeWaitGroup) grows() string {
	if !g.growth.grows() {
		return ""
	}
	return fmt.Sprintf(", %s more a minute", draw.Short(g.growth.perMinute()))
}

// unread says what lies unread. The FIN counts as one byte, and is none.
func (g *closeWaitGroup) unread(n, where string) string {
	var bytes float64
	for i := range g.sockets {
		bytes += float64(max(g.sockets[i].RecvQ, 1) - 1)
	}
	if bytes == 0 {
		return fmt.Sprintf("it hasn't noticed that %s %s %s", g.theyClosed(), n, where)
	}
	atLeast := ""
	if g.count > len(g.sockets) {
		atLeast = "at least "
	}
	return fmt.Sprintf("%s%s bytes lie unread in %s %s that %s", atLeast, draw.Short(bytes), n, where, g.theyClosed())
}

// queueOf says how full the listener's queue is.
func (s *scene) queueOf(g *closeWaitGroup) string {
	l := s.listener(g.sockets[0].local, g.port)
	if l == nil {
		return ""
	}
	return fmt.Sprintf(" (%s of %s)", draw.Count(int64(l.Queue)), draw.Count(int64(l.Backlog)))
}

// says how far the limit of descriptors is, if that is known.
func (u *use) says(growing bool) string {
	if u == nil {
		return ""
	}
	text := fmt.Sprintf("; %s of its %s descriptors are open", draw.Count(int64(*u.owner.Descriptors)), draw.Count(int64(*u.owner.DescriptorLimit)))
	if left, ok := u.left(); ok && growing && left < aDay {
		text += ", and at this rate none is left in " + draw.Duration(left)
	}
	return text
}

// closeWaitSituation is what advice is asked with.
func (s *scene) closeWaitSituation(g *closeWaitGroup, oldest *closeWait, u *use) advice.Situation {
	pattern := [closeWaitKinds]string{advice.CloseWaitLeak, advice.CloseWaitStuck, advice.CloseWaitUnaccept, advice.CloseWaitStalePool, advice.CloseWaitHalfClose}[g.kind]
	a := s.situation(pattern, g.flow())
	_, remote, service, by := g.one()
	a.Side, a.Service, a.ServiceBy = g.side, service, by
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		addr = netip.Addr{}
	}
	a.Remote = netip.AddrPortFrom(addr, g.port)
	a.Numbers.CloseWaits, a.Numbers.OldestSeconds = new(g.count), new(oldest.age)
	pid := oldest.pid
	if u != nil {
		pid, a.Numbers.Descriptors, a.Numbers.DescriptorLimit = u.owner.PID, u.owner.Descriptors, u.owner.DescriptorLimit
	}
	if l := s.listener(g.sockets[0].local, g.port); l != nil && g.kind == unaccepted {
		a.Numbers.Backlog = new(int(l.Backlog))
	}
	if o := s.owner(pid); o != nil {
		a.Runtime, a.RuntimeVersion = o.Runtime, o.RuntimeVersion
	}
	return a
}

func (s *scene) closeWaitEvidence(g *closeWaitGroup, oldest *closeWait, u *use) []snapshot.Evidence {
	const rows = "ss -tnpe state close-wait"
	what := "sockets in CLOSE_WAIT"
	if g.atLeast {
		what += ", at least"
	} else {
		what += fmt.Sprintf(" for %d s or more", closeWaitSettled)
	}
	e := []snapshot.Evidence{{What: what, Value: float64(g.count), Unit: "sockets", Source: rows}}
	what, source := "age of the oldest", "tcp_info last_ack_recv (ss -ti: lastack)"
	if oldest.atLeast {
		what += ", at least"
	}
	if oldest.AgeSeconds == nil {
		source = "earlier looks"
	}
	e = append(e, snapshot.Evidence{What: what, Value: oldest.age, Unit: "s", Source: source})
	least, most := oldest.RecvQ, oldest.RecvQ
	for i := range g.sockets {
		least, most = min(least, g.sockets[i].RecvQ), max(most, g.sockets[i].RecvQ)
	}
	e = append(e, snapshot.Evidence{What: "Recv-Q, most", Value: float64(most), Unit: "bytes", Source: rows + ": Recv-Q, of which the FIN counts 1"})
	if least != most {
		e = append(e, snapshot.Evidence{What: "Recv-Q, least", Value: float64(least), Unit: "bytes", Source: rows + ": Recv-Q"})
	}
	if g.growth.known {
		e = append(e, snapshot.Evidence{What: "growth at this service", Value: g.growth.perMinute(), Unit: "sockets/min", Source: "two looks, " + draw.Duration(g.growth.seconds) + " apart"})
	}
	if u != nil {
		e = append(e, u.evidence()...)
		if left, ok := u.left(); ok {
			e = append(e, snapshot.Evidence{What: "time until the limit", Value: left, Unit: "s", Source: "free descriptors / growth of its CLOSE_WAIT"})
		}
	}
	if l := s.listener(g.sockets[0].local, g.port); l != nil && g.kind == unaccepted {
		e = append(e, snapshot.Evidence{What: "accept queue", Value: float64(l.Queue), Unit: "connections", Source: "ss -ltn: Recv-Q"},
			snapshot.Evidence{What: "its limit", Value: float64(l.Backlog), Unit: "connections", Source: "ss -ltn: Send-Q"})
	}
	return e
}
