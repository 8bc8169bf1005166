package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
)

const explainHelp = `Explain a finding, a remedy, a service, a kind of program, a TCP state or a handshake: what it is, why it is there, which settings and counters belong to it, and where that can be checked. Without an ID, list everything that can be explained.

No network is needed. What the explanation concerns is counted on this host in one quick pass; --no-look leaves that out.`

const explainExamples = `
  twwatch explain                            list everything
  twwatch explain time-wait
  twwatch explain ephemeral-ports-exhausted  a finding, with its remedies
  twwatch explain service:memcached          where several things have one name
  twwatch explain syn-retries --output=json`

type explainFlags struct {
	outputFlags
	adviceFlags
	id   string
	look bool
	// now looks at this host.
	now func(context.Context) (*snapshot.Report, error)
}

func explainCommand() command {
	return command{
		name: "explain", summary: "explain a finding, a remedy, a TCP state or a handshake",
		help: explainHelp, examples: explainExamples,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &explainFlags{now: quickLook}
			f.outputFlags.define(cmd)
			cmd.Flag("look", "Count on this host what the explanation concerns.").Default("true").BoolVar(&f.look)
			f.adviceFlags.define(cmd)
			cmd.Arg("id", "What to explain.").HintAction(f.ids).StringVar(&f.id)
			return f
		},
	}
}

// ids are for the completion of words, where an error is of no use.
func (f *explainFlags) ids() []string {
	library, err := f.library()
	if err != nil {
		return nil
	}
	var ids []string
	for _, id := range library.IDs() {
		ids = append(ids, id.ID)
	}
	return ids
}

// An explanation is what --output=json writes: IDs without an id, else Texts.
type explanation struct {
	Schema string        `json:"schema"`
	IDs    []advice.ID   `json:"ids,omitempty"`
	Texts  []advice.Text `json:"texts,omitempty"`
}

func (f *explainFlags) run(ctx context.Context, e env, _ configuration) (int, error) {
	library, err := f.library()
	if err != nil {
		return statusFailed, err
	}
	answer := explanation{Schema: "twwatch.explain/v1"}
	if f.id == "" {
		answer.IDs = library.IDs()
	} else if answer.Texts = library.Explain(f.id); answer.Texts == nil {
		hint := ""
		if near := library.Suggest(f.id); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "? "
		}
		return statusFailed, fmt.Errorf("nothing is called %q: %stwwatch explain lists everything", f.id, hint)
	}
	if f.look {
		f.count(ctx, answer.Texts)
	}
	err = buffered(e.stdout, func(w io.Writer) error { return answer.write(w, f.format) })
	if err != nil {
		return statusFailed, fmt.Errorf("writing the explanation: %w", err)
	}
	return statusHealthy, nil
}

// count adds to each text what it asks about this host, in one look for all.
func (f *explainFlags) count(ctx context.Context, texts []advice.Text) {
	var report *snapshot.Report
	var err error
	for i := range texts {
		if len(texts[i].NowAsks) == 0 {
			continue
		}
		if report == nil && err == nil {
			report, err = f.now(ctx)
		}
		if err != nil {
			texts[i].NowMissing = oneLine(err.Error())
			continue
		}
		texts[i].Now = advice.Now(texts[i].NowAsks, report)
	}
}

// quickLook is a single pass over this host.
func quickLook(ctx context.Context) (*snapshot.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := collector.New(collector.Config{Version: programVersion()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	window, err := c.Look(ctx, 0)
	if err != nil {
		return nil, err
	}
	return window[len(window)-1], nil
}

func (x explanation) write(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(x)
	}
	if x.Texts == nil {
		if err := advice.WriteIDs(w, x.IDs); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "\ntwwatch explain ID tells more of any of them.")
		return err
	}
	for i := range x.Texts {
		if i > 0 {
			fmt.Fprintf(w, "\n%s\n\n", strings.Repeat("-", advice.Columns))
		}
		if err := x.Texts[i].Write(w); err != nil {
			return err
		}
	}
	return nil
}
