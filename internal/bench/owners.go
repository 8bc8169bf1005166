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
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// Beside whom processes are searched for.
const (
	crowdProcesses   = 2000
	crowdConnections = 12 // of each, all open
	crowdOthers      = 4  // descriptors beside: three standard ones and a pipe to the parent
	quickProcesses   = 50
)

// A crowd is many processes with open connections, to the remotes that the
// table's rows went to.
type crowd struct {
	cmd       *exec.Cmd
	in        io.Closer
	server    *lab.Server
	processes int
}

// crowdProgram is Perl, since a fork without exec is cheap, and each Debian has
// it. Its children connect and wait for the end of the input.
const crowdProgram = `
use Socket;
my ($children, $sockets, $remotes, $port) = @ARGV;
pipe(my $in, my $out) or die;
for my $n (1 .. $children) {
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	next if $pid;
	close $in;
	my @open;
	for (1 .. $sockets) {
		socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
		my $r = ($n * $sockets + $_) % $remotes;
		connect($s, pack_sockaddr_in($port, pack("C4", 127, 16, $r >> 8, $r & 255))) or die "connect: $!";
		push @open, $s;
	}
	syswrite $out, ".";
	sysread STDIN, my $byte, 1;
	exit 0;
}
close STDIN;
my $said = 0;
while ($said < $children) {
	my $n = sysread $in, my $dots, 4096;
	die "a child has ended" unless $n;
	$said += $n;
}
$| = 1;
print "ready\n";
1 while wait() > 0;
`

func (t *table) startCrowd(ctx context.Context, processes int) (_ *crowd, err error) {
	perl, err := exec.LookPath("perl")
	if err != nil {
		return nil, err
	}
	if err := t.ns.Sysctl("net.core.somaxconn", strconv.Itoa(2*processes*crowdConnections)); err != nil {
		return nil, err
	}
	c := &crowd{processes: processes}
	// Nobody accepts: the other ends need no descriptors.
	c.server, err = t.ns.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), crowdPort),
		lab.ListenOptions{Mode: lab.Manual, Backlog: 2 * processes * crowdConnections})
	if err != nil {
		return nil, err
	}
	c.cmd = exec.CommandContext(ctx, perl, "-e", crowdProgram,
		strconv.Itoa(processes), strconv.Itoa(crowdConnections), strconv.Itoa(manyRemotes), strconv.Itoa(crowdPort))
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.in = in
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.ns.Do(c.cmd.Start); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("the crowd says %q", line), err, c.end())
	}
	return c, nil
}

// crowdPort is where the rows of a table went to (lab.Fill).
const crowdPort = 1000

func (c *crowd) end() error {
	_ = c.in.Close()
	return errors.Join(c.cmd.Wait(), c.server.Close())
}

// ownersResult is what passes cost with and without the search for processes,
// one after the other, in each turn; CPU time of the whole process in ns.
type ownersResult struct {
	Rows, Processes, Connections int
	WithNS, WithoutNS            []int64
	FirstNS                      int64     // of the first pass, with the search
	Passes                       int       // until every process was known
	Attributed                   float64   // of the live client sockets, then
	Mallocs                      [2]uint64 // of a pass, with and without
	HeapBytes                    [2]uint64 // that the Collector holds, with and without
}

// measureOwners measures beside a crowd, in the namespace of a table.
func (t *table) measureOwners(ctx context.Context, processes, pairs int) (r ownersResult, err error) {
	crowd, err := t.startCrowd(ctx, processes)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, crowd.end()) }()
	if err := t.ready(ctx, 40*time.Second); err != nil {
		return r, err
	}
	stop := t.keep(ctx)
	u, err := t.self(ctx, true, "owners", "-pairs", strconv.Itoa(pairs))
	if err := errors.Join(err, stop()); err != nil {
		return r, err
	}
	if err := json.Unmarshal(u.out, &r); err != nil {
		return r, fmt.Errorf("reading the measurements: %w", err)
	}
	r.Rows, r.Processes, r.Connections = t.rows, processes, processes*crowdConnections
	switch {
	case r.Attributed != 1:
		return r, fmt.Errorf("the processes of %.1f %% of %d live connections were found in %d passes", 100*r.Attributed, r.Connections, r.Passes)
	case len(r.WithNS) == 0:
		return r, errors.New("this machine is too slow: not one turn in time")
	}
	return r, nil
}

// ownersMain is the process that measures: two Collectors, as serve keeps
// theirs, take turns once the first knows every process.
func ownersMain(ctx context.Context, args []string, out io.Writer) error {
	start := time.Now()
	flags := flag.NewFlagSet("owners", flag.ContinueOnError)
	pairs := flags.Int("pairs", 41, "turns")
	limit := flags.Duration("limit", 3*time.Minute, "begin nothing after this time")
	profile := flags.String("cpuprofile", "", "write a profile of the turns to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	debug.SetMemoryLimit(serveMemoryLimit)
	runtime.LockOSThread()
	var r ownersResult
	var both [2]*collector.Collector
	for i, without := range []bool{false, true} {
		c, err := collector.New(collector.Config{CPUBudget: 1, WithoutOwners: without})
		if err != nil {
			return err
		}
		both[i] = c
	}
	for r.Attributed < 1 && time.Since(start) < *limit*3/4 {
		before := processCPU()
		report, err := both[0].Pass(ctx)
		if err != nil {
			return err
		}
		if r.Passes++; r.Passes == 1 {
			r.FirstNS = processCPU() - before
		}
		r.Attributed = attributed(report)
	}
	for range 2 { // the second pass knows the first one's flows
		if _, err := both[1].Pass(ctx); err != nil {
			return err
		}
	}
	if *profile != "" {
		stop, err := startProfile(*profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	for i := 0; i < *pairs && time.Since(start) < *limit; i++ {
		cost := [2]int64{}
		for n := range both {
			which := (n + i) % 2 // neither always comes after the other
			before := processCPU()
			if _, err := both[which].Pass(ctx); err != nil {
				return err
			}
			cost[which] = processCPU() - before
		}
		r.WithNS, r.WithoutNS = append(r.WithNS, cost[0]), append(r.WithoutNS, cost[1])
	}
	for i, c := range both {
		before := memory()
		if _, err := c.Pass(ctx); err != nil {
			return err
		}
		after := memory()
		r.Mallocs[i] = after.Mallocs - before.Mallocs
	}
	for i := range both {
		runtime.GC()
		before := memory()
		if err := both[i].Close(); err != nil {
			return err
		}
		both[i] = nil
		runtime.GC()
		r.HeapBytes[i] = before.HeapAlloc - memory().HeapAlloc
	}
	return json.NewEncoder(out).Encode(&r)
}

func memory() (m runtime.MemStats) {
	runtime.ReadMemStats(&m)
	return m
}

// keep holds the full table until it is stopped: to find every process takes
// longer than a row lives.
func (t *table) keep(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				ended <- nil
				return
			case <-tick.C:
				if err := t.hold(ctx, 20*time.Second); err != nil && ctx.Err() == nil {
					ended <- err
					return
				}
			}
		}
	}()
	return func() error {
		cancel()
		return <-ended
	}
}

// attributed is the share of the crowd's connections whose process is known.
func attributed(r *snapshot.Report) float64 {
	var known, all float64
	for i := range r.Namespaces[0].Flows {
		f := &r.Namespaces[0].Flows[i]
		if f.Side != snapshot.Client || f.Attributed == nil {
			continue
		}
		all += float64(f.States.Established)
		known += *f.Attributed * float64(f.States.Total())
	}
	if all == 0 {
		return 0
	}
	return known / all
}
