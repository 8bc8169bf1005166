package advice

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/sysctl"
)

// MaxRecommendations is the most that [Library.Recommend] returns.
const MaxRecommendations = 6

// Recommend returns what to do, best first: what cures before what only helps,
// and among these what fits the process and the service before what fits all.
// Where the runtime's version isn't known, what is for an older one goes before
// what is for a newer, and each says so. Texts are filled in; one that needs a
// number which isn't known is left out. The first call reads the remedies,
// which takes some 4 ms.
func (l *Library) Recommend(s Situation) []snapshot.Recommendation {
	s.Local = s.Local || s.Remote.Addr().Unmap().IsLoopback()
	d := s.fill()
	type candidate struct {
		remedy *Remedy
		points int
	}
	var found []candidate
	for _, m := range l.allRemedies() {
		if points, ok := l.fits(m, &s); ok && m.applies(d) {
			found = append(found, candidate{m, points})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(rank(a.remedy), rank(b.remedy)), cmp.Compare(b.points, a.points),
			a.remedy.When.since().compare(b.remedy.When.since()))
	})
	recommendations := []snapshot.Recommendation{}
	for _, c := range found {
		if len(recommendations) == MaxRecommendations {
			break
		}
		if r := l.recommend(c.remedy, &s, d); r.Do != "" {
			recommendations = append(recommendations, r)
		}
	}
	return recommendations
}

// rank orders remedies: a fix of the cause is as good as reuse.
func rank(m *Remedy) int { return max(1, slices.Index(orders(), m.Order)) }

// fits tells whether a remedy is for this situation, and how closely.
func (l *Library) fits(m *Remedy, s *Situation) (points int, ok bool) {
	w := &m.When
	service, like := l.service(s.Service), ""
	if service != nil {
		like = service.Like
	}
	if !slices.Contains(w.Patterns, s.Pattern) ||
		w.Side != "" && s.Side != "" && w.Side != string(s.Side) ||
		w.Local && !s.Local ||
		len(w.Services) > 0 && !slices.Contains(w.Services, cmp.Or(s.Service, UnknownService)) && (like == "" || !slices.Contains(w.Services, like)) {
		return 0, false
	}
	if len(w.Runtimes) > 0 {
		r := l.runtime(s.Runtime)
		if r == nil || !slices.Contains(w.Runtimes, r.ID) && !slices.Contains(w.Runtimes, r.Family) {
			return 0, false
		}
		if v, known := parseVersion(s.RuntimeVersion); known {
			before, bounded := parseVersion(w.Before)
			if v.less(w.since()) || bounded && !v.less(before) {
				return 0, false
			}
		}
		points += 2
	}
	sure := l.runtime(s.Runtime) != nil || s.ServiceBy == ByProcess || s.ServiceBy == ByConfig
	if m.NeedsProcess && !sure {
		return 0, false
	}
	if len(w.Services) > 0 && service != nil && sure {
		points++
	}
	if m.operators {
		points += 4
	}
	return points, true
}

// applies tells whether the remedy's own condition holds, and whether it would
// change anything: a setting that has the value already needs no advice.
func (m *Remedy) applies(d *data) bool {
	if m.OnlyIf == "" && len(m.Sysctls) == 0 {
		return true // as most do: no need to parse its texts for that
	}
	texts := m.texts()
	if texts.onlyIf != nil {
		if answer, err := render(texts.onlyIf, d); err != nil || answer != "true" {
			return false
		}
	}
	if len(texts.sysctls) == 0 {
		return true
	}
	for i := range texts.sysctls {
		if m.changes(i, d) {
			return true
		}
	}
	return false
}

func (l *Library) recommend(m *Remedy, s *Situation, d *data) snapshot.Recommendation {
	r := snapshot.Recommendation{ID: m.ID, Title: m.Title, Caveats: []string{}, References: []string{}}
	texts := m.texts()
	r.Do = oneParagraph(m.text(texts.do, d))
	if r.Do == "" {
		return r
	}
	if len(m.When.Services) > 0 && s.ServiceBy == ByPort {
		if service := l.service(s.Service); service != nil {
			r.Do = "Port " + portText(d) + " is usually " + service.Title + "; nothing else tells so here. " + r.Do
		}
	}
	if _, known := parseVersion(s.RuntimeVersion); !known {
		if runtime := l.runtime(s.Runtime); runtime != nil {
			r.Do = m.When.versions(runtime.Title) + r.Do
		}
	}
	r.Snippet, r.Effect = m.text(texts.snippet, d), oneParagraph(m.text(texts.effect, d))
	if len(texts.sysctls) > 0 {
		r.Snippet = m.sysctlSnippet(d)
	}
	for _, c := range texts.caveats {
		if text := oneParagraph(m.text(c, d)); text != "" {
			r.Caveats = append(r.Caveats, text)
		}
	}
	r.Caveats = append(r.Caveats, m.sysctlCaveats(d)...)
	if s.Numbers.Processes == nil && strings.Contains(m.Snippet+m.Do+m.Effect, ".PoolSize") && d.PoolSize != nil {
		r.Caveats = append(r.Caveats, "How many processes share this flow is not known: the pool is sized as if there was one.")
	}
	if service := l.service(s.Service); m.Order == "reuse" && service != nil && service.Limit != "" && s.Side != snapshot.Server {
		r.Caveats = append(r.Caveats, "Processes x pool size, over all hosts, must stay below what the server accepts. "+oneParagraph(service.Limit))
	}
	for _, ref := range m.References {
		r.References = append(r.References, ref.URL)
	}
	return r
}

// since is the version from which a remedy fits, zero if any.
func (w *When) since() version {
	v, _ := parseVersion(w.From)
	return v
}

// versions says in a sentence which versions of a runtime a remedy is for, ""
// if for all.
func (w *When) versions(runtime string) string {
	switch {
	case w.From != "" && w.Before != "":
		return "For " + runtime + " from " + w.From + " to before " + w.Before + " (the version here is not known). "
	case w.From != "":
		return "For " + runtime + " " + w.From + " and later (the version here is not known). "
	case w.Before != "":
		return "For " + runtime + " before " + w.Before + " (the version here is not known). "
	}
	return ""
}

func portText(d *data) string {
	if d.Port == nil {
		return "of this flow"
	}
	return strings.TrimSpace(strings.ReplaceAll(countText(d.Port), ",", ""))
}

// text fills one template in; "" where a number that it needs isn't known.
func (m *Remedy) text(t *template.Template, d *data) string {
	s, err := render(t, d)
	if err != nil {
		return ""
	}
	return s
}

// sample has every number: templates are tried with it, and documents are made
// of it.
func sample() *Situation {
	reserved, _ := sysctl.ParsePortSet("8080")
	return &Situation{
		Pattern: NoPool, Side: snapshot.Client, NamespaceKind: "host", Local: true,
		Remote: netip.MustParseAddrPort("10.0.0.9:6379"),
		Numbers: Numbers{
			Rate: new(470.0), Lifetime: new(0.05), Processes: new(4),
			PortsNow: new(28231), Range: &sysctl.PortRange{Low: 32768, High: 60999}, Reserved: &reserved,
			Listeners: []uint16{11211, 27017}, OwnPort: 10060, UnprivilegedStart: new(1024),
			TimeWait: new(28000), BucketsLimit: new(131072), TWReuse: new(2), TWReuseDelay: new(1000), Timestamps: new(1), FinTimeout: new(60),
			Backlog: new(511), Somaxconn: new(4096), SynBacklog: new(2048), Syncookies: new(1), SynackRetries: new(5),
			Orphans: new(12000), OrphansLimit: new(16384), OrphanRetries: new(0),
			ConntrackEntries: new(240000), ConntrackMax: new(262144), ConntrackBuckets: new(65536), ConntrackTimeWait: new(120),
			CloseWaits: new(300), OldestSeconds: new(3600.0), Descriptors: new(900), DescriptorLimit: new(1024),
		},
	}
}
