package diagnose

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about translated addresses.
const (
	PAWSDrops      = "paws-drops"
	ConntrackNear  = "conntrack-near-limit"
	SNATExhaustion = "snat-exhaustion"
)

// A destination that SNAT has no port for has most of the handshakes that hang,
// and so of the SYNs that are repeated, and more than a few that hang for other
// reasons.
const (
	snatShare   = 0.5
	snatHanging = 5
)

func natRules() []rule {
	return []rule{
		{ids: []string{PAWSDrops}, judge: judgePAWS, silent: func(s *scene) bool {
			_, inbound := s.pawsInbound()
			_, ok := s.rate(inbound)
			return !ok
		}},
		// Where conntrack isn't loaded there is nothing to judge.
		{ids: []string{ConntrackNear}, judge: judgeConntrack, silent: func(s *scene) bool {
			c := s.ns.Conntrack
			return c != nil && (c.Entries == nil || s.host == nil || s.host.NFConntrackMax == nil)
		}},
		{ids: []string{SNATExhaustion}, judge: judgeSNAT, silent: func(s *scene) bool {
			if s.ns.Conntrack == nil {
				return false
			}
			_, ok1 := s.conntrackGrowth(insertFailed)
			_, ok2 := s.rate("TCPSynRetrans")
			return !ok1 || !ok2
		}},
	}
}

// pawsInbound is the counter of segments that came with an old timestamp.
// Linux 6.16 and newer count those at a TIME_WAIT by themselves; what it counts
// on live connections are stray duplicates.
func (s *scene) pawsInbound() (where, counter string) {
	if _, ok := s.ns.Counters["PAWSTimewait"]; ok {
		return "connections in TIME_WAIT", "PAWSTimewait"
	}
	return "connections in TIME_WAIT or open ones, which this kernel counts together", "PAWSEstab"
}

// fewPAWS is how many refused segments are a sign, however short the time: a
// stray duplicate, as two ends that close at once have, is one.
const fewPAWS = 3

// judgePAWS looks for segments that were refused since their timestamp was
// older than one seen before.
func judgePAWS(s *scene) []*found {
	where, counter := s.pawsInbound()
	limit := s.threshold(pawsDropsRate, snapshot.Subject{}, PAWSDrops)
	often := func(counter string) float64 {
		if n, _ := s.growth(counter); n < fewPAWS {
			return 0
		}
		rate, _ := s.rate(counter)
		return rate
	}
	inbound, active := often(counter), often("PAWSActive")
	f := &found{
		Finding: snapshot.Finding{ID: PAWSDrops, Severity: snapshot.Warning, Evidence: []snapshot.Evidence{
			{What: "segments refused for an old timestamp", Value: inbound, Unit: "1/s", Source: "TcpExt " + counter},
			{What: "answers to our SYNs refused for it", Value: active, Unit: "1/s", Source: "TcpExt PAWSActive"},
		}},
	}
	switch {
	case inbound >= limit:
		f.situations = []advice.Situation{s.situation(advice.PAWS, nil)}
		f.Summary = fmt.Sprintf("Segments are refused (%s, at %s) because their timestamp is older than one seen before: as a rule clients that share an address behind a NAT, of which one that meets a TIME_WAIT connects about 1 s late.",
			draw.Rate(inbound), where)
		if most := s.mostWaitingClient(); most != nil {
			f.Evidence = append(f.Evidence, snapshot.Evidence{
				What:  fmt.Sprintf("TIME_WAIT of the client address with most: %s on port %d", foreign(most.Remote), most.Port),
				Value: float64(most.States.TimeWait), Unit: "sockets", Source: "inet_diag",
			})
		}
	case active >= limit:
		f.Summary = fmt.Sprintf("Answers to our own SYNs are refused (%s) because they echo a timestamp that was never sent: something on the way answers for several hosts, or mixes up their connections.",
			draw.Rate(active))
	default:
		return nil
	}
	return []*found{f}
}

// mostWaitingClient is the server flow with most TIME_WAIT, nil if there is none:
// if its clients are many behind one address, they meet them.
func (s *scene) mostWaitingClient() *snapshot.Flow {
	var most *snapshot.Flow
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if f.Side == snapshot.Server && !folded(f) && f.States.TimeWait > 0 && (most == nil || f.States.TimeWait > most.States.TimeWait) {
			most = f
		}
	}
	return most
}

func insertFailed(c *counters.Conntrack) *uint64 { return c.InsertFailed }
func dropped(c *counters.Conntrack) *uint64      { return c.Drop }
func earlyDropped(c *counters.Conntrack) *uint64 { return c.EarlyDrop }

// conntrackGrowth is how much one of conntrack's counters, summed over the CPUs,
// grew in s.seconds; false if that can't be known.
func (s *scene) conntrackGrowth(of func(*counters.Conntrack) *uint64) (uint64, bool) {
	if s.before == nil {
		return 0, false
	}
	return conntrackBetween(s.before, s.ns, of)
}

func conntrackBetween(then, now *snapshot.Namespace, of func(*counters.Conntrack) *uint64) (uint64, bool) {
	if then.Conntrack == nil || now.Conntrack == nil {
		return 0, false
	}
	was, is := of(then.Conntrack), of(now.Conntrack)
	if was == nil || is == nil || *is < *was {
		return 0, false
	}
	return *is - *was, true
}

// conntrackShare is how full the table is; false if that can't be known. The
// limit is the initial namespace's; another may have a lower one of its own
// (Linux 6.16 and newer).
func (s *scene) conntrackShare() (share float64, ok bool) {
	c := s.ns.Conntrack
	if c == nil || c.Entries == nil || s.host == nil || s.host.NFConntrackMax == nil || *s.host.NFConntrackMax <= 0 {
		return 0, false // 0 is no limit
	}
	return float64(*c.Entries) / float64(*s.host.NFConntrackMax), true
}

func judgeConntrack(s *scene) []*found {
	share, ok := s.conntrackShare()
	if !ok || share < s.threshold(conntrackNear, snapshot.Subject{}, ConntrackNear) {
		return nil
	}
	entries, limit := *s.ns.Conntrack.Entries, *s.host.NFConntrackMax
	f := &found{
		Finding: snapshot.Finding{ID: ConntrackNear, Severity: snapshot.Warning, Evidence: []snapshot.Evidence{
			{What: "entries", Value: float64(entries), Unit: "connections", Source: "/proc/net/stat/nf_conntrack: entries"},
			{What: "their limit", Value: float64(limit), Unit: "connections", Source: "sysctl net.netfilter.nf_conntrack_max"},
		}},
		situations: []advice.Situation{s.situation(advice.Conntrack, nil)},
	}
	f.Summary = fmt.Sprintf("The connection tracking table is %s full: %s of %s entries (nf_conntrack_max)", draw.Percent(share), draw.Count(int64(entries)), draw.Count(int64(limit)))
	drops, known := s.conntrackGrowth(dropped)
	if known {
		f.Evidence = append(f.Evidence, snapshot.Evidence{What: "packets dropped", Value: float64(drops), Unit: "packets", Source: "/proc/net/stat/nf_conntrack: drop, over all CPUs"})
	}
	if early, ok := s.conntrackGrowth(earlyDropped); ok && early > 0 {
		f.Evidence = append(f.Evidence, snapshot.Evidence{What: "entries thrown out to make room", Value: float64(early), Unit: "connections", Source: "/proc/net/stat/nf_conntrack: early_drop, over all CPUs"})
	}
	full := share >= s.settings.Thresholds.of(conntrackFull, s.wasCritical(ConntrackNear, snapshot.Subject{}))
	if full || drops > 0 {
		f.Severity = snapshot.Critical
	}
	if drops > 0 {
		f.Summary += fmt.Sprintf(", and %s packets were dropped in %s: new connections time out.", draw.Count(int64(drops)), draw.Duration(s.seconds))
	} else {
		f.Summary += "; when it is full, packets of new connections are dropped, and connect() times out."
	}
	return []*found{f}
}

// judgeSNAT needs three signs at once. Entries that can't be made alone are no
// proof: a UDP source NAT, and pairs of DNS questions, have them too. Repeated
// SYNs alone are none: a server repeats its SYN-ACKs in the same counter, and a
// host that is gone lets them be repeated too. And the numbers must agree: each
// SYN that finds no port is an entry that couldn't be made, the repeated ones
// too, and so the two counters grow together.
func judgeSNAT(s *scene) []*found {
	failed, _ := s.conntrackGrowth(insertFailed)
	retrans, _ := s.rate("TCPSynRetrans")
	if share, ok := s.conntrackShare(); failed == 0 || ok && share >= s.settings.Thresholds.of(conntrackFull, true) {
		return nil // a full table fails in the same way, and is told as such
	}
	repeated, _ := s.growth("TCPSynRetrans")
	to := s.hanging()
	if to == nil || float64(failed) < snatShare*float64(repeated) || retrans < s.threshold(snatRetransRate, to.subject, SNATExhaustion) || !s.stillRepeats() {
		return nil
	}
	f := &found{
		Finding: snapshot.Finding{
			ID: SNATExhaustion, Severity: snapshot.Critical, Subject: to.subject,
			Summary: fmt.Sprintf("Source NAT finds no free port towards %s: %s connections%s hang in SYN_SENT, SYNs are repeated at %s, and conntrack failed to make an entry %s in %s.",
				destination([]*snapshot.Flow{to.flow}), draw.Count(int64(to.sockets)), to.of(), draw.Rate(retrans), times(failed), draw.Duration(s.seconds)),
			Evidence: []snapshot.Evidence{
				{What: "entries that couldn't be made", Value: float64(failed), Unit: "connections", Source: "/proc/net/stat/nf_conntrack: insert_failed, over all CPUs"},
				{What: "SYNs and SYN-ACKs repeated", Value: retrans, Unit: "1/s", Source: "TcpExt TCPSynRetrans"},
				{What: "SYN_SENT to this destination", Value: float64(to.sockets), Unit: "sockets", Source: "ss -tn state syn-sent"},
				{What: "SYN_SENT in all", Value: float64(s.ns.States.SynSent), Unit: "sockets", Source: "ss -tn state syn-sent"},
			},
		},
		situations: []advice.Situation{s.situation(advice.SNAT, to.flow)},
	}
	if to.alone {
		f.flow = to.flow
	}
	if share, ok := s.conntrackShare(); ok {
		f.Evidence = append(f.Evidence, snapshot.Evidence{What: "share of the table in use", Value: share, Unit: "ratio", Source: "entries / nf_conntrack_max"})
	}
	return []*found{f}
}

// stillRepeats tells whether SYNs were repeated since the latest look too.
func (s *scene) stillRepeats() bool {
	if len(s.history) == 0 {
		return false
	}
	return s.ns.Counters["TCPSynRetrans"] > s.history[len(s.history)-1].ns.Counters["TCPSynRetrans"]
}

// hangingTo is a destination of handshakes without an answer.
type hangingTo struct {
	subject    snapshot.Subject
	flow       *snapshot.Flow // the one with most of them
	alone      bool           // there is no other
	sockets    int
	namespaces int // that have some
}

// of names the program of the handshakes, if all are of one flow.
func (h *hangingTo) of() string {
	if name := who([]*snapshot.Flow{h.flow}); h.alone && name != "" {
		return " of " + name
	}
	return ""
}

// hanging is the destination that most of the handshakes in SYN_SENT go to, nil
// if none has most of them, or they are few.
func (s *scene) hanging() *hangingTo { return mostHanging(s.ns) }

// mostHanging is the same over several namespaces.
func mostHanging(all ...*snapshot.Namespace) *hangingTo {
	type place struct {
		remote string
		port   uint16
	}
	to := map[place]*hangingTo{}
	sent := 0
	for _, ns := range all {
		sent += int(ns.States.SynSent)
		seen := map[place]bool{}
		for i := range ns.Flows {
			f := &ns.Flows[i]
			if _, err := netip.ParseAddr(f.Remote); err != nil || f.States.SynSent == 0 {
				continue
			}
			p := place{f.Remote, f.Port}
			h := to[p]
			if h == nil {
				h = &hangingTo{flow: f, alone: true, subject: subject(f)}
				to[p] = h
			} else {
				h.alone, h.subject.Local, h.subject.Device = false, "", ""
				if f.States.SynSent > h.flow.States.SynSent {
					h.flow = f
				}
			}
			h.sockets += int(f.States.SynSent)
			if !seen[p] {
				seen[p] = true
				h.namespaces++
			}
		}
	}
	var most *hangingTo
	for _, h := range to {
		if most == nil || cmp.Or(cmp.Compare(h.sockets, most.sockets), cmp.Compare(most.flow.Remote, h.flow.Remote), cmp.Compare(most.flow.Port, h.flow.Port)) > 0 {
			most = h
		}
	}
	if most == nil || most.sockets < snatHanging || float64(most.sockets) < snatShare*float64(sent) {
		return nil
	}
	return most
}
