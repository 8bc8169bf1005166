//go:build linux

// Command bench measures what a pass over the socket table costs, on real
// tables of TIME_WAIT sockets in namespaces of its own, and compares it with
// the least that any reader must spend and with other programs. It writes
// docs/benchmarks.md; scripts/bench runs it.
//
// It owns the namespaces and processes that it makes; nothing of them is left
// when it ends. It asserts counts and never times: whether a target was met is
// for the reader of its report to see.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options say what to measure.
type options struct {
	rows     []int // sizes of the tables
	search   int   // size of the table beside which processes are searched for
	crowd    int   // how many processes
	pairs    int   // turns of floor and pass, of check and ss, with and without the search
	few      int   // turns of what takes long
	interval time.Duration
	look     time.Duration // of the check that looks for a while
	quick    bool
	sweep    bool // nothing else
	twwatch  string
	exporter string
	out      string
}

// quickly is what a test can run in seconds.
func (o *options) quickly() {
	o.rows, o.pairs, o.few = []int{1_000, 10_000}, 11, 1
	o.search, o.crowd = 10_000, quickProcesses
	o.interval, o.look = time.Second, time.Second
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if known, err := processMain(ctx, args, stdout); known {
		return err
	}
	o := options{
		rows: []int{1_000, 10_000, 100_000, 1_000_000}, search: largeTable, crowd: crowdProcesses, look: 3 * time.Second,
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("rows", "sizes of the tables, such as 1000,100000 (default 1000,10000,100000,1000000)", func(s string) error {
		o.rows = nil
		for field := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(field)
			if err != nil || n < 1000 || n > 3_000_000 {
				return fmt.Errorf("%q: want sizes from 1000 to 3000000", field)
			}
			o.rows = append(o.rows, n)
		}
		slices.Sort(o.rows)
		return nil
	})
	flags.IntVar(&o.pairs, "pairs", 41, "turns of which the median is taken")
	flags.IntVar(&o.few, "few", 5, "turns of what takes long: the slower peers, check that looks for 3 s")
	flags.DurationVar(&o.interval, "interval", 5*time.Second, "of the daemon whose memory is measured")
	flags.BoolVar(&o.quick, "quick", false, "1,000 and 10,000 sockets, 11 turns: seconds, to see that it works")
	flags.BoolVar(&o.sweep, "sweep", false, "only what a pass over all namespaces costs")
	flags.StringVar(&o.twwatch, "twwatch", "bin/twwatch", "the program to measure")
	flags.StringVar(&o.exporter, "node-exporter", "prometheus-node-exporter", "node_exporter, left out where there is none")
	flags.StringVar(&o.out, "out", "", "write the report to this file too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.quick {
		o.quickly()
	}
	r, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	text := r.markdown()
	if o.out != "" {
		if err := os.WriteFile(o.out, text, 0o644); err != nil {
			return err
		}
	}
	_, err = stdout.Write(text)
	return err
}

// processMain is what this program does where it was started by itself.
func processMain(ctx context.Context, args []string, out io.Writer) (known bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case "passes":
		return true, passesMain(ctx, args[1:], out)
	case "owners":
		return true, ownersMain(ctx, args[1:], out)
	case "watch":
		return true, watchMain(ctx, args[1:], out)
	case "sweep":
		return true, sweepMain(ctx, args[1:], out)
	case "netlink":
		return true, netlinkMain(out)
	}
	return false, nil
}

// results are what one run found.
type results struct {
	options
	machine  machine
	began    time.Time
	took     time.Duration
	tables   []tableResult
	mallocs  []mallocsResult
	memory   *memoryResult
	owners   *ownersResult
	scrapes  []scrapesResult
	top      *topResult
	sweep    *sweepResult
	notFound []string // peers that this machine lacks
}

type tableResult struct {
	rows     int
	single   bool
	filled   time.Duration
	passes   passes
	commands []commandResult
}

type mallocsResult struct {
	rows, flows int
	bound       bool
	mallocs     uint64
}

// measure does it all, table by table.
func measure(ctx context.Context, o options, log io.Writer) (*results, error) {
	r := &results{options: o, machine: thisMachine(), began: time.Now()}
	say := func(format string, args ...any) {
		fmt.Fprintf(log, "%4.0fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
	}
	if o.sweep {
		return r, r.measureSweepAlone(ctx, say)
	}
	for _, rows := range []int{10, 100} {
		if err := r.measureMallocs(ctx, rows); err != nil {
			return nil, err
		}
	}
	say("scrapes")
	if err := r.measureScrapes(ctx); err != nil {
		return nil, fmt.Errorf("scrapes: %w", err)
	}
	for _, single := range []bool{false, true} {
		for i, rows := range o.rows {
			say("%d sockets, %s", rows, remotes(single))
			last := i == len(o.rows)-1
			if err := r.measureTable(ctx, rows, single, single && last, say); err != nil {
				return nil, fmt.Errorf("%d sockets, %s: %w", rows, remotes(single), err)
			}
		}
	}
	if slices.Contains(o.rows, o.search) {
		say("%d sockets and %d processes", o.search, o.crowd)
		if err := r.measureOwners(ctx); err != nil {
			return nil, fmt.Errorf("%d sockets and %d processes: %w", o.search, o.crowd, err)
		}
	}
	r.took = time.Since(r.began)
	return r, nil
}

func remotes(single bool) string {
	if single {
		return "a remote for each"
	}
	return strconv.Itoa(manyRemotes) + " remotes"
}

func (r *results) measureMallocs(ctx context.Context, rows int) error {
	t, err := newTable(ctx, rows, false)
	if err != nil {
		return err
	}
	p, err := t.measurePasses(ctx, 1)
	if err != nil {
		return errors.Join(err, t.close())
	}
	r.addMallocs(rows, &p)
	return t.close()
}

func (r *results) addMallocs(rows int, p *passes) {
	if len(p.Mallocs) > 0 {
		r.mallocs = append(r.mallocs, mallocsResult{rows, p.Flows, p.BoundSeen, slices.Min(p.Mallocs)})
	}
}

// measureOwners measures what the search for processes adds to a pass.
func (r *results) measureOwners(ctx context.Context) (err error) {
	t, err := newTable(ctx, r.search, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	found, err := t.measureOwners(ctx, r.crowd, r.pairs)
	if errors.Is(err, exec.ErrNotFound) {
		r.lacks("perl, which holds the connections beside which processes are searched for,")
		return nil
	}
	if err == nil {
		r.owners = &found
	}
	return err
}

// measureTable measures all that one table is for.
func (r *results) measureTable(ctx context.Context, rows int, single, memory bool, say func(string, ...any)) (err error) {
	t, err := newTable(ctx, rows, single)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	say("filled in %.1f s", t.took.Seconds())
	result := tableResult{rows: rows, single: single, filled: t.took}
	if result.passes, err = t.measurePasses(ctx, r.pairs); err != nil {
		return err
	}
	if !single {
		r.addMallocs(rows, &result.passes)
		say("commands")
		if result.commands, err = r.measureCommands(ctx, t); err != nil {
			return err
		}
	}
	if !single && (rows == largeTable || r.quick && rows == r.rows[len(r.rows)-1]) {
		say("top")
		if err := r.measureTop(ctx, t); err != nil {
			return err
		}
		say("all namespaces")
		if err := r.measureSweeps(ctx, t); err != nil {
			return err
		}
	}
	if memory {
		say("memory of serve")
		if r.memory, err = r.measureMemory(ctx, t); err != nil {
			return err
		}
	}
	r.tables = append(r.tables, result)
	return nil
}
