package exporter

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapes are two sizes of answer: that of a host with every table full, and one
// of more flows than the default. docs/benchmarks.md has what they cost the whole
// program.
func scrapes(t testing.TB) map[string]http.Handler {
	t.Helper()
	handler := func(cfg Config, pods int) http.Handler {
		e := New(cfg)
		for n := range 3 {
			e.Observe(withPods(busy(n), pods))
		}
		reg := registry(t, e)
		for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
			if err := reg.Register(c); err != nil {
				t.Fatal(err)
			}
		}
		return promhttp.HandlerFor(reg, promhttp.HandlerOpts{OfferedCompressions: []promhttp.Compression{promhttp.Identity}})
	}
	return map[string]http.Handler{
		"500": handler(Config{}, 20),
		"800": handler(Config{Flows: 48, MaxNew: 1000}, 20),
	}
}

func countSeries(t testing.TB, h http.Handler) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	n := 0
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}

// discard answers without keeping the answer.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(b []byte) (int, error) { return io.Discard.Write(b) }
func (discard) WriteHeader(int)             {}

func cpuTime(t testing.TB) int64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkScrape(b *testing.B) {
	for size, h := range scrapes(b) {
		b.Run(fmt.Sprintf("about=%s", size), func(b *testing.B) {
			n := countSeries(b, h)
			r := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
			before := cpuTime(b)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(discard{http.Header{}}, r)
			}
			b.ReportMetric(float64(n), "series")
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/scrape")
		})
	}
}
