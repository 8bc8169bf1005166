package top

import (
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/report"
)

// gauges are the three numbers above everything.
type gauges struct {
	fullest *snapshot.Namespace // nearest to its limit of buckets
	tight   *snapshot.Flow      // with the fewest of its ports left; nil: none takes any
	rate    *float64            // closes per second into TIME_WAIT, of all namespaces
	floor   bool                // the rate is at least that
	minute  []int
}

// gauge reads them off a report.
func gauge(r *snapshot.Report) gauges {
	var g gauges
	for _, ns := range r.Namespaces {
		if g.fullest == nil || bucketShare(ns) > bucketShare(g.fullest) {
			g.fullest = ns
		}
		for i := range ns.Flows {
			f := &ns.Flows[i]
			if f.Ports != nil && (g.tight == nil || portShare(f.Ports) > portShare(g.tight.Ports)) {
				g.tight = f
			}
		}
		tw := &ns.TimeWait
		if tw.CloseRate != nil {
			sum := *tw.CloseRate
			if g.rate != nil {
				sum += *g.rate
			}
			g.rate = &sum
		} else {
			g.floor = true
		}
		for i, n := range tw.OpenedPerSecond {
			if i == len(g.minute) {
				g.minute = append(g.minute, 0)
			}
			g.minute[i] += int(n)
		}
	}
	return g
}

// bucketShare is the share of the TIME_WAIT buckets in use; 0 without a limit.
func bucketShare(ns *snapshot.Namespace) float64 {
	if limit := ns.TimeWait.BucketsLimit; limit != nil && *limit > 0 {
		return float64(ns.TimeWait.BucketsUsed) / float64(*limit)
	}
	return 0
}

// verdictRows are the verdict and its sentence in at most so many lines.
func verdictRows(st draw.Style, width, most int, r *snapshot.Report) []row {
	word, sentence := report.Headline(r)
	head := word + ":"
	lines := draw.Wrap(st.Clean(head+" "+sentence), width, width, maxParagraph)
	if len(lines) > most { // the last line takes what it can
		lines[most-1] = st.Truncate(strings.Join(lines[most-1:], " "), width)
		lines = lines[:most]
	}
	l := severityLook(r.Verdict)
	if len(r.Incomplete) > 0 && r.Verdict == snapshot.Healthy {
		l = yellow | bold
	}
	var rows []row
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, head); ok && i == 0 {
			rows = append(rows, row{{head, l}, {rest, bold}})
			continue
		}
		rows = append(rows, row{{line, bold}})
	}
	return rows
}

// gaugeRows are the gauges in three lines.
func gaugeRows(st draw.Style, width int, g *gauges) []row {
	bar := max(8, min(40, width/4))
	return []row{bucketRow(st, bar, g), portRow(st, width, bar, g), closeRow(st, width, g)}
}

func bucketRow(st draw.Style, bar int, g *gauges) row {
	if g.fullest == nil {
		return text("buckets  no namespace was looked at")
	}
	tw, share := &g.fullest.TimeWait, bucketShare(g.fullest)
	if tw.BucketsLimit == nil {
		return row{{"buckets  ", dim}, plain(draw.Count(int64(tw.BucketsUsed)) + " for TIME_WAIT, limit unknown")}
	}
	l, note := look(0), ""
	switch {
	case share >= 1:
		l, note = red, ", full"
	case share >= 0.9:
		l, note = red, ", nearly full"
	}
	return row{
		{"buckets  ", dim},
		{st.Bar(share, bar, 0), l},
		plain(" " + draw.PadLeft(draw.Percent(share), 6) + "  " + draw.Count(int64(tw.BucketsUsed)) + " of " + draw.Count(int64(*tw.BucketsLimit)) + " for TIME_WAIT" + note),
	}
}

func portRow(st draw.Style, width, bar int, g *gauges) row {
	if g.tight == nil {
		return row{{"ports    ", dim}, plain("no connection uses an ephemeral port")}
	}
	ports := g.tight.Ports
	share := portShare(ports)
	free, bound, note := draw.Count(int64(max(0, ports.Free))), "", ""
	if ports.AtMost {
		bound = "≤"
	}
	switch {
	case ports.Free <= 0:
		free, note = "none", ": connect() fails"
	case share >= slowShare:
		note = ": connect() is slow"
	}
	r := row{
		{"ports    ", dim},
		{st.Bar(share, bar, slowShare), portLook(share)},
		plain(" " + draw.PadLeft(draw.Percent(share), 6) + "  " + bound + free + " of " + draw.Count(int64(max(0, ports.Range-ports.Reserved))) + " free"),
		{note, portLook(share)},
		{"  " + peer(g.tight), dim},
	}
	if r.width(st) > width { // whose ports they are says more
		r[3].text = ""
	}
	return r
}

func closeRow(st draw.Style, width int, g *gauges) row {
	rate := "unknown"
	if g.rate != nil {
		rate = draw.Rate(*g.rate)
		if g.floor {
			rate = "≥" + rate
		}
	}
	r := row{{"closes   ", dim}}
	if len(g.minute) > 0 {
		r = append(r, plain(st.Sparkline(g.minute, sparkWidth(width-44))+" "))
	}
	return append(r, span{rate, bold}, span{" into TIME_WAIT; plot: 60 s", dim})
}

// gaugeLine is all of it in one line.
func gaugeLine(st draw.Style, g *gauges) row {
	if g.fullest == nil {
		return text("no namespace was looked at")
	}
	r := row{plain("tw " + draw.Short(float64(g.fullest.TimeWait.BucketsUsed)))}
	if limit := g.fullest.TimeWait.BucketsLimit; limit != nil {
		r = append(r, plain("/"+draw.Short(float64(*limit))))
	}
	if g.tight != nil {
		share := portShare(g.tight.Ports)
		mark := ""
		if share >= slowShare {
			mark = "!"
		}
		r = append(r, span{" ports " + draw.Percent(share) + mark, portLook(share)})
	}
	if g.rate != nil {
		r = append(r, plain(" "+draw.Rate(*g.rate)+" "))
	}
	return append(r, plain(st.Sparkline(g.minute, 15)))
}
