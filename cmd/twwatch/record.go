package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
)

const recordHelp = `Write what is seen to a file, one report a line, until interrupted or for as long as --for and --count say. A name that ends in .gz is packed. check, serve, sockets and other twwatches read the file as a --source.

A report holds flows, not single sockets, so that its size is bounded. --sockets=N adds N of them, chosen at random from all that have a remote end, each as likely as any other; if there are no more than N, all. twwatch sockets lists the last report's.

The file is readable by its owner only, and one that exists is never overwritten. --redact replaces addresses, each by the same other one throughout.`

const recordExamples = `
  twwatch record storm.jsonl.gz                  until ^C
  twwatch record --count=1 now.jsonl
  twwatch record --count=1 --sockets=1000 now.jsonl.gz
  twwatch record --interval=5s --for=10m --redact for-the-vendor.jsonl.gz
  twwatch check --source=storm.jsonl.gz
`

type recordFlags struct {
	adviceFlags
	liveFlags
	path     string
	interval time.Duration
	length   time.Duration
	count    int
	sockets  int
	redact   bool
}

func recordCommand() command {
	return command{
		name: "record", summary: "write reports to a file, to look at them elsewhere or later",
		help: recordHelp, examples: recordExamples,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &recordFlags{}
			cmd.Arg("file", "The file to make.").Required().StringVar(&f.path)
			cmd.Flag("interval", "Time between two passes.").
				Default(collector.DefaultInterval.String()).SetValue(durationValue{&f.interval, time.Second, collector.MaxInterval})
			cmd.Flag("for", "How long to record; 0 is until interrupted.").Default("0").SetValue(durationValue{&f.length, 0, 10000 * time.Hour})
			cmd.Flag("count", "How many reports to record; 0 is no limit.").Default("0").SetValue(intValue{&f.count, 0, 1_000_000_000})
			cmd.Flag("sockets", "How many single sockets to add to each report, chosen at random; some 200 bytes each, before packing.").
				Default("0").SetValue(intValue{&f.sockets, 0, snapshot.MaxSampledSockets})
			f.adviceFlags.define(cmd)
			f.liveFlags.define(cmd)
			cmd.Flag("redact", "Replace addresses and names consistently, so that the file can be given away.").BoolVar(&f.redact)
			return f
		},
	}
}

func (f *recordFlags) run(ctx context.Context, e env, cfg configuration) (int, error) {
	library, err := f.library()
	if err != nil {
		return statusFailed, err
	}
	c, err := collector.New(f.collect(collector.Config{Interval: f.interval, CPUBudget: 1, SampleSockets: f.sockets, Knowledge: library}))
	if err != nil {
		return statusFailed, err
	}
	defer c.Close()
	var options record.Options
	if f.redact {
		options.Redactor = snapshot.NewRedactor(nil)
	}
	w, err := record.Create(f.path, options)
	if err != nil {
		return statusFailed, err
	}
	if f.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.length)
		defer cancel()
	}
	err = f.write(ctx, e, c, w, newJudge(cfg.thresholds, library))
	if cerr := w.Close(); !errors.Is(err, cerr) { // which may be the one of Write again
		err = errors.Join(err, cerr)
	}
	if err == nil && w.Reports() == 0 {
		err = fmt.Errorf("nothing was recorded: %s is empty", f.path)
	}
	if err != nil {
		return statusFailed, err
	}
	fmt.Fprintf(e.stderr, "twwatch: reports recorded in %s: %d\n", oneLine(f.path), w.Reports())
	return statusHealthy, nil
}

// write records until the context ends, which is no error, or it is enough. A
// pass that fails altogether is told and left out; if it is the first, it ends
// the recording, since the next would fail too.
func (f *recordFlags) write(ctx context.Context, e env, c *collector.Collector, w *record.Writer, j *judge) error {
	var window []*snapshot.Report
	for r, err := range c.Reports(ctx) {
		if err != nil && w.Reports() == 0 {
			return err
		}
		if err != nil {
			fail(e, err)
			continue
		}
		window = hub.Keep(window, r, hub.DefaultKeep)
		j.judge(window)
		if err := w.Write(r); err != nil {
			return err
		}
		if w.Reports() == f.count {
			return nil
		}
	}
	return nil
}
