package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/hub"
)

// feed is a source of the test's reports, and counts its passes.
type feed struct {
	reports chan *snapshot.Report
	passes  atomic.Int64
}

func (f *feed) source(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
	return func(yield func(*snapshot.Report, error) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case r := <-f.reports:
				f.passes.Add(1)
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

func report(n int) *snapshot.Report {
	return &snapshot.Report{
		Schema: snapshot.Schema, Host: "node\u202e1", Verdict: snapshot.Healthy, TookSeconds: float64(n), IntervalSeconds: 15,
		Time: time.Date(2026, 3, 1, 12, 0, n, 0, time.UTC),
	}
}

// start runs a hub that has published n frames.
func start(t *testing.T, n int) (*hub.Hub, *feed) {
	t.Helper()
	reports := make([]*snapshot.Report, n)
	for i := range n {
		reports[i] = report(i + 1)
	}
	return publish(t, reports...)
}

// publish runs a hub that has published reports.
func publish(t *testing.T, reports ...*snapshot.Report) (*hub.Hub, *feed) {
	t.Helper()
	f := &feed{reports: make(chan *snapshot.Report)}
	h := hub.New(hub.Config{Source: f.source})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	frames, stop := h.Subscribe()
	defer func() { _ = stop() }()
	for _, r := range reports {
		f.reports <- r
		<-frames
	}
	return h, f
}

// frameMetrics shows the hub's newest frame as two metrics.
type frameMetrics struct{ hub *hub.Hub }

func (frameMetrics) Describe(chan<- *prometheus.Desc) {}

func (m frameMetrics) Collect(ch chan<- prometheus.Metric) {
	r := m.hub.Latest()
	if r == nil {
		return
	}
	for _, name := range []string{"twwatch_a", "twwatch_b"} {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, "The frame.", nil, nil), prometheus.GaugeValue, r.TookSeconds)
	}
}

// library is all that can be explained, loaded once.
var library = sync.OnceValue(func() *advice.Library {
	l, err := advice.Load()
	if err != nil {
		panic(err)
	}
	return l
})

func config(h *hub.Hub) Config {
	reg := prometheus.NewRegistry()
	reg.MustRegister(frameMetrics{h})
	return Config{Hub: h, Metrics: reg, Version: "1.2.3<b>", Library: library()}
}

// ask sends a request as if over a connection to the given local address.
func ask(h http.Handler, local, method, target string, change ...func(*http.Request)) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "localhost:10060"
	if local != "" {
		var a net.Addr = &net.UnixAddr{Name: local, Net: "unix"}
		if ap, err := netip.ParseAddrPort(local); err == nil {
			a = net.TCPAddrFromAddrPort(ap)
		}
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, a))
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const loopback = "127.0.0.1:10060"

// wantError checks for a JSON error of that status that contains text.
func wantError(t *testing.T, r *http.Response, status int, text string) {
	t.Helper()
	b := body(t, r)
	var e map[string]string
	if err := json.Unmarshal([]byte(b), &e); err != nil || len(e) != 1 || !strings.Contains(e["error"], text) ||
		r.StatusCode != status || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s %q, want %d and a JSON error with %q", r.StatusCode, r.Header.Get("Content-Type"), b, status, text)
	}
}

func TestRefusals(t *testing.T) {
	h, _ := start(t, 1)
	site := Handler(config(h))
	wantError(t, ask(site, loopback, "GET", "/api/v2/report"), 404, "no such path")
	wantError(t, ask(site, loopback, "GET", "/metrics/"), 404, "no such path")
	wantError(t, ask(site, loopback, "GET", "/-/nothing"), 404, "no such path")
	for _, path := range []string{
		"/", "/metrics", "/-/ready", "/-/healthy", "/api/v1/report", "/api/v1/sockets", "/api/v1/stream", "/api/v1/flows",
		"/api/v1/flows/0123456789abcdef", "/api/v1/findings", "/api/v1/history", "/api/v1/explain", "/api/v1/explain/time-wait",
		"/api/v1/openapi.json", "/explain", "/explain/time-wait", "/assets/page.js",
	} {
		r := ask(site, loopback, "POST", path)
		if allow := r.Header.Get("Allow"); allow != "GET, HEAD" {
			t.Errorf("%s: Allow is %q", path, allow)
		}
		wantError(t, r, 405, "only GET and HEAD")
	}
	wantError(t, ask(site, loopback, "GET", "/api/v1/report?flows=3"), 400, "no parameters are taken")
	wantError(t, ask(site, loopback, "GET", "/api/v1/sockets"), 404, "no live sockets")

	for _, path := range []string{"/metrics", "/api/v1/report", "/nothing"} {
		header := ask(site, loopback, "GET", path).Header
		if !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'") ||
			header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", path, header)
		}
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := start(t, 0)
		site := Handler(config(h))
		wantError(t, ask(site, loopback, "GET", "/-/ready"), 503, "first pass")
		wantError(t, ask(site, loopback, "GET", "/api/v1/report"), 503, "first pass")
		if r := ask(site, loopback, "GET", "/-/healthy"); r.StatusCode != 200 {
			t.Errorf("healthy before the first pass: %d", r.StatusCode)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h, f := start(t, 1)
		site := Handler(config(h))
		check := func(status int) {
			t.Helper()
			if r := ask(site, loopback, "GET", "/-/healthy"); r.StatusCode != status {
				t.Errorf("healthy: %d, want %d", r.StatusCode, status)
			}
		}
		check(200)
		time.Sleep(45 * time.Second)
		check(200)
		time.Sleep(time.Second)
		wantError(t, ask(site, loopback, "GET", "/-/healthy"), 503, "for 46 s")
		if r := ask(site, loopback, "GET", "/-/ready"); r.StatusCode != 200 {
			t.Errorf("ready: %d", r.StatusCode)
		}
		f.reports <- report(2)
		synctest.Wait()
		check(200)
	})
}

func TestReport(t *testing.T) {
	h, f := start(t, 1)
	site := Handler(config(h))
	r := ask(site, loopback, "GET", "/api/v1/report")
	b := body(t, r)
	got, err := snapshot.Decode([]byte(b))
	if err != nil {
		t.Fatal(err)
	}
	if got.TookSeconds != 1 || got.Host != "node\u202e1" || strings.Contains(b, "\u202e") {
		t.Errorf("got %s", b)
	}
	tag := r.Header.Get("ETag")
	accept := func(c string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Accept-Encoding", c) }
	}
	for tags, status := range map[string]int{tag: 304, `"x", W/` + tag: 304, "*": 304, `"x"`: 200, strings.Trim(tag, `"`): 200} {
		r := ask(site, loopback, "GET", "/api/v1/report", fresh(tags))
		if r.StatusCode != status || status == 304 && body(t, r) != "" {
			t.Errorf("If-None-Match %s: %d, want %d", tags, r.StatusCode, status)
		}
	}
	if r := ask(site, loopback, "HEAD", "/api/v1/report"); body(t, r) != "" || r.Header.Get("Content-Length") != fmt.Sprint(len(b)) {
		t.Errorf("HEAD: %v", r.Header)
	}
	for codings, zipped := range map[string]bool{
		"gzip": true, "br, GZIP;q=0.5": true, "*": true, "gzip;q=0, *": false, "identity": false, "gzip; q=0": false, "": false, "gzip;q=x": false,
	} {
		r := ask(site, loopback, "GET", "/api/v1/report", accept(codings))
		if got := r.Header.Get("Content-Encoding") == "gzip"; got != zipped {
			t.Errorf("Accept-Encoding %q: gzip %v, want %v", codings, got, zipped)
			continue
		}
		if zipped {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := io.ReadAll(z); err != nil || string(plain) != b {
				t.Errorf("Accept-Encoding %q: another body (%v)", codings, err)
			}
			if r.Header.Get("ETag") == tag {
				t.Error("the gzip form has the plain form's ETag")
			}
		}
	}
	frames, stop := h.Subscribe()
	defer func() { _ = stop() }()
	<-frames
	f.reports <- report(2)
	<-frames
	if r := ask(site, loopback, "GET", "/api/v1/report", fresh(tag)); r.StatusCode != 200 || r.Header.Get("ETag") == tag {
		t.Errorf("a new frame: %d, ETag %s", r.StatusCode, r.Header.Get("ETag"))
	}
}

// A storm of readers starts no pass, and all see one frame.
func TestConcurrentScrapes(t *testing.T) {
	h, f := start(t, 3)
	srv := httptest.NewServer(Handler(config(h)))
	defer srv.Close()
	client := srv.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 200
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			path := []string{"/metrics", "/api/v1/report"}[i%2]
			r, err := client.Get(srv.URL + path)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			b, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != 200 {
				t.Errorf("%s: %d %v", path, r.StatusCode, err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[path+string(b)]++
		})
	}
	wg.Wait()
	if len(seen) != 2 {
		t.Errorf("%d different answers, want one for each path", len(seen))
	}
	for answer, n := range seen {
		if n != 100 {
			t.Errorf("%d answers of %.20s…, want 100", n, answer)
		}
	}
	if n := f.passes.Load(); n != 3 {
		t.Errorf("%d passes, want the 3 of the source", n)
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, queue = 2, 3
		var now, most atomic.Int64
		slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(4 * time.Second)
			w.WriteHeader(http.StatusOK)
		})
		h := limit(slow, slots, queue, 5*time.Second)
		var mu sync.Mutex
		statuses := map[string]int{}
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
				mu.Lock()
				defer mu.Unlock()
				statuses[fmt.Sprintf("%d after %v", w.Code, time.Since(start))]++
			})
		}
		wg.Wait()
		// Two at once, two after 4 s; the fifth waits 5 s in vain, and for the
		// others there is no place to wait.
		want := map[string]int{"200 after 4s": 2, "200 after 8s": 2, "503 after 5s": 1, "503 after 0s": 5}
		if diff := cmp.Diff(want, statuses); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if most.Load() != slots {
			t.Errorf("%d at once, want %d", most.Load(), slots)
		}
	})
}

// A collector that fails costs its own metrics.
func TestMetricsGoOn(t *testing.T) {
	h, _ := start(t, 1)
	cfg := config(h)
	reg := cfg.Metrics.(*prometheus.Registry)
	reg.MustRegister(badCollector{})
	r := ask(Handler(cfg), loopback, "GET", "/metrics", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") })
	if r.StatusCode != 200 || r.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(text, []byte("\ntwwatch_a 1\n")) {
		t.Errorf("%v, %s", err, text)
	}
}

type badCollector struct{}

func (badCollector) Describe(chan<- *prometheus.Desc) {}

func (badCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("twwatch_bad", "Bad.", nil, nil), errors.New("bad"))
}

func TestServerLimits(t *testing.T) {
	s := Server(http.NotFoundHandler(), nil)
	if slices.Contains([]time.Duration{s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout}, 0) || s.MaxHeaderBytes == 0 {
		t.Errorf("a limit is missing: %+v", s)
	}
}

// fresh asks only for what differs from a tag.
func fresh(tag string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("If-None-Match", tag) }
}
