package diagnose

import (
	"fmt"
	"net"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about closes that don't end.
const (
	FinWaitPileup    = "fin-wait-pileup"
	LastAckPileup    = "last-ack-pileup"
	OrphansNearLimit = "orphans-near-limit"
)

const (
	// finWaitShare of tcp_fin_timeout is how long the peers of a healthy host
	// take to close, at most: 6 s by default.
	finWaitShare = 0.1
	// defaultFinTimeout is tcp_fin_timeout where it can't be read, in seconds.
	defaultFinTimeout = 60
	// mostOf: so large a share of a state's sockets is most of them.
	mostOf = 0.5
)

func closeRules() []rule {
	return []rule{
		{ids: []string{FinWaitPileup}, judge: judgeFinWait},
		{ids: []string{LastAckPileup}, judge: judgeLastAck},
		{ids: []string{OrphansNearLimit}, judge: judgeOrphans, silent: func(s *scene) bool {
			return s.host == nil || s.host.TCPMaxOrphans == nil || s.ns.Sockstat.Orphan == nil
		}},
	}
}

// judgeFinWait looks at closes of this end that the other doesn't take part in.
func judgeFinWait(s *scene) []*found {
	first, second := s.ns.States.FinWait1, s.ns.States.FinWait2
	most := s.mostly(func(st *snapshot.States) uint32 { return st.FinWait1 + st.FinWait2 })
	subject := s.subjectOf(most)
	unacked := float64(first) >= s.threshold(finWait1Sockets, subject, FinWaitPileup)
	explained := s.explainedFinWait()
	enough := s.threshold(finWait2Sockets, subject, FinWaitPileup)
	unclosed := float64(second) >= enough && float64(second) >= explained*enough/s.settings.Thresholds.of(finWait2Sockets, false)
	f := &found{
		Finding: snapshot.Finding{ID: FinWaitPileup, Severity: snapshot.Warning, Subject: subject, Evidence: []snapshot.Evidence{
			{What: "FIN_WAIT1", Value: float64(first), Unit: "sockets", Source: "ss -tn state fin-wait-1"},
			{What: "FIN_WAIT2", Value: float64(second), Unit: "sockets", Source: "ss -tn state fin-wait-2"},
			{What: "FIN_WAIT2 that the rate of closes explains", Value: explained, Unit: "sockets", Source: "TIME_WAIT timers or TcpExt TW, tcp_fin_timeout"},
		}},
		flow: most, situations: []advice.Situation{s.situation(advice.FinWait, most)},
	}
	switch {
	case unacked && unclosed:
		f.Summary = fmt.Sprintf("%s closes wait in FIN_WAIT1 for the other end's acknowledgement, and %s in FIN_WAIT2 for its own close%s: peers that are gone, and peers that don't close.",
			draw.Count(int64(first)), draw.Count(int64(second)), towards(most))
	case unacked:
		f.Summary = fmt.Sprintf("%s closes wait in FIN_WAIT1%s: this end has closed, and the other acknowledges neither the close nor what was sent before it.",
			draw.Count(int64(first)), towards(most))
	case unclosed:
		f.Summary = fmt.Sprintf("%s closes wait in FIN_WAIT2%s: this end has closed, and the other knows it and doesn't close.",
			draw.Count(int64(second)), towards(most))
	default:
		return nil
	}
	return []*found{f}
}

// explainedFinWait is how many FIN_WAIT2 the present rate of closes explains.
func (s *scene) explainedFinWait() float64 {
	timeout := defaultFinTimeout
	if t := s.ns.Limits.TCPFinTimeout; t != nil && *t > 0 {
		timeout = *t
	}
	rate := 0.0
	if r := s.ns.TimeWait.CloseRate; r != nil {
		rate = *r
	}
	if entered, ok := s.rate("TW"); ok { // FIN_WAIT2 that no process holds are in it
		rate = max(rate, entered)
	}
	return finite(rate * float64(timeout) * finWaitShare)
}

func judgeLastAck(s *scene) []*found {
	n := s.ns.States.LastAck
	most := s.mostly(func(st *snapshot.States) uint32 { return st.LastAck })
	subject := s.subjectOf(most)
	if float64(n) < s.threshold(lastAckSockets, subject, LastAckPileup) {
		return nil
	}
	return []*found{{
		Finding: snapshot.Finding{
			ID: LastAckPileup, Severity: snapshot.Warning, Subject: subject,
			Summary: fmt.Sprintf("%s connections wait in LAST_ACK%s: both ends have closed, and the other doesn't acknowledge it: it has gone, or a firewall forgot the connection at its FIN.",
				draw.Count(int64(n)), towards(most)),
			Evidence: []snapshot.Evidence{{What: "LAST_ACK", Value: float64(n), Unit: "sockets", Source: "ss -tn state last-ack"}},
		},
		flow: most, situations: []advice.Situation{s.situation(advice.LastAck, most)},
	}}
}

// mostly is the flow that has most of the namespace's sockets of a kind, nil if
// none has.
func (s *scene) mostly(of func(*snapshot.States) uint32) *snapshot.Flow {
	all := of(&s.ns.States)
	for i := range s.ns.Flows {
		if f := &s.ns.Flows[i]; all > 0 && !folded(f) && float64(of(&f.States)) >= mostOf*float64(all) {
			return f
		}
	}
	return nil
}

// subjectOf names a flow, if there is one.
func (s *scene) subjectOf(f *snapshot.Flow) snapshot.Subject {
	if f == nil {
		return snapshot.Subject{}
	}
	return subject(f)
}

// towards names the flow that has most of something, with its program.
func towards(f *snapshot.Flow) string {
	if f == nil {
		return ""
	}
	name := who([]*snapshot.Flow{f})
	if name != "" {
		name = " of " + name
	}
	if f.Side == snapshot.Server {
		return fmt.Sprintf(", most%s with %s on port %d", name, foreign(f.Remote), f.Port)
	}
	return fmt.Sprintf(", most%s to %s", name, net.JoinHostPort(foreign(f.Remote), strconv.Itoa(int(f.Port))))
}

// judgeOrphans compares with tcp_max_orphans, which is one for the whole kernel
// and so judged with the host's namespace. Against an orphan that has been silent
// for long, or of which ICMP said that something is wrong, the kernel counts all
// of them twice, or four times if both is so (tcp_out_of_resources,
// net/ipv4/tcp_timer.c): it is reset before the limit.
func judgeOrphans(s *scene) []*found {
	orphans, limit := *s.ns.Sockstat.Orphan, *s.host.TCPMaxOrphans
	if limit <= 0 || s.ns.Kind != "host" {
		return nil
	}
	share := float64(orphans) / float64(limit)
	if share < s.threshold(orphansNear, snapshot.Subject{}, OrphansNearLimit) {
		return nil
	}
	f := &found{
		Finding: snapshot.Finding{
			ID: OrphansNearLimit, Severity: snapshot.Warning,
			Evidence: []snapshot.Evidence{
				{What: "orphans", Value: float64(orphans), Unit: "sockets", Source: "/proc/net/sockstat: TCP orphan"},
				{What: "their limit", Value: float64(limit), Unit: "sockets", Source: "tcp_max_orphans"},
			},
		},
		situations: []advice.Situation{s.situation(advice.Orphans, nil)},
	}
	part := draw.Percent(share) + " of"
	if orphans > limit {
		part = "more than"
	}
	numbers := fmt.Sprintf("%s sockets that no program holds any more are still being closed by the kernel, %s the %s that tcp_max_orphans allows",
		draw.Count(int64(orphans)), part, draw.Count(int64(limit)))
	if share >= s.settings.Thresholds.of(orphansFull, s.wasCritical(OrphansNearLimit, snapshot.Subject{})) {
		f.Severity = snapshot.Critical
		f.Summary = numbers + ": it resets what is above, and what those still had to send is lost."
	} else {
		f.Summary = numbers + ": those that have been silent for long are reset already."
	}
	return []*found{f}
}

// wasCritical tells whether a finding was there before, and critical.
func (s *scene) wasCritical(id string, subject snapshot.Subject) bool {
	e := s.earlier(id, subject)
	return e != nil && e.Severity == snapshot.Critical
}

// closeConsequences are what follows from handshakes and closes that don't end.
func closeConsequences() []consequence {
	samePort := func(_ *scene, cause, of *found) bool {
		return cause.Subject.Port == of.Subject.Port || cause.Subject.Port == 0 || of.Subject.Port == 0
	}
	list := []consequence{
		{cause: AcceptOverflow, of: CloseWaitNotAccepted, when: func(_ *scene, cause, of *found) bool {
			return cause.Subject.Port == of.Subject.Port
		}},
		{cause: AcceptOverflow, of: HalfOpenFlood, when: samePort},
		{cause: FinWaitPileup, of: OrphansNearLimit, when: func(s *scene, _, _ *found) bool { return s.isOrphaned(s.ns.States.FinWait1) }},
		{cause: LastAckPileup, of: OrphansNearLimit, when: func(s *scene, _, _ *found) bool { return s.isOrphaned(s.ns.States.LastAck) }},
	}
	for _, id := range []string{CloseWaitLeak, CloseWaitStuckReader, CloseWaitStalePool} {
		list = append(list, consequence{cause: id, of: FinWaitPileup, when: otherEnd})
	}
	return list
}

// isOrphaned tells whether sockets in a state are a fair part of the orphans.
// FIN_WAIT2 isn't: what no process holds has left their number.
func (s *scene) isOrphaned(n uint32) bool {
	o := s.ns.Sockstat.Orphan
	return o != nil && 4*int(n) >= *o
}

// otherEnd tells whether two findings are about the two ends of the same
// connections: both are on this host.
func otherEnd(_ *scene, cause, of *found) bool {
	a, b := cause.Subject, of.Subject
	if a.Port == 0 || a.Port != b.Port || a.Local == "" || b.Local == "" {
		return false
	}
	return a.Side == snapshot.Client && b.Side == snapshot.Server && a.Remote == b.Local && a.Local == b.Remote ||
		a.Side == snapshot.Server && b.Side == snapshot.Client && a.Local == b.Remote && a.Remote == b.Local
}
