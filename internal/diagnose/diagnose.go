// Package diagnose judges: pure rules over a window of reports.
//
// [Judge] reads reports, which it never changes, and returns findings; what a
// finding has to remember (since when it holds) travels in the finding itself,
// so the package keeps nothing. A rule that lacks its evidence stays silent
// and is named in NotJudged. One file holds one family of rules.
package diagnose

import (
	"cmp"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Result is one judgement.
type Result struct {
	Findings  []snapshot.Finding // worst first
	Verdict   snapshot.Severity
	NotJudged []string // ids of rules that lacked their evidence, sorted
}

// rule judges one namespace and adds what it finds.
type rule struct {
	// ids are the findings that the rule can make.
	ids   []string
	judge func(*scene) []snapshot.Finding
	// silent tells that the rule lacks its evidence in this scene; nil: never.
	silent func(*scene) bool
}

// rules are judged in this order, causes first.
func rules() []rule {
	return []rule{
		{ids: []string{PortsSlow, PortsRunningOut, PortsExhausted}, judge: judgePorts, silent: func(s *scene) bool { return s.ns.Ports == nil }},
		{ids: []string{BucketsNear}, judge: judgeBuckets, silent: func(s *scene) bool { return s.ns.TimeWait.BucketsLimit == nil }},
		{ids: []string{BucketsOverflow}, judge: judgeOverflow, silent: func(s *scene) bool { _, ok := s.growth("TCPTimeWaitOverflow"); return !ok }},
	}
}

// scene is one namespace in the newest report and what went before.
type scene struct {
	ns         *snapshot.Namespace
	before     *snapshot.Namespace // the same namespace at the window's start; nil with a single look
	seconds    float64             // between the two
	at         time.Time
	previous   []snapshot.Finding
	thresholds Thresholds
}

// Judge judges the last report of a window, oldest first, all of one host.
// previous is what was found before; findings that still hold keep their
// Since, and leave only when they are clear of their threshold.
func Judge(window []*snapshot.Report, previous []snapshot.Finding, t Thresholds) Result {
	res := Result{Findings: []snapshot.Finding{}, Verdict: snapshot.Healthy, NotJudged: []string{}}
	if len(window) == 0 {
		return res
	}
	last := window[len(window)-1]
	for _, ns := range last.Namespaces {
		s := &scene{ns: ns, at: last.Time, previous: previous, thresholds: t}
		s.before, s.seconds = earlier(window, ns)
		for _, r := range rules() {
			if r.silent != nil && r.silent(s) {
				res.NotJudged = append(res.NotJudged, r.ids...)
				continue
			}
			res.Findings = append(res.Findings, r.judge(s)...)
		}
	}
	for i := range res.Findings {
		carry(&res.Findings[i], previous, last.Time)
		res.Verdict = worse(res.Verdict, res.Findings[i].Severity)
	}
	slices.SortStableFunc(res.Findings, func(a, b snapshot.Finding) int { return cmp.Compare(rank(b.Severity), rank(a.Severity)) })
	slices.Sort(res.NotJudged)
	res.NotJudged = slices.Compact(res.NotJudged)
	return res
}

// earlier finds the namespace in the oldest report that it can be compared
// with: same boot, same namespace.
func earlier(window []*snapshot.Report, ns *snapshot.Namespace) (*snapshot.Namespace, float64) {
	last := window[len(window)-1]
	for _, r := range window[:len(window)-1] {
		if r.BootID != last.BootID {
			continue
		}
		for _, old := range r.Namespaces {
			if old.Inode == ns.Inode && old.Cookie == ns.Cookie && old.Name == ns.Name {
				return old, last.Uptime - r.Uptime
			}
		}
	}
	return nil, 0
}

// growth is how much a cumulative counter grew in the window; false if that
// can't be known.
func (s *scene) growth(counter string) (uint64, bool) {
	if s.before == nil {
		return 0, false
	}
	was, ok1 := s.before.Counters[counter]
	is, ok2 := s.ns.Counters[counter]
	return is - was, ok1 && ok2 && is >= was
}

// held tells whether one of these findings about the subject was there
// before, so that its threshold to leave applies and not the one to come.
func (s *scene) held(subject snapshot.Subject, ids ...string) bool {
	return slices.ContainsFunc(s.previous, func(f snapshot.Finding) bool {
		return slices.Contains(ids, f.ID) && f.Namespace == s.ns.Name && f.Subject == subject
	})
}

func carry(f *snapshot.Finding, previous []snapshot.Finding, now time.Time) {
	f.Since = now
	for _, p := range previous {
		if p.ID == f.ID && p.Namespace == f.Namespace && p.Subject == f.Subject && !p.Since.IsZero() {
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
