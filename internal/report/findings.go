package report

import (
	"math"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// findings writes each finding: what, the numbers behind it, what to do.
func (p *page) findings(r *snapshot.Report) {
	lead := leading(r)
	for i := range r.Findings {
		if i == maxFindings {
			p.blank()
			p.paragraph(0, 0, p.Style.Dim, "And "+plural(len(r.Findings)-i, "more finding")+": --output=json has them all.")
			return
		}
		f := &r.Findings[i]
		p.blank()
		where := ""
		if len(r.Namespaces) > 1 {
			where = "in " + f.Namespace
		}
		if !f.Since.IsZero() && r.Time.Sub(f.Since) >= time.Second {
			where = join(", ", where, "for "+draw.Duration(r.Time.Sub(f.Since).Seconds()))
		}
		if where != "" {
			where = " (" + where + ")"
		}
		p.line(span{strings.ToUpper(string(f.Severity)), p.bold(p.colour(f.Severity))}, plain(" "), span{f.ID, p.Style.Bold}, plain(where))
		// The leading one's summary is the verdict already.
		if f != lead || r.Verdict != snapshot.Critical && r.Verdict != snapshot.Warning {
			p.paragraph(2, 0, nil, f.Summary)
		}
		if f.BecauseOf != "" {
			p.paragraph(2, 2, p.Style.Dim, "follows from "+f.BecauseOf)
		}
		p.recommendations(f)
		p.evidence(f)
	}
}

// evidence writes the numbers behind a finding: where each was read is for who
// wants to check it.
func (p *page) evidence(f *snapshot.Finding) {
	evidence := f.Evidence[:min(len(f.Evidence), maxLines)]
	if p.Verbose {
		for _, e := range evidence {
			source := ""
			if e.Source != "" {
				source = " (" + e.Source + ")"
			}
			p.paragraph(2, 2, nil, "- "+e.What+": "+amount(e)+source)
		}
		return
	}
	var seen []string
	for _, e := range evidence {
		if strings.Contains(e.What, e.Unit) { // "free ports" needs no unit
			e.Unit = ""
		}
		seen = append(seen, e.What+" "+amount(e))
	}
	if len(seen) > 0 {
		p.paragraph(2, 2, p.Style.Dim, "Measured: "+strings.Join(seen, "; "))
	}
}

func (p *page) recommendations(f *snapshot.Finding) {
	for i := range f.Recommendations {
		rec := &f.Recommendations[i]
		if i > 0 && !p.Verbose {
			p.paragraph(2, 2, p.Style.Dim, plural(len(f.Recommendations)-i, "more recommendation")+": --verbose shows all")
			return
		}
		p.paragraph(2, 2, p.Style.Bold, "What to do: "+rec.Title)
		if rec.Do != "" {
			lines := strings.Split(strings.TrimSpace(rec.Do), "\n")
			for _, l := range lines[:min(len(lines), maxLines)] {
				p.paragraph(4, 0, nil, l)
			}
		}
		if rec.Snippet != "" {
			p.verbatim(6, rec.Snippet)
		}
		if !p.Verbose {
			continue
		}
		if rec.Effect != "" {
			p.paragraph(4, 2, nil, "effect: "+rec.Effect)
		}
		for _, c := range rec.Caveats[:min(len(rec.Caveats), maxLines)] {
			p.paragraph(4, 2, nil, "but: "+c)
		}
		for _, ref := range rec.References[:min(len(rec.References), maxLines)] {
			p.paragraph(4, 2, p.Style.Dim, "see: "+ref)
		}
	}
}

// amount is an evidence's number with its unit.
func amount(e snapshot.Evidence) string {
	number := draw.Short(e.Value)
	if e.Value == math.Trunc(e.Value) && math.Abs(e.Value) < 1e15 {
		number = draw.Count(int64(e.Value))
	}
	switch e.Unit {
	case "":
		return number
	case "s", "seconds":
		return draw.Duration(e.Value)
	case "ratio":
		return draw.Percent(e.Value)
	case "%", "percent":
		return draw.Percent(e.Value / 100)
	}
	if rate, ok := strings.CutPrefix(e.Unit, "1/"); ok {
		return number + "/" + rate
	}
	return number + " " + e.Unit
}

// gaps writes what could not be seen or judged.
func (p *page) gaps(r *snapshot.Report) {
	if len(r.Incomplete) > 0 {
		p.blank()
		p.line(span{"Could not be seen:", p.bold(p.Style.Yellow)})
		for i, g := range r.Incomplete {
			if i == maxGaps {
				p.paragraph(2, 2, nil, "and "+plural(len(r.Incomplete)-i, "more gap"))
				break
			}
			where := ""
			if g.Namespace != "" {
				where = " in " + g.Namespace
			}
			p.paragraph(2, 2, nil, g.Stage+where+": "+strings.ReplaceAll(g.Error, "\n", "; "))
			if g.Lost != "" {
				p.paragraph(4, 2, nil, "lost: "+g.Lost)
			}
			if g.Fix != "" {
				p.paragraph(4, 2, nil, "what to do: "+g.Fix)
			}
		}
	}
	if len(r.NotJudged) > 0 {
		p.blank()
		p.paragraph(0, 2, p.Style.Dim, "Not judged, for want of evidence: "+strings.Join(r.NotJudged[:min(len(r.NotJudged), maxLines)], ", ")+".")
	}
}
