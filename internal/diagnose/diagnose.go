// Package diagnose judges: pure rules over a window of reports.
//
// [Judge] reads reports, which it never changes, and returns findings; what a
// finding has to remember (since when it holds) travels in the finding itself,
// so the package keeps nothing. A rule that lacks its evidence stays silent
// and is named in NotJudged. One file holds one family of rules; causes.go says
// which finding follows from which.
package diagnose

import (
	"cmp"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
)

// Settings are what a judgement depends on beside the reports. The zero value
// has the default thresholds, and findings without recommendations.
type Settings struct {
	Thresholds Thresholds
	Advice     *advice.Library
	// OwnPort is where this program listens, 0 if it doesn't: advice on
	// reserved ports counts it in.
	OwnPort uint16
}

// Result is one judgement.
type Result struct {
	Findings  []snapshot.Finding // worst first; a cause before what follows from it
	Verdict   snapshot.Severity
	NotJudged []string // ids of rules that lacked their evidence, sorted
}

// rule judges one namespace and adds what it finds.
type rule struct {
	// ids are the findings that the rule can make.
	ids   []string
	judge func(*scene) []*found
	// silent tells that the rule lacks its evidence in this scene; nil: never.
	silent func(*scene) bool
}

// found is a finding on its way: what is to be done is looked up once it is
// known which finding is whose cause.
type found struct {
	snapshot.Finding
	// situations choose the remedies, the first ones first.
	situations []advice.Situation
	cause      *found // what it follows from
	// flow is the one that the finding is about, nil if it isn't about one.
	flow *snapshot.Flow
	// flows are all that it is about, where one stands for many.
	flows []*snapshot.Flow
}

// depth is 0 for a root cause.
func (f *found) depth() int {
	if f.cause == nil {
		return 0
	}
	return f.cause.depth() + 1
}

// rules are all there are, each family in its file.
func rules() []rule {
	return slices.Concat(portRules(), timeWaitRules(), shortRules(),
		closeWaitRules(), handshakeRules(), closeRules(), settingRules(), natRules(),
		harmlessRules()) // last: it looks at what was found
}

// IDs are the findings that Judge can make, sorted.
func IDs() []string {
	ids := nodeIDs()
	for _, r := range rules() {
		ids = append(ids, r.ids...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Judge judges the last report of a window, oldest first, all of one host.
// previous is what was found before; findings that still hold keep their
// Since, and leave only when they are clear of their threshold.
func Judge(window []*snapshot.Report, previous []snapshot.Finding, settings Settings) Result {
	res := Result{Findings: []snapshot.Finding{}, Verdict: snapshot.Healthy, NotJudged: []string{}}
	if len(window) == 0 {
		return res
	}
	last := window[len(window)-1]
	var all []*judged
	for _, ns := range last.Namespaces {
		j := &judged{scene: newScene(window, ns, previous, settings)}
		for _, r := range rules() {
			if r.silent != nil && r.silent(j.scene) {
				res.NotJudged = append(res.NotJudged, r.ids...)
				continue
			}
			j.found = append(j.found, r.judge(j.scene)...)
			j.scene.found = j.found
		}
		all = append(all, j)
	}
	judgeNode(all)
	for _, j := range all {
		res.Findings = append(res.Findings, j.finish(j.found)...)
	}
	for i := range res.Findings {
		carry(&res.Findings[i], previous, last)
		res.Verdict = worse(res.Verdict, res.Findings[i].Severity)
	}
	slices.SortStableFunc(res.Findings, func(a, b snapshot.Finding) int { return cmp.Compare(rank(b.Severity), rank(a.Severity)) })
	slices.Sort(res.NotJudged)
	res.NotJudged = slices.Compact(res.NotJudged)
	return res
}

// finish says of each finding what it follows from and what to do, causes
// first.
func (s *scene) finish(all []*found) []snapshot.Finding {
	link(s, all)
	slices.SortStableFunc(all, func(a, b *found) int { return cmp.Compare(a.depth(), b.depth()) })
	findings := make([]snapshot.Finding, 0, len(all))
	for _, f := range all {
		f.Namespace = s.ns.Name
		if f.cause != nil {
			f.BecauseOf = f.cause.ID
		}
		if f.Evidence == nil {
			f.Evidence = []snapshot.Evidence{}
		}
		f.Recommendations = s.recommend(f)
		findings = append(findings, f.Finding)
	}
	return findings
}

// recommend looks up what to do. What the cause of a finding recommends is not
// said twice.
func (s *scene) recommend(f *found) []snapshot.Recommendation {
	list := []snapshot.Recommendation{}
	if s.settings.Advice == nil {
		return list
	}
	said := func(id string) bool {
		has := func(r snapshot.Recommendation) bool { return r.ID == id }
		return slices.ContainsFunc(list, has) || f.cause != nil && slices.ContainsFunc(f.cause.Recommendations, has)
	}
	for _, situation := range f.situations {
		for _, r := range s.settings.Advice.Recommend(situation) {
			if !said(r.ID) && len(list) < advice.MaxRecommendations {
				list = append(list, r)
			}
		}
	}
	return list
}

// carry keeps the time since when a finding holds.
func carry(f *snapshot.Finding, previous []snapshot.Finding, last *snapshot.Report) {
	f.Since = last.Time
	for _, p := range previous {
		if p.ID == f.ID && p.Namespace == f.Namespace && identity(p.Subject) == identity(f.Subject) && !p.Since.IsZero() {
			f.Since = p.Since
		}
	}
}

func rank(s snapshot.Severity) int {
	return slices.Index([]snapshot.Severity{snapshot.Healthy, snapshot.Info, snapshot.Warning, snapshot.Critical}, s)
}

// worse gives the worse of a verdict and a finding's severity; info leaves a
// verdict healthy.
func worse(verdict, s snapshot.Severity) snapshot.Severity {
	if s != snapshot.Info && rank(s) > rank(verdict) {
		return s
	}
	return verdict
}
