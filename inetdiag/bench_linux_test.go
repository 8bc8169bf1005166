package inetdiag

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkKernel dumps real tables of TIME_WAIT sockets in a namespace of
// its own: a bare drain, and the drain with every row looked at.
func BenchmarkKernel(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.Run("drain", func(b *testing.B) {
				benchmarkKernel(b, n, func(c *Conn) int {
					if _, _, err := c.Drain(b.Context(), Query{}); err != nil {
						b.Fatal(err)
					}
					return n
				})
			})
			b.Run("sockets", func(b *testing.B) {
				benchmarkKernel(b, n, func(c *Conn) int {
					var states [BoundInactive + 1]int
					for s, err := range c.Sockets(b.Context(), Query{}) {
						if err != nil {
							b.Fatal(err)
						}
						states[s.State()]++
					}
					return states[TimeWait]
				})
			})
		})
	}
}

// BenchmarkOverFloor measures a bare drain and a dump in turn, on the same
// table, and gives the median of what the dump cost more: the one figure that
// a busy machine doesn't blur.
func BenchmarkOverFloor(b *testing.B) {
	const n = 100_000
	newNamespace(b)
	many(b, n)
	c := dialTest(b, nil)
	var over, ratio []float64
	for b.Loop() {
		start := threadTime(b)
		if _, _, err := c.Drain(b.Context(), Query{}); err != nil {
			b.Fatal(err)
		}
		drained := threadTime(b)
		var states [BoundInactive + 1]int
		for s, err := range c.Sockets(b.Context(), Query{}) {
			if err != nil {
				b.Fatal(err)
			}
			states[s.State()]++
		}
		read := threadTime(b)
		if states[TimeWait] != n {
			b.Fatalf("%d sockets in TIME_WAIT, want %d", states[TimeWait], n)
		}
		over = append(over, float64(read-drained-(drained-start))/n)
		ratio = append(ratio, float64(read-drained)/float64(drained-start))
	}
	slices.Sort(over)
	slices.Sort(ratio)
	b.ReportMetric(over[len(over)/2], "ns-over-floor/socket")
	b.ReportMetric(ratio[len(ratio)/2], "ratio-to-floor")
}

// threadTime is the CPU time of the calling thread, to which a test in a
// namespace of its own is locked.
func threadTime(b *testing.B) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return t.Nano()
}

// benchmarkKernel fills a namespace and measures dump in it, in CPU time of
// its thread too: that is what a host pays.
func benchmarkKernel(b *testing.B, n int, dump func(*Conn) int) {
	newNamespace(b)
	many(b, n)
	c := dialTest(b, nil)
	b.ReportAllocs()
	b.ResetTimer()
	before := threadTime(b)
	for b.Loop() {
		if got := dump(c); got != n {
			b.Fatalf("%d sockets in TIME_WAIT, want %d", got, n)
		}
	}
	per := float64(b.N) * float64(n)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/per, "ns/socket")
	b.ReportMetric(float64(threadTime(b)-before)/per, "cpu-ns/socket")
}
