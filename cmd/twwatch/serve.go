package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/coreos/go-systemd/v22/activation"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/promslog"
	toolkit "github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
	"go.yaml.in/yaml/v3"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/exporter"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/web"
)

const serveHelp = `Watch all the time: one pass over the sockets every 15 seconds, served as Prometheus metrics, as a page and as a JSON API on port 10060. One pass serves any number of scrapes and readers.

Off loopback only /metrics and /-/ are answered, unless --web.config.file asks for authentication or --web.enable-api is given. A request that isn't authenticated must name this host by an IP address, localhost, a host of --web.listen-address or one of --web.allowed-host: under any other name a web page may be another site's. /metrics off loopback and /-/ are answered under every name, since scrapers use many.

Whose the sockets are is read from /proc/PID/fd: for 200 ms in the first pass, and then some 1,000 descriptors a pass until all are known. What is remembered of it is bounded: 65,536 live sockets and 131,072 connections, 16 MiB in all, and 8,192 processes that run and as many that have ended, 0.2 to 2.2 KiB each.

SIGHUP reads --config.file anew: thresholds and log.level change at once, and the log names what needs a restart; a file with a fault changes nothing. SIGTERM answers what has been asked, and ends with status 0. The exit status is 3 if serving was not possible. Memory and processors are limited to 40 MiB (a soft limit) and 2 unless GOMEMLIMIT and GOMAXPROCS say otherwise. Once it listens, it gives up starting programs and reaching into other processes' memory, by a seccomp filter of its own.`

const serveExamples = `
  twwatch serve
  twwatch serve --web.listen-address=127.0.0.1:10060
  twwatch serve --config.file=/etc/twwatch.yaml --web.config.file=/etc/twwatch-web.yaml
  curl -s localhost:10060/api/v1/report | jq .findings
`

const (
	defaultAddress = ":10060"
	// memoryLimit is GOMEMLIMIT where it isn't set.
	memoryLimit = 40 << 20
	maxProcs    = 2
	// shutdownTime is how long requests under way may take after SIGTERM.
	shutdownTime = 10 * time.Second
)

type serveFlags struct {
	adviceFlags
	liveFlags
	source        sourceFlags
	web           *toolkit.FlagConfig
	logLevel      string
	logFormat     string
	interval      time.Duration
	cpuBudget     float64
	flows         int
	serverRemotes bool
	enableAPI     bool
	allowedHosts  []string

	knowledge *advice.Library
}

func serveCommand() command {
	return command{
		name: "serve", summary: "watch all the time: Prometheus metrics, a page and a JSON API",
		help: serveHelp, examples: serveExamples,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &serveFlags{web: kingpinflag.AddFlags(cmd, defaultAddress)}
			cmd.Flag("web.enable-api", "Answer everything to everybody who can connect: addresses and process names of this host, without authentication.").BoolVar(&f.enableAPI)
			cmd.Flag("web.allowed-host", "A name of this host under which the page and the API are answered without authentication too, as in http://NAME:10060. Repeatable.").
				PlaceHolder("NAME").SetValue(&hostsValue{&f.allowedHosts})
			cmd.Flag("interval", "Time between two passes. At most 50s: a TIME_WAIT lives 60.").
				Default(collector.DefaultInterval.String()).SetValue(durationValue{&f.interval, time.Second, collector.MaxInterval})
			cmd.Flag("cpu-budget", "Share of one core that passes may use; the interval is stretched (to 50s at most) to keep it.").
				Default("0.02").SetValue(ratioValue{&f.cpuBudget})
			cmd.Flag("metrics.flows", "How many client flows, and how many server flows, have metrics of their own.").
				Default("20").SetValue(intValue{&f.flows, 0, 500})
			cmd.Flag("metrics.server-remotes", "Give server flows a remote label: one flow for each client address.").BoolVar(&f.serverRemotes)
			f.source.define(cmd)
			f.adviceFlags.define(cmd)
			f.liveFlags.define(cmd)
			cmd.Flag("log.level", "Log only messages of this severity or above: debug, info, warn or error.").
				Default("info").SetValue(choiceValue{&f.logLevel, promslog.LevelFlagOptions})
			cmd.Flag("log.format", "Format of the log: logfmt or json.").
				Default("logfmt").SetValue(choiceValue{&f.logFormat, promslog.FormatFlagOptions})
			return f
		},
	}
}

// A server is serve under way.
type server struct {
	*serveFlags
	env      env
	logger   *slog.Logger
	level    *promslog.Level
	judge    *judge
	reloader *reloader
	hub      *hub.Hub
	http     []*http.Server
	stopping chan struct{} // closed when streams are to end
}

func (f *serveFlags) run(ctx context.Context, e env, cfg configuration) (int, error) {
	if err := f.source.validate(); err != nil {
		return statusFailed, err
	}
	limitRuntime(e)
	var err error
	if f.knowledge, err = f.library(); err != nil {
		return statusFailed, err
	}
	s := &server{serveFlags: f, env: e, level: promslog.NewLevel(), judge: newJudge(cfg.thresholds, f.knowledge)}
	format := promslog.NewFormat()
	if err := errors.Join(s.level.Set(f.logLevel), format.Set(f.logFormat)); err != nil {
		return statusFailed, err
	}
	s.logger = promslog.New(&promslog.Config{Level: s.level, Format: format, Writer: e.stderr})

	if file := *f.web.WebConfigFile; file != "" {
		if err := toolkit.Validate(file); err != nil {
			return statusFailed, fmt.Errorf("--web.config.file: %s: %w", file, err)
		}
	}
	listeners, err := f.listen()
	if err != nil {
		return statusFailed, err
	}
	if e.restrict != nil {
		if err := e.restrict(); err != nil { // gVisor has no seccomp, say
			s.logger.Info("Starting programs could not be given up", "err", err)
		}
	}
	s.judge.ownPort = ownPort(listeners)
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // the server has closed it already, as a rule
		}
	}()
	if err := s.serve(ctx, cfg, listeners); err != nil {
		return statusFailed, err
	}
	return statusHealthy, nil
}

// limitRuntime makes the runtime fit for an agent: what it watches comes first.
func limitRuntime(e env) {
	if e.getenv("GOGC") == "" {
		debug.SetGCPercent(100)
	}
	if e.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if e.getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(maxProcs, runtime.GOMAXPROCS(0)))
	}
}

// listen opens all sockets before anything else is done, since an address in
// use is the usual reason why a daemon doesn't start.
func (f *serveFlags) listen() ([]net.Listener, error) {
	if f.web.WebSystemdSocket != nil && *f.web.WebSystemdSocket {
		listeners, err := activation.Listeners()
		if err == nil && len(listeners) == 0 {
			err = errors.New("systemd has passed no socket: start the .socket unit, or leave the flag out")
		}
		if err != nil {
			return nil, fmt.Errorf("--web.systemd-socket: %w", err)
		}
		return listeners, nil
	}
	var listeners []net.Listener
	for _, address := range *f.web.WebListenAddresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			for _, open := range listeners {
				_ = open.Close() // nothing has been served yet
			}
			return nil, listenError(address, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// ownPort is the first port that is served; 0 if none is TCP's.
func ownPort(listeners []net.Listener) uint16 {
	for _, l := range listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return uint16(a.Port)
		}
	}
	return 0
}

func listenError(address string, err error) error {
	var hint string
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(address)
		hint = "another program (a second twwatch?) listens there: stop it (ss -ltnp 'sport = :" + port + "' names it), or give another address"
	case errors.Is(err, syscall.EACCES):
		hint = "ports below 1024 need CAP_NET_BIND_SERVICE: give a higher one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "this host has no such address: give one of its own, or a port alone such as " + defaultAddress
	default:
		hint = "want host:port or :port, such as " + defaultAddress
	}
	// The operating system's error alone: net's names the address again.
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return fmt.Errorf("--web.listen-address: %s: %w: %s", address, err, hint)
}

// serve runs until ctx ends, which is success, or something fails.
func (s *server) serve(ctx context.Context, cfg configuration, listeners []net.Listener) error {
	source, sockets, closeSource, err := s.source.open(s.serveFlags)
	if err != nil {
		return err
	}
	defer closeSource()
	metrics := exporter.New(exporter.Config{
		Flows: s.metricFlows(), ServerRemotes: s.serverRemotes,
		Errors: func() map[string]uint64 { return s.hub.Errors() },
	})
	hubConfig := hub.Config{Source: source, OnFrame: metrics.Observe, Interval: s.interval, Stages: collector.Stages(), Logger: s.logger}
	if !s.source.remote() { // another twwatch has judged already
		hubConfig.Judge = s.judgeFrame
	}
	s.hub = hub.New(hubConfig)
	s.reloader = newReloader(s, cfg)
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		metrics, s.reloader, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	s.stopping = make(chan struct{})
	handler := s.handler(registry, sockets)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		h := web.Server(handler, s.logger)
		s.http = append(s.http, h)
		go func() { failed <- toolkit.Serve(web.Listener(l), h, s.web, s.logger) }()
	}
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		_ = s.hub.Run(ctx) // ends with ctx, or with a source that has an end
	}()
	s.logger.Info("Started", "version", programVersion(), "interval", s.interval, "from", s.source.source)

	err = s.attend(ctx, failed)
	s.shutdown(cancel)
	<-looked
	return err
}

func (s *server) metricFlows() int {
	if s.flows == 0 {
		return -1 // the exporter's 0 is its default
	}
	return s.flows
}

// judgeFrame judges a report before it is published.
func (s *server) judgeFrame(r *snapshot.Report) {
	s.judge.judge(append(s.hub.Window(), r))
}

// attend waits for signals, and keeps systemd informed.
func (s *server) attend(ctx context.Context, failed <-chan error) error {
	hangups, stop := s.env.hangups()
	defer stop()
	watchdog := watchdogTicks(s)
	defer watchdog.Stop()
	first, forget := s.hub.Subscribe()
	defer func() { _ = forget() }() // a subscription that ended early tells nothing here
	for {
		select {
		case _, more := <-first: // only now is there something to serve
			first = nil
			_ = forget() // else the hub finds this reader slow, and says so
			if more {
				s.notify("READY=1")
			}
		case <-ctx.Done():
			s.logger.Info("Stopping")
			return nil
		case err := <-failed:
			if !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving: %w", err)
			}
		case <-hangups:
			s.notify(reloadingState())
			s.reloader.reload()
			s.notify("READY=1")
		case now := <-watchdog.C:
			if _, stale := s.hub.Stale(now); !stale {
				s.notify("WATCHDOG=1")
			}
		}
	}
}

// shutdown answers what has been asked, for a while, and ends the passes.
func (s *server) shutdown(cancel context.CancelFunc) {
	s.notify("STOPPING=1")
	close(s.stopping)
	ctx, done := context.WithTimeout(context.Background(), shutdownTime)
	defer done()
	for _, h := range s.http {
		if err := h.Shutdown(ctx); err != nil {
			s.logger.Warn("Requests under way were cut off", "err", err)
			_ = h.Close()
		}
	}
	cancel()
}

// handler answers requests. Whether authentication let one in is looked up each
// time, since the toolkit reads its file each time too.
func (s *server) handler(metrics prometheus.Gatherer, sockets socketLister) http.Handler {
	cfg := web.Config{
		Hub: s.hub, Metrics: metrics, Sockets: sockets, Library: s.knowledge, EnableAPI: s.enableAPI, Done: s.stopping,
		ListenAddrs: *s.web.WebListenAddresses, AllowedHosts: s.allowedHosts, Version: programVersion(), Logger: s.logger,
	}
	if file := *s.web.WebConfigFile; file != "" {
		cfg.Authenticated = func(r *http.Request) bool { return authenticated(file, r) }
	}
	return web.Handler(cfg)
}

// authenticated tells whether the toolkit let the request in because it proves
// who it is from. The toolkit demands a password of each request once its file
// has users. A certificate it demands when a connection is made, and TLS was
// settled at the start: what the file says of certificates by now counts only
// where this connection has brought one that was verified. A file that can't be
// read lets nobody in, says the toolkit.
func authenticated(file string, r *http.Request) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	var c struct {
		Users map[string]string `yaml:"basic_auth_users"`
		TLS   struct {
			ClientAuth string `yaml:"client_auth_type"`
		} `yaml:"tls_server_config"`
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return false
	}
	// A request without a password was let in before there were users.
	if _, _, ok := r.BasicAuth(); ok && len(c.Users) > 0 {
		return true
	}
	return c.TLS.ClientAuth == "RequireAndVerifyClientCert" && r.TLS != nil && len(r.TLS.VerifiedChains) > 0
}
