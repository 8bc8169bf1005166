package report

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// findings writes each finding: what, the numbers behind it, what to do. What
// follows from a finding stands under it, in short.
func (p *page) findings(r *snapshot.Report) {
	lead := leading(r)
	roots, follow := families(r.Findings)
	for i, f := range roots {
		if i == maxFindings {
			p.blank()
			p.paragraph(0, 0, p.Style.Dim, "And "+plural(len(roots)-i, "more finding")+": --output=json has them all.")
			return
		}
		p.blank()
		p.heading(r, f)
		// The leading one's summary is the verdict already.
		if f != lead || !headlined(r, f) {
			p.paragraph(2, 0, nil, f.Summary)
		}
		if f.BecauseOf != "" { // of a cause that this report doesn't hold
			p.paragraph(2, 2, p.Style.Dim, "follows from "+f.BecauseOf)
		}
		p.recommendations(f)
		p.evidence(f)
		for j, c := range follow[f] {
			if j == maxFindings {
				p.paragraph(2, 2, p.Style.Dim, "and "+plural(len(follow[f])-j, "more finding")+" that follow from it")
				break
			}
			p.paragraph(2, 2, p.colour(c.Severity), "so "+c.ID+": "+c.Summary)
			if p.Verbose {
				p.recommendations(c)
				p.evidence(c)
			}
		}
	}
}

// families puts findings under the one that they follow from: the nearest of
// that name, about the same subject if there is one.
func families(findings []snapshot.Finding) (roots []*snapshot.Finding, follow map[*snapshot.Finding][]*snapshot.Finding) {
	follow = map[*snapshot.Finding][]*snapshot.Finding{}
	for i := range findings {
		f := &findings[i]
		var cause *snapshot.Finding
		for j := range findings {
			c := &findings[j]
			if f.BecauseOf == "" || c == f || c.ID != f.BecauseOf || c.Namespace != f.Namespace || c.BecauseOf != "" {
				continue
			}
			if same := c.Subject.Remote == f.Subject.Remote && c.Subject.Port == f.Subject.Port && c.Subject.Local == f.Subject.Local; same || cause == nil {
				cause = c
				if same {
					break
				}
			}
		}
		if cause == nil {
			roots = append(roots, f)
			continue
		}
		follow[cause] = append(follow[cause], f)
	}
	return roots, follow
}

// heading names a finding, and since when it holds.
func (p *page) heading(r *snapshot.Report, f *snapshot.Finding) {
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
			p.paragraph(2, 2, nil, "- "+e.What+": "+Amount(e)+source)
		}
		return
	}
	var seen []string
	for _, e := range evidence {
		if slices.Contains(strings.Fields(e.What), e.Unit) { // "free ports" needs no unit
			e.Unit = ""
		}
		seen = append(seen, e.What+" "+Amount(e))
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

// Amount is an evidence's number with its unit: "28,232 ports", "12/s".
func Amount(e snapshot.Evidence) string {
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
	for _, g := range r.Limited[:min(len(r.Limited), maxGaps)] {
		p.blank()
		p.paragraph(0, 2, p.Style.Dim, "Not shown: "+g.Lost+". "+sentence(g.Error)+" "+sentence(g.Fix))
	}
	if len(r.NotJudged) > 0 {
		p.blank()
		p.paragraph(0, 2, p.Style.Dim, "Not judged, for want of evidence: "+strings.Join(r.NotJudged[:min(len(r.NotJudged), maxLines)], ", ")+".")
	}
}

// sentence makes one of a text.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(text[size:], ".") + "."
}
