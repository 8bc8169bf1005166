package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/remote"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/web"
)

// sourceFlags say where reports come from.
type sourceFlags struct {
	source string
	config string
}

func (s *sourceFlags) define(cmd *kingpin.CmdClause) {
	cmd.Flag("source", "Where to look: live (this kernel), a recording's FILE (./live if it has that name, - for standard input), or the http:// or https:// address of another twwatch.").
		Default("live").StringVar(&s.source)
	cmd.Flag("source.config.file", "YAML file with CA, basic auth or bearer token for an http(s) source.").
		PlaceHolder("FILE").StringVar(&s.config)
}

// liveFlags say how to look at this kernel.
type liveFlags struct {
	namespaceFlags
	liveEvery time.Duration
}

func (l *liveFlags) define(cmd *kingpin.CmdClause) {
	cmd.Flag("dump-live-every", "Look at the live sockets so often between two passes, so that more short connections are seen while their process can be found; 0 is never. Each look walks the kernel's whole table, beyond the CPU budget.").
		PlaceHolder("0s").SetValue(durationValue{&l.liveEvery, 0, collector.MaxInterval})
	l.namespaceFlags.define(cmd)
}

// collect completes a collector's configuration.
func (l *liveFlags) collect(cfg collector.Config) collector.Config {
	cfg.LiveEvery, cfg.Version = l.liveEvery, programVersion()
	return l.namespaceFlags.collect(cfg)
}

func (s *sourceFlags) live() bool { return s.source == "live" }

func (s *sourceFlags) remote() bool {
	return strings.HasPrefix(s.source, "http://") || strings.HasPrefix(s.source, "https://")
}

func (s *sourceFlags) validate() error {
	if s.source == "" {
		return errors.New("--source: want live, a file or an http(s) address")
	}
	if s.config != "" && !s.remote() {
		return errors.New("--source.config.file: only an http(s) --source takes one")
	}
	return nil
}

// look returns one judged report: of this kernel after so long a look, the
// last one of a recording, or another twwatch's newest, as that judged it. With
// a nil judge a recording's is as it was judged then.
func (s *sourceFlags) look(ctx context.Context, d time.Duration, cfg collector.Config, j *judge) (*snapshot.Report, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	switch {
	case s.live():
		return lookLive(ctx, d, cfg, j)
	case s.remote():
		return s.lookRemote(ctx)
	}
	return lookRecorded(ctx, s.source, j)
}

func lookLive(ctx context.Context, d time.Duration, cfg collector.Config, j *judge) (*snapshot.Report, error) {
	cfg.CPUBudget = 1 // there is no later look that could see the rest
	c, err := collector.New(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	window, err := c.Look(ctx, d)
	if err != nil {
		return nil, err
	}
	j.judge(window)
	return window[len(window)-1], nil
}

// lookRecorded judges every report of a recording as it would be judged now,
// each after those before it, and returns the last one; with a nil judge it
// only returns that. One that breaks off gives its last whole report, which
// says in Incomplete that it wasn't the last.
func lookRecorded(ctx context.Context, path string, j *judge) (*snapshot.Report, error) {
	var window []*snapshot.Report
	for r, err := range record.Reports(path)(ctx) {
		if cut, ok := errors.AsType[*snapshot.CutError](err); ok && len(window) > 0 {
			last := window[len(window)-1]
			last.Incomplete = append(last.Incomplete, cutGap(err, cut))
			break
		}
		if err != nil {
			return nil, err
		}
		window = hub.Keep(window, r, hub.DefaultKeep)
		if j != nil {
			j.judge(window)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(window) == 0 {
		return nil, fmt.Errorf("%s: the recording holds no report", path)
	}
	return window[len(window)-1], nil
}

// cutGap says what a recording that breaks off doesn't show.
func cutGap(err error, cut *snapshot.CutError) snapshot.Gap {
	return snapshot.Gap{
		Stage: "recording", Error: strings.TrimPrefix(err.Error(), "record: "),
		Lost: fmt.Sprintf("what was recorded after report %d: later reports may tell of worse", cut.Report-1),
		Fix:  "if twwatch record is still writing, wait for its end; if the file was copied, copy it again; if record was killed, the rest is gone",
	}
}

func (s *sourceFlags) lookRemote(ctx context.Context) (*snapshot.Report, error) {
	for r, err := range remote.Reports(remote.Config{URL: s.source, HTTPConfigFile: s.config})(ctx) {
		return r, err
	}
	return nil, fmt.Errorf("%s: no report", s.source) // the source yields a report or an error
}

// A socketLister lists sockets for the API.
type socketLister = func(context.Context, snapshot.SocketQuery) (any, error)

// open makes the source that serve reads, and what lists its sockets.
func (s *sourceFlags) open(f *serveFlags) (source hub.Source, sockets socketLister, stop func(), err error) {
	switch {
	case s.live():
		return openLive(f)
	case s.remote():
		cfg := remote.Config{URL: s.source, HTTPConfigFile: s.config, Interval: f.interval}
		return remote.Reports(cfg), listRemote(cfg), func() {}, cfg.Check()
	}
	if _, err := os.Stat(s.source); err != nil && s.source != "-" {
		return nil, nil, nil, fmt.Errorf("--source: %w", err)
	}
	k := &sampleKeeper{reports: record.Reports(s.source)}
	return k.source, k.list, func() {}, nil
}

// listRemote asks the other twwatch, whose refusals are not this one's fault.
func listRemote(cfg remote.Config) socketLister {
	return func(ctx context.Context, q snapshot.SocketQuery) (any, error) {
		list, err := remote.Sockets(ctx, cfg, q)
		if err != nil && ctx.Err() == nil {
			return nil, &web.SocketsError{Status: http.StatusBadGateway, Err: err}
		}
		return list, err
	}
}

// A sampleKeeper keeps the newest sample of a recording that passes by: the
// file is read once, and standard input can't be read twice.
type sampleKeeper struct {
	reports hub.Source
	newest  atomic.Pointer[sample] // never changed
}

func (k *sampleKeeper) source(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
	return func(yield func(*snapshot.Report, error) bool) {
		for r, err := range k.reports(ctx) {
			if r != nil {
				if s := newerSample(k.newest.Load(), r); s != nil {
					k.newest.Store(s)
				}
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func (k *sampleKeeper) list(_ context.Context, q snapshot.SocketQuery) (any, error) {
	s := k.newest.Load()
	if s == nil {
		return nil, &web.SocketsError{Status: http.StatusNotFound, Err: errNoSample}
	}
	return s.list(q), nil
}

func openLive(f *serveFlags) (hub.Source, socketLister, func(), error) {
	c, err := collector.New(f.collect(collector.Config{Interval: f.interval, CPUBudget: f.cpuBudget, Knowledge: f.knowledge}))
	if err != nil {
		return nil, nil, nil, err
	}
	// Closing what was only read from can lose nothing.
	return c.Reports, listForAPI(c), func() { _ = c.Close() }, nil
}
