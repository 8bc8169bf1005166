package advice

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files and the documents anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", name, diff)
	}
}

// The embedded data is held to all that an operator's files are held to; at run
// time that is not done again.
func TestEmbeddedDataIsInOrder(t *testing.T) {
	l, err := load(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range Patterns() {
		if len(l.remediesFor([]string{pattern})) == 0 {
			t.Errorf("no remedy for the pattern %s", pattern)
		}
	}
	for _, f := range l.teaches().findings {
		if !slices.Contains(Findings(), f.ID) {
			t.Errorf("the finding %s is not in Findings", f.ID)
		}
	}
}

// What diagnose finds, explain explains.
func TestEveryFindingIsExplained(t *testing.T) {
	l := loaded(t)
	for _, id := range Findings() {
		texts := l.Explain(KindFinding + ":" + id)
		if len(texts) != 1 || texts[0].Says == "" || len(texts[0].Sections) < 2 {
			t.Errorf("%s: %+v", id, texts)
		}
	}
}

// Each state and handshake is taught whole: who is in it, for how long, why it
// exists, what makes it pile up, which settings and counters belong to it, with a
// drawing and what to count on this host.
func TestTopicsThere(t *testing.T) {
	l := loaded(t)
	whole := []string{
		"time-wait", "close-wait", "fin-wait-1", "fin-wait-2", "last-ack", "closing", "syn-sent", "syn-recv", "established", "listen",
		"three-way-handshake", "four-way-close", "half-close", "2msl", "syn-flood", "syn-cookies", "initial-sequence-number", "syn-retries",
		"challenge-ack", "fast-open", "why-three", "last-ack-lost", "65535-myth", "nat", "ephemeral-ports", "short-connections",
	}
	for _, id := range slices.Concat(whole, []string{"port-parity", "tw-reuse", "buckets", "conntrack", "sizing"}) {
		texts := l.Explain(KindTopic + ":" + id)
		if len(texts) != 1 {
			t.Errorf("no topic %s", id)
			continue
		}
		if !slices.Contains(whole, id) {
			continue
		}
		for _, heading := range []string{"Who is in it", "For how long", "Why it exists", "What makes it pile up", "Settings", "Counters"} {
			if !slices.ContainsFunc(texts[0].Sections, func(s TextSection) bool { return s.Heading == heading }) {
				t.Errorf("%s: nothing under %q", id, heading)
			}
		}
		if texts[0].Drawing == "" || len(texts[0].NowAsks) == 0 {
			t.Errorf("%s: no drawing, or nothing to count on this host", id)
		}
	}
}

// Whoever reads a sized recommendation finds its sum: from the finding that it is
// for, and in the topic that has them all.
func TestSumsAreExplained(t *testing.T) {
	l := loaded(t)
	sizing := l.Explain(KindTopic + ":sizing")[0]
	sums := slices.IndexFunc(sizing.Sections, func(s TextSection) bool { return s.Heading == "Sums" })
	for _, name := range []string{"pool-size", "time-wait-after", "ports-freed", "time-wait-memory", "rate-ceiling", "conntrack-entries"} {
		f, _ := formula(name)
		if sums < 0 || !slices.ContainsFunc(sizing.Sections[sums].Lines, func(line string) bool { return strings.HasPrefix(line, f.Says) }) {
			t.Errorf("sizing lacks %s", name)
		}
	}
	sized := regexp.MustCompile(`\.(PoolSize|PoolTotal|TimeWaitAfter|Freed|Memory(Low|High)|Ceiling(Now|After|Reuse)|ConntrackHeld)\b`)
	for _, f := range l.teaches().findings {
		for _, m := range l.remediesFor(f.Patterns) {
			text := strings.Join(slices.Concat([]string{m.Do, m.Snippet, m.Effect}, m.Caveats), " ")
			if sized.MatchString(text) && !slices.Contains(f.See, "sizing") {
				t.Errorf("%s: remedy %s has a sized number, and the finding doesn't lead to its sum", f.ID, m.ID)
			}
		}
	}
}

// A library is read in parts when it is used; who comes first doesn't matter.
func TestLoadedByMany(t *testing.T) {
	l := loaded(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s := redis()
			s.Runtime = "php-fpm"
			if got := ids(l.Recommend(s)); len(got) == 0 || got[0] != "phpredis-pconnect" {
				t.Errorf("recommended %q", got)
			}
			if got := l.Explain("time-wait"); len(got) != 1 {
				t.Errorf("%d texts", len(got))
			}
		})
	}
	wg.Wait()
}

// What begins at each start of the program, and what its first finding costs.
func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		loaded(b)
	}
}

func BenchmarkFirstRecommend(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if len(loaded(b).Recommend(redis())) == 0 {
			b.Fatal("nothing recommended")
		}
	}
}

// Files that are wrong, and what is said of each.
func TestOperatorFiles(t *testing.T) {
	names, err := filepath.Glob("testdata/operator/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(err, names)
	}
	var b strings.Builder
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "--- %s\n", filepath.Base(name))
		_, err = Load(File{filepath.Base(name), data})
		switch {
		case strings.HasPrefix(filepath.Base(name), "good"):
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			b.WriteString("accepted\n")
		case err == nil:
			t.Errorf("%s: accepted", name)
		default:
			fmt.Fprintln(&b, err)
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, filepath.Base(name)) {
					t.Errorf("%s: %q doesn't begin with the file's name", name, line)
				}
			}
		}
	}
	golden(t, "testdata/operator.golden", b.String())
}

func TestOperatorFileTooLarge(t *testing.T) {
	if _, err := Load(File{"big.yaml", make([]byte, MaxFile+1)}); err == nil || !strings.Contains(err.Error(), "big.yaml: ") {
		t.Errorf("a file of %d bytes: %v", MaxFile+1, err)
	}
}

// Whatever a file holds: an error that names it, or a library that works.
func FuzzLoad(f *testing.F) {
	names, _ := filepath.Glob("testdata/operator/*.yaml")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	base := loaded(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		// The embedded part is copied: reading it for each input would leave
		// little time for the inputs.
		e := entries{services: slices.Clone(base.services), runtimes: base.runtimes, remedies: slices.Clone(base.allRemedies())}
		if err := e.add(File{"fuzz.yaml", data}, true); err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.Contains(line, "fuzz.yaml") && !strings.Contains(err.Error(), "\n") {
					t.Errorf("an error without the file's name: %q", line)
				}
			}
			return
		}
		l := &Library{services: e.services, runtimes: e.runtimes, lessons: base.lessons}
		l.remedies = func() ([]*Remedy, error) { return e.remedies, nil }
		if l.check(false) != nil {
			return
		}
		for _, pattern := range Patterns() {
			s := sample()
			s.Pattern = pattern
			for _, r := range l.Recommend(*s) {
				if r.ID == "" || r.Title == "" || len(r.References) == 0 {
					t.Errorf("an incomplete recommendation: %+v", r)
				}
			}
		}
		for _, i := range l.IDs() {
			if len(l.Explain(i.Kind+":"+i.ID)) == 0 {
				t.Errorf("%+v is listed and can't be explained", i)
			}
		}
	})
}
