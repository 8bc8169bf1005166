package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/remote"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/report"
)

const socketsHelp = `List single sockets: who is connected to whom, in which state, for how long, and whose it is. The flags narrow the list together. A socket in TIME_WAIT has no owner any more.

--netns lists those of another network namespace, which needs CAP_SYS_ADMIN and CAP_SYS_PTRACE.

Another twwatch (--source=http://…) lists its live sockets, at most 1000 at a time. A recording holds sockets only if it was made with record --sockets=N: those of its last report are listed, a random sample of what was there.`

const socketsExamples = `
  twwatch sockets --state=time-wait --remote=10.0.0.9 --port=6379
  twwatch sockets --state=close-wait --older=1m    leaked, or forgotten
  twwatch sockets --state=close-wait --process=php-fpm
  twwatch sockets --state=close-wait --state=last-ack --output=json
  twwatch sockets --netns=shop/web-1 --state=time-wait
  twwatch sockets --source=http://web-1:10060 --port=6379
  twwatch sockets --source=storm.jsonl.gz --state=time-wait
`

type socketsFlags struct {
	outputFlags
	source sourceFlags
	states []string
	remote netip.Prefix
	port   int
	older  time.Duration
	owner  string
	limit  int
	netns  string
}

func socketsCommand() command {
	return command{
		name: "sockets", summary: "list single sockets, filtered",
		help: socketsHelp, examples: socketsExamples,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &socketsFlags{}
			cmd.Flag("state", "Only sockets in this state, such as time-wait, close-wait or established. Repeatable.").
				PlaceHolder("STATE").SetValue(&statesValue{&f.states})
			cmd.Flag("remote", "Only sockets whose remote address is this, or in this network.").PlaceHolder("CIDR").SetValue(prefixValue{&f.remote})
			cmd.Flag("port", "Only sockets with this port at either end.").PlaceHolder("N").SetValue(intValue{&f.port, 1, 65535})
			cmd.Flag("older", "Only sockets that have been in their state at least so long; those whose age can't be known are left out.").
				PlaceHolder("30s").SetValue(durationValue{&f.older, 0, 10000 * time.Hour})
			cmd.Flag("process", "Only sockets of this process: its pid, or the name in /proc/PID/comm.").PlaceHolder("NAME").StringVar(&f.owner)
			cmd.Flag("limit", "How many to list at most.").Default("100").SetValue(intValue{&f.limit, 1, collector.MaxSockets})
			cmd.Flag("netns", "The network namespace to list: self, a name as check shows it, or a pattern that only one name matches.").
				Default(ownNamespace).PlaceHolder("NAME").StringVar(&f.netns)
			f.outputFlags.define(cmd)
			f.source.define(cmd)
			return f
		},
	}
}

// A statesValue collects states by any of their names.
type statesValue struct{ names *[]string }

func (v *statesValue) Set(s string) error {
	state, err := inetdiag.ParseState(s)
	if err != nil {
		return err
	}
	switch state { // the kernel's words for a part of what a list calls
	case inetdiag.NewSynRecv:
		state = inetdiag.SynRecv
	case inetdiag.BoundInactive:
		state = inetdiag.Close
	}
	*v.names = append(*v.names, state.String())
	return nil
}

func (v *statesValue) String() string     { return fmt.Sprint(*v.names) }
func (v *statesValue) IsCumulative() bool { return true }

func (v *statesValue) hints() []string {
	var names []string
	for s := inetdiag.Established; s <= inetdiag.Closing; s++ {
		names = append(names, strings.ReplaceAll(s.String(), "_", "-"))
	}
	return names
}

func (f *socketsFlags) run(ctx context.Context, e env, _ configuration) (int, error) {
	query := snapshot.SocketQuery{States: f.states, Remote: f.remote, Port: uint16(f.port), Older: f.older, Process: f.owner, Limit: f.limit}
	if err := query.Check(); err != nil {
		return statusFailed, fmt.Errorf("--%w", err)
	}
	list, err := f.source.sockets(ctx, query, f.netns)
	if err != nil {
		return statusFailed, err // a part of the list would look like all of it
	}
	err = buffered(e.stdout, func(w io.Writer) error {
		if f.format == "json" {
			return snapshot.EncodeSockets(w, list)
		}
		options := e.textOptions(0, false)
		if list.Sample != nil {
			describeSample(w, list.Sample, options.Width)
		}
		return report.Sockets(w, list.Sockets, list.Truncated, options)
	})
	if err != nil {
		return statusFailed, fmt.Errorf("writing the list: %w", err)
	}
	if list.Lost != "" && f.format == "text" {
		fmt.Fprintln(e.stderr, "twwatch: not in this list: "+oneLine(list.Lost))
	}
	return statusHealthy, nil
}

// sockets lists this kernel's sockets, another twwatch's, or those in a
// recording.
func (s *sourceFlags) sockets(ctx context.Context, q snapshot.SocketQuery, netns string) (*snapshot.SocketList, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	switch {
	case s.live():
		cfg := collector.Config{Version: programVersion()}
		if netns != ownNamespace {
			cfg.Namespaces.Names = []string{netns}
		}
		c, err := collector.New(cfg)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.SocketsIn(ctx, q)
	case netns != ownNamespace:
		return nil, errors.New("--netns: only the namespaces of this kernel can be chosen from, not those of a --source")
	case s.remote():
		return remote.Sockets(ctx, remote.Config{URL: s.source, HTTPConfigFile: s.config}, q)
	}
	return recordedSockets(ctx, s.source, q)
}

// recordedSockets lists from the last report that has any sockets, or else
// from the last that had none to show.
func recordedSockets(ctx context.Context, path string, q snapshot.SocketQuery) (*snapshot.SocketList, error) {
	var newest *sample
	for r, err := range record.Reports(path)(ctx) {
		if err != nil {
			return nil, err
		}
		newest = newerSample(newest, r)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if newest == nil {
		return nil, fmt.Errorf("%s: %w", path, errNoSample)
	}
	return newest.list(q), nil
}

var errNoSample = errors.New("the recording holds no single sockets: record with --sockets=N")

// A sample is what a recorded report has of single sockets.
type sample struct {
	sockets []snapshot.Socket
	of      snapshot.SocketSample
}

// newerSample is the report's sample if it has one that shows anything, or else
// old; without an old one, one that shows nothing, too.
func newerSample(old *sample, r *snapshot.Report) *sample {
	sockets, of, ok := sampleOf(r)
	if !ok || len(sockets) == 0 && old != nil && len(old.sockets) > 0 {
		return old
	}
	return &sample{sockets, snapshot.SocketSample{Time: r.Time, Host: r.Host, Redacted: r.Redacted, Sockets: len(sockets), Of: of}}
}

func (s *sample) list(q snapshot.SocketQuery) *snapshot.SocketList {
	list := &snapshot.SocketList{Sample: &s.of}
	list.Sockets, list.Truncated = q.Select(s.sockets)
	return list
}

// sampleOf joins the samples of a report's namespaces; ok is false where none
// was asked for.
func sampleOf(r *snapshot.Report) (sockets []snapshot.Socket, of int, ok bool) {
	for _, n := range r.Namespaces {
		sockets = append(sockets, n.Sockets...)
		if n.SocketsOf != nil {
			of, ok = of+*n.SocketsOf, true
		}
	}
	return sockets, max(of, len(sockets)), ok || len(sockets) > 0
}

// describeSample says that a list is not all, and of when it is.
func describeSample(w io.Writer, s *snapshot.SocketSample, width int) {
	redacted := ""
	if s.Redacted {
		redacted = ", redacted"
	}
	when := draw.Escape(s.Host) + ", " + s.Time.UTC().Format("2006-01-02 15:04:05 UTC") + redacted
	what := fmt.Sprintf("a random sample, %s of the %s sockets with a remote end", draw.Count(int64(s.Sockets)), draw.Count(int64(s.Of)))
	switch {
	case s.Of == 0:
		what = "there was no socket with a remote end"
	case s.Sockets == s.Of:
		what = fmt.Sprintf("all %s sockets with a remote end", draw.Count(int64(s.Of)))
	}
	fmt.Fprintf(w, "Recorded on %s:\n%s\n\n", draw.Truncate(when, width-len("Recorded on :")), what)
}

// listForAPI answers /api/v1/sockets.
func listForAPI(c *collector.Collector) socketLister {
	return func(ctx context.Context, q snapshot.SocketQuery) (any, error) {
		list, err := c.Sockets(ctx, q)
		if err != nil {
			return nil, err // as above
		}
		return list, nil
	}
}
