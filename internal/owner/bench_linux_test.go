package owner

import (
	"bytes"
	"context"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is a program whose children open sockets, each its own, and wait for
// the end of the input. It is Perl because a fork without exec is cheap, and
// each Debian has it. It prints the inodes in one line.
const crowd = `
use Socket;
my ($children, $sockets) = @ARGV;
pipe(my $in, my $out) or die;
for (1 .. $children) {
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	next if $pid;
	close $in;
	my @open;
	for (1 .. $sockets) {
		socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
		push @open, $s;
	}
	syswrite $out, join(" ", map { (stat $_)[1] } @open) . " ";
	close $out;
	sysread STDIN, my $byte, 1;
	exit 0;
}
close $out;
$| = 1;
local $/;
print <$in>, "\n";
1 while wait() > 0;
`

func startCrowd(b *testing.B, children, sockets int) []uint32 {
	b.Helper()
	perl, err := exec.LookPath("perl")
	if err != nil {
		skip(b, "perl", err)
	}
	cmd := exec.Command(perl, "-e", crowd, strconv.Itoa(children), strconv.Itoa(sockets))
	_, line := start(b, cmd)
	var inodes []uint32
	for word := range strings.FieldsSeq(line) {
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			b.Fatal(err)
		}
		inodes = append(inodes, uint32(n))
	}
	if len(inodes) != children*sockets {
		b.Fatalf("%d sockets, want %d", len(inodes), children*sockets)
	}
	return inodes
}

// BenchmarkFind is beside 2,000 processes with 30,000 descriptors.
func BenchmarkFind(b *testing.B) {
	const children, sockets = 2000, 12
	inodes := startCrowd(b, children, sockets)
	unlimited := Config{FirstBudget: time.Minute, LinksPerPass: 1 << 30}
	ctx := context.Background()

	b.Run("first, without a limit", func(b *testing.B) {
		var r Report
		before := cpu()
		for b.Loop() {
			_, r = New(unlimited).Find(ctx, want(inodes...), nil)
			if r.Pending+r.Failed > 0 {
				b.Fatalf("report %+v", r)
			}
		}
		report(b, r, cpu()-before)
	})
	b.Run("bare readlink of all", func(b *testing.B) {
		var r Report
		before := cpu()
		for b.Loop() {
			r.LinksRead = readAllLinks(b)
		}
		report(b, r, cpu()-before)
	})
	b.Run("nobody's inode, without a limit", func(b *testing.B) {
		var r Report
		before := cpu()
		for b.Loop() {
			_, r = New(unlimited).Find(ctx, want(1), nil)
		}
		report(b, r, cpu()-before)
	})
	b.Run("first, by default", func(b *testing.B) {
		var r Report
		before := cpu()
		for b.Loop() {
			_, r = New(Config{}).Find(ctx, want(inodes...), nil)
		}
		report(b, r, cpu()-before)
	})

	f := New(unlimited)
	f.Find(ctx, want(inodes...), nil)
	f.config.LinksPerPass = 1000
	steady := want(inodes...)
	b.Run("all known", func(b *testing.B) {
		var r Report
		b.ReportAllocs()
		before := cpu()
		for b.Loop() {
			_, r = f.Find(ctx, steady, nil)
		}
		report(b, r, cpu()-before)
	})
	b.Run("100 new with hints", func(b *testing.B) { benchmarkNew(b, f, steady, true) })
	b.Run("100 new without hints", func(b *testing.B) { benchmarkNew(b, f, steady, false) })
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			before := heap()
			f := New(unlimited)
			f.Find(ctx, want(inodes...), nil)
			b.ReportMetric(float64(heap()-before), "B")
			runtime.KeepAlive(f)
		}
	})
}

// benchmarkNew forgets 100 of the sockets before each pass.
func benchmarkNew(b *testing.B, f *Finder, steady []Want, hinted bool) {
	var r Report
	var pending, passes int
	var used time.Duration
	seed := uint32(1)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		var hints []int
		for range 100 {
			seed = seed*1664525 + 1013904223
			e := f.table.at(steady[seed%uint32(len(steady))].Inode)
			if e.owner >= ownerNone {
				continue
			}
			if pid := f.people.all[e.owner].process.PID; hinted && !slices.Contains(hints, pid) {
				hints = append(hints, pid)
			}
			f.people.own(e, ownerPending, f.turn.number)
		}
		b.StartTimer()
		before := cpu()
		_, r = f.Find(context.Background(), steady, hints)
		used += cpu() - before
		pending += r.Pending
		passes++
	}
	report(b, r, used)
	b.ReportMetric(float64(pending)/float64(passes), "pending/op")
}

func report(b *testing.B, r Report, cpu time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(r.LinksRead), "links/op")
	b.ReportMetric(float64(r.ProcessesSeen), "processes/op")
}

// cpu is the time that this process had of the processors.
func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// readAllLinks is the floor: nothing but the links of all descriptors.
func readAllLinks(b *testing.B) int {
	b.Helper()
	proc, err := openTree("/proc")
	if err != nil {
		b.Fatal(err)
	}
	defer proc.close()
	top, err := proc.open([]byte("."), unix.O_DIRECTORY)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(top)
	links := 0
	outer, inner, to := make([]byte, 8<<10), make([]byte, 8<<10), make([]byte, 64)
	_, err = entries(top, outer, func(d dirent) bool {
		if _, ok := parsePID(d.name); !ok {
			return true
		}
		fd, err := proc.open(append(bytes.Clone(d.name), "/fd"...), unix.O_DIRECTORY)
		if err != nil {
			return true
		}
		defer unix.Close(fd)
		_, _ = entries(fd, inner, func(d dirent) bool { // it may have gone
			if _, err := (tree{fd}).link(d.name, to); err == nil {
				links++
			}
			return true
		})
		return true
	})
	if err != nil {
		b.Fatal(err)
	}
	return links
}
