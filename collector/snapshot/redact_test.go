package snapshot

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testRedactor() *Redactor { return NewRedactor([]byte("a key for tests")) }

// originals are what must not be found in the redacted full report.
func originals() []string {
	return []string{
		"web-17", "example.net", "3f0c2f9e", "10.20.30.40", "10.20.30.41", "10.20.30.99", "10.7.8.0", "php", "ens3",
		"1c2d:3eff", "default/cart", "cart", "system.slice",
	}
}

func TestRedact(t *testing.T) {
	r := full(t)
	r.Redacted = false
	// Names in other places than where they are learnt.
	r.Incomplete = append(r.Incomplete, Gap{
		Stage: "dump", Namespace: "gone/pod-7", Error: `setns "default/cart-5d9f/app": dial 10.20.30.99:6379 via ens3, fe80::1c2d:3eff:fe4f:5a6b%ens3: refused`,
		Lost: "gone/pod-7", Fix: "restart php-fpm8.3",
	})
	f := &r.Findings[0]
	f.Evidence[0].Source = "ss -tn dst 10.20.30.99, /usr/sbin/php-fpm8.3, [::ffff:10.20.30.41]"
	f.Recommendations[0].Caveats = append(f.Recommendations[0].Caveats, "10.7.8.0/24 and php8.3-fpm.service too")
	f.Recommendations[0].References = append(f.Recommendations[0].References, "https://10.20.30.40/runbook")
	f.Recommendations[0].Title += " (php-fpm8.3)"
	before := encoded(t, r)
	f.Recommendations[0].References[0] = "https://twwatch.example/phpredis" // an example's own address may stay
	redacted := testRedactor().Redact(r)
	got := string(encoded(t, redacted))
	got = strings.NewReplacer("php-redis-pconnect", "", `"runtime":"php-fpm"`, "", "twwatch.example/phpredis", "").Replace(got) // ids are ours
	for _, original := range originals() {
		if i := strings.Index(got, original); i >= 0 {
			t.Errorf("%q is still in …%s…", original, got[max(0, i-60):min(len(got), i+60)])
		}
	}
	f.Recommendations[0].References[0] = "https://example.org/phpredis"
	if !bytes.Equal(before, encoded(t, r)) {
		t.Error("the original report was changed")
	}
	n, flow := redacted.Namespaces[0], redacted.Namespaces[0].Flows[0]
	want := []string{"host-1", "boot-1", "host", "pod-1", "device-1", "process-1", "/process-1", "/cgroup-1/cgroup-2", "127.0.0.1:9000", "::1"}
	have := []string{
		redacted.Host, redacted.BootID, n.Name, redacted.Namespaces[1].Name, flow.Device, flow.Processes[0].Comm, flow.Processes[0].Exe,
		flow.Processes[0].Cgroup, n.CloseWaits[0].Local, n.Flows[1].Local,
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	subject := redacted.Findings[0].Subject
	if subject.Local != flow.Local || subject.Remote != flow.Remote || subject.Process != "process-1" || subject.Service != "redis" {
		t.Errorf("the finding's subject %+v is not that of the flow %+v", subject, flow)
	}
	if want := "process-1 on host-1 has 332 ports left to " + flow.Remote + ":6379 (redis), for 41 s"; redacted.Findings[0].Summary != want {
		t.Errorf("got %q, want %q", redacted.Findings[0].Summary, want)
	}
	if want := "https://" + flow.Local + "/runbook"; redacted.Findings[0].Recommendations[0].References[1] != want {
		t.Errorf("got %q, want %q", redacted.Findings[0].Recommendations[0].References[1], want)
	}
	if n.Flows[2].Remote == "" || n.Flows[2].Port != 443 || !regexp.MustCompile(`^\d+\.\d+\.\d+\.0/24$`).MatchString(n.Flows[2].Remote) {
		t.Errorf("the prefix became %q", n.Flows[2].Remote)
	}
	socket := n.Sockets[slices.IndexFunc(n.Sockets, func(s Socket) bool { return s.Cookie == 77001 })]
	if socket.Remote != flow.Remote+":6379" || socket.Local != flow.Local+":41234" || socket.Device != flow.Device {
		t.Errorf("the sampled socket %+v is not of the flow %s → %s", socket, flow.Local, flow.Remote)
	}
	if !redacted.Redacted {
		t.Error("the report doesn't say that it is redacted")
	}
	if _, err := Decode(encoded(t, redacted)); err != nil {
		t.Error(err)
	}
}

// The order of a redacted sample doesn't tell which address was the lower one.
func TestRedactOrdersAnew(t *testing.T) {
	r := full(t)
	n := r.Namespaces[0]
	for i := range 20 {
		n.Sockets = append(n.Sockets, Socket{Local: "10.0.0.1:1000", Remote: fmt.Sprintf("10.0.%d.1:80", i)})
	}
	SortSockets(n.Sockets)
	got := testRedactor().Redact(r).Namespaces[0].Sockets
	if !slices.IsSortedFunc(got, func(a, b Socket) int { return strings.Compare(a.Remote, b.Remote) }) {
		t.Errorf("the order is that of the original: %+v", got)
	}
}

// The same becomes the same, in every report; with another key something else.
func TestRedactConsistently(t *testing.T) {
	r := testRedactor()
	first, second := encoded(t, r.Redact(full(t))), encoded(t, r.Redact(full(t)))
	if !bytes.Equal(first, second) {
		t.Error("two reports differ")
	}
	if !bytes.Equal(first, encoded(t, testRedactor().Redact(full(t)))) {
		t.Error("two redactors of one key differ")
	}
	a, b := NewRedactor(nil).Redact(full(t)), NewRedactor(nil).Redact(full(t))
	if a.Namespaces[0].Flows[0].Remote == b.Namespaces[0].Flows[0].Remote {
		t.Error("two random keys are the same")
	}
}

// kept lists the strings of the model that tell nothing of the host. All
// others are replaced: a new one is, or it is added here.
func kept() []string {
	return []string{
		"Report.Schema", "Report.Version", "Report.Kernel", "Report.Verdict", "Report.NotJudged", "Gap.Stage",
		"Namespace.Kind", "Namespace.Source", "Socket.State", "Socket.Timer", "TimeWait.CloseRateBy", "Flow.Side", "Flow.Service", "Flow.ServiceBy", "Process.By",
		"Process.Runtime", "Process.RuntimeVersion", "Workload.Runtime", "Owner.Runtime", "Owner.RuntimeVersion", "CloseWait.Side",
		"Finding.ID", "Finding.Severity", "Finding.BecauseOf", "Subject.Side", "Subject.Service", "Subject.Setting", "Recommendation.ID",
	}
}

// Every string of the model is either replaced or known to be harmless.
func TestRedactForgetsNoString(t *testing.T) {
	r := full(t)
	count := 0
	secret := func() string {
		count++
		return fmt.Sprintf("10.99.%d.%d", count/200, count%200+1)
	}
	visitFields(reflect.ValueOf(r), func(path string, v reflect.Value) {
		if slices.Contains(kept(), strings.TrimPrefix(path, "snapshot.")) || path == "snapshot.Namespace.Name" {
			return
		}
		switch list, isList := reflect.TypeAssert[[]string](v); {
		case isList:
			for i := range list {
				list[i] = secret()
			}
		case v.Kind() == reflect.String:
			v.SetString(secret())
		}
	})
	r.Namespaces[0].Kind, r.Namespaces[0].Name = "named", secret()
	r.Namespaces[1].Name = secret()
	if count < 35 {
		t.Fatalf("only %d strings were found", count)
	}
	var b bytes.Buffer
	if err := EncodeIndent(&b, testRedactor().Redact(r)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, "10.99.") {
			t.Errorf("still there: %s", line)
		}
	}
}

func TestRedactSharesNothing(t *testing.T) {
	r := full(t)
	out := testRedactor().Redact(r)
	pointers := map[uintptr]string{}
	visitFields(reflect.ValueOf(r), func(path string, v reflect.Value) {
		if k := v.Kind(); (k == reflect.Pointer || k == reflect.Slice || k == reflect.Map) && !v.IsNil() && (k != reflect.Slice || v.Len() > 0) {
			pointers[v.Pointer()] = path
		}
	})
	visitFields(reflect.ValueOf(out), func(path string, v reflect.Value) {
		if k := v.Kind(); k == reflect.Pointer || k == reflect.Slice || k == reflect.Map {
			if shared, ok := pointers[v.Pointer()]; ok && !v.IsNil() {
				t.Errorf("%s is shared with %s", path, shared)
			}
		}
	})
}

func TestScrambler(t *testing.T) {
	s := newScrambler([]byte("k"))
	for _, same := range []string{"127.0.0.1", "127.0.0.6", "0.0.0.0", "::1", "::"} {
		if got := s.addr(netip.MustParseAddr(same)).String(); got != same {
			t.Errorf("%s became %s", same, got)
		}
	}
	if got, want := s.addr(netip.MustParseAddr("::ffff:10.0.0.5")), s.addr(netip.MustParseAddr("10.0.0.5")); got != want {
		t.Errorf("v4-mapped: %s, want %s", got, want)
	}
	for in, class := range map[string]string{
		"169.254.7.8": "169.254.0.0/16", "fe80::1c2d:3eff:fe4f:5a6b": "fe80::/64", "2a00:1450::5": "2001:db8::/32", "fd00::5": "2001:db8::/32",
	} {
		got := s.addr(netip.MustParseAddr(in))
		if !netip.MustParsePrefix(class).Contains(got) || got.String() == in {
			t.Errorf("%s became %s, want another one in %s", in, got, class)
		}
	}
	for in, want := range map[string]string{"0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0", "127.0.0.0/24": "127.0.0.0/24"} {
		if got := s.prefix(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("%s became %s", in, got)
		}
	}
	if got := s.prefix(netip.MustParsePrefix("::ffff:10.0.0.0/120")); got.Bits() != 32 && got.Bits() != 24 {
		t.Errorf("a v4-mapped prefix became %s", got)
	}
}

// No two addresses become one, and prefixes hold what they held.
func TestScramblerIsPermutation(t *testing.T) {
	s := newScrambler([]byte("k"))
	seen := map[netip.Addr]netip.Addr{}
	check := func(a netip.Addr, bits int) {
		out := s.addr(a)
		if before, ok := seen[out]; ok && before != a {
			t.Fatalf("%s and %s both became %s", before, a, out)
		}
		seen[out] = a
		if out.Is4() != a.Is4() || out.IsLoopback() || out.IsUnspecified() || out.IsLinkLocalUnicast() != a.IsLinkLocalUnicast() {
			t.Fatalf("%s became %s, which is of another class", a, out)
		}
		p, err := a.Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.prefix(p); got.Bits() != bits || !got.Contains(out) || got.Masked() != got {
			t.Fatalf("%s in %s became %s in %s", a, p, out, got)
		}
	}
	for net := range 40 {
		for host := range 256 {
			check(netip.AddrFrom4([4]byte{10, byte(net >> 8), byte(net), byte(host)}), 24)
		}
		check(netip.AddrFrom4([4]byte{169, 254, byte(net), 3}), 24)
		check(netip.AddrFrom4([4]byte{byte(1 + net%126), byte(net), 2, 1}), 24)
		check(netip.AddrFrom16([16]byte{0x2a, 0, 0x14, 0x50, 7: byte(net), 15: byte(net)}), 64)
	}
	for bits, tag := range map[int]byte{8: tagHost4, 16: 99} {
		hit := make([]bool, 1<<bits)
		for x := range hit {
			hit[s.permute(tag, 7, bits, uint64(x))] = true
		}
		if slices.Contains(hit, false) {
			t.Errorf("not a permutation of %d bits", bits)
		}
	}
}

func TestRedactText(t *testing.T) {
	r := testRedactor()
	r.name("host", "web1")
	r.name("process", "php-fpm: pool www")
	r.name("process", "php-fpm")
	r.name("process", "a\x1bb")
	a := func(s string) string { return r.scramble.addr(netip.MustParseAddr(s)).String() }
	p := func(s string) string { return r.scramble.prefix(netip.MustParsePrefix(s)).String() }
	tests := []struct{ in, want string }{
		{"from 10.0.0.5:6379 to 10.0.0.6.", "from " + a("10.0.0.5") + ":6379 to " + a("10.0.0.6") + "."},
		{"x10.0.0.5y", "x" + a("10.0.0.5") + "y"},
		{"10.0.0.5.example.com", a("10.0.0.5") + ".example.com"},
		{"10.0.0.5-10.0.0.9,10.0.0.7", a("10.0.0.5") + "-" + a("10.0.0.9") + "," + a("10.0.0.7")},
		{"in 10.1.2.0/24, 10.1.2.3/24", "in " + p("10.1.2.0/24") + ", " + a("10.1.2.3") + "/24"},
		{"[2a00::5]:443 and 2a00::6: down", "[" + a("2a00::5") + "]:443 and " + a("2a00::6") + ": down"},
		{"2a00::/64.", p("2a00::/64") + "."},
		{"::ffff:10.0.0.5", a("10.0.0.5")},
		{"fe80::7%eth9 up", a("fe80::7") + "%device-1 up"},
		{"127.0.0.1:80 [::1]:80 0.0.0.0:80 at 12:30:45, std::def, 6.12.9, v1.2", "127.0.0.1:80 [::1]:80 0.0.0.0:80 at 12:30:45, std::def, 6.12.9, v1.2"},
		{"300.1.2.3 1.2.3", "300.1.2.3 1.2.3"},
		{"web1 web12 myweb1 web1.local", "host-1 web12 myweb1 host-1.local"},
		{"php-fpm: pool www, php-fpm, php-fpmx", "process-1, process-2, php-fpmx"},
		{`"a\x1bb" a` + "\x1bb", `"process-3" process-3`},
		{"", ""},
		{"naïve Ω 漢字", "naïve Ω 漢字"},
	}
	for _, tt := range tests {
		if got := r.text(tt.in); got != tt.want {
			t.Errorf("%q\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
}

func TestRedactOddNames(t *testing.T) {
	r := testRedactor()
	tests := []struct{ got, want string }{
		{r.name("host", "host-1"), "host-2"}, // never itself
		{r.address("no address"), "address-1"},
		{r.address("fe80::1%ens3"), r.scramble.addr(netip.MustParseAddr("fe80::1")).String() + "%device-1"},
		{r.device("lo"), "lo"},
		{r.exe("/usr/bin/go (deleted)"), "/process-1"},
		{r.exe("relative"), "process-2"},
		{r.exe("/"), "process-3"},
		{r.exe(""), ""},
		{r.cgroup("/"), "/"},
		{r.cgroup("/a/b/a"), "/cgroup-1/cgroup-2/cgroup-1"},
		{r.namespaceName("self"), "self"},
		{placeholderKind("evil name"), "namespace"},
	}
	for i, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%d: got %q, want %q", i, tt.got, tt.want)
		}
	}
}

// A host that makes names up must not fill the memory; within a report a name
// still has one placeholder.
func TestRedactBoundsNames(t *testing.T) {
	r := testRedactor()
	for i := range maxNames + 10 {
		r.name("process", fmt.Sprint("made-up-", i))
	}
	if len(r.names) > maxNames || len(r.extra) != 10 {
		t.Errorf("%d names are kept, and %d for now", len(r.names), len(r.extra))
	}
	report := full(t)
	report.Host = "beyond"
	report.Findings[0].Summary = "beyond made-up-5"
	if got := r.Redact(report); got.Host == "beyond" || got.Findings[0].Summary != got.Host+" process-6" || len(r.names) > maxNames {
		t.Errorf("got %q and %q", got.Host, got.Findings[0].Summary)
	}
}

// Text without addresses and names stays; no known address survives.
func FuzzRedactText(f *testing.F) {
	f.Add("10.20.30.99 on web-17.example.net")
	standing := regexp.MustCompile(`(^|[^0-9.])10\.20\.30\.99([^0-9]|$)`)
	f.Fuzz(func(t *testing.T, s string) {
		r := testRedactor()
		r.name("host", "web-17.example.net")
		got := r.text(s + " 10.20.30.99 " + s)
		if standing.MatchString(got) {
			t.Errorf("%q became %q", s, got)
		}
		// A zone is a name from where it was met; what was met before stands.
		once := r.text(s + " 10.20.30.99 " + s)
		if again := r.text(s + " 10.20.30.99 " + s); again != once {
			t.Errorf("%q becomes %q and %q", s, once, again)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	report, r := large(b), testRedactor()
	b.ReportAllocs()
	for b.Loop() {
		r.Redact(report)
	}
}
