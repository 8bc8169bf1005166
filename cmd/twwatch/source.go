package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/remote"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
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
func (s *sourceFlags) look(ctx context.Context, d time.Duration, j *judge) (*snapshot.Report, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	switch {
	case s.live():
		return lookLive(ctx, d, j)
	case s.remote():
		return s.lookRemote(ctx)
	}
	return lookRecorded(ctx, s.source, j)
}

func lookLive(ctx context.Context, d time.Duration, j *judge) (*snapshot.Report, error) {
	c, err := collector.New(collector.Config{Version: programVersion()})
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
// only returns that. A recording that breaks off gives no report:
// its last line may be the one that matters.
func lookRecorded(ctx context.Context, path string, j *judge) (*snapshot.Report, error) {
	var window []*snapshot.Report
	for r, err := range record.Reports(path)(ctx) {
		if err != nil {
			return nil, err
		}
		if len(window) == hub.DefaultKeep {
			window = append(window[:0], window[1:]...)
		}
		window = append(window, r)
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

func (s *sourceFlags) lookRemote(ctx context.Context) (*snapshot.Report, error) {
	for r, err := range remote.Reports(remote.Config{URL: s.source, HTTPConfigFile: s.config})(ctx) {
		return r, err
	}
	return nil, fmt.Errorf("%s: no report", s.source) // the source yields a report or an error
}

// A socketLister lists live sockets for the API.
type socketLister = func(context.Context, snapshot.SocketQuery) (any, error)

// open makes the source that serve reads; sockets is nil where there are no
// live ones.
func (s *sourceFlags) open(f *serveFlags) (source hub.Source, sockets socketLister, stop func(), err error) {
	switch {
	case s.live():
		return openLive(f)
	case s.remote():
		cfg := remote.Config{URL: s.source, HTTPConfigFile: s.config, Interval: f.interval}
		return remote.Reports(cfg), nil, func() {}, cfg.Check()
	}
	if _, err := os.Stat(s.source); err != nil && s.source != "-" {
		return nil, nil, nil, fmt.Errorf("--source: %w", err)
	}
	return record.Reports(s.source), nil, func() {}, nil
}

func openLive(f *serveFlags) (hub.Source, socketLister, func(), error) {
	cfg := collector.Config{Interval: f.interval, CPUBudget: f.cpuBudget, Version: programVersion()}
	c, err := collector.New(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	// Closing what was only read from can lose nothing.
	return c.Reports, listForAPI(c), func() { _ = c.Close() }, nil
}
