package advice

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/internal/draw"
)

// Kinds of what can be explained, in the order that they are listed.
const (
	KindFinding = "finding"
	KindTopic   = "topic"
	KindRemedy  = "remedy"
	KindService = "service"
	KindRuntime = "runtime"
)

// Kinds lists them.
func Kinds() []string {
	return []string{KindFinding, KindTopic, KindRemedy, KindService, KindRuntime}
}

// A Text explains one entry of the library.
type Text struct {
	ID         string        `json:"id"`
	Kind       string        `json:"kind"`
	Title      string        `json:"title"`
	Group      string        `json:"group,omitempty"` // topics
	Says       string        `json:"says"`
	Drawing    string        `json:"drawing,omitempty"`
	Sections   []TextSection `json:"sections"`
	NowAsks    []string      `json:"-"` // for [Now]
	Now        []Fact        `json:"now,omitempty"`
	NowMissing string        `json:"now_missing,omitempty"` // why Now couldn't be looked up
	See        []string      `json:"see"`
	References []Reference   `json:"references"`
}

// A TextSection is a part of a text. Lines is a list, or verbatim text.
type TextSection struct {
	Heading  string   `json:"heading"`
	Lines    []string `json:"lines"`
	Verbatim bool     `json:"verbatim,omitempty"`
}

// An ID names something that can be explained.
type ID struct {
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	Group string `json:"group,omitempty"`
	Title string `json:"title"`
}

// IDs lists everything that can be explained: by kind, topics by group, then in
// the library's order.
func (l *Library) IDs() []ID {
	var ids []ID
	for _, f := range l.teaches().findings {
		ids = append(ids, ID{f.ID, KindFinding, "", f.Title})
	}
	for _, t := range l.teaches().topics {
		ids = append(ids, ID{t.ID, KindTopic, t.Group, t.Title})
	}
	for _, m := range l.allRemedies() {
		ids = append(ids, ID{m.ID, KindRemedy, "", m.Title})
	}
	for _, s := range l.services {
		ids = append(ids, ID{s.ID, KindService, "", s.Title})
	}
	for _, r := range l.runtimes {
		ids = append(ids, ID{r.ID, KindRuntime, "", r.Title})
	}
	slices.SortStableFunc(ids, func(a, b ID) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds(), a.Kind), slices.Index(Kinds(), b.Kind)),
			cmp.Compare(slices.Index(groups(), a.Group), slices.Index(groups(), b.Group)))
	})
	return ids
}

// Explain returns every text of that id: a service and a runtime may share
// one. "kind:id" asks for one kind. A state may be written as ss and the kernel
// do: "TIME_WAIT", "FIN-WAIT-1". Nil if nothing has that id.
func (l *Library) Explain(id string) []Text {
	id = strings.ReplaceAll(strings.ToLower(id), "_", "-")
	kind, rest, qualified := strings.Cut(id, ":")
	if qualified {
		id = rest
	}
	var texts []Text
	for _, i := range l.IDs() {
		if i.ID == id && (!qualified || i.Kind == kind) {
			texts = append(texts, l.text(i))
		}
	}
	return texts
}

func (l *Library) text(i ID) Text {
	t := Text{ID: i.ID, Kind: i.Kind, Title: i.Title, Group: i.Group, Sections: []TextSection{}, See: []string{}, References: []Reference{}}
	switch i.Kind {
	case KindFinding:
		l.findingText(&t)
	case KindTopic:
		l.topicText(&t)
	case KindRemedy:
		l.remedyText(&t)
	case KindService:
		l.serviceText(&t)
	case KindRuntime:
		l.runtimeText(&t)
	}
	return t
}

// say adds a paragraph under a heading, if there is one.
func (t *Text) say(heading string, paragraphs ...string) {
	lines := slices.DeleteFunc(slices.Clone(paragraphs), func(p string) bool { return strings.TrimSpace(p) == "" })
	for i := range lines {
		lines[i] = oneParagraph(lines[i])
	}
	if len(lines) > 0 {
		t.Sections = append(t.Sections, TextSection{Heading: heading, Lines: lines})
	}
}

func (t *Text) show(heading, verbatim string) {
	if verbatim = strings.Trim(verbatim, "\n"); verbatim != "" {
		t.Sections = append(t.Sections, TextSection{Heading: heading, Lines: strings.Split(verbatim, "\n"), Verbatim: true})
	}
}

func (l *Library) findingText(t *Text) {
	findings := l.teaches().findings
	i := slices.IndexFunc(findings, func(f *Finding) bool { return f.ID == t.ID })
	f := findings[i]
	t.Says, t.NowAsks, t.See = oneParagraph(f.Says), f.Now, append(t.See, f.See...)
	t.say("Why it matters", f.Why)
	t.say("How it is told", f.Evidence)
	t.say("What to do", f.None)
	var general, particular []string
	for _, m := range l.remediesFor(f.Patterns) {
		if len(m.When.Runtimes) > 0 || m.NeedsProcess {
			particular = append(particular, m.ID)
		} else {
			general = append(general, m.ID+": "+m.Title)
		}
	}
	t.say("Remedies, best first", general...)
	t.say("Remedies for particular processes, which come first where they fit", strings.Join(particular, ", "))
}

// remediesFor are those for some of the patterns, best first.
func (l *Library) remediesFor(patterns []string) []*Remedy {
	var found []*Remedy
	for _, m := range l.allRemedies() {
		if slices.ContainsFunc(m.When.Patterns, func(p string) bool { return slices.Contains(patterns, p) }) {
			found = append(found, m)
		}
	}
	slices.SortStableFunc(found, func(a, b *Remedy) int { return cmp.Compare(rank(a), rank(b)) })
	return found
}

func (l *Library) topicText(t *Text) {
	topics := l.teaches().topics
	i := slices.IndexFunc(topics, func(o *Topic) bool { return o.ID == t.ID })
	o := topics[i]
	t.Says, t.NowAsks, t.See, t.References = oneParagraph(o.Says), o.Now, append(t.See, o.See...), o.References
	t.Drawing = strings.Trim(o.Drawing, "\n")
	t.say("Who is in it", o.Who)
	t.say("For how long", o.HowLong)
	t.say("Why it exists", o.Why)
	t.say("What makes it pile up", o.PilesUp)
	t.say("More", o.More...)
	var sums []string
	for _, name := range o.Formulas {
		f, _ := formula(name)
		sums = append(sums, f.Says+". For example, "+f.Example+".")
	}
	t.say("Sums", sums...)
	t.say("Settings", o.Sysctls...)
	t.say("Counters", o.Counters...)
}

func (l *Library) remedyText(t *Text) {
	remedies := l.allRemedies()
	i := slices.IndexFunc(remedies, func(m *Remedy) bool { return m.ID == t.ID })
	m := remedies[i]
	s := sample()
	if service := l.service(strings.Join(m.When.Services[:min(1, len(m.When.Services))], "")); service != nil && len(service.Ports) > 0 {
		s.Remote = netip.AddrPortFrom(s.Remote.Addr(), service.Ports[0])
	}
	d, texts := s.fill(), m.texts()
	t.Says, t.References = oneParagraph(m.text(texts.do, d)), m.References
	t.say("For", m.purpose()...)
	snippet := m.text(texts.snippet, d)
	if len(texts.sysctls) > 0 {
		snippet = m.sysctlSnippet(d)
	}
	t.show("With sample numbers: 470/s, 50 ms each, 4 processes, 28,000 TIME_WAIT", snippet)
	t.say("Effect, with these numbers", m.text(texts.effect, d))
	var caveats []string
	for _, c := range texts.caveats {
		caveats = append(caveats, m.text(c, d))
	}
	t.say("But", append(caveats, m.sysctlCaveats(d)...)...)
}

// purpose says in words what a remedy is for.
func (m *Remedy) purpose() []string {
	line := "pattern: " + strings.Join(m.When.Patterns, ", ")
	lines := []string{line}
	add := func(name string, values ...string) {
		if len(values) > 0 && values[0] != "" {
			lines = append(lines, name+": "+strings.Join(values, ", "))
		}
	}
	add("side", m.When.Side)
	add("services", m.When.Services...)
	add("processes", m.When.Runtimes...)
	add("from version", m.When.From)
	add("before version", m.When.Before)
	if m.When.Local {
		add("where", "the server is on the same host")
	}
	if m.NeedsProcess {
		add("needs", "a process that is known, or the operator's word; a port alone is not enough")
	}
	return lines
}

func (l *Library) serviceText(t *Text) {
	s := l.service(t.ID)
	t.Says, t.References = oneParagraph(s.Do), s.References
	t.say("Ports", portList(s))
	t.say("Are its connections meant to last", s.LongLived)
	t.say("Who closes first, as a rule", s.ClosesFirst)
	t.say("Idle timeouts that break pools", s.Idle)
	t.say("How many connections it takes", s.Limit)
	t.say("But", s.Caveats...)
	for _, m := range l.allRemedies() {
		if slices.Contains(m.When.Services, s.ID) {
			t.See = append(t.See, m.ID)
		}
	}
}

func (l *Library) runtimeText(t *Text) {
	r := l.runtime(t.ID)
	t.Says, t.References = oneParagraph(r.About), r.References
	if t.Says == "" {
		t.Says = "A " + strings.ReplaceAll(r.Kind, "-", " ") + "."
	}
	var told []string
	for _, look := range []struct {
		what     string
		patterns []string
	}{
		{"command name", r.Comm},
		{"executable", r.Exe},
		{"command line", r.Cmdline},
		{"Go build info", r.GoBuild},
		{"Java main class or jar", r.JavaMain},
		{"script", r.Script},
	} {
		if len(look.patterns) > 0 {
			told = append(told, look.what+": "+strings.Join(look.patterns, ", "))
		}
	}
	t.say("How a process is told", told...)
	for _, m := range l.allRemedies() {
		if slices.Contains(m.When.Runtimes, r.ID) || slices.Contains(m.When.Runtimes, r.Family) {
			t.See = append(t.See, m.ID)
		}
	}
}

// Suggest returns the ids nearest to one that isn't there, at most 3.
func (l *Library) Suggest(id string) []string {
	if len(id) > 64 {
		id = id[:64]
	}
	id = strings.ToLower(strings.ReplaceAll(id, "_", "-"))
	type near struct {
		id       string
		distance int
	}
	var found []near
	for _, i := range l.IDs() {
		d := draw.Distance(id, i.ID)
		switch {
		case len(id) > 2 && strings.HasPrefix(i.ID, id):
			d = 0
		case len(id) > 2 && strings.Contains(i.ID, id):
			d = min(d, 1)
		}
		if d <= max(1, len(id)/3) {
			found = append(found, near{i.ID, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(len(a.id), len(b.id)))
	})
	var ids []string
	for _, f := range found {
		if !slices.Contains(ids, f.id) && len(ids) < 3 {
			ids = append(ids, f.id)
		}
	}
	return ids
}
