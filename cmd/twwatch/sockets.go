package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/report"
	"github.com/twwatch/twwatch/internal/web"
)

const socketsHelp = `List single sockets: who is connected to whom, in which state, for how long, and whose it is. The flags narrow the list together. A socket in TIME_WAIT has no owner any more.`

const socketsExamples = `
  twwatch sockets --state=time-wait --remote=10.0.0.9 --port=6379
  twwatch sockets --state=close-wait --older=1m    leaked, or forgotten
  twwatch sockets --state=close-wait --state=last-ack --output=json
`

type socketsFlags struct {
	outputFlags
	states []string
	remote netip.Prefix
	port   int
	older  time.Duration
	limit  int
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
			cmd.Flag("limit", "How many to list at most.").Default("100").SetValue(intValue{&f.limit, 1, collector.MaxSockets})
			f.outputFlags.define(cmd)
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
	*v.names = append(*v.names, state.String())
	return nil
}

func (v *statesValue) String() string     { return fmt.Sprint(*v.names) }
func (v *statesValue) IsCumulative() bool { return true }

// A socketList is the answer of /api/v1/sockets and of --output=json.
type socketList struct {
	Sockets []snapshot.Socket `json:"sockets"`
	// Truncated says that more sockets match than were asked for.
	Truncated bool `json:"truncated"`
}

func (f *socketsFlags) run(ctx context.Context, e env, _ configuration) (int, error) {
	query, err := f.query()
	if err != nil {
		return statusFailed, fmt.Errorf("--%w", err)
	}
	c, err := collector.New(collector.Config{Version: programVersion()})
	if err != nil {
		return statusFailed, err
	}
	defer c.Close()
	list, err := listSockets(ctx, c, query)
	if err != nil {
		return statusFailed, err
	}
	err = buffered(e.stdout, func(w io.Writer) error {
		if f.format == "json" {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(list)
		}
		return report.Sockets(w, list.Sockets, list.Truncated, e.textOptions(0, false))
	})
	if err != nil {
		return statusFailed, fmt.Errorf("writing the list: %w", err)
	}
	return statusHealthy, nil
}

// query is the collector's; the API's is the same with names for the states.
func (f *socketsFlags) query() (collector.SocketQuery, error) {
	q := collector.SocketQuery{Remote: f.remote, Port: uint16(f.port), Older: f.older, Limit: f.limit}
	for _, name := range f.states {
		state, err := inetdiag.ParseState(name)
		if err != nil {
			return q, err
		}
		q.States |= inetdiag.StatesOf(state)
	}
	aged := inetdiag.StatesOf(inetdiag.TimeWait, inetdiag.CloseWait)
	if q.Older > 0 && q.States != 0 && q.States&aged == 0 {
		return q, errors.New("older: only time_wait and close_wait sockets have an age that can be known")
	}
	return q, nil
}

func listSockets(ctx context.Context, c *collector.Collector, q collector.SocketQuery) (*socketList, error) {
	rows, truncated, err := c.Sockets(ctx, q)
	if err != nil {
		return nil, err // a part of the list would look like all of it
	}
	return &socketList{Sockets: rows, Truncated: truncated}, nil
}

// listForAPI answers /api/v1/sockets.
func listForAPI(c *collector.Collector) socketLister {
	return func(ctx context.Context, q web.SocketQuery) (any, error) {
		f := socketsFlags{states: q.States, remote: q.Remote, port: int(q.Port), older: q.Older, limit: q.Limit}
		query, err := f.query()
		if err != nil {
			return nil, err
		}
		return listSockets(ctx, c, query)
	}
}
