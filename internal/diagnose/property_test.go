package diagnose

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/sysctl"
)

// Every finding has an explanation, and every explanation a rule.
func TestFindingsAreExplained(t *testing.T) {
	explained := slices.Sorted(slices.Values(advice.Findings()))
	if diff := cmp.Diff(explained, IDs()); diff != "" {
		t.Errorf("explained and found (-want +got):\n%s", diff)
	}
}

// evil is what a host may name things.
const evil = "\x1b[31m$(reboot)\u202e`\n"

// A forge makes reports that no host would send, all of one seed alike.
type forge struct{ *rand.Rand }

func (g forge) pick(words ...string) string { return words[g.IntN(len(words))] }

// fill gives every field of v a value: often a plausible one, at times an
// extreme one.
func (g forge) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(g.IntN(900)), 0).UTC()))
		return
	case sysctl.PortSet:
		set, _ := sysctl.ParsePortSet(g.pick("", "6379", "32768-40000"))
		v.Set(reflect.ValueOf(set))
		return
	case snapshot.Severity:
		v.SetString(g.pick("info", "warning", "critical"))
		return
	case snapshot.Side:
		v.SetString(g.pick("client", "server", "unknown"))
		return
	case counters.Set:
		set := counters.Set{}
		for _, name := range counters.Names() {
			if g.IntN(5) > 0 {
				set[name] = uint64(g.number())
			}
		}
		v.Set(reflect.ValueOf(set))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if g.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			g.fill(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				g.fill(v.Field(i))
			}
		}
	case reflect.Slice:
		n := g.IntN(8)
		if v.Type().Elem().Kind() == reflect.Uint32 && g.IntN(8) > 0 {
			n = 60
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			g.fill(v.Index(i))
		}
	case reflect.String:
		v.SetString(g.pick("", "10.0.0.5", "10.0.0.9", "127.0.0.1", "10.0.1.0/24", "::1", "0.0.0.0:6379", "[::]:50051", "redis", "nginx", "port", "process", "inode", evil))
	case reflect.Uint16:
		v.SetUint([]uint64{0, 80, 6379, 50051, 65535}[g.IntN(5)])
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(uint32(g.number())))
	case reflect.Int:
		v.SetInt(int64(g.number()))
	case reflect.Float64:
		v.SetFloat([]float64{0, 0.5, 9.5, 12, 470, 1e308, -3, float64(g.IntN(60000))}[g.IntN(8)])
	case reflect.Bool:
		v.SetBool(g.IntN(2) == 0)
	case reflect.Array:
		for i := range v.Len() {
			g.fill(v.Index(i))
		}
	case reflect.Map:
		// thresholds of the report: judging doesn't read them
	default:
		panic(v.Type().String())
	}
}

func (g forge) number() int {
	switch g.IntN(10) {
	case 0:
		return 0
	case 1:
		return math.MaxInt32
	case 2:
		return -1
	case 3, 4, 5:
		return g.IntN(20)
	}
	return g.IntN(70000)
}

func (g forge) window() []*snapshot.Report {
	var window []*snapshot.Report
	var ns snapshot.Namespace
	g.fill(reflect.ValueOf(&ns).Elem())
	for i := range 1 + g.IntN(4) {
		r := &snapshot.Report{}
		g.fill(reflect.ValueOf(r).Elem())
		r.BootID, r.Uptime, r.Schema = "b", float64(100+i*15), snapshot.Schema
		r.Namespaces = nil
		for j := range 1 + g.IntN(2) {
			n := ns // much stays as it was
			n.Flows = slices.Clone(ns.Flows)
			for k := range n.Flows {
				if g.IntN(3) == 0 {
					g.fill(reflect.ValueOf(&n.Flows[k]).Elem())
				}
			}
			g.fill(reflect.ValueOf(&n.Counters).Elem())
			n.Name, n.Inode, n.Cookie = "host", uint64(j), 1
			r.Namespaces = append(r.Namespaces, &n)
		}
		for k := range r.Findings {
			r.Findings[k].ID = g.pick(IDs()...)
			r.Findings[k].Namespace = "host"
		}
		window = append(window, r)
	}
	return window
}

// judgeTwice holds whatever is judged to what every judgement must be.
func judgeTwice(t *testing.T, window []*snapshot.Report, previous []snapshot.Finding, settings Settings) Result {
	t.Helper()
	first, second := Judge(window, previous, settings), Judge(window, previous, settings)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Fatalf("judged twice (-first +second):\n%s", diff)
	}
	count := map[string]int{}
	for _, f := range first.Findings {
		count[f.Namespace+f.ID]++
		switch {
		case !slices.Contains(advice.Findings(), f.ID), rank(f.Severity) < rank(snapshot.Info):
			t.Errorf("%s %q", f.Severity, f.ID)
		case f.Summary == "" || draw.Escape(f.Summary) != f.Summary || strings.Contains(f.Summary, "%!"):
			t.Errorf("%s: %q", f.ID, f.Summary)
		case len(f.Evidence) == 0:
			t.Errorf("%s: no evidence", f.ID)
		}
		for _, e := range f.Evidence {
			if math.IsNaN(e.Value) || math.IsInf(e.Value, 0) || e.What == "" || e.Source == "" {
				t.Errorf("%s: %+v", f.ID, e)
			}
		}
		for _, r := range f.Recommendations {
			if text := r.Title + r.Do + r.Snippet + r.Effect + strings.Join(r.Caveats, ""); strings.Contains(text, "reboot") || strings.Contains(text, "\x1b") {
				t.Errorf("%s: a host's name is in the advice: %q", f.ID, text)
			}
		}
	}
	return first
}

// Whatever a report holds, judging it doesn't panic, gives the same each time,
// and nothing that a host named is in a snippet.
func TestJudgeHolds(t *testing.T) {
	settings := Settings{Advice: library(t), OwnPort: 10060}
	made := map[string]bool{}
	for seed := range uint64(800) {
		g := forge{rand.New(rand.NewPCG(seed, 1))}
		window := g.window()
		var previous []snapshot.Finding
		if n := len(window); n > 1 {
			previous = window[n-2].Findings
		}
		for _, f := range judgeTwice(t, window, previous, settings).Findings {
			made[f.ID] = true
		}
	}
	for _, id := range []string{PortsSlow, PortsExhausted, ShortClient, ShortServer, ShortReset, ShortRemoteCloses, BindFirst, BucketsNear} {
		if !made[id] {
			t.Errorf("no report made %s: the others prove little", id)
		}
	}
}

// A report that somebody sends.
func FuzzJudge(f *testing.F) {
	l, err := advice.Load()
	if err != nil {
		f.Fatal(err)
	}
	for _, sc := range scenarios() {
		var b bytes.Buffer
		last := sc.window[len(sc.window)-1]
		last.Schema = snapshot.Schema
		if err := snapshot.Encode(&b, last); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := snapshot.Decode(data)
		if err != nil {
			return
		}
		earlier := *r
		earlier.Uptime -= 15
		first := judgeTwice(t, []*snapshot.Report{r}, nil, Settings{Advice: l})
		judgeTwice(t, []*snapshot.Report{&earlier, r}, first.Findings, Settings{Advice: l})
	})
}

// Names are data: they are shown, and escaped.
func TestHostileNames(t *testing.T) {
	f := service(by(open(closing("10.0.0.9", 6379, everySecond, 470), 1, new(uint32(0))), evil, "php", 1), "redis", "port")
	res := judgeTwice(t, single(flows(f)), nil, Settings{Advice: library(t)})
	if len(res.Findings) == 0 {
		t.Fatal("nothing found")
	}
	for _, f := range res.Findings {
		if f.Subject.Process != evil || !strings.Contains(f.Summary, `\x1b[31m$(reboot)\u202e`) {
			t.Errorf("%s of %q: %s", f.ID, f.Subject.Process, f.Summary)
		}
	}
}
