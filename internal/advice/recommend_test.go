package advice

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/sysctl"
)

func ids(recommendations []snapshot.Recommendation) []string {
	var out []string
	for _, r := range recommendations {
		out = append(out, r.ID)
	}
	return out
}

func redis() Situation {
	s := *sample()
	s.Local = false
	s.Service, s.ServiceBy = "redis", ByPort
	return s
}

func TestRecommend(t *testing.T) {
	l := loaded(t)
	nginx := func(version string) func(*Situation) {
		return func(s *Situation) {
			s.Service, s.Runtime, s.RuntimeVersion = "http", "nginx", version
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Situation)
		want   []string
	}{
		{"redis by its port alone", func(*Situation) {}, []string{"reuse-connections", "one-client-per-process", "more-addresses", "wider-port-range", "tw-reuse"}},
		{
			"php to redis",
			func(s *Situation) { s.Runtime = "php-fpm" },
			[]string{"phpredis-pconnect", "one-client-per-process", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"},
		},
		{
			"php to redis on the same host",
			func(s *Situation) {
				s.Runtime, s.Remote = "php-fpm", netip.MustParseAddrPort("127.0.0.1:6379")
			},
			[]string{"phpredis-pconnect", "one-client-per-process", "reuse-connections", "unix-socket"},
		},
		{
			"go to redis",
			func(s *Situation) { s.Runtime = "go" },
			[]string{"go-redis-pool", "one-client-per-process", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"},
		},
		{"nginx, old", nginx("1.22.1"), []string{"nginx-upstream-keepalive", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"}},
		{"nginx, new", nginx("1.29.7"), []string{"nginx-upstream-size", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"}},
		{"nginx, unknown", nginx(""), []string{"nginx-upstream-keepalive", "nginx-upstream-size", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"}},
		{
			"nginx, to a port that tells nothing",
			func(s *Situation) { s.Service, s.ServiceBy, s.Runtime, s.RuntimeVersion = "", "", "nginx", "1.22.1" },
			[]string{"nginx-upstream-keepalive", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"},
		},
		{
			"few ports are taken",
			func(s *Situation) { s.Numbers.Rate, s.Numbers.TimeWait = new(40.0), new(2400) },
			[]string{"reuse-connections", "one-client-per-process"},
		},
		{
			"many ports are taken, though they are taken over",
			func(s *Situation) { s.Numbers.Rate, s.Numbers.TWReuse = new(3000.0), new(1) },
			[]string{"reuse-connections", "one-client-per-process", "more-addresses", "wider-port-range"},
		},
		{
			"few ports are taken, since the server closes",
			func(s *Situation) { s.Numbers.TimeWait = new(100) },
			[]string{"reuse-connections", "one-client-per-process"},
		},
		{
			"reuse is on, the range is wide",
			func(s *Situation) {
				s.Numbers.TWReuse, s.Numbers.Range = new(1), &sysctl.PortRange{Low: 10240, High: 65535}
			},
			[]string{"reuse-connections", "one-client-per-process"},
		},
		{
			"ports run out, PHP to redis",
			func(s *Situation) { s.Pattern, s.Runtime = Ports, "php-fpm" },
			[]string{"phpredis-pconnect", "one-client-per-process", "reuse-connections", "more-addresses", "wider-port-range", "tw-reuse"},
		},
		{
			"loopback, where reuse is the default",
			func(s *Situation) {
				s.Pattern, s.Service, s.Remote = Ports, "", netip.MustParseAddrPort("[::ffff:127.0.0.1]:4000")
			},
			[]string{"reuse-connections", "unix-socket", "more-addresses", "wider-port-range"},
		},
		{"harmless", func(s *Situation) { s.Pattern, s.Side = Harmless, snapshot.Server }, []string{"nothing-to-do"}},
		{
			"a leak in Go",
			func(s *Situation) { s.Pattern, s.Runtime = CloseWaitLeak, "go" },
			[]string{"go-close-body", "close-the-socket"},
		},
		{"a leak, process unknown", func(s *Situation) { s.Pattern = CloseWaitLeak }, []string{"close-the-socket"}},
		{
			"a server that closes, nginx",
			func(s *Situation) {
				s.Pattern, s.Side, s.Service, s.ServiceBy, s.Runtime = ServerCloses, snapshot.Server, "http", ByProcess, "nginx"
			},
			[]string{"nginx-server-keepalive", "proxy-in-front", "server-closes-fix"},
		},
		{"unknown pattern", func(s *Situation) { s.Pattern = "no-such" }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := redis()
			tt.change(&s)
			if diff := cmp.Diff(tt.want, ids(l.Recommend(s))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// By a port alone a service is only "usually"; with the process it is said
// plainly. The server's limit stands beside every pool.
func TestHowSureAdviceIs(t *testing.T) {
	l := loaded(t)
	s := redis()
	byPort := l.Recommend(s)[1] // after what fits whatever it is
	if !strings.HasPrefix(byPort.Do, "Port 6379 is usually Redis; nothing else tells so here. The protocol ") {
		t.Errorf("by port: %q", byPort.Do)
	}
	s.Runtime = "php-fpm"
	sure := l.Recommend(s)[0]
	if sure.Snippet != "$r->pconnect('10.0.0.9', 6379);" {
		t.Errorf("snippet: %q", sure.Snippet)
	}
	if all := strings.Join(sure.Caveats, "\n"); !strings.Contains(all, "CONFIG GET maxclients") || !strings.Contains(all, "Processes x pool size") {
		t.Errorf("no word on the server's limit: %q", all)
	}
	s.ServiceBy = ByConfig
	if do := l.Recommend(s)[0].Do; strings.Contains(do, "usually") {
		t.Errorf("by config: %q", do)
	}
}

// Where the version isn't known, both remedies are told, the older setting
// first whatever their order in the file, and each says what it is for.
func TestVersionUnknown(t *testing.T) {
	const file = `remedies:
- {id: own-new, title: T, order: reuse, when: {patterns: [no-pool], runtimes: [nginx], from: "2.1"}, do: New., references: [{title: t, url: 'https://a.example'}]}
- {id: own-mid, title: T, order: reuse, when: {patterns: [no-pool], runtimes: [nginx], from: "1.10", before: "2.1"}, do: Mid., references: [{title: t, url: 'https://a.example'}]}
- {id: own-old, title: T, order: reuse, when: {patterns: [no-pool], runtimes: [nginx], before: "1.10"}, do: Old., references: [{title: t, url: 'https://a.example'}]}
`
	l := loaded(t, File{"own.yaml", []byte(file)})
	for version, want := range map[string][]string{
		"": {
			"For nginx before 1.10 (the version here is not known). Old.",
			"For nginx from 1.10 to before 2.1 (the version here is not known). Mid.",
			"For nginx 2.1 and later (the version here is not known). New.",
		},
		"mainline": {
			"For nginx before 1.10 (the version here is not known). Old.",
			"For nginx from 1.10 to before 2.1 (the version here is not known). Mid.",
			"For nginx 2.1 and later (the version here is not known). New.",
		},
		"1.9.15": {"Old."}, "1.10": {"Mid."}, "1.21.4.1": {"Mid."}, "2.1": {"New."}, "11.0": {"New."},
	} {
		s := redis()
		s.Service, s.Runtime, s.RuntimeVersion = "", "nginx", version
		var got []string
		for _, r := range l.Recommend(s) {
			if strings.HasPrefix(r.ID, "own-") {
				got = append(got, r.Do)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", version, diff)
		}
	}
}

// What cures goes before what only helps, whoever wrote it; and there is an end.
func TestOrderAndBound(t *testing.T) {
	var b strings.Builder
	b.WriteString("remedies:\n")
	for i, order := range []string{"never", "limit", "tw-reuse", "wider-range", "more-tuples", "unix-socket", "reuse", "reuse"} {
		fmt.Fprintf(&b, "- {id: own-%d-%s, title: T, order: %s, when: {patterns: [harmless]}, do: D, references: [{title: t, url: 'https://a.example'}]}\n", i, order, order)
	}
	got := ids(loaded(t, File{"own.yaml", []byte(b.String())}).Recommend(Situation{Pattern: Harmless}))
	want := []string{"own-6-reuse", "own-7-reuse", "nothing-to-do", "own-5-unix-socket", "own-4-more-tuples", "own-3-wider-range"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every remedy for a setting prints what it is, how to make it last, how to
// take it back, and where it reaches.
func TestSysctlRemedies(t *testing.T) {
	l := loaded(t)
	for _, m := range l.allRemedies() {
		if len(m.Sysctls) == 0 {
			continue
		}
		s := sample()
		s.Numbers.Syncookies, s.Numbers.Timestamps = new(0), new(0)
		d := s.fill()
		snippet := m.sysctlSnippet(d)
		for _, set := range m.Sysctls {
			for _, want := range []string{"# now: " + set.Name + " = ", "\n" + set.Name + " = ", "#   sysctl -w " + set.Name + "=\"", sysctlFile, "to undo"} {
				if !strings.Contains(snippet, want) {
					t.Errorf("%s: no %q in\n%s", m.ID, want, snippet)
				}
			}
		}
		caveats := strings.Join(m.sysctlCaveats(d), "\n")
		if !strings.Contains(caveats, "namespace") || !strings.Contains(caveats, "Kubernetes") {
			t.Errorf("%s: caveats %q", m.ID, caveats)
		}
		// Without the present value there is no undo that could be wrong.
		if snippet := m.sysctlSnippet((&Situation{}).fill()); strings.Contains(snippet, "=\"") || strings.Contains(snippet, "<") {
			t.Errorf("%s: made up a value:\n%s", m.ID, snippet)
		}
	}
}

func TestWiderRange(t *testing.T) {
	reserved, err := sysctl.ParsePortSet("8080,12000-12002")
	if err != nil {
		t.Fatal(err)
	}
	s := redis()
	s.Numbers.Reserved, s.Numbers.Kubernetes, s.Numbers.Listeners = &reserved, true, []uint16{22, 27017, 27017, 15001}
	var got snapshot.Recommendation
	for _, r := range loaded(t).Recommend(s) {
		if r.ID == "wider-port-range" {
			got = r
		}
	}
	const want = `# now: net.ipv4.ip_local_reserved_ports = 8080,12000-12002
# now: net.ipv4.ip_local_port_range = 32768 60999
# lines of /etc/sysctl.d/90-twwatch.conf, in this order:
net.ipv4.ip_local_reserved_ports = 8080,12000-12002,15001,27017,30000-32767
net.ipv4.ip_local_port_range = 15000 65535
# to apply: sysctl -p /etc/sysctl.d/90-twwatch.conf
# to undo: delete the lines, then
#   sysctl -w net.ipv4.ip_local_reserved_ports="8080,12000-12002"
#   sysctl -w net.ipv4.ip_local_port_range="32768 60999"`
	if diff := cmp.Diff(want, got.Snippet); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What is reserved already isn't written again, nor spoken of.
	s.Numbers.Listeners, s.Numbers.Kubernetes, s.Numbers.OwnPort = []uint16{22, 8080}, false, 0
	for _, r := range loaded(t).Recommend(s) {
		if r.ID == "wider-port-range" && (strings.Contains(r.Do, "line below") || strings.Contains(r.Snippet, "reserved") || strings.Contains(strings.Join(r.Caveats, ""), "reserved")) {
			t.Errorf("nothing is to be reserved: %+v", r)
		}
	}
	s.Numbers.Reserved = nil // unknown: writing the list could lose what is there
	for _, r := range loaded(t).Recommend(s) {
		if r.ID == "wider-port-range" {
			t.Error("recommended without knowing the reserved ports")
		}
	}
}

// Text that needs a number which isn't known is left out; nothing is left of a
// template, with all numbers or with none.
func TestNoLeftovers(t *testing.T) {
	l := loaded(t)
	situations := map[string]Situation{"all": *sample(), "none": {}}
	for name, base := range situations {
		for _, m := range l.allRemedies() {
			for _, pattern := range m.When.Patterns {
				s := base
				s.Pattern, s.Side, s.Local = pattern, snapshot.Side(m.When.Side), true
				d := s.fill()
				if name == "none" && !m.applies(d) {
					continue
				}
				checkText(t, name+" "+m.ID, l.recommend(m, &s, d))
			}
		}
	}
}

func checkText(t *testing.T, name string, r snapshot.Recommendation) {
	t.Helper()
	if r.Do == "" {
		t.Errorf("%s: says nothing to do", name)
	}
	for _, text := range append([]string{r.Title, r.Do, r.Effect}, r.Caveats...) {
		if strings.Contains(text, "\n") {
			t.Errorf("%s: more than one line: %q", name, text)
		}
	}
	for _, text := range append([]string{r.Title, r.Do, r.Snippet, r.Effect}, r.Caveats...) {
		for _, bad := range []string{"{{", "}}", "<no value>", "<nil>", "%!", "NaN", "  \n"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: %q in %q", name, bad, text)
			}
		}
	}
	for line := range strings.Lines(r.Snippet) {
		if utf8.RuneCountInString(line) > Columns+20 {
			t.Errorf("%s: a long line in the snippet: %q", name, line)
		}
	}
}

// Whatever strings the host supplies: none of them gets into a recommendation.
func FuzzRecommendHostile(f *testing.F) {
	f.Add("\x1b[2J$(reboot)", "redis", "eth0;reboot", uint16(6379))
	f.Add("`id`", "no-such", "%s", uint16(0))
	f.Add("{{.PoolSize}}", "http", "a b", uint16(80))
	l := loaded(f)
	f.Fuzz(func(t *testing.T, hostile, service, zone string, port uint16) {
		const mark = "\u2603hostile"
		evil := mark + hostile
		for _, pattern := range Patterns() {
			s := *sample()
			s.Pattern, s.ServiceBy, s.Runtime, s.RuntimeVersion, s.NamespaceKind = pattern, evil, evil, evil, evil
			s.Service = service
			s.Remote = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(mark+zone), port)
			for _, r := range l.Recommend(s) {
				if text := fmt.Sprint(r); strings.Contains(text, mark) {
					t.Fatalf("a host's string in %q", text)
				}
				checkText(t, r.ID, r)
			}
			s.Service, s.Runtime = evil, "go"
			for _, r := range l.Recommend(s) {
				if text := fmt.Sprint(r); strings.Contains(text, mark) {
					t.Fatalf("a host's string in %q", text)
				}
			}
		}
		id, name := l.Runtime(ProcessHints{Comm: evil, Exe: "/" + evil, Title: "nginx: " + evil, GoBuild: evil, Script: evil})
		if strings.Contains(id+name, mark) {
			t.Fatalf("a host's string in %q, %q", id, name)
		}
	})
}
