//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/internal/lab"
)

const (
	// rowLife is how long after it was armed a row is surely there; the kernel
	// takes it away after 60 s.
	rowLife = 56 * time.Second
	// partRows is how many rows are made and rearmed at once.
	partRows = 100_000
	// manyRemotes is how many remotes the few-remotes tables have.
	manyRemotes = 64
	// Ten remotes hold 0.1 % each of the table with one remote for each socket.
	heavyRemotes = 10
)

// table is one namespace of its own, full of TIME_WAITs.
type table struct {
	ns     *lab.Namespace
	there  int // rows that the kernel has, when last held
	parts  []part
	rows   int
	single bool         // a remote for each row
	heavy  []netip.Addr // remotes that hold rows/1000 each, if single
	took   time.Duration
}

// part is some of a table's rows, made one after the other.
type part struct {
	*lab.Filled
	armed time.Time // when its oldest row was
}

// newTable fills a fresh namespace. single: each row has a remote of its own,
// but for the ten heavy ones.
func newTable(ctx context.Context, rows int, single bool) (*table, error) {
	ns, err := lab.New(lab.Options{})
	if err != nil {
		return nil, err
	}
	t := &table{ns: ns, rows: rows, single: single}
	began := time.Now()
	if err := t.fill(ctx); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	t.took = time.Since(began)
	return t, nil
}

// fill makes the rows part by part, and keeps the earlier ones alive meanwhile:
// a busy machine may take longer than they live.
func (t *table) fill(ctx context.Context) error {
	if err := t.ns.Sysctl("net.ipv4.tcp_max_tw_buckets", strconv.Itoa(2*t.rows)); err != nil {
		return err
	}
	var destinations []netip.Addr
	if t.single {
		destinations, t.heavy = singles(t.rows)
	}
	for made := 0; made < t.rows; made += partRows {
		fill := lab.Fill{Rows: min(partRows, t.rows-made), Remotes: manyRemotes}
		if t.single {
			fill.Destinations = destinations[made : made+fill.Rows]
		}
		p := part{armed: time.Now()}
		var err error
		if p.Filled, err = t.ns.FillTimeWait(ctx, fill); err != nil {
			return err
		}
		if p.Rows != fill.Rows {
			return fmt.Errorf("%d rows were made instead of %d", p.Rows, fill.Rows)
		}
		t.parts = append(t.parts, p)
		if err := t.hold(ctx, 25*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// singles are the destinations of rows sockets: each its own, but for the ten
// heavy ones, whose sockets are spread evenly over the time in which the table
// is made. Where they stand in the kernel's table is the kernel's choice.
func singles(rows int) (all, heavy []netip.Addr) {
	each := rows / 1000
	for i := range heavyRemotes {
		heavy = append(heavy, lab.RemoteAddr(i))
	}
	next := heavyRemotes
	all = make([]netip.Addr, 0, rows)
	for i := range rows {
		if turn := i % 100; each > 0 && turn < heavyRemotes && i/100 < 10*each && i/100%10 == turn {
			all = append(all, heavy[turn])
			continue
		}
		all = append(all, lab.RemoteAddr(next))
		next++
	}
	return all, heavy
}

func (t *table) close() error { return t.ns.Close() }

// hold makes sure that all rows live for so long.
func (t *table) hold(ctx context.Context, d time.Duration) error {
	for i := range t.parts {
		p := &t.parts[i]
		if time.Since(p.armed)+d < rowLife {
			continue
		}
		began := time.Now()
		sent, err := p.Rearm(ctx)
		if err == nil && sent != p.Rows {
			err = fmt.Errorf("%d rows were rearmed instead of %d", sent, p.Rows)
		}
		if err != nil {
			return err
		}
		p.armed = began
	}
	return nil
}

// ready holds the full table, and counts it: a row in a million may have gone
// before its time, and what is there is what everybody must see.
func (t *table) ready(ctx context.Context, d time.Duration) error {
	if err := t.hold(ctx, d); err != nil {
		return err
	}
	there, err := t.ns.TimeWaits()
	if err == nil && (there > t.rows || there < t.rows-t.rows/10_000) {
		err = fmt.Errorf("the kernel has %d TIME_WAITs, and %d were made", there, t.rows)
	}
	t.there = there
	return err
}

// life is how long all rows surely live from now on.
func (t *table) life() time.Duration {
	life := rowLife
	for i := range t.parts {
		life = min(life, rowLife-time.Since(t.parts[i].armed))
	}
	return life
}

// usage is what a process that ran in the namespace cost.
type usage struct {
	cpu time.Duration // user and system, of all its threads
	out []byte        // its standard output, if it was kept
}

// command runs a program in the namespace to its end. keep its output, or let
// the kernel throw it away. Exit statuses below failed are answers.
func (t *table) command(ctx context.Context, keep bool, failed int, name string, args ...string) (usage, error) {
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &errOut
	if keep {
		cmd.Stdout = &out // else /dev/null itself
	}
	err := t.ns.Do(cmd.Start) // a child has its thread's namespace
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() && exit.ExitCode() < failed {
		err = nil
	}
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(errOut.Bytes()))
	}
	return usage{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), out.Bytes()}, nil
}

// self runs this program again, in the namespace, with args.
func (t *table) self(ctx context.Context, keep bool, args ...string) (usage, error) {
	exe, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	return t.command(ctx, keep, 1, exe, args...)
}

// turnTime is more than a turn and the start of the process that measures take.
const turnTime = 8 * time.Second

// measurePasses runs passesMain, as often as it takes for all the turns.
func (t *table) measurePasses(ctx context.Context, pairs int) (passes, error) {
	var all passes
	walks := pairs
	if t.rows > 10_000 {
		walks = min(walks, 5)
	}
	for len(all.FloorNS) < pairs {
		if err := t.ready(ctx, 30*time.Second); err != nil {
			return all, err
		}
		limit := t.life() - turnTime
		done := len(all.FloorNS)
		u, err := t.self(ctx, true, "passes", "-pairs", strconv.Itoa(pairs-done),
			"-walks", strconv.Itoa(max(0, walks-done)), "-limit", limit.String())
		if err != nil {
			return all, err
		}
		var p passes
		if err := json.Unmarshal(u.out, &p); err != nil {
			return all, fmt.Errorf("reading the measurements: %w", err)
		}
		if p.TimeWait != [2]int{t.there, t.there} {
			return all, fmt.Errorf("passes reported %d to %d TIME_WAITs of %d", p.TimeWait[0], p.TimeWait[1], t.there)
		}
		if len(p.FloorNS) == 0 {
			return all, errors.New("this machine is too slow: not one pass in time")
		}
		p.FloorNS = append(all.FloorNS, p.FloorNS...)
		p.PassNS = append(all.PassNS, p.PassNS...)
		p.BoundNS = append(all.BoundNS, p.BoundNS...)
		p.BindsNS = append(all.BindsNS, p.BindsNS...)
		p.Mallocs = append(all.Mallocs, p.Mallocs...)
		all = p
	}
	return all, nil
}

// processCPU is the CPU time of this whole process in nanoseconds. getrusage
// won't do: it may count in clock ticks.
func processCPU() int64 { return clock(unix.CLOCK_PROCESS_CPUTIME_ID) }

// cpuOf is that of another process (clock_getcpuclockid in the C library).
func cpuOf(pid int) int64 { return clock(int32(^pid)<<3 | 2) }

func clock(id int32) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0
	}
	return t.Nano()
}
