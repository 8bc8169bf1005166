//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// commandResult is what a command cost in each round, beside ss -Htan in the
// same round.
type commandResult struct {
	name string
	ns   []int64
	ssNS []int64
}

// contender is one of the commands that are measured in turn.
type contender struct {
	name   string
	rounds int
	run    func(context.Context) (time.Duration, error)
}

const theSS = "ss -Htan"

// measureCommands runs the commands in turn, ss first in each round.
func (r *results) measureCommands(ctx context.Context, t *table) ([]commandResult, error) {
	contenders, stop, err := r.contenders(ctx, t)
	if err != nil {
		return nil, err
	}
	defer stop()
	found := make([]commandResult, len(contenders))
	for round := range r.pairs {
		var ss time.Duration
		for i, c := range contenders {
			if round >= c.rounds {
				continue
			}
			if err := t.ready(ctx, 20*time.Second); err != nil {
				return nil, err
			}
			cpu, err := c.run(ctx)
			if err != nil {
				return nil, err
			}
			if c.name == theSS {
				ss = cpu
			}
			found[i].name = c.name
			found[i].ns = append(found[i].ns, int64(cpu))
			found[i].ssNS = append(found[i].ssNS, int64(ss))
		}
	}
	return found, nil
}

func (r *results) contenders(ctx context.Context, t *table) (list []contender, stop func(), err error) {
	if err := r.checkCounts(ctx, t); err != nil {
		return nil, nil, err
	}
	program := func(failed int, name string, args ...string) func(context.Context) (time.Duration, error) {
		return func(ctx context.Context) (time.Duration, error) {
			u, err := t.command(ctx, false, failed, name, args...)
			return u.cpu, err
		}
	}
	look := r.look.String()
	list = []contender{
		{theSS, r.pairs, program(1, "ss", "-Htan")},
		{"twwatch check --for=0 --output json", r.pairs, program(3, r.twwatch, "check", "--for=0", "--output", "json")},
		{"twwatch check --for=" + look + " --output json", r.few, program(3, r.twwatch, "check", "--for="+look, "--output", "json")},
		{"ss -tan", r.few, program(1, "ss", "-tan")},
		{"vishvananda/netlink SocketDiagTCP", r.few, func(ctx context.Context) (time.Duration, error) {
			u, err := t.self(ctx, false, "netlink")
			return u.cpu, err
		}},
	}
	exporter, err := startExporter(ctx, t, r.exporter)
	if errors.Is(err, exec.ErrNotFound) {
		r.lacks("node_exporter")
		return list, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list = append(list, contender{"node_exporter, tcpstat alone: one scrape", r.few, exporter.scrape})
	return list, exporter.stop, nil
}

func (r *results) lacks(peer string) {
	if !slices.Contains(r.notFound, peer) {
		r.notFound = append(r.notFound, peer)
	}
}

// checkCounts makes sure that those who are compared see the same table.
func (r *results) checkCounts(ctx context.Context, t *table) error {
	if err := t.ready(ctx, 30*time.Second); err != nil {
		return err
	}
	u, err := t.command(ctx, true, 3, r.twwatch, "check", "--for=0", "--output", "json")
	if err != nil {
		return err
	}
	report, err := snapshot.Decode(u.out)
	if err != nil {
		return err
	}
	if n := report.Namespaces[0].States.TimeWait; int(n) != t.there {
		return fmt.Errorf("twwatch check reports %d TIME_WAITs of %d", n, t.there)
	}
	if u, err = t.self(ctx, true, "netlink"); err != nil {
		return err
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(u.out))); err != nil || n < t.there {
		return fmt.Errorf("SocketDiagTCP shows %d sockets of %d (%w)", n, t.there, err)
	}
	if t.rows > 100_000 { // ss's text would fill the memory
		return nil
	}
	if u, err = t.command(ctx, true, 1, "ss", "-Htan"); err != nil {
		return err
	}
	if n := bytes.Count(u.out, []byte("TIME-WAIT")); n != t.there {
		return fmt.Errorf("ss shows %d TIME_WAITs of %d", n, t.there)
	}
	return nil
}

// netlinkMain is vishvananda/netlink as a peer: the sockets of both families,
// counted.
func netlinkMain(out io.Writer) error {
	n := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return err
		}
		n += len(list)
	}
	_, err := fmt.Fprintln(out, n)
	return err
}
