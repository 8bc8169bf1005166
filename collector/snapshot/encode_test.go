package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func encoded(t testing.TB, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func indented(t testing.TB, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := EncodeIndent(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	const golden = "testdata/full.json"
	got := indented(t, full(t))
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		if err := os.WriteFile(golden+".got", got, 0o644); err != nil {
			t.Error(err)
		}
		t.Errorf("the encoding changed; is that a break of the contract? (-want +got)\n%s", diff)
	}
	r, err := Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(t), r); diff != "" {
		t.Errorf("golden file, decoded (-want +got)\n%s", diff)
	}
}

// Both forms say what encoding/json would say of the same values.
func TestEncodeEqualsEncodingJSON(t *testing.T) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(full(t)); err != nil {
		t.Fatal(err)
	}
	want := b.Bytes()
	for name, got := range map[string][]byte{"line": encoded(t, full(t)), "indented": indented(t, full(t))} {
		if diff := cmp.Diff(generic(t, want), generic(t, got)); diff != "" {
			t.Errorf("%s (-encoding/json +ours)\n%s", name, diff)
		}
	}
	line := encoded(t, full(t))
	if n := bytes.Count(line, []byte("\n")); n != 1 || line[len(line)-1] != '\n' {
		t.Errorf("%d line feeds in a line", n)
	}
	if diff := cmp.Diff(string(want), string(line)); diff != "" {
		t.Errorf("bytes (-encoding/json +ours)\n%s", diff)
	}
}

func generic(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// contract lists the keys that users' programs may rely on. None may ever go.
func contract() []string {
	list := []string{
		"schema", "version", "host", "kernel", "time", "took_seconds", "verdict",
		"incomplete.stage", "incomplete.namespace", "incomplete.error", "incomplete.lost", "incomplete.fix", "not_judged",
		"namespaces.name", "namespaces.inode", "namespaces.kind", "namespaces.sampled_at",
		"namespaces.limits.tcp_max_tw_buckets", "namespaces.limits.ip_local_port_range",
		"namespaces.limits.ip_local_reserved_ports", "namespaces.limits.tcp_tw_reuse",
		"namespaces.limits.tcp_tw_reuse_delay", "namespaces.limits.tcp_timestamps", "namespaces.limits.tcp_fin_timeout",
		"namespaces.counters.TW", "namespaces.counters.TWRecycled", "namespaces.counters.TCPTimeWaitOverflow",
		"namespaces.time_wait.buckets_used", "namespaces.time_wait.buckets_limit", "namespaces.time_wait.opened_per_second",
		"namespaces.omitted.flows",
		"findings.id", "findings.severity", "findings.namespace", "findings.summary", "findings.because_of",
		"findings.recommendations.id", "findings.recommendations.title", "findings.recommendations.do",
		"findings.recommendations.snippet", "findings.recommendations.effect",
		"findings.recommendations.caveats", "findings.recommendations.references",
	}
	for _, key := range []string{"side", "local", "remote", "port", "service", "process"} {
		list = append(list, "findings.subject."+key)
	}
	for _, key := range []string{"what", "value", "unit", "source"} {
		list = append(list, "findings.evidence."+key)
	}
	for _, key := range []string{
		"side", "device", "local", "remote", "port", "service", "service_by", "close_rate", "survivors_only", "mean_lifetime_seconds",
		"ports.range", "ports.reserved", "ports.blocked", "ports.used", "ports.reusable", "ports.free", "ports.at_most",
		"ports.seconds_to_exhaustion", "close_wait.sockets", "close_wait.oldest_seconds", "close_wait.unread", "close_wait.unaccepted",
		"processes.pid", "processes.comm", "processes.exe", "processes.cgroup", "processes.sockets", "processes.share", "processes.by",
		"attributed",
	} {
		list = append(list, "namespaces.flows."+key)
	}
	for _, key := range []string{
		"established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait",
		"close", "close_wait", "last_ack", "listen", "closing",
	} {
		list = append(list, "namespaces.states."+key, "namespaces.flows.states."+key, "namespaces.omitted.states."+key)
	}
	return list
}

func TestContract(t *testing.T) {
	have := map[string]bool{}
	var collect func(prefix string, v any)
	collect = func(prefix string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				have[prefix+key] = true
				collect(prefix+key+".", value)
			}
		case []any:
			for _, value := range v {
				collect(prefix, value)
			}
		}
	}
	collect("", generic(t, encoded(t, full(t))))
	for _, key := range contract() {
		if !have[key] {
			t.Errorf("the key %s is missing", key)
		}
	}
}

// An empty report shows its lists as lists, and its unknowns as null.
func TestEncodeNothing(t *testing.T) {
	r := &Report{
		Schema: Schema, Verdict: Healthy, Namespaces: []*Namespace{{Flows: []Flow{{}}}},
		Findings: []Finding{{Severity: Info, Recommendations: []Recommendation{{}}}},
	}
	got := string(encoded(t, r))
	for _, want := range []string{
		`"incomplete":[]`, `"not_judged":[]`, `"opened_per_second":[]`, `"processes":[]`, `"counters":{}`,
		`"evidence":[]`, `"caveats":[]`, `"references":[]`, `"close_rate":null`, `"buckets_limit":null`, `"attributed":null`,
		`"time":"0001-01-01T00:00:00Z"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, `"since"`) || strings.Contains(got, `"listeners"`) {
		t.Errorf("an empty optional key in %s", got)
	}
	if got := string(encoded(t, &Report{Schema: Schema})); !strings.Contains(got, `"namespaces":[],"findings":[]`) {
		t.Errorf("no empty lists in %s", got)
	}
}

// What is no number is null, and never a number.
func TestEncodeNoNumber(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64} {
		r := full(t)
		r.TookSeconds = f
		r.Thresholds["ports.warning"] = f
		r.Namespaces[0].Flows[0].CloseRate = &f
		r.Findings[0].Evidence[0].Value = f
		line := encoded(t, r)
		for _, want := range []string{`"took_seconds":null`, `"close_rate":null`, `"value":null`, `"thresholds":{"ports.critical":0.8}`} {
			if !bytes.Contains(line, []byte(want)) {
				t.Errorf("%v: no %s in %s", f, want, line)
			}
		}
		back, err := Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := back.Namespaces[0].Flows[0].CloseRate; got != nil {
			t.Errorf("%v came back as %v", f, *got)
		}
	}
}

func TestEncodeStrings(t *testing.T) {
	tests := []struct{ in, want string }{
		{`plain "quoted" \ back`, `plain \"quoted\" \\ back`},
		{"tab\tline\nreturn\r", `tab\tline\nreturn\u000d`},
		{"\x1b[31mred\x00\x7f", `\u001b[31mred\u0000\u007f`},
		{"bidi \u202e\u2066\u200f\u061c", `bidi \u202e\u2066\u200f\u061c`},
		{"line\u2028para\u2029c1\u009b", `line\u2028para\u2029c1\u009b`},
		{"bad \xff\xfe utf-8", `bad \ufffd\ufffd utf-8`},
		{"naïve Ω 漢字 🙂 <&>", "naïve Ω 漢字 🙂 <&>"},
		{"tag \U000e0041", `tag \udb40\udc41`},
	}
	for _, tt := range tests {
		got := appendString(nil, tt.in)
		if string(got) != `"`+tt.want+`"` {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
		var back string
		if err := json.Unmarshal(got, &back); err != nil || back != strings.ToValidUTF8(strings.ReplaceAll(tt.in, "\xff\xfe", "\ufffd\ufffd"), "\ufffd") {
			t.Errorf("%q reads back as %q, %v", tt.in, back, err)
		}
	}
}

// A long string is cut so that it can be read back, whatever it is made of.
func TestEncodeLongString(t *testing.T) {
	for _, in := range []string{
		strings.Repeat("x", MaxString), strings.Repeat("x", MaxString+1), strings.Repeat("\xff", MaxString), strings.Repeat("漢", MaxString),
		strings.Repeat("\x1b", 3*MaxString),
	} {
		r := full(t)
		r.Namespaces[0].Flows[0].Processes[0].Exe = in
		back, err := Decode(encoded(t, r))
		if err != nil {
			t.Fatal(err)
		}
		got := back.Namespaces[0].Flows[0].Processes[0].Exe
		if whole := len(in) == MaxString && in[0] == 'x'; whole != (got == in) || !whole && !strings.HasSuffix(got, "…") || len(got) < MaxString-8 {
			t.Errorf("%d bytes of %q came back as %d", len(in), in[:3], len(got))
		}
	}
}

// What Decode would refuse is not written, not even in part.
func TestEncodeRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Report)
		want   string
	}{
		{"flows", func(r *Report) { r.Namespaces[1].Flows = make([]Flow, MaxFlows+1) }, "namespaces[1].flows: 1001 elements: at most 1000 are allowed"},
		{"severity", func(r *Report) { r.Findings[0].Severity = "bad\x1b" }, `findings[0].severity: unknown severity "bad\u001b"`},
		{"healthy finding", func(r *Report) { r.Findings[0].Severity = Healthy }, `unknown severity "healthy"`},
		{"null", func(r *Report) { r.Namespaces[1] = nil }, "namespaces[1]: null"},
		{"year", func(r *Report) { r.Namespaces[0].SampledAt = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) }, "namespaces[0].sampled_at: the year 12026"},
		{"rows", func(r *Report) {
			n := &Namespace{Flows: make([]Flow, MaxFlows)}
			for range 140 {
				r.Namespaces = append(r.Namespaces, n)
			}
		}, "more than 131072 rows in all"},
		{"size", func(r *Report) { r.Findings[0].Recommendations = largeRecommendations() }, "larger than 16 MiB"},
	}
	for _, tt := range tests {
		r := full(t)
		tt.change(r)
		var b bytes.Buffer
		err := Encode(&b, r)
		if err == nil || !strings.Contains(err.Error(), tt.want) || b.Len() > 0 {
			t.Errorf("%s: got %d bytes and %q, want none and %q", tt.name, b.Len(), err, tt.want)
		}
	}
}

func largeRecommendations() []Recommendation {
	text := strings.Repeat("\x01", MaxString) // 6 bytes each, escaped
	return slicesRepeat(Recommendation{Title: text, Do: text, Snippet: text}, 256)
}

func slicesRepeat[T any](v T, n int) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = v
	}
	return list
}

type failingWriter struct{ calls int }

func (w *failingWriter) Write([]byte) (int, error) {
	w.calls++
	return 0, errors.New("no room")
}

func TestEncodeWritesOnce(t *testing.T) {
	w := &failingWriter{}
	if err := Encode(w, full(t)); err == nil || w.calls != 1 {
		t.Errorf("%d calls, %v; want one, and its error", w.calls, err)
	}
}

// large is a report at the model's bounds for one namespace.
func large(tb testing.TB) *Report {
	tb.Helper()
	n := &Namespace{Name: "host", Kind: "host", TimeWait: TimeWait{OpenedPerSecond: minute(9000)}}
	for i := range MaxFlows {
		f := redisFlow()
		f.Remote = fmt.Sprintf("10.9.%d.%d", i/250, i%250)
		n.Flows = append(n.Flows, f)
	}
	return &Report{Schema: Schema, Verdict: Healthy, Namespaces: []*Namespace{n}}
}

func BenchmarkEncode(b *testing.B) {
	r := large(b)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(encoded(b, r))))
	}
}

func BenchmarkEncodingJSON(b *testing.B) {
	r := large(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	line := encoded(b, large(b))
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
