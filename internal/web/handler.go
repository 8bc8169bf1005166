package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
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

	// Library is what /explain and /api/v1/explain tell; nil has them say that
	// there is none.
	Library *advice.Library

	// Authenticated reports whether somebody has proved to the server who a
	// request is from. Nil: nobody ever does.
	Authenticated func(*http.Request) bool
	// EnableAPI answers everything off loopback too, without authentication.
	EnableAPI bool
	// ListenAddrs are the addresses served ("host:port", ":port"): their
	// hosts may stand in the Host header of a request that isn't
	// authenticated, as may every IP address and localhost.
	ListenAddrs []string
	// AllowedHosts are further names that may, without ports.
	AllowedHosts []string

	// Done ends the streams when it is closed, which would otherwise hold a
	// server's shutdown up; nil never does.
	Done <-chan struct{}

	Version string       // shown on the pages
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
	s := &site{cfg: cfg, guard: newGuard(cfg), frames: &frameCache{logger: cfg.Logger}}
	s.pages = newPages()
	s.sockets = &socketsHandler{list: cfg.Sockets, logger: cfg.Logger}
	s.metrics = limit(metrics, metricsSlots, metricsQueue, metricsWait)
	s.answers = limit(http.HandlerFunc(s.serveAnswer), answerSlots, metricsQueue, metricsWait)
	s.routes = make(map[string]*route)
	for _, r := range routes() {
		s.routes[r.path] = &r
	}
	return s
}

// Limits of a server, and of scrapes: so many at a time, so many waiting, so
// long.
const (
	metricsSlots = 4
	metricsQueue = 512
	metricsWait  = 5 * time.Second
	answerSlots  = 4 // answers that are made for each request

	maxHeader = 16 << 10 // bytes of a request's line and headers
	maxURL    = 4 << 10  // bytes of its path and query
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
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true, // OPTIONS * is refused like every other method
	}
}

type site struct {
	cfg     Config
	guard   guard
	frames  *frameCache
	pages   *pages
	sockets *socketsHandler
	metrics http.Handler
	answers http.Handler
	routes  map[string]*route
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
	if len(r.URL.Path)+len(r.URL.RawQuery) > maxURL {
		refuse(w, http.StatusRequestURITooLong, fmt.Sprintf("the path and query are longer than %d bytes", maxURL))
		return
	}
	found, id := s.route(r.URL.Path)
	if found == nil {
		refuse(w, http.StatusNotFound, "no such path: /api/v1/openapi.json lists what there is")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD are allowed here")
		return
	}
	found.serve(s, w, r, id)
}

// route finds what answers a path, and the {id} in it.
func (s *site) route(path string) (found *route, id string) {
	if found = s.routes[path]; found != nil && !strings.HasSuffix(path, idPart) {
		return found, ""
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 || i+1 == len(path) {
		return nil, ""
	}
	return s.routes[path[:i+1]+idPart], path[i+1:]
}

// healthy answers 200 as long as passes go on.
func (s *site) healthy(w http.ResponseWriter, r *http.Request) {
	age, stale := s.cfg.Hub.Stale(time.Now())
	if stale {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf(
			"no pass has ended for %d s, more than three intervals: see the log for its errors", int(age.Seconds())))
		return
	}
	plain(w, r, "healthy\n")
}

// ready answers 200 once there is a frame.
func (s *site) ready(w http.ResponseWriter, r *http.Request) {
	if !s.cfg.Hub.Ready() {
		refuse(w, http.StatusServiceUnavailable, noFrame)
		return
	}
	plain(w, r, "ready\n")
}

const noFrame = "not ready: the first pass has not ended yet"

func plain(w http.ResponseWriter, r *http.Request, text string) {
	w.Header().Set("Content-Type", asPlain)
	write(w, r, []byte(text))
}

func write(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that has gone can't be told
	}
}

// refuse answers with {"error": why}.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", asJSON)
	w.WriteHeader(status)
	_, _ = w.Write(errorBody(why)) // as above
}

func errorBody(why string) []byte {
	body, err := json.Marshal(map[string]string{"error": why})
	if err != nil { // a string always can be encoded
		body = []byte(`{"error":"?"}`)
	}
	return append(printable(body), '\n')
}
