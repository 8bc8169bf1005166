package truth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/lab"
)

// A judging looks at a namespace again and again and judges each look after
// those before it, as serve does.
type judging struct {
	t *testing.T

	mu      sync.Mutex
	reports []*snapshot.Report // all of them, oldest first
}

// judge begins one, with a look a second, which ends with the test.
func judge(t *testing.T, ns *lab.Namespace, cfg collector.Config) *judging {
	t.Helper()
	j := &judging{t: t}
	library := must[*advice.Library](t)(advice.Load())
	cfg.Interval, cfg.CPUBudget, cfg.Knowledge = time.Second, 1, library
	ctx, cancel := context.WithCancel(context.Background())
	wait := ns.Go(func() error {
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
			window = hub.Keep(window, r, hub.DefaultKeep)
			result := diagnose.Judge(window, previous, diagnose.Settings{Advice: library})
			r.Findings, r.Verdict, r.NotJudged = result.Findings, result.Verdict, result.NotJudged
			previous = result.Findings
			j.mu.Lock()
			j.reports = append(j.reports, r)
			j.mu.Unlock()
		}
		return nil
	})
	t.Cleanup(func() {
		cancel()
		if err := wait(); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		for _, r := range j.all() {
			for _, gap := range r.Incomplete {
				t.Errorf("incomplete: %+v", gap)
			}
		}
	})
	return j
}

// all are the reports up to now.
func (j *judging) all() []*snapshot.Report {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.reports)
}

// eventually waits until the newest report is as check wants it, and returns
// that.
func (j *judging) eventually(within time.Duration, check func(*snapshot.Report) error) *snapshot.Report {
	j.t.Helper()
	var last *snapshot.Report
	lab.Eventually(j.t, within, func() error {
		all := j.all()
		if len(all) == 0 {
			return errors.New("no report yet")
		}
		last = all[len(all)-1]
		if err := check(last); err != nil {
			return fmt.Errorf("%w; found: %s", err, brief(last))
		}
		return nil
	})
	return last
}

// finds waits for a finding about a port, by any of these rules, that names a
// process ("": whichever), and returns it with its report.
func (j *judging) finds(port uint16, process string, ids ...string) (*snapshot.Report, *snapshot.Finding) {
	j.t.Helper()
	var f *snapshot.Finding
	r := j.eventually(2*time.Minute, func(r *snapshot.Report) error {
		if f = found(r, port, ids...); f == nil || process != "" && f.Subject.Process != process {
			return fmt.Errorf("no %v about port %d and %q", ids, port, process)
		}
		return nil
	})
	return r, f
}

// looks waits until there are so many reports, and returns them all.
func (j *judging) looks(n int) []*snapshot.Report {
	j.t.Helper()
	j.eventually(2*time.Minute, func(*snapshot.Report) error {
		if got := len(j.all()); got < n {
			return fmt.Errorf("%d looks", got)
		}
		return nil
	})
	return j.all()
}

// rate holds what findings about a port say of closes per second against the
// growth of the kernel's counter, over all looks since the first finding.
func (j *judging) rate(port uint16, counter string) {
	j.t.Helper()
	var sum float64
	var first, last *snapshot.Report
	n := 0
	for _, r := range j.all() {
		f := found(r, port, diagnose.ShortClient)
		if f == nil {
			continue
		}
		if first == nil {
			first = r
			continue
		}
		last = r
		sum += measured(j.t, f, "connections closed")
		n++
	}
	if n < 5 {
		j.t.Fatalf("%d looks with a finding", n)
	}
	a, b := first.Namespaces[0], last.Namespaces[0]
	truth := float64(b.Counters[counter]-a.Counters[counter]) / b.SampledAt.Sub(a.SampledAt).Seconds()
	// Each look tells of 3/4 s: of seven or eight bursts, a tenth of a second apart.
	if said := sum / float64(n); math.Abs(said-truth) > truth*0.15 {
		j.t.Errorf("%v/s is said on the average of %d looks, %s grew by %v/s", said, n, counter, truth)
	}
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

// brief names what a report found.
func brief(r *snapshot.Report) string {
	words := []string{string(r.Verdict)}
	for _, f := range r.Findings {
		word := string(f.Severity) + " " + f.ID
		if f.BecauseOf != "" {
			word += " <- " + f.BecauseOf
		}
		words = append(words, word+": "+f.Summary)
	}
	return strings.Join(words, "\n  ")
}

// measured is a number of a finding's evidence.
func measured(t *testing.T, f *snapshot.Finding, what string) float64 {
	t.Helper()
	for _, e := range f.Evidence {
		if e.What == what {
			return e.Value
		}
	}
	t.Fatalf("%s has no evidence of %q: %+v", f.ID, what, f.Evidence)
	return 0
}

// advised is a recommendation of a finding.
func advised(t *testing.T, f *snapshot.Finding, id string) *snapshot.Recommendation {
	t.Helper()
	var ids []string
	for i := range f.Recommendations {
		if f.Recommendations[i].ID == id {
			return &f.Recommendations[i]
		}
		ids = append(ids, f.Recommendations[i].ID)
	}
	t.Fatalf("%s doesn't recommend %s, but %v", f.ID, id, ids)
	return nil
}

// daemon runs a program in the namespace until the test's end, which waits for
// it. hangUp sends a signal.
func daemon(t *testing.T, ns *lab.Namespace, args ...string) (signal func(syscall.Signal)) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		if err := cmd.Wait(); t.Failed() {
			said := out.String()
			t.Logf("%s: %v\n%s", args[0], err, said[:min(len(said), 2000)])
		}
	})
	return func(s syscall.Signal) {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
}

// listens waits until something accepts connections there.
func listens(t *testing.T, ns *lab.Namespace, at string) {
	t.Helper()
	lab.Eventually(t, 30*time.Second, func() error {
		c, err := ns.Open(addrPort(at), lab.ConnOptions{})
		if err != nil {
			return err
		}
		return c.Reset() // leaves no TIME_WAIT
	})
}
