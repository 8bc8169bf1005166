package report

import (
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// label is the width of the words that open a namespace's lines.
const label = 10

// namespace writes a namespace: its flows, then its limits and counts, then
// what its flows leave out.
func (p *page) namespace(ns *snapshot.Namespace) {
	p.blank()
	name := ns.Name
	if ns.Kind != "" && ns.Kind != ns.Name {
		name += " (" + ns.Kind + ")"
	}
	p.paragraph(0, 2, p.Style.Bold, "Network namespace "+name+", flows nearest to trouble (→ we connect, ← they do)")
	p.flows(ns)
	p.blank()
	p.fact("buckets", buckets(ns))
	p.closes(ns)
	p.fact("ports", portPool(ns))
	p.fact("sockets", states(&ns.States, "no sockets"))
	if ns.Omitted.Flows > 0 || ns.Omitted.States.Total() > 0 {
		omitted := "at least " + plural(ns.Omitted.Flows, "flow")
		if ns.Omitted.Flows <= 0 {
			omitted = "some flows"
		}
		p.fact("left out", omitted+", with "+states(&ns.Omitted.States, "no sockets"))
	}
}

// fact writes one labelled line of a namespace.
func (p *page) fact(name, text string) {
	width := p.Width - 2 - label
	for i, part := range draw.Wrap(p.clean(text), width, width, maxLines) {
		if i > 0 {
			name = ""
		}
		p.line(plain("  "), span{draw.PadRight(name, label), p.Style.Dim}, plain(part))
	}
}

func buckets(ns *snapshot.Namespace) string {
	used := draw.Count(int64(ns.TimeWait.BucketsUsed))
	limit := ns.TimeWait.BucketsLimit
	if limit == nil {
		return used + " TIME_WAIT buckets used, the limit is unknown"
	}
	return used + " of " + draw.Count(int64(*limit)) + " TIME_WAIT buckets used (" + draw.Percent(share(ns.TimeWait.BucketsUsed, limit)) + ")"
}

// closes writes the namespace's rate, and its last minute drawn.
func (p *page) closes(ns *snapshot.Namespace) {
	w := &ns.TimeWait
	text := "rate unknown"
	if w.CloseRate != nil {
		text = draw.Rate(*w.CloseRate)
		if w.CloseRateBy == "counter" {
			text += " by the kernel's counter"
		}
	}
	if len(w.OpenedPerSecond) == 0 {
		p.fact("closes", text)
		return
	}
	values := seconds(w.OpenedPerSecond)
	peak := "; most in a second: " + draw.Count(int64(slices.Max(values)))
	if w.OpenedPerSecondFloor {
		peak = "; tcp_tw_reuse recycles sockets, so the line is a lower bound (≥)"
	}
	p.fact("closes", text+peak)
	mark := ""
	if w.OpenedPerSecondFloor {
		mark = "≥ "
	}
	width := p.Width - 2 - label - p.width(mark)
	line := p.Style.Sparkline(values, min(width, 60))
	p.line(plain(strings.Repeat(" ", 2+label)+mark+line), span{p.ago(w, line, width), p.Style.Dim})
}

// ago explains the sparkline's ends where there is room.
func (p *page) ago(w *snapshot.TimeWait, line string, width int) string {
	text := "  last " + plural(len(w.OpenedPerSecond), "second")
	if draw.Width(line)+len(text) > width {
		return ""
	}
	return text
}

func portPool(ns *snapshot.Namespace) string {
	rng := ns.Limits.IPLocalPortRange
	if rng == nil {
		return "ip_local_port_range is unknown"
	}
	text := rng.String() + ": " + plural(rng.Size(), "port")
	pool := ns.Ports
	if pool == nil {
		return text
	}
	var blocked, floor string
	if !pool.BoundSeen {
		floor, blocked = "≥", "bound sockets not looked for"
	}
	if pool.Blocked > 0 {
		why := join(", ",
			some(pool.BlockedListen, "by listeners"), some(pool.BlockedBound, "by bound sockets"),
			some(pool.BlockedExplicit, "by bind(port)"), some(pool.BlockedParity, "by bind(0)"))
		blocked = floor + draw.Count(int64(pool.Blocked)) + " blocked for every destination"
		if why != "" {
			blocked += " (" + why + ")"
		}
	}
	return join(", ", text, some(pool.Reserved, "reserved"), blocked)
}

// some is a count with words, nothing if it is 0.
func some(n int, words string) string {
	if n == 0 {
		return ""
	}
	return draw.Count(int64(n)) + " " + words
}

// states lists the states that have sockets, most telling first.
func states(s *snapshot.States, none string) string {
	text := join(", ",
		some(int(s.TimeWait), "TIME_WAIT"), some(int(s.CloseWait), "CLOSE_WAIT"), some(int(s.Established), "established"),
		some(int(s.SynSent), "SYN_SENT"), some(int(s.SynRecv), "SYN_RECV"), some(int(s.FinWait1), "FIN_WAIT1"),
		some(int(s.FinWait2), "FIN_WAIT2"), some(int(s.LastAck), "LAST_ACK"), some(int(s.Closing), "CLOSING"),
		some(int(s.Listen), "listening"), some(int(s.Close), "bound only"))
	if text == "" {
		return none
	}
	return text
}
