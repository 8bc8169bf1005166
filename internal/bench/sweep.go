//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
)

// What is promised of a sweep: beside one namespace that has to be read, by what
// reading that alone costs; where nothing moves, in milliseconds.
const (
	sweepNamespaces = 200
	quickNamespaces = 20
	ratioSweep      = 1.5
	idleSweep       = 15.0
)

// sweepResult is what a pass over all namespaces cost beside the table, and what
// one over the table's namespace alone; CPU time of the whole process in
// nanoseconds, index by index of one turn. All are the looks in which something
// moved in the table's namespace and nowhere else, and idle those without a
// table.
type sweepResult struct {
	Rows, Namespaces int
	OneNS, AllNS     []int64
	IdleNS           []int64
}

// measureSweeps measures beside an empty table and beside the full one.
func (r *results) measureSweeps(ctx context.Context, t *table) error {
	namespaces := sweepNamespaces
	if r.quick {
		namespaces = quickNamespaces
	}
	m := &sweepResult{Rows: t.rows, Namespaces: namespaces}
	empty, err := newTable(ctx, 0, false)
	if err != nil {
		return err
	}
	idle, err := empty.measureSweep(ctx, namespaces, r.pairs)
	if err := errors.Join(err, empty.close()); err != nil {
		return err
	}
	m.IdleNS = idle.AllNS
	if err := t.ready(ctx, 40*time.Second); err != nil {
		return err
	}
	stop := t.keep(ctx)
	full, err := t.measureSweep(ctx, namespaces, r.pairs)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	m.OneNS, m.AllNS = full.OneNS, full.AllNS
	r.sweep = m
	return nil
}

// measureSweepAlone is for a run that measures nothing else.
func (r *results) measureSweepAlone(ctx context.Context, say func(string, ...any)) error {
	rows := largeTable
	if r.quick {
		rows = r.rows[len(r.rows)-1]
	}
	t, err := newTable(ctx, rows, false)
	if err != nil {
		return err
	}
	say("all namespaces")
	err = r.measureSweeps(ctx, t)
	return errors.Join(err, t.close())
}

// measureSweep runs sweepMain in the table's namespace, where it sees no
// processes and mounts but its own.
func (t *table) measureSweep(ctx context.Context, namespaces, turns int) (r sweepResult, err error) {
	exe, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, exe, "sweep", "-rows", strconv.Itoa(t.rows), "-namespaces", strconv.Itoa(namespaces), "-turns", strconv.Itoa(turns))
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := t.ns.Do(cmd.Start); err != nil {
		return r, err
	}
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("sweeps: %w: %s", err, said.String())
	}
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		return r, fmt.Errorf("reading the measurements: %w", err)
	}
	if len(r.AllNS) == 0 {
		return r, errors.New("this machine is too slow: not one turn in time")
	}
	return r, nil
}

// sweepCrowd is a program whose children wait in network namespaces of their own
// for the end of the input.
const sweepCrowd = `
my ($children, $unshare) = @ARGV;
$| = 1;
for (1 .. $children) {
	next if fork();
	syscall($unshare, 0x40000000) == 0 or die "unshare: $!";
	print "$$\n";
	sysread STDIN, my $byte, 1;
	exit 0;
}
1 while wait() > 0;
`

// sweepMain is the process that measures. It begins in the namespace of the
// table; the thread that looks at all of them has an empty one of its own.
func sweepMain(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("sweep", flag.ContinueOnError)
	rows := flags.Int("rows", 0, "TIME_WAITs of the table")
	namespaces := flags.Int("namespaces", sweepNamespaces, "how many others")
	turns := flags.Int("turns", 41, "turns")
	limit := flags.Duration("limit", 2*time.Minute, "begin nothing after this time")
	profile := flags.String("cpuprofile", "", "write a profile of the turns to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	start := time.Now()
	debug.SetMemoryLimit(serveMemoryLimit)
	runtime.LockOSThread()
	end, err := startNamespaces(ctx, *namespaces)
	if err != nil {
		return err
	}
	defer end()
	one, err := collector.New(collector.Config{CPUBudget: 1})
	if err != nil {
		return err
	}
	defer one.Close()
	all := make(chan func(*collector.Collector) error)
	failed := make(chan error)
	defer close(all)
	go elsewhere(all, failed)

	r := sweepResult{Rows: *rows, Namespaces: *namespaces}
	for turn := -3; turn < *turns && time.Since(start) < *limit; turn++ {
		if turn == 0 && *profile != "" {
			stop, err := startProfile(*profile)
			if err != nil {
				return err
			}
			defer stop()
		}
		if *rows > 0 {
			move()
		}
		var oneNS, allNS int64
		before := processCPU()
		if _, err := one.Pass(ctx); err != nil {
			return err
		}
		oneNS = processCPU() - before
		all <- func(c *collector.Collector) error {
			before := processCPU()
			report, err := c.Pass(ctx)
			allNS = processCPU() - before
			if err == nil && turn >= 0 {
				err = r.holds(report)
			}
			return err
		}
		if err := <-failed; err != nil {
			return err
		}
		if turn >= 0 { // each namespace has had its first look
			r.OneNS, r.AllNS = append(r.OneNS, oneNS), append(r.AllNS, allNS)
		}
	}
	return json.NewEncoder(out).Encode(r)
}

// elsewhere runs functions in a fresh network namespace, with a Collector that
// looks at all others from there.
func elsewhere(jobs <-chan func(*collector.Collector) error, failed chan<- error) {
	runtime.LockOSThread() // for good: the thread ends with this
	err := unix.Unshare(unix.CLONE_NEWNET)
	var c *collector.Collector
	if err == nil {
		c, err = collector.New(collector.Config{CPUBudget: 1, Namespaces: collector.Selection{All: true}})
	}
	for job := range jobs {
		if err == nil {
			err = job(c)
		}
		failed <- err
	}
	if c != nil {
		_ = c.Close()
	}
}

// holds is an error if not exactly the table's namespace was read.
func (r *sweepResult) holds(report *snapshot.Report) error {
	for _, gap := range append(report.Incomplete, report.Limited...) {
		return fmt.Errorf("a sweep was incomplete: %s: %s", gap.Stage, gap.Error)
	}
	if got, want := len(report.Namespaces), r.Namespaces+2; got != want {
		return fmt.Errorf("%d namespaces were seen instead of %d", got, want)
	}
	read, found := 0, 0
	for _, n := range report.Namespaces[1:] {
		if !n.Repeated {
			read++
			found += int(n.States.TimeWait)
		}
	}
	if want := min(r.Rows, 1); read != want || found < r.Rows-r.Rows/1000 {
		return fmt.Errorf("%d of the namespaces were read instead of %d, and %d TIME_WAITs in them of %d", read, want, found, r.Rows)
	}
	return nil
}

// move makes two segments in the namespace of the calling thread, and no socket
// that stays: nobody listens there.
func move() {
	if c, err := net.DialTimeout("tcp4", "127.0.0.1:1", time.Second); err == nil {
		_ = c.Close()
	}
}

// startNamespaces makes namespaces with a process in each, and names them as `ip
// netns` does: those of one cgroup that have no name are watched up to a few.
func startNamespaces(ctx context.Context, n int) (end func(), err error) {
	err = errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, ""),
		os.Mkdir("/run/netns", 0o755))
	if err != nil {
		return nil, err
	}
	perl, err := exec.LookPath("perl")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, perl, "-e", sweepCrowd, strconv.Itoa(n), strconv.Itoa(unix.SYS_UNSHARE))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	lines := bufio.NewScanner(out)
	for i := range n {
		if !lines.Scan() {
			end()
			return nil, fmt.Errorf("%d of %d namespaces were made: %w", i, n, lines.Err())
		}
		name := filepath.Join("/run/netns", fmt.Sprintf("bench-%d", i))
		err := os.WriteFile(name, nil, 0o444)
		if err := errors.Join(err, unix.Mount("/proc/"+lines.Text()+"/ns/net", name, "", unix.MS_BIND, "")); err != nil {
			end()
			return nil, err
		}
	}
	return end, nil
}

func (r *sweepResult) targets() []target {
	if r == nil {
		return nil
	}
	ratio, idle := ratios(r.AllNS, r.OneNS).median(), milliseconds(r.IdleNS).median()
	return []target{
		{
			fmt.Sprintf("a sweep of %s unmoved namespaces and one with %s sockets", thousands(r.Namespaces), thousands(r.Rows)),
			fmt.Sprintf("≤ %.1f × one pass over that one", ratioSweep), fmt.Sprintf("%.2f ×", ratio), ratio <= ratioSweep,
		},
		{
			fmt.Sprintf("a sweep of %s unmoved namespaces, no sockets", thousands(r.Namespaces)),
			fmt.Sprintf("≤ %.0f ms of CPU", idleSweep), fmt.Sprintf("%.1f ms", idle), idle <= idleSweep,
		},
	}
}

func (r *results) writeSweep(p *page) {
	m := r.sweep
	if m == nil {
		return
	}
	p.line("\n## All namespaces\n")
	p.line("A pass with `--netns=all` beside %s network namespaces with a process in each, in which nothing moves, and one with %s TIME_WAIT sockets, in which something did; twwatch is in an empty namespace of its own. Compared with a pass over the namespace with the sockets alone, in turn; CPU time of the whole process, %d turns. Then the same without those sockets, so that no namespace is read. `scripts/bench -sweep` repeats it.\n",
		thousands(m.Namespaces), thousands(m.Rows), len(m.AllNS))
	p.table("pass", "CPU, ms", "÷ one namespace")
	p.row("one namespace", milliseconds(m.OneNS).spread(1), "1")
	p.row("all, one of which moved", milliseconds(m.AllNS).spread(1), ratios(m.AllNS, m.OneNS).spread(2))
	p.row("all, none of which moved, no sockets", milliseconds(m.IdleNS).spread(1), "")
	p.line("\nOf a namespace in which nothing moves two small files are read in each pass, and a link that tells whether they are its own.")
}
