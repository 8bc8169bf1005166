package web

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
)

// Config says what to serve. Hub and Metrics are required.
type Config struct {
	Hub     *hub.Hub
	Metrics prometheus.Gatherer
	// Sockets lists sockets; the answer is encoded as JSON. It is called by
	// one request at a time, with a context that ends after ten seconds. A
	// [*SocketsError] says with which status an error is answered. Nil where
	// the source has no sockets.
	Sockets func(context.Context, snapshot.SocketQuery) (any, error)

	// Auth tells that every request is authenticated before it gets here.
	Auth bool
	// EnableAPI answers everything off loopback too, without authentication.
	EnableAPI bool
	// ListenAddrs are the addresses served ("host:port", ":port"): their
	// hosts may stand in the Host header of a request that isn't
	// authenticated, as may every IP address and localhost.
	ListenAddrs []string
	// AllowedHosts are further names that may, without ports.
	AllowedHosts []string

	Version string       // shown on the index
	Logger  *slog.Logger // nil logs nothing
}

// Handler returns the handler of all paths.
func Handler(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	metrics := promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		ErrorHandling:  promhttp.ContinueOnError,
		ErrorLog:       slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
		CoalesceGather: true,
		// gzip; zstd would be one more decoder's worth of memory.
		OfferedCompressions: []promhttp.Compression{promhttp.Identity, promhttp.Gzip},
	})
	s := &site{cfg: cfg, guard: newGuard(cfg)}
	s.routes = map[string]http.Handler{
		"/":               http.HandlerFunc(s.index),
		"/metrics":        limit(metrics, metricsSlots, metricsQueue, metricsWait),
		"/-/healthy":      http.HandlerFunc(s.healthy),
		"/-/ready":        http.HandlerFunc(s.ready),
		"/api/v1/report":  &reportHandler{hub: cfg.Hub, logger: cfg.Logger},
		"/api/v1/sockets": &socketsHandler{list: cfg.Sockets, logger: cfg.Logger},
	}
	return s
}

// Limits of a server, and of scrapes: so many at a time, so many waiting, so
// long.
const (
	metricsSlots = 4
	metricsQueue = 512
	metricsWait  = 5 * time.Second
)

// Server returns a server with limits on what a client may send and on how
// slowly.
func Server(handler http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

type site struct {
	cfg    Config
	guard  guard
	routes map[string]http.Handler
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")

	if status, why := s.guard.refuse(r); status != 0 {
		refuse(w, status, why)
		return
	}
	route, ok := s.routes[r.URL.Path]
	if !ok {
		refuse(w, http.StatusNotFound, "no such path: see / for what there is")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD are allowed here")
		return
	}
	route.ServeHTTP(w, r)
}

// healthy answers 200 as long as passes go on.
func (s *site) healthy(w http.ResponseWriter, _ *http.Request) {
	age, stale := s.cfg.Hub.Stale(time.Now())
	if stale {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf(
			"no pass has ended for %d s, more than three intervals: see the log for its errors", int(age.Seconds())))
		return
	}
	plain(w, "healthy\n")
}

// ready answers 200 once there is a frame.
func (s *site) ready(w http.ResponseWriter, _ *http.Request) {
	if !s.cfg.Hub.Ready() {
		refuse(w, http.StatusServiceUnavailable, noFrame)
		return
	}
	plain(w, "ready\n")
}

const noFrame = "not ready: the first pass has not ended yet"

func (s *site) index(w http.ResponseWriter, r *http.Request) {
	paths := make([]string, 0, len(s.routes))
	for p := range s.routes {
		if p != "/" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>twwatch</title></head><body>\n<h1>twwatch %s</h1>\n<ul>\n", html.EscapeString(s.cfg.Version))
	for _, p := range paths {
		fmt.Fprintf(&b, "<li><a href=\"%s\">%s</a> %s</li>\n", p, p, about(p))
	}
	b.WriteString("</ul>\n</body></html>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	write(w, r, []byte(b.String()))
}

func about(path string) string {
	return map[string]string{
		"/metrics":        "Prometheus metrics of the last pass",
		"/-/healthy":      "200 while passes go on",
		"/-/ready":        "200 once the first pass has ended",
		"/api/v1/report":  "the last pass and its findings, as JSON",
		"/api/v1/sockets": "live sockets, as JSON: " + strings.Join(parameters(), ", "),
	}[path]
}

func plain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text)) // a client that has gone can't be told
}

func write(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // as above
	}
}

// refuse answers with {"error": why}.
func refuse(w http.ResponseWriter, status int, why string) {
	body, err := json.Marshal(map[string]string{"error": why})
	if err != nil { // a string always can be encoded
		body = []byte(`{"error":"?"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(printable(body), '\n')) // as above
}
