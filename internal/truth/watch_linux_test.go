package truth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/lab"
)

// A watch looks at a namespace at an interval and judges, as the daemon does,
// until its test ends.
type watch struct {
	mu      sync.Mutex
	reports []*snapshot.Report // judged, oldest first
}

// newWatch begins a watch. thresholds are those that aren't the defaults.
func newWatch(t *testing.T, ns *lab.Namespace, cfg collector.Config, thresholds map[string]float64) *watch {
	t.Helper()
	w := &watch{}
	settings := diagnose.Settings{Advice: must[*advice.Library](t)(advice.Load())}
	for name, value := range thresholds {
		if err := settings.Thresholds.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Knowledge, cfg.CPUBudget = settings.Advice, 1
	ctx, cancel := context.WithCancel(t.Context())
	ended := ns.Go(func() error { return w.run(ctx, cfg, settings) })
	t.Cleanup(func() {
		cancel()
		if err := ended(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *watch) run(ctx context.Context, cfg collector.Config, settings diagnose.Settings) error {
	c, err := collector.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	var window []*snapshot.Report
	var previous []snapshot.Finding
	for r, err := range c.Reports(ctx) {
		if err != nil {
			return err
		}
		if len(r.Incomplete) > 0 {
			return fmt.Errorf("incomplete: %+v", r.Incomplete)
		}
		result := diagnose.Judge(append(slices.Clone(window), r), previous, settings)
		r.Findings, r.Verdict, r.NotJudged = result.Findings, result.Verdict, result.NotJudged
		previous, window = r.Findings, hub.Keep(window, r, hub.DefaultKeep)
		w.mu.Lock()
		w.reports = append(w.reports, r)
		w.mu.Unlock()
	}
	return nil
}

func (w *watch) all() []*snapshot.Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.reports)
}

// until waits for a report that satisfies check; it must be the newest when it
// is looked at.
func (w *watch) until(t *testing.T, deadline time.Duration, check func(*snapshot.Report) error) (r *snapshot.Report) {
	t.Helper()
	lab.Eventually(t, deadline, func() error {
		all := w.all()
		if len(all) == 0 {
			return errors.New("no report yet")
		}
		r = all[len(all)-1]
		if err := check(r); err != nil {
			return fmt.Errorf("%w; %s", err, said(r))
		}
		return nil
	})
	return r
}

// fresh waits for a report that was begun after the call.
func (w *watch) fresh(t *testing.T) *snapshot.Report {
	t.Helper()
	now := time.Now()
	return w.until(t, time.Minute, func(r *snapshot.Report) error {
		if r.Time.Before(now) {
			return errors.New("no new report")
		}
		return nil
	})
}

// only fails the test if a report had a finding other than these, each as
// "severity id" or "severity id because-of".
func (w *watch) only(t *testing.T, allowed ...string) {
	t.Helper()
	for _, r := range w.all() {
		for i := range r.Findings {
			if f := &r.Findings[i]; !slices.Contains(allowed, headline(f)) {
				t.Fatalf("%q isn't among %q: %s", headline(f), allowed, said(r))
			}
		}
	}
}

func headline(f *snapshot.Finding) string {
	return strings.TrimSpace(strings.Join([]string{string(f.Severity), f.ID, f.BecauseOf}, " "))
}

// said is what a report says, for the message of a test.
func said(r *snapshot.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the verdict was %s", r.Verdict)
	for i := range r.Findings {
		f := &r.Findings[i]
		fmt.Fprintf(&b, "\n  %s: %s %s", headline(f), f.Summary, recommended(f))
	}
	return b.String()
}

// recommended are the ids of a finding's advice.
func recommended(f *snapshot.Finding) []string {
	var ids []string
	for i := range f.Recommendations {
		ids = append(ids, f.Recommendations[i].ID)
	}
	return ids
}

// evidence is a number that a finding rests on, or a lower bound of it.
func evidence(t *testing.T, f *snapshot.Finding, what string) float64 {
	t.Helper()
	for _, e := range f.Evidence {
		if e.What == what || e.What == what+", at least" {
			return e.Value
		}
	}
	t.Fatalf("%s has no evidence %q: %+v", f.ID, what, f.Evidence)
	return 0
}

// finds waits for a finding about a port, by any of these rules, that names a
// process ("": whichever), and returns it with its report.
func (w *watch) finds(t *testing.T, port uint16, process string, ids ...string) (*snapshot.Report, *snapshot.Finding) {
	t.Helper()
	var f *snapshot.Finding
	r := w.until(t, 2*time.Minute, func(r *snapshot.Report) error {
		if f = found(r, port, ids...); f == nil || process != "" && f.Subject.Process != process {
			return fmt.Errorf("no %v about port %d and %q", ids, port, process)
		}
		return nil
	})
	return r, f
}

// looks waits until there are so many reports, and returns them all.
func (w *watch) looks(t *testing.T, n int) []*snapshot.Report {
	t.Helper()
	w.until(t, 2*time.Minute, func(*snapshot.Report) error {
		if got := len(w.all()); got < n {
			return fmt.Errorf("%d looks", got)
		}
		return nil
	})
	return w.all()
}

// found is the first finding about a port by any of these rules, nil if there
// is none.
func found(r *snapshot.Report, port uint16, ids ...string) *snapshot.Finding {
	i := slices.IndexFunc(r.Findings, func(f snapshot.Finding) bool {
		return f.Subject.Port == port && slices.Contains(ids, f.ID)
	})
	if i < 0 {
		return nil
	}
	return &r.Findings[i]
}

// advised is a recommendation of a finding.
func advised(t *testing.T, f *snapshot.Finding, id string) *snapshot.Recommendation {
	t.Helper()
	i := slices.Index(recommended(f), id)
	if i < 0 {
		t.Fatalf("%s doesn't recommend %s, but %v", f.ID, id, recommended(f))
	}
	return &f.Recommendations[i]
}
