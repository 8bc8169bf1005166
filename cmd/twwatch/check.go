package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/report"
)

const checkHelp = `Look at this host's TCP sockets for a few seconds, and tell what is wrong. The first line is the verdict; then come the findings with what to do, the flows nearest to trouble, and what could not be seen.

The exit status is 0 if all is well, 1 for a warning, 2 if something is critical, and 3 if the look failed or was incomplete without finding anything critical (a wrong flag is 3, too).

No root is needed: any user sees all sockets of the network namespace that twwatch runs in.`

const checkExamples = `
  twwatch check                              look for 3 seconds
  twwatch check --for=0                      a single pass, as quick as can be
  twwatch check --fail-on=critical           for a script: warnings are no failure
  twwatch check --output=json | jq .verdict
  twwatch check --source=storm.jsonl.gz      judge the end of a recording anew
  twwatch check --source=storm.jsonl.gz --as-recorded
  twwatch check --source=http://web-1:10060  ask a twwatch that serves elsewhere
`

// outputFlags are those of every command that shows something once.
type outputFlags struct{ format string }

func (o *outputFlags) define(cmd *kingpin.CmdClause) {
	cmd.Flag("output", "How to show it: text or json. The keys of json are a contract.").
		Default("text").SetValue(choiceValue{&o.format, []string{"text", "json"}})
}

type checkFlags struct {
	outputFlags
	adviceFlags
	liveFlags
	source     sourceFlags
	asRecorded bool
	look       time.Duration
	failOn     string
	flows      int
	verbose    bool
}

func checkCommand() command {
	return command{
		name: "check", summary: "look for some seconds, tell what is wrong and what to do",
		help: checkHelp, examples: checkExamples,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &checkFlags{}
			cmd.Flag("for", "How long to look. 0 is a single pass: then nothing is said of what only growth can tell (see not_judged).").
				Default("3s").SetValue(durationValue{&f.look, 0, 10 * time.Minute})
			f.outputFlags.define(cmd)
			f.source.define(cmd)
			f.adviceFlags.define(cmd)
			f.liveFlags.define(cmd)
			cmd.Flag("as-recorded", "Show the verdict and the findings that the last report of a recording carries, instead of judging it anew. Another twwatch's are always shown as they are.").
				BoolVar(&f.asRecorded)
			cmd.Flag("fail-on", "The least severity that makes the exit status other than 0: warning or critical.").
				Default("warning").SetValue(choiceValue{&f.failOn, []string{"warning", "critical"}})
			cmd.Flag("flows", "How many flows to show for each namespace, as text.").Default("10").SetValue(intValue{&f.flows, 1, snapshot.MaxFlows})
			cmd.Flag("verbose", "Show every recommendation, with its effect, caveats and sources.").Short('v').BoolVar(&f.verbose)
			return f
		},
	}
}

func (f *checkFlags) run(ctx context.Context, e env, cfg configuration) (int, error) {
	library, err := f.library()
	if err != nil {
		return statusFailed, err
	}
	j := newJudge(cfg.thresholds, library)
	if f.asRecorded {
		if f.source.live() {
			return statusFailed, errors.New("--as-recorded: only a recording carries a verdict: name one with --source")
		}
		j = nil
	}
	r, err := f.source.look(ctx, f.look, f.collect(collector.Config{Knowledge: library}), j)
	if err != nil {
		return statusFailed, err
	}
	if f.asRecorded && r.Verdict == "" {
		return statusFailed, fmt.Errorf("%s: the last report carries no verdict: judge it without --as-recorded", f.source.source)
	}
	err = buffered(e.stdout, func(w io.Writer) error {
		if f.format == "json" {
			return snapshot.EncodeIndent(w, r)
		}
		return report.Text(w, r, e.textOptions(f.flows, f.verbose))
	})
	if err != nil {
		return statusFailed, fmt.Errorf("writing the report: %w", err)
	}
	return f.status(r), nil
}

// status is check's answer. An incomplete look can't say that all is well, nor
// that a warning is the worst there is.
func (f *checkFlags) status(r *snapshot.Report) int {
	switch {
	case r.Verdict == snapshot.Critical:
		return statusCritical
	case len(r.Incomplete) > 0 || r.Verdict == "":
		return statusFailed
	case r.Verdict == snapshot.Warning && f.failOn == "warning":
		return statusWarning
	}
	return statusHealthy
}

// textOptions fit the terminal, if there is one: never wider than 80 columns
// without one, so that a report can be mailed.
func (e env) textOptions(flows int, verbose bool) report.Options {
	columns, terminal := e.columns(e.stdout)
	width := 80
	if terminal && columns > 0 {
		width = min(columns, 120)
	}
	return report.Options{Style: draw.Detect(terminal, e.getenv), Width: width, Flows: flows, Verbose: verbose}
}

// buffered writes all or reports why not.
func buffered(w io.Writer, write func(io.Writer) error) error {
	b := bufio.NewWriter(w)
	if err := write(b); err != nil {
		return err
	}
	return b.Flush()
}
