package report

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// apart tells the namespaces that are written whole, the first and those in
// which something is wrong, from the rest, the nearest to trouble first.
func apart(r *snapshot.Report) (shown, rest []*snapshot.Namespace) {
	wrong := map[string]bool{}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity == snapshot.Warning || f.Severity == snapshot.Critical {
			wrong[f.Namespace] = true
		}
	}
	for i, ns := range r.Namespaces {
		if i == 0 || wrong[ns.Name] && len(shown) < maxNamespaces {
			shown = append(shown, ns)
		} else {
			rest = append(rest, ns)
		}
	}
	slices.SortStableFunc(rest, func(a, b *snapshot.Namespace) int {
		return cmp.Or(cmp.Compare(tightest(b), tightest(a)), cmp.Compare(b.States.TimeWait, a.States.TimeWait),
			cmp.Compare(b.States.CloseWait, a.States.CloseWait), cmp.Compare(a.Name, b.Name))
	})
	return shown, rest
}

// tightest is the greatest share of its ports that a flow of the namespace has
// taken.
func tightest(ns *snapshot.Namespace) (share float64) {
	for i := range ns.Flows {
		if p := ns.Flows[i].Ports; p != nil {
			share = max(share, portShare(p))
		}
	}
	return share
}

// others writes a line for each namespace.
func (p *page) others(r *snapshot.Report, rest []*snapshot.Namespace) {
	if len(rest) == 0 {
		return
	}
	p.blank()
	p.paragraph(0, 2, p.Style.Bold, "Other network namespaces, the nearest to trouble first")
	width := max(minName, p.Width-colTimeWait-colEstab-colCloseWait-colRate-colPorts)
	p.line(span{draw.PadRight("  NAME", width) + draw.PadLeft("TIME_WAIT", colTimeWait) + draw.PadLeft("ESTAB", colEstab) +
		draw.PadLeft("CLOSE_WAIT", colCloseWait) + draw.PadLeft("CLOSES/S", colRate) + draw.PadLeft("PORTS USED", colPorts), p.Style.Dim})
	for _, ns := range rest[:min(len(rest), maxOthers)] {
		rate := "–"
		if ns.TimeWait.CloseRate != nil {
			rate = draw.Short(*ns.TimeWait.CloseRate)
		}
		name := "  " + p.Style.Truncate(p.clean(ns.Name), width-3)
		p.line(plain(draw.PadRight(name, width)), plain(draw.PadLeft(draw.Count(int64(ns.States.TimeWait)), colTimeWait)),
			plain(draw.PadLeft(draw.Count(int64(ns.States.Established)), colEstab)), plain(draw.PadLeft(draw.Count(int64(ns.States.CloseWait)), colCloseWait)),
			plain(draw.PadLeft(rate, colRate)), plain(draw.PadLeft(draw.Percent(tightest(ns)), colPorts)))
		if old := r.Time.Sub(ns.SampledAt).Seconds(); old > oldSeconds && !ns.SampledAt.IsZero() {
			p.paragraph(4, 2, p.Style.Dim, "as it was "+strconv.Itoa(int(old))+" s before")
		}
	}
	if more := len(rest) - maxOthers; more > 0 {
		p.paragraph(2, 2, p.Style.Dim, "and "+plural(more, "more namespace")+": --output=json has them all")
	}
}

const (
	colPorts = 12
	minName  = 12
	// oldSeconds is from when on the age of what is known of a namespace is told.
	oldSeconds = 20
)
