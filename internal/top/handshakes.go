package top

import (
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// stateWords says what each state waits for, in the order of a connection's
// life.
func stateWords() [][2]string {
	return [][2]string{
		{"listen", "waits for connections"},
		{"syn_sent", "connect(): waits for the server's SYN+ACK"},
		{"syn_recv", "a client's SYN came: waits for its ACK"},
		{"established", "open"},
		{"fin_wait1", "closed first: waits for the ACK of its FIN"},
		{"fin_wait2", "closed first: waits for the peer's FIN"},
		{"closing", "both ends closed at once: waits for the ACK"},
		{"time_wait", "closed first: over, holds the port for 60 s"},
		{"close_wait", "peer closed first: waits for our close()"},
		{"last_ack", "peer closed first: waits for the ACK of our FIN"},
		{"close", "bound, and not connected"},
	}
}

// A census is the sockets of all namespaces by state, and how many connections
// a second enter a state, as far as counters tell.
type census struct {
	count map[string]int64
	rate  map[string]float64
	stuck map[string]bool
	// boundSeen: sockets in state close were asked for.
	boundSeen bool
}

// stuckIn are the states that a finding is about.
func stuckIn() map[string]string {
	return map[string]string{
		"half-open-flood": "syn_recv", "accept-queue-overflow": "syn_recv", "fin-wait-pileup": "fin_wait2", "last-ack-pileup": "last_ack",
		"time-wait-buckets-near-limit": "time_wait", "time-wait-buckets-overflow": "time_wait",
		"ephemeral-ports-slow": "time_wait", "ephemeral-ports-running-out": "time_wait", "ephemeral-ports-exhausted": "time_wait",
		"close-wait-leak": "close_wait", "close-wait-stale-pool": "close_wait", "close-wait-stuck-reader": "close_wait", "close-wait-not-accepted": "close_wait",
	}
}

// takeCensus counts, and compares the kernel's counters with those of an
// earlier report (nil: there is none).
func takeCensus(r, before *snapshot.Report) census {
	c := census{count: map[string]int64{}, rate: map[string]float64{}, stuck: map[string]bool{}, boundSeen: true}
	for _, ns := range r.Namespaces {
		for name, n := range ns.States.Named {
			c.count[name] += int64(n)
		}
		c.boundSeen = c.boundSeen && ns.Ports != nil && ns.Ports.BoundSeen
		if ns.TimeWait.CloseRate != nil {
			c.rate["time_wait"] += *ns.TimeWait.CloseRate
		}
		if old := sameNamespace(before, ns); old != nil {
			// PassiveOpens counts finished handshakes: what enters SYN_RECV no
			// counter tells.
			c.rate["syn_sent"] += growth(old, ns, "ActiveOpens")
		}
	}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity != snapshot.Info {
			c.stuck[stuckIn()[f.ID]] = true
		}
	}
	return c
}

func sameNamespace(r *snapshot.Report, ns *snapshot.Namespace) *snapshot.Namespace {
	if r == nil {
		return nil
	}
	for _, old := range r.Namespaces {
		if old.Inode == ns.Inode && old.Cookie == ns.Cookie && old.SampledAt.Before(ns.SampledAt) {
			return old
		}
	}
	return nil
}

// growth is a counter's growth per second; 0 where it can't be told.
func growth(old, now *snapshot.Namespace, counter string) float64 {
	a, known := old.Counters[counter]
	b, also := now.Counters[counter]
	elapsed := now.SampledAt.Sub(old.SampledAt).Seconds()
	if !known || !also || b < a || elapsed <= 0 {
		return 0
	}
	return float64(b-a) / elapsed
}

func (c *census) of(state string) (draw.StateCount, bool) {
	n, known := c.count[state]
	return draw.StateCount{Count: n, Rate: c.rate[state], Stuck: c.stuck[state]}, known
}

// asWords lists the states, for a narrow terminal and for reading aloud.
func (c *census) asWords(p *writer) {
	for _, s := range stateWords() {
		name, words := s[0], s[1]
		n := draw.Count(c.count[name])
		if name == "close" && !c.boundSeen {
			n = "?"
		}
		l, mark := dim, " "
		if c.count[name] > 0 {
			l = bold
		}
		if c.stuck[name] {
			l, mark = yellow|bold, "!"
		}
		rate := ""
		if c.rate[name] > 0 {
			rate = " +" + draw.Rate(c.rate[name])
		}
		if p.width < 60 {
			words = ""
		}
		p.line(span{mark + draw.PadRight(strings.ToUpper(name), 11) + " " + draw.PadLeft(n, 9), l}, plain(draw.PadRight(rate, 9)+" "), span{words, dim})
	}
}

// handshakesPage is what stands under the states: whoever waits in a queue of
// an opening handshake.
func handshakesPage(p *writer, r *snapshot.Report) {
	for _, ns := range r.Namespaces {
		where := ""
		if len(r.Namespaces) > 1 {
			where = " in " + ns.Name
		}
		if len(ns.HalfOpen) > 0 {
			p.blank()
			p.head("Half-open handshakes (SYN_RECV) by claimed origin" + where)
		}
		for _, h := range ns.HalfOpen {
			from := h.Remote
			if from == "" {
				from = "elsewhere"
			}
			p.line(plain("  " + draw.PadLeft(draw.Count(int64(h.Sockets)), 9) + " to port " + strconv.Itoa(int(h.Port)) + " from " + from))
		}
		listenersOf(p, ns, where)
	}
}

// listenersOf names the listeners in which connections wait for accept().
func listenersOf(p *writer, ns *snapshot.Namespace, where string) {
	first := true
	for i := range ns.Listeners {
		l := &ns.Listeners[i]
		if l.Queue == 0 {
			continue
		}
		if first {
			p.blank()
			p.head("Connections waiting for accept()" + where)
			first = false
		}
		full, look := "", look(0)
		if l.Backlog > 0 && l.Queue >= l.Backlog {
			full, look = " full", yellow
		}
		p.line(span{"  " + draw.PadLeft(draw.Count(int64(l.Queue)), 9) + " of " + draw.Count(int64(l.Backlog)) + full, look}, plain(" at "+join(", ", l.Local, l.Comm)))
	}
}
