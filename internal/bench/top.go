//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/internal/top"
)

// What is measured of `twwatch top`, in a terminal of that size.
const (
	topTurns   = 3
	topPasses  = 10 // in a turn, at its default interval
	topColumns = 120
	topLines   = 40
	topBudget  = 0.2 // its default share of a core
	ratioTop   = 1.2
)

// topResult is what `twwatch top` cost for each pass that it showed, and what
// such passes cost that nobody looks at, in turn; CPU time of the whole process
// in nanoseconds.
type topResult struct {
	rows, passes  int
	interval      time.Duration
	topNS, passNS []int64
}

// measureTop measures on one table.
func (r *results) measureTop(ctx context.Context, t *table) error {
	m := &topResult{rows: t.rows, passes: topPasses, interval: top.DefaultInterval}
	turns := topTurns
	if r.quick {
		m.passes, m.interval, turns = 3, 500*time.Millisecond, 1
	}
	long := time.Duration(m.passes+3)*m.interval + turnTime
	for range turns {
		if err := t.ready(ctx, long); err != nil {
			return err
		}
		u, err := t.self(ctx, true, "watch", "-passes", strconv.Itoa(m.passes), "-interval", m.interval.String())
		if err != nil {
			return err
		}
		var ns int64
		if err := json.Unmarshal(u.out, &ns); err != nil {
			return err
		}
		m.passNS = append(m.passNS, ns/int64(m.passes))
		if err := t.ready(ctx, long); err != nil {
			return err
		}
		if ns, err = t.topCPU(ctx, r.twwatch, m); err != nil {
			return err
		}
		m.topNS = append(m.topNS, ns/int64(m.passes))
	}
	r.top = m
	return nil
}

// watchMain is the process that makes the passes alone, as top's collector
// makes them.
func watchMain(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	passes := flags.Int("passes", topPasses, "passes that are measured")
	interval := flags.Duration("interval", top.DefaultInterval, "between two")
	if err := flags.Parse(args); err != nil {
		return err
	}
	debug.SetMemoryLimit(serveMemoryLimit)
	c, err := collector.New(collector.Config{Interval: *interval, CPUBudget: topBudget})
	if err != nil {
		return err
	}
	defer c.Close()
	n, began := 0, int64(0)
	for _, err := range c.Reports(ctx) {
		if err != nil {
			return err
		}
		if n++; n == 2 { // the first one's costs are its own
			began = processCPU()
		}
		if n == *passes+2 {
			return json.NewEncoder(out).Encode(processCPU() - began)
		}
	}
	return ctx.Err()
}

// topCPU runs twwatch top in a terminal, and returns what so many passes cost.
func (t *table) topCPU(ctx context.Context, twwatch string, m *topResult) (ns int64, err error) {
	terminal, program, err := openTerminal(topColumns, topLines)
	if err != nil {
		return 0, err
	}
	defer terminal.Close()
	cmd := exec.CommandContext(ctx, twwatch, "top", "--interval="+m.interval.String())
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = t.ns.Do(cmd.Start)
	_ = program.Close()
	if err != nil {
		return 0, err
	}
	var written atomic.Int64 // when, in nanoseconds
	go func() {
		buf := make([]byte, 32<<10)
		for {
			if _, err := terminal.Read(buf); err != nil {
				return
			}
			written.Store(time.Now().UnixNano())
		}
	}()
	defer func() {
		_, _ = terminal.WriteString("q")
		err = errors.Join(err, cmd.Wait())
	}()
	// Each pass writes the new time to the screen, and nothing else writes
	// unasked: what comes after a silence is a pass. Its cost is read when the
	// next one begins to be written.
	began, at := int64(0), int64(0)
	deadline := time.Now().Add(time.Duration(m.passes+3)*m.interval + turnTime)
	for n := 0; time.Now().Before(deadline); time.Sleep(m.interval / 50) {
		now := written.Load()
		fresh := now-at > int64(m.interval/2)
		at = now
		if !fresh {
			continue
		}
		switch n++; n {
		case 2:
			began = cpuOf(cmd.Process.Pid)
		case m.passes + 2:
			return cpuOf(cmd.Process.Pid) - began, nil
		}
	}
	return 0, fmt.Errorf("twwatch top has not shown %d passes in time", m.passes)
}

// openTerminal makes a pseudo terminal: our end, and the program's.
func openTerminal(columns, lines uint16) (terminal, program *os.File, err error) {
	terminal, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(terminal.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns})
	}
	if err == nil {
		program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = terminal.Close()
	}
	return terminal, program, err
}

func (m *topResult) targets() []target {
	if m == nil {
		return nil
	}
	ratio := ratios(m.topNS, m.passNS).median()
	return []target{{
		fmt.Sprintf("`twwatch top`, %s sockets: all its CPU", thousands(m.rows)),
		fmt.Sprintf("≤ %.1f × the passes shown", ratioTop), fmt.Sprintf("%.2f ×", ratio), ratio <= ratioTop,
	}}
}

func (r *results) writeTop(p *page) {
	m := r.top
	if m == nil {
		return
	}
	p.line("\n## The terminal view\n")
	p.line("`twwatch top`, every %v, in a terminal of %d columns and %d lines, with %s sockets to %d remotes: CPU time of the whole process for each pass that it shows, judged and drawn, over %d passes; and of a process that makes the same passes and shows them to nobody. In turn, %d turns.\n",
		m.interval, topColumns, topLines, thousands(m.rows), manyRemotes, m.passes, len(m.topNS))
	p.table("", "CPU of one pass, ms", "÷ passes alone")
	p.row("passes alone", milliseconds(m.passNS).spread(1), "1")
	p.row("`twwatch top`", milliseconds(m.topNS).spread(1), ratios(m.topNS, m.passNS).spread(2))
}
