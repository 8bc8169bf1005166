package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/remote"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/top"
)

const topHelp = `Watch live, in a terminal: the verdict, the buckets and ports left, closes per second; flows, CLOSE_WAIT, findings and handshakes. Keys are those of htop and k9s: ? lists them, Enter looks into a row, / filters, < and > sort, c copies a finding's snippet, q quits.

A recording is opened at its end: Space plays it, the arrows step, { and } jump to its ends, and the position bar can be clicked. A live view can be stopped and stepped back the same way. Another twwatch is followed by its stream: its reports come when it makes them.

Into a pipe, on a dumb terminal or with --once, what the view shows is written once as plain text.`

const topExamples = `
  twwatch top
  twwatch top --view=findings
  twwatch top --sort=close-wait --filter=php-fpm
  twwatch top --source=storm.jsonl.gz         play a recording
  twwatch top --source=http://web-1:10060     watch another host
  twwatch top --once --view=close-wait | less
`

type topFlags struct {
	adviceFlags
	liveFlags
	source     sourceFlags
	interval   time.Duration
	cpuBudget  float64
	asRecorded bool
	once       bool
	view       string
	sort       string
	invert     bool
	group      string
	filter     string
}

func topCommand() command {
	return command{
		name: "top", summary: "the same, live, in a terminal",
		help: topHelp, examples: topExamples,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &topFlags{}
			cmd.Flag("interval", "Time between two passes; of a recording, between two reports when it is played. Another twwatch keeps its own.").
				Default(top.DefaultInterval.String()).SetValue(durationValue{&f.interval, 200 * time.Millisecond, collector.MaxInterval})
			cmd.Flag("cpu-budget", "Share of one core that passes may use; the interval is stretched to keep it.").
				Default("0.2").SetValue(ratioValue{&f.cpuBudget})
			f.adviceFlags.define(cmd)
			f.liveFlags.define(cmd)
			f.source.define(cmd)
			cmd.Flag("as-recorded", "Show the verdicts and findings that a recording carries, instead of judging it anew.").BoolVar(&f.asRecorded)
			cmd.Flag("once", "Write the view once, as plain text, and end.").BoolVar(&f.once)
			cmd.Flag("view", "What to show first: "+either(top.Views())+".").Default(top.Views()[0]).SetValue(choiceValue{&f.view, top.Views()})
			cmd.Flag("sort", "What to sort flows by: "+either(top.Sorts())+".").Default(top.Sorts()[0]).SetValue(choiceValue{&f.sort, top.Sorts()})
			cmd.Flag("invert", "Sort flows the other way round.").BoolVar(&f.invert)
			cmd.Flag("group", "What to group flows by: "+either(top.Groupings())+".").Default(top.Groupings()[0]).SetValue(choiceValue{&f.group, top.Groupings()})
			cmd.Flag("filter", "Show only what holds all of these words, and none that begins with !.").PlaceHolder("WORDS").StringVar(&f.filter)
			return f
		},
	}
}

func (f *topFlags) run(ctx context.Context, e env, cfg configuration) (int, error) {
	if err := f.source.validate(); err != nil {
		return statusFailed, err
	}
	if f.asRecorded && (f.source.live() || f.source.remote()) {
		return statusFailed, errors.New("--as-recorded: only a recording carries verdicts: name one with --source")
	}
	library, err := f.library()
	if err != nil {
		return statusFailed, err
	}
	j := newJudge(cfg.thresholds, library)
	columns, terminal := e.columns(e.stdout)
	shown := top.Config{
		From: f.source.source, Recorded: !f.source.live() && !f.source.remote(), Interval: f.interval,
		Style: draw.Detect(terminal, e.getenv),
		View:  slices.Index(top.Views(), f.view), Sort: slices.Index(top.Sorts(), f.sort), Group: slices.Index(top.Groupings(), f.group),
		Invert: f.invert, Filter: f.filter,
	}
	if f.once || !terminal || e.getenv("TERM") == "dumb" {
		if !terminal || columns <= 0 {
			columns = 80
		}
		return f.showOnce(ctx, e, collector.Config{Knowledge: library}, j, shown, columns)
	}
	stop, err := f.open(collector.Config{Interval: f.interval, CPUBudget: f.cpuBudget, Knowledge: library}, j, &shown)
	if err != nil {
		return statusFailed, err
	}
	defer stop()
	if err := top.Run(ctx, shown, top.Terminal{Out: e.stdout}); err != nil {
		return statusFailed, err
	}
	return statusHealthy, nil
}

// showOnce looks for one interval, so that what only growth can tell is told.
func (f *topFlags) showOnce(ctx context.Context, e env, look collector.Config, j *judge, shown top.Config, columns int) (int, error) {
	if f.asRecorded {
		j = nil
	}
	r, err := f.source.look(ctx, f.interval, f.collect(look), j)
	if err != nil {
		return statusFailed, err
	}
	if err := top.Once(e.stdout, shown, r, columns); err != nil {
		return statusFailed, fmt.Errorf("writing the view: %w", err)
	}
	return statusHealthy, nil
}

// open makes the source that top shows, judged, and what lists its sockets.
func (f *topFlags) open(look collector.Config, j *judge, shown *top.Config) (stop func(), err error) {
	switch {
	case f.source.live():
		c, err := collector.New(f.collect(look))
		if err != nil {
			return nil, err
		}
		shown.Source, shown.Sockets = judged(c.Reports, j, f.interval), c.Sockets
		return func() { _ = c.Close() }, nil // what was only read from can lose nothing
	case f.source.remote():
		cfg := remote.Config{URL: f.source.source, HTTPConfigFile: f.source.config, Interval: f.interval}
		shown.Source = remote.Stream(cfg) // which has judged already
		shown.Sockets = func(ctx context.Context, q snapshot.SocketQuery) (*snapshot.SocketList, error) {
			return remote.Sockets(ctx, cfg, q)
		}
		return func() {}, cfg.Check()
	}
	if _, err := os.Stat(f.source.source); err != nil && f.source.source != "-" {
		return nil, fmt.Errorf("--source: %w", err)
	}
	shown.Source = record.Reports(f.source.source)
	if !f.asRecorded {
		shown.Source = judged(shown.Source, j, hub.DefaultInterval)
	}
	return func() {}, nil
}

// judged judges each report of a source, with those before it in sight.
func judged(source hub.Source, j *judge, interval time.Duration) hub.Source {
	const sight = 2 * time.Minute // what growth is told from
	keep := max(hub.DefaultKeep, min(3*hub.DefaultKeep, int(sight/interval)))
	return func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			var window []*snapshot.Report
			for r, err := range source(ctx) {
				if r != nil {
					window = hub.Keep(window, r, keep)
					j.judge(window)
				}
				if !yield(r, err) {
					return
				}
			}
		}
	}
}
