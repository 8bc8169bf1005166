package report

import (
	"fmt"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// verdict writes the sentence that all the rest is about, and where and when
// the look was.
func (p *page) verdict(r *snapshot.Report) {
	word, sentence := Headline(r)
	lines := draw.Wrap(p.clean(word+": "+sentence), p.Width, p.Width, maxLines)
	for i, l := range lines {
		rest, opens := strings.CutPrefix(l, word+":")
		if i == 0 && opens {
			p.line(span{word + ":", p.severity(r, word)}, span{rest, p.Style.Bold})
			continue
		}
		p.line(span{l, p.Style.Bold})
	}
	if word != incomplete && len(r.Incomplete) > 0 {
		p.paragraph(0, 0, p.Style.Yellow, "This look is incomplete: see the end.")
	}
	var when string
	if !r.Time.IsZero() {
		when = r.Time.UTC().Format("2006-01-02 15:04:05") + " UTC"
	}
	kernel := r.Kernel
	if kernel != "" {
		kernel = "Linux " + kernel
	}
	took := ""
	if r.TookSeconds > 0 {
		took = "one pass, " + draw.Duration(r.TookSeconds)
	}
	if about := join(", ", r.Host, kernel, when, took); about != "" {
		p.paragraph(0, 0, p.Style.Dim, about)
	}
}

const incomplete = "INCOMPLETE"

// harmless is the finding that is good news: then it is the verdict's sentence.
const harmless = "time-wait-harmless"

// headlined tells whether the leading finding's summary stands as the verdict.
func headlined(r *snapshot.Report, lead *snapshot.Finding) bool {
	_, sentence := Headline(r)
	return strings.HasPrefix(sentence, strings.TrimSuffix(lead.Summary, "."))
}

// Headline is the verdict's word ("CRITICAL", "INCOMPLETE", "NOT JUDGED") and
// its sentence: the worst finding that follows from no other, or the state of
// things in numbers. Neither is escaped. A report without namespaces is as good
// as any; a nil among them is not.
func Headline(r *snapshot.Report) (word, sentence string) {
	lead := leading(r)
	switch {
	case lead != nil && len(r.Incomplete) == 0 && r.Verdict == snapshot.Healthy && lead.ID == harmless:
		return strings.ToUpper(string(r.Verdict)), strings.TrimSuffix(lead.Summary, ".")
	case lead != nil && (r.Verdict == snapshot.Critical || r.Verdict == snapshot.Warning):
		sentence = strings.TrimSuffix(lead.Summary, ".")
		others := 0
		for i := range r.Findings {
			if f := &r.Findings[i]; f != lead && f.Severity != snapshot.Info && f.BecauseOf == "" {
				others++
			}
		}
		if others > 0 {
			sentence += fmt.Sprintf(" (and %s)", plural(others, "more finding"))
		}
		return strings.ToUpper(string(r.Verdict)), sentence
	case r.Verdict == snapshot.Healthy && len(r.Incomplete) > 0:
		return incomplete, "nothing is wrong in what could be seen, but not all could: " + facts(r)
	case r.Verdict == "":
		return "NOT JUDGED", facts(r)
	}
	return strings.ToUpper(string(r.Verdict)), facts(r)
}

// leading is the worst finding that follows from no other; nil if there is none.
func leading(r *snapshot.Report) *snapshot.Finding {
	var lead *snapshot.Finding
	rank := func(f *snapshot.Finding) int {
		n := 0
		switch f.Severity {
		case snapshot.Critical:
			n = 4
		case snapshot.Warning:
			n = 2
		}
		if f.BecauseOf == "" {
			n++
		}
		return n
	}
	for i := range r.Findings {
		if f := &r.Findings[i]; lead == nil || rank(f) > rank(lead) {
			lead = f
		}
	}
	return lead
}

// facts is the state of things in numbers, where no finding says it.
func facts(r *snapshot.Report) string {
	if len(r.Namespaces) == 0 {
		return "no namespace was looked at"
	}
	fullest, closeWaits, ports := r.Namespaces[0], 0, "no connection uses an ephemeral port"
	var tight *snapshot.Flow
	for _, ns := range r.Namespaces {
		if share(ns.TimeWait.BucketsUsed, ns.TimeWait.BucketsLimit) > share(fullest.TimeWait.BucketsUsed, fullest.TimeWait.BucketsLimit) {
			fullest = ns
		}
		closeWaits += int(ns.States.CloseWait)
		for i := range ns.Flows {
			if f := &ns.Flows[i]; f.Ports != nil && (tight == nil || portShare(f.Ports) > portShare(tight.Ports)) {
				tight = f
			} else if f.Ports == nil && f.Side == snapshot.Client {
				ports = "use of ports unknown"
			}
		}
	}
	buckets := draw.Count(int64(fullest.TimeWait.BucketsUsed)) + " TIME_WAIT"
	if limit := fullest.TimeWait.BucketsLimit; limit != nil {
		buckets += " of " + draw.Count(int64(*limit)) + " buckets"
	} else {
		buckets += ", limit unknown"
	}
	if len(r.Namespaces) > 1 {
		buckets += " in " + fullest.Name + ", the fullest of " + plural(len(r.Namespaces), "namespace")
	}
	waits := ""
	if closeWaits > 0 {
		waits = draw.Count(int64(closeWaits)) + " CLOSE_WAIT"
	}
	if tight != nil {
		floor := ""
		if tight.Ports.AtMost {
			floor = "≥"
		}
		ports = "tightest flow at " + floor + draw.Percent(portShare(tight.Ports)) + " of its ports"
	}
	return join("; ", buckets, waits, ports)
}

// share is used of limit, 0 where the limit is unknown.
func share(used int, limit *int) float64 {
	if limit == nil || *limit <= 0 {
		return 0
	}
	return float64(used) / float64(*limit)
}

// portShare is the share of a flow's ports that connect() can't take now.
func portShare(ports *snapshot.Ports) float64 {
	usable := ports.Range - ports.Reserved
	if usable <= 0 {
		return 1
	}
	return min(1, max(0, 1-float64(ports.Free)/float64(usable)))
}

// severity is the colour of a verdict's word.
func (p *page) severity(r *snapshot.Report, word string) func(string) string {
	if word == incomplete {
		return p.bold(p.Style.Yellow)
	}
	return p.bold(p.colour(r.Verdict))
}

func (p *page) bold(paint func(string) string) func(string) string {
	return func(s string) string { return p.Style.Bold(paint(s)) }
}

func (p *page) colour(s snapshot.Severity) func(string) string {
	switch s {
	case snapshot.Critical:
		return p.Style.Red
	case snapshot.Warning:
		return p.Style.Yellow
	case snapshot.Healthy:
		return p.Style.Green
	}
	return func(s string) string { return s }
}
