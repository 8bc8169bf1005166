package advice

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

func written(t *testing.T, text Text) string {
	t.Helper()
	var b strings.Builder
	if err := text.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExplainTexts(t *testing.T) {
	l := loaded(t)
	for _, id := range []string{"time-wait", "close-wait", "syn-retries", "ephemeral-ports-exhausted", "nginx-upstream-keepalive", "wider-port-range", "redis", "php-fpm"} {
		var b strings.Builder
		for _, text := range l.Explain(id) {
			b.WriteString(written(t, text))
		}
		golden(t, "testdata/explain/"+id+".golden", b.String())
	}
}

// All texts fit a terminal of 80 columns and need no more than ASCII.
func TestTextsFit(t *testing.T) {
	l := loaded(t)
	for _, i := range l.IDs() {
		for _, text := range l.Explain(i.Kind + ":" + i.ID) {
			text.Now = []Fact{{"a fact", "1"}}
			verbatim := text.Kind == KindRemedy || text.Kind == KindService
			for line := range strings.Lines(written(t, text)) {
				line = strings.TrimRight(line, "\n")
				if n := utf8.RuneCountInString(line); n > Columns && !strings.Contains(line, "://") && !(verbatim && strings.HasPrefix(line, "    ")) {
					t.Errorf("%s %s: %d columns: %q", i.Kind, i.ID, n, line)
				}
				if strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
					t.Errorf("%s %s: not ASCII: %q", i.Kind, i.ID, line)
				}
				if strings.TrimRight(line, " ") != line {
					t.Errorf("%s %s: space at the end: %q", i.Kind, i.ID, line)
				}
			}
			if strings.TrimSpace(text.Says) == "" {
				t.Errorf("%s %s: says nothing", i.Kind, i.ID)
			}
			if i.Kind != KindFinding && len(text.References) == 0 {
				t.Errorf("%s %s: no source", i.Kind, i.ID)
			}
		}
	}
}

func TestList(t *testing.T) {
	var b strings.Builder
	l := loaded(t)
	if err := WriteIDs(&b, l.IDs()); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > Columns {
			t.Errorf("too wide: %q", line)
		}
	}
	golden(t, "testdata/list.golden", b.String())
}

func TestSuggest(t *testing.T) {
	l := loaded(t)
	for id, want := range map[string][]string{
		"timewait":   {"time-wait"},
		"TIME_WAIT":  {"time-wait"},
		"close-wiat": {"close-wait"},
		"syncookies": {"syn-cookies"},
		"postgres":   {"postgres"},
		"redi":       {"redis"},
		"qqqqqqqqqq": nil,
		"":           nil,
	} {
		got := l.Suggest(id)
		if want == nil && got != nil || want != nil && (len(got) == 0 || got[0] != want[0]) {
			t.Errorf("Suggest(%q) = %q, want %q first", id, got, want)
		}
	}
	if got := l.Explain("no-such"); got != nil {
		t.Errorf("Explain of what isn't there: %+v", got)
	}
	for _, id := range []string{"TIME_WAIT", "Time-Wait", "topic:TIME_WAIT"} {
		if got := l.Explain(id); len(got) != 1 || got[0].ID != "time-wait" {
			t.Errorf("Explain(%q): %+v", id, got)
		}
	}
	// A service and a runtime of one name are both shown.
	if got := l.Explain("memcached"); len(got) != 2 || got[0].Kind == got[1].Kind {
		t.Errorf("memcached: %d texts", len(got))
	}
}

func TestNow(t *testing.T) {
	r := &snapshot.Report{
		HostLimits: &sysctl.HostLimits{TCPMaxOrphans: new(131072)},
		Namespaces: []*snapshot.Namespace{{
			States:   snapshot.States{TimeWait: 28000},
			Counters: counters.Set{"TW": 1234567},
			Limits:   sysctl.Limits{TCPSynackRetries: new(5), IPLocalPortRange: &sysctl.PortRange{Low: 32768, High: 60999}},
			TimeWait: snapshot.TimeWait{BucketsUsed: 28000, BucketsLimit: new(131072), CloseRate: new(470.0)},
			Flows:    []snapshot.Flow{{Side: snapshot.Server}, {Ports: &snapshot.Ports{Range: 28232, Free: 232}}},
		}},
	}
	names := []string{
		"state.time_wait", "limit.tcp_fin_timeout", "counter.TW", "host.tcp_max_orphans", "value.buckets", "value.close-rate",
		"value.half-open-life", "value.connect-life", "value.port-range", "value.fullest-flow", "value.conntrack",
	}
	want := []Fact{
		{"sockets in TIME_WAIT", "28,000"},
		{"tcp_fin_timeout", notKnown},
		{"counter TW since boot", "1,234,567"},
		{"tcp_max_orphans", "131,072"},
		{"TIME_WAIT buckets in use", "28,000 of 131,072"},
		{"connections that end in TIME_WAIT here", "470/s"},
		{"a half-open handshake lives (from tcp_synack_retries)", "1 min 3 s"},
		{"connect() gives up after, at least (from tcp_syn_retries)", notKnown},
		{"ip_local_port_range", "32768-60999, 28,232 ports"},
		{"ports that the fullest client flow can't use now", "28,000 of 28,232"},
		{"conntrack entries", "conntrack is not loaded here, or can't be read"},
	}
	if diff := cmp.Diff(want, Now(names, r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Now(names, nil); got != nil {
		t.Errorf("without a report: %v", got)
	}
}

// What an operator's file holds can't steer the terminal.
func TestExplainEscapes(t *testing.T) {
	l, err := Load(File{Name: "own.yaml", Data: []byte(`remedies:
  - id: own
    title: "a title\e[31m"
    order: fix
    when: {patterns: [harmless]}
    do: "do\e[2J this\u202e"
    snippet: "a\n\tb\e[0m"
    references: [{title: "a source", url: "https://example.com/"}]
`)})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, text := range l.Explain("own") {
		text.Now, text.NowMissing = []Fact{{"a fact", "1\x1b"}}, "it\x1bfailed"
		b.WriteString(written(t, text))
	}
	if err := WriteIDs(&b, l.IDs()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`a title\x1b[31m`, `do\x1b[2J this\u202e`, `        b\x1b[0m`, `1\x1b`, `it\x1bfailed`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	if strings.ContainsAny(b.String(), "\x1b\t\u202e") {
		t.Errorf("not escaped: %q", b.String())
	}
}
