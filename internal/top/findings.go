package top

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/report"
)

// A findingKey tells a finding from all others of a report.
type findingKey struct {
	id, namespace string
	subject       snapshot.Subject
}

func findingKeyOf(f *snapshot.Finding) findingKey {
	// What is found out about the subject later doesn't make it another.
	s := f.Subject
	s.Service, s.Process = "", ""
	return findingKey{f.ID, f.Namespace, s}
}

// severityLook is the colour of a severity, beside its word.
func severityLook(s snapshot.Severity) look {
	switch s {
	case snapshot.Critical:
		return red | bold
	case snapshot.Warning:
		return yellow | bold
	case snapshot.Healthy:
		return green | bold
	}
	return bold
}

// subjectName says what a finding is about: "→ 10.0.0.9:6379 redis, php-fpm".
func subjectName(s *snapshot.Subject) string {
	var where string
	switch {
	case s.Remote != "" || s.Local != "" && s.Side != "":
		where = peer(&snapshot.Flow{Side: s.Side, Device: s.Device, Local: s.Local, Remote: s.Remote, Port: s.Port, Service: s.Service})
	case s.Port != 0:
		where = join(" ", "port "+strconv.Itoa(int(s.Port)), s.Service)
	default:
		where = s.Service
	}
	return join(", ", where, s.Process)
}

// since is how long a finding has held.
func since(r *snapshot.Report, f *snapshot.Finding) string {
	if d := r.Time.Sub(f.Since); !f.Since.IsZero() && d >= time.Second {
		return tight(d.Seconds())
	}
	return "new"
}

func sinceWords(r *snapshot.Report, f *snapshot.Finding) string {
	if s := since(r, f); s != "new" {
		return "for " + s
	}
	return "new"
}

// A findingRow is one finding.
type findingRow struct{ *snapshot.Finding }

func findingColumns(width int, r *snapshot.Report) []column[findingRow] {
	return fit(width, []column[findingRow]{
		{title: "SEVERITY", width: 10, sort: -1, cell: func(f *findingRow) (string, look) {
			return strings.ToUpper(string(f.Severity)), severityLook(f.Severity)
		}},
		{title: "FOR", width: 8, right: true, sort: -1, rank: 2, cell: func(f *findingRow) (string, look) { return since(r, f.Finding), 0 }},
		{title: "  FINDING", width: 33, sort: -1, cell: func(f *findingRow) (string, look) {
			if f.BecauseOf != "" { // it stands under its cause
				return "   " + f.ID, 0
			}
			return "  " + f.ID, bold
		}},
		{title: "ABOUT", least: 20, most: 72, sort: -1, cell: func(f *findingRow) (string, look) { return subjectName(&f.Subject), 0 }},
		{title: "NAMESPACE", width: 16, sort: -1, rank: 3, cell: func(f *findingRow) (string, look) { return f.Namespace, 0 }},
	})
}

// findingPage tells all of a finding. at is the recommendation that is to be
// copied; starts are the lines at which recommendations begin.
func findingPage(p *writer, f *snapshot.Finding, r *snapshot.Report, at int) (starts []int) {
	p.line(span{strings.ToUpper(string(f.Severity)), severityLook(f.Severity)}, span{" " + f.ID, bold},
		plain(" in "+f.Namespace+", "+sinceWords(r, f)))
	p.paragraph(0, 0, f.Summary)
	if f.BecauseOf != "" {
		p.paragraph(0, 2, "Follows from "+f.BecauseOf+": see what to do there first.")
	}
	if about := subjectName(&f.Subject); about != "" {
		p.field("about", join(", ", about, local(f.Subject.Local)))
	}
	for i := range f.Recommendations {
		rec := &f.Recommendations[i]
		p.blank()
		starts = append(starts, len(p.rows))
		mark, l := "  ", dim
		if i == at {
			mark, l = marker+" ", bold
		}
		p.line(span{mark + "What to do, " + strconv.Itoa(i+1) + " of " + strconv.Itoa(len(f.Recommendations)) + ": ", l}, span{rec.Title, bold})
		for line := range strings.SplitSeq(strings.TrimSpace(rec.Do), "\n") {
			p.paragraph(4, 0, line)
		}
		if rec.Snippet != "" {
			p.verbatim(rec.Snippet)
		}
		if rec.Effect != "" {
			p.paragraph(4, 2, "effect: "+rec.Effect)
		}
		for _, c := range rec.Caveats {
			p.paragraph(4, 2, "but: "+c)
		}
		for _, ref := range rec.References {
			p.paragraph(4, 2, "see: "+ref)
		}
	}
	if len(f.Evidence) > 0 {
		p.blank()
		p.head("Evidence")
	}
	for _, e := range f.Evidence {
		source := ""
		if e.Source != "" {
			source = " (" + e.Source + ")"
		}
		p.paragraph(2, 4, e.What+": "+report.Amount(e)+source)
	}
	p.blank()
	p.paragraph(0, 0, "twwatch explain "+f.ID+" tells why, with sources.")
	return starts
}

func local(address string) string {
	if address == "" {
		return ""
	}
	return "from " + address
}

// snippet is what there is to copy of a finding's recommendation; "" if nothing.
// Control characters are taken out of it: it may end in a shell.
func snippet(f *snapshot.Finding, at int) string {
	if at >= len(f.Recommendations) {
		return ""
	}
	lines := strings.Split(f.Recommendations[at].Snippet, "\n")
	for i, line := range lines {
		parts := strings.Split(line, "\t")
		for j := range parts {
			parts[j] = draw.Escape(parts[j])
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.Join(lines, "\n")
}

// severityCount is what the tab of findings says: the number, and how bad.
func severityCount(findings []snapshot.Finding) (n int, worst snapshot.Severity) {
	rank := map[snapshot.Severity]int{snapshot.Info: 1, snapshot.Warning: 2, snapshot.Critical: 3}
	for i := range findings {
		if s := findings[i].Severity; cmp.Compare(rank[s], rank[worst]) > 0 {
			worst = s
		}
	}
	return len(findings), worst
}
