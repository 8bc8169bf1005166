package truth

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/lab"
)

// daemon runs a program in the namespace until the test's end, which waits for
// it; signal sends it one.
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

// closely looks at live sockets between two looks, too: beside very many other
// processes those of short connections take long to be found otherwise.
func closely() collector.Config {
	return collector.Config{Interval: time.Second, LiveEvery: 250 * time.Millisecond}
}

// benchmark runs a Redis server and a load of six connections at a time, under
// the name given; a request takes the server a tenth of a second. With keep "0"
// each has a connection of its own, some 60 a second.
func benchmark(t *testing.T, keep, name string) *watch {
	t.Helper()
	ns := lab.NewT(t)
	daemon(t, ns, lab.Tool(t, "redis-server"), "--port", "6379", "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	listens(t, ns, "127.0.0.1:6379")
	program := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(lab.Tool(t, "redis-benchmark"), program); err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, ns, closely(), nil)
	daemon(t, ns, program, "-h", "127.0.0.1", "-k", keep, "-c", "6", "-n", "1000000", "BLPOP", "none", "0.005")
	return w
}

// Redis with a connection for each request: who, to what, how fast, and how
// large a pool to keep instead.
func TestRedisShortConnections(t *testing.T) {
	t.Parallel()
	w := benchmark(t, "0", "redis-benchmark")
	w.finds(t, 6379, "redis-benchmark", diagnose.ShortClient)
	w.looks(t, len(w.all())+7) // for the rate
	r, f := w.finds(t, 6379, "redis-benchmark", diagnose.ShortClient)
	want := snapshot.Subject{
		Side: snapshot.Client, Local: "127.0.0.1", Remote: "127.0.0.1", Port: 6379, Service: "redis", Process: "redis-benchmark",
	}
	if f.Subject != want || len(r.Findings) != 1 {
		t.Errorf("found: %s", said(r))
	}
	sentence := regexp.MustCompile(`^redis-benchmark \(known for (less than )?\d+ % of the sockets\) opens a new connection to redis at 127\.0\.0\.1:6379 for every request \([\d.]+/s, each lives \d+ ms\)\.$`)
	if !sentence.MatchString(f.Summary) {
		t.Errorf("summary: %s", f.Summary)
	}
	if flow := flow(r.Namespaces[0], snapshot.Client, "127.0.0.1", 6379); flow.ServiceBy != "process" || flow.Processes[0].Runtime != "redis-benchmark" {
		t.Errorf("by %s: %+v", flow.ServiceBy, flow.Processes)
	}
	w.rate(t, 6379, "TW")
	checkSizes(t, f, 6)
	// No port is at stake: more of them are no advice.
	if diff := cmp.Diff([]string{"load-generator", "one-client-per-process", "reuse-connections", "unix-socket"}, recommended(f)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	limit := "redis-cli CONFIG GET maxclients"
	if caveats := strings.Join(advised(t, f, "reuse-connections").Caveats, " "); !strings.Contains(caveats, "Processes x pool size") || !strings.Contains(caveats, limit) {
		t.Errorf("nothing of the server's limit: %s", caveats)
	}
}

// rate holds what findings about a port say of closes per second against the
// growth of the kernel's counter, over all looks since the first finding.
func (w *watch) rate(t *testing.T, port uint16, counter string) {
	t.Helper()
	var sum float64
	var first, last *snapshot.Report
	n := 0
	for _, r := range w.all() {
		f := found(r, port, diagnose.ShortClient)
		if f == nil {
			continue
		}
		if first == nil {
			first = r
			continue
		}
		last = r
		sum += evidence(t, f, "connections closed")
		n++
	}
	if n < 5 {
		t.Fatalf("%d looks with a finding", n)
	}
	a, b := first.Namespaces[0], last.Namespaces[0]
	truth := float64(b.Counters[counter]-a.Counters[counter]) / b.SampledAt.Sub(a.SampledAt).Seconds()
	// Each look tells of 3/4 s: of seven or eight bursts, a tenth of a second apart.
	if said := sum / float64(n); math.Abs(said-truth) > truth*0.15 {
		t.Errorf("%v/s is said on the average of %d looks, %s grew by %v/s", said, n, counter, truth)
	}
}

// checkSizes holds the sized advice against what it is made of, and the pool
// against the load, which has so many connections in use at any time.
func checkSizes(t *testing.T, f *snapshot.Finding, inUse int) {
	t.Helper()
	reuse := advised(t, f, "reuse-connections")
	number := func(text, pattern string) int {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in %q", pattern, text)
		}
		return must[int](t)(strconv.Atoi(strings.ReplaceAll(m[1], ",", "")))
	}
	peak, lives := evidence(t, f, "new connections at the peak"), evidence(t, f, "mean lifetime")
	pool := number(reuse.Do, `about ([\d,]+) idle ones in each process`)
	if want := int(math.Ceil(2 * peak * lives)); pool != want || pool < inUse || pool > 3*inUse {
		t.Errorf("a pool of %d for %d connections in use: twice %v/s of %v s each is %d", pool, inUse, peak, lives, want)
	}
	after := number(reuse.Effect, `at most ([\d,]+) TIME_WAIT if each is renewed after 3 min`)
	if want := (pool + 2) / 3; after != want {
		t.Errorf("%d TIME_WAIT left of %d connections that last 180 s each, want %d", after, pool, want)
	}
	// Their ports are free again after a second, on loopback: the memory alone is.
	back := regexp.MustCompile(`; up to ([\d.]+) ([KM])iB of kernel memory comes back`).FindStringSubmatch(reuse.Effect)
	if back == nil {
		t.Fatalf("no memory in %q", reuse.Effect)
	}
	memory := must[float64](t)(strconv.ParseFloat(back[1], 64)) * map[string]float64{"K": 1 << 10, "M": 1 << 20}[back[2]]
	if want := 660 * evidence(t, f, "TIME_WAIT"); math.Abs(memory-want) > 0.05*want { // 1.0 MiB is rounded
		t.Errorf("%v bytes come back, want %v", memory, want)
	}
}

// The same load over connections that are kept has no finding, ever.
func TestRedisKeptConnections(t *testing.T) {
	t.Parallel()
	w := benchmark(t, "1", "redis-benchmark")
	for _, r := range w.looks(t, 14) {
		if len(r.Findings) > 0 || r.Verdict != snapshot.Healthy {
			t.Errorf("found: %s", said(r))
		}
	}
	w.until(t, 2*time.Minute, func(r *snapshot.Report) error {
		f := flow(r.Namespaces[0], snapshot.Client, "127.0.0.1", 6379)
		if f == nil || f.States.Established != 6 || *f.LongLived != 6 || len(f.Processes) != 1 || f.Processes[0].Comm != "redis-benchmark" {
			return fmt.Errorf("not six connections of redis-benchmark that last: %+v", f)
		}
		return nil
	})
}

// A program's name may be anything, and is nowhere in what somebody may paste
// into a shell.
func TestHostileName(t *testing.T) {
	t.Parallel()
	const hostile = "$(id)`id`\x1b[2J"
	_, f := benchmark(t, "0", hostile).finds(t, 6379, hostile, diagnose.ShortClient)
	if !strings.HasPrefix(f.Summary, "$(id)`id`\\x1b[2J ") {
		t.Errorf("%q", f.Summary)
	}
	if len(f.Recommendations) < 3 {
		t.Errorf("no advice: %v", recommended(f))
	}
	for _, r := range f.Recommendations {
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, "id)") || strings.Contains(text, "\x1b") {
			t.Errorf("in advice: %s", text)
		}
	}
}

// An nginx that the test runs: its folder, and how to give it a new
// configuration.
type nginx struct {
	t      *testing.T
	dir    string
	signal func(syscall.Signal)
}

// startNginx runs nginx in the namespace, with a master process and two
// workers, as Debian does.
func startNginx(t *testing.T, ns *lab.Namespace, http string) *nginx {
	t.Helper()
	n := &nginx{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(n.dir, "index.html"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.configure(http)
	n.signal = daemon(t, ns, lab.Tool(t, "nginx"), "-p", n.dir, "-c", filepath.Join(n.dir, "nginx.conf"), "-e", filepath.Join(n.dir, "error.log"))
	return n
}

// configure writes what stands in the http block; DIR is the folder.
func (n *nginx) configure(http string) {
	n.t.Helper()
	var temporary strings.Builder
	for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s;\n", what, n.dir)
	}
	config := fmt.Sprintf(`daemon off;
user root root;
worker_processes 2;
pid DIR/nginx.pid;
error_log DIR/error.log;
events { worker_connections 256; }
http {
access_log off;
%s%s
}
`, temporary.String(), http)
	err := os.WriteFile(filepath.Join(n.dir, "nginx.conf"), []byte(strings.ReplaceAll(config, "DIR", n.dir)), 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
}

// load sends requests over connections that are kept, one after the other on
// each, until the test's end. served tells how many were answered so far.
func load(t *testing.T, ns *lab.Namespace, url string, connections int) (served func() int) {
	t.Helper()
	transport := &http.Transport{DialContext: dialler(ns), MaxIdleConnsPerHost: connections}
	client := http.Client{Transport: transport, Timeout: 30 * time.Second}
	done := make(chan struct{})
	ended := make(chan struct{})
	var answers atomic.Int64
	for range connections {
		go func() {
			defer func() { ended <- struct{}{} }()
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := client.Get(url)
				if err != nil {
					t.Log(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body) // to the end, so that the connection is kept
				_ = resp.Body.Close()
				answers.Add(1)
			}
		}()
	}
	t.Cleanup(func() {
		close(done)
		for range connections {
			<-ended
		}
		transport.CloseIdleConnections()
	})
	return func() int { return int(answers.Load()) }
}

// nginx in front of a backend opens a connection for each request until its
// upstream keeps them. That, and how, is said; what is advised for its version
// is then done to the letter, and that it worked is said too.
func TestNginxUpstream(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, backend string
		finding       []string
	}{
		{"on this host", "127.0.0.1", []string{diagnose.ShortClient}},
		// Who closes first is a race, and decides which of the two it is.
		{"on another host", far, []string{diagnose.ShortClient, diagnose.ShortRemoteCloses}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := lab.NewT(t)
			host := ns // of the backend
			if tt.backend == far {
				lab.Require(t, "veth")
				ns, host = hosts(t)
			}
			backend := tt.backend + ":3000" // a port that no service is known by
			// It answers 60 requests a second, and lets the others wait.
			startNginx(t, host, "limit_req_zone $server_port zone=all:64k rate=60r/s;\n"+
				"server { listen "+backend+"; location / { limit_req zone=all burst=100; root DIR; } }")
			listens(t, host, backend)
			proxy := startNginx(t, ns, proxyTo("upstream backend { server "+backend+"; }", ""))
			listens(t, ns, "127.0.0.1:8000")
			served := load(t, ns, "http://127.0.0.1:8000/", 4)

			w := newWatch(t, ns, closely(), nil)
			r, f := w.finds(t, 3000, "nginx", tt.finding...)
			if f.Subject.Side != snapshot.Client || f.Subject.Remote != tt.backend || !strings.HasPrefix(f.Summary, "nginx ") {
				t.Errorf("%+v: %s", f.Subject, f.Summary)
			}
			if roots(r) != 1 {
				t.Errorf("found: %s", said(r))
			}
			do := advised(t, f, "nginx-upstream-keepalive")
			for _, other := range f.Recommendations {
				if other.ID == "nginx-upstream-size" {
					t.Errorf("advice for a newer nginx than this: %q", other.Do)
				}
			}

			upstream, location, _ := strings.Cut(do.Snippet, "# in the location")
			_, location, _ = strings.Cut(location, "\n")
			proxy.configure(proxyTo(upstream, location))
			proxy.signal(syscall.SIGHUP)
			r, f = w.finds(t, 3000, "nginx", diagnose.ShortCured)
			if f.Subject.Side != snapshot.Client || f.Subject.Remote != tt.backend || r.Verdict != snapshot.Healthy || roots(r) != 1 {
				t.Errorf("found: %s", said(r))
			}
			opened, requests := must[int64](t)(ns.Counter("Tcp", "ActiveOpens")), served()
			lab.Eventually(t, 30*time.Second, func() error {
				if n := served() - requests; n < 30 {
					return fmt.Errorf("%d more requests were served", n)
				}
				return nil
			})
			if n := must[int64](t)(ns.Counter("Tcp", "ActiveOpens")) - opened; n > 3 {
				t.Errorf("%d connections opened for some 30 requests", n)
			}
		})
	}
}

// roots is how many findings follow from nothing.
func roots(r *snapshot.Report) int {
	n := 0
	for _, f := range r.Findings {
		if f.BecauseOf == "" {
			n++
		}
	}
	return n
}

// proxyTo is a configuration of nginx as a proxy, on port 8000.
func proxyTo(upstream, location string) string {
	return upstream + "\nserver { listen 127.0.0.1:8000; location / { proxy_pass http://backend;\n" + location + "\n} }"
}
