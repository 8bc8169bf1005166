package netns

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is a program whose children wait for the end of the input, some of them
// in network namespaces of their own. It is Perl because a fork without exec is
// cheap, and each Debian has it.
const crowd = `
my ($children, $apart, $unshare) = @ARGV;
for my $n (1 .. $children) {
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	next if $pid;
	if ($n <= $apart) { syscall($unshare, 0x40000000) == 0 or die "unshare: $!" }
	print "$n\n";
	sysread STDIN, my $byte, 1;
	exit 0;
}
1 while wait() > 0;
`

func startCrowd(b *testing.B, processes, namespaces int) {
	b.Helper()
	inside(b)
	perl, err := exec.LookPath("perl")
	if err != nil {
		skip(b, "perl", err)
	}
	cmd := exec.Command(perl, "-e", "$| = 1;"+crowd, strconv.Itoa(processes), strconv.Itoa(namespaces), strconv.Itoa(unix.SYS_UNSHARE))
	c := start(b, cmd, 0)
	for range processes {
		c.line()
	}
	b.Cleanup(func() { // before the program is killed: its children end with the input
		c.in.Close()
		_, _ = io.Copy(io.Discard, c.out)
	})
}

// BenchmarkRefresh is beside 200 and 2,000 processes, of which 200 have a
// namespace of their own.
func BenchmarkRefresh(b *testing.B) {
	for _, processes := range []int{200, 2000} {
		b.Run(fmt.Sprintf("%d processes", processes), func(b *testing.B) {
			startCrowd(b, processes, 200)
			config := Config{MaxPerGroup: 200}
			b.Run("first", func(b *testing.B) {
				b.ReportAllocs()
				before := cpu()
				for b.Loop() {
					w, err := NewWatcher(config)
					if err != nil {
						b.Fatal(err)
					}
					if c, err := w.Refresh(); err != nil || len(c.New) < 200 || c.Processes < processes {
						b.Fatalf("%+v, %v", c, err)
					}
					w.Close()
				}
				reportCPU(b, before)
			})
			w := watch(b, config)
			refresh(b, w)
			refresh(b, w)
			b.Run("next", func(b *testing.B) {
				b.ReportAllocs()
				links, before := 0, cpu()
				for b.Loop() {
					links += refresh(b, w).LinksRead
				}
				reportCPU(b, before)
				b.ReportMetric(float64(links)/float64(b.N), "links/op")
			})
		})
	}
}

func BenchmarkVisit(b *testing.B) {
	inside(b)
	c := inNamespace(b)
	w := watch(b, Config{})
	refresh(b, w)
	n := find(b, w, c.inode())
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		if err := w.Visit(n, func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, before)
}

func BenchmarkPulse(b *testing.B) {
	inside(b)
	c := inNamespace(b)
	w := watch(b, Config{})
	refresh(b, w)
	n := find(b, w, c.inode())
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		if _, err := w.Pulse(n); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, before)
}

// cpu is the time that this process had of the processors.
func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, before time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}
