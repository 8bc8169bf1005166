package advice

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func loaded(t testing.TB, extra ...File) *Library {
	t.Helper()
	l, err := Load(extra...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestEmbeddedServices(t *testing.T) {
	s, err := LoadServices()
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]string{
		6379: "redis", 3306: "mysql", 443: "https", 5671: "amqp", 853: "dns", 10250: "kubelet", 9000: "", 0: "",
	} {
		if got := s.Name(port); got != want {
			t.Errorf("Name(%d) = %q, want %q", port, got, want)
		}
	}
	for _, p := range s.Ports() {
		if s.Name(p) == "" {
			t.Errorf("port %d is listed without a name", p)
		}
	}
}

// A port is a hint; a process that speaks only one thing is a proof; a shared
// port tells nothing without a process.
func TestService(t *testing.T) {
	l := loaded(t, File{"own.yaml", []byte("services:\n- {id: billing, title: Billing, ports: [7777, 6379], do: Use its pool., references: [{title: wiki, url: 'https://wiki.example/billing'}]}\n")})
	for _, tt := range []struct {
		port    uint16
		runtime string
		id, by  string
	}{
		{3306, "", "mysql", ByPort},
		{3306, "go", "mysql", ByPort},
		{7000, "redis-benchmark", "redis", ByProcess},
		{9000, "", "", ""},
		{9000, "go", "", ""},
		{9000, "php-fpm", "fastcgi", ByProcess},
		{9000, "nginx", "", ""}, // it speaks HTTP there as well
		{9000, "clickhouse", "clickhouse-native", ByProcess},
		{8080, "nginx", "http", ByProcess},
		{7777, "go", "billing", ByConfig},
		{6379, "", "billing", ByConfig}, // the operator's word goes before ours
		{12345, "", "", ""},
	} {
		s, by := l.Service(tt.port, tt.runtime)
		if s.ID != tt.id || by != tt.by {
			t.Errorf("Service(%d, %q) = %q by %q, want %q by %q", tt.port, tt.runtime, s.ID, by, tt.id, tt.by)
		}
	}
	if got := l.Services().Name(6379); got != "billing" {
		t.Errorf("the table says %q for the operator's port", got)
	}
}

// What is like a known service gets its remedies.
func TestServiceLikeAnother(t *testing.T) {
	data, err := os.ReadFile("testdata/operator/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l := loaded(t, File{"good.yaml", data})
	s := redis()
	s.Service, s.ServiceBy, s.Runtime = "redis-cache", ByConfig, "php-fpm"
	if got := l.Recommend(s)[0]; got.ID != "phpredis-pconnect" {
		t.Errorf("the first recommendation is %+v", got)
	}
	s.Service = "billing"
	if got := l.Recommend(s)[0]; got.ID != "billing-pool" || got.Snippet != "pool = 12" || got.Do != "Set pool to 12." {
		t.Errorf("the first recommendation is %+v", got)
	}
}

func TestRuntime(t *testing.T) {
	l := loaded(t)
	for _, tt := range []struct {
		hints ProcessHints
		want  string
	}{
		{ProcessHints{Comm: "php-fpm8.2", Exe: "/usr/sbin/php-fpm8.2", Title: "php-fpm: pool www"}, "php-fpm"},
		{ProcessHints{Comm: "php8.2", Exe: "/usr/bin/php8.2", Script: "artisan"}, "php-cli"},
		{ProcessHints{Comm: "kubelet", Exe: "/usr/bin/kubelet", GoBuild: "k8s.io/kubernetes/cmd/kubelet"}, "kubelet"},
		{ProcessHints{Comm: "api", Exe: "/app/api", GoBuild: "example.org/api"}, "go"},
		{ProcessHints{Comm: "consul", Exe: "/bin/consul", GoBuild: "github.com/hashicorp/consul"}, "consul"},
		{ProcessHints{Comm: "java", Exe: "/usr/lib/jvm/bin/java", JavaMain: "org.example.Main"}, "java"},
		{ProcessHints{Comm: "python3", Exe: "/usr/bin/python3.11", Script: "/srv/app.py"}, "python"},
		{ProcessHints{Comm: "gunicorn", Exe: "/usr/bin/python3.11", Script: "/usr/bin/gunicorn"}, "gunicorn"},
		{ProcessHints{Comm: "nginx", Exe: "/usr/sbin/nginx (deleted)", Title: "nginx: worker process"}, "nginx"},
		{ProcessHints{Comm: "redis-server", Exe: "/usr/bin/redis-check-rdb"}, "redis-server"},
		{ProcessHints{Comm: "redis-benchmark", Exe: "/usr/bin/redis-benchmark"}, "redis-benchmark"},
		{ProcessHints{Comm: "node", Exe: "/usr/bin/node"}, "node"},
		{ProcessHints{Comm: "something"}, ""},
		{ProcessHints{}, ""},
	} {
		id, name := l.Runtime(tt.hints)
		if id != tt.want || (name == "") != (id == "") {
			t.Errorf("Runtime(%+v) = %q, %q, want %q", tt.hints, id, name, tt.want)
		}
	}
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		text string
		want version
		ok   bool
	}{
		{"1.29.7", version{1, 29, 7}, true},
		{"v1.30.0-rc1", version{1, 30, 0}, true},
		{"go1.27", version{1, 27}, true},
		{"", version{}, false},
		{"main", version{}, false},
	} {
		got, ok := parseVersion(tt.text)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
			t.Errorf("parseVersion(%q) = %v, %v", tt.text, got, ok)
		}
	}
}
