package collector

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// Every socket of the stream is as likely to be in the sample as any other,
// wherever it stands.
func TestReservoirIsUniform(t *testing.T) {
	const trials = 20_000
	for _, c := range []struct{ size, stream int }{{10, 1000}, {1, 50}, {99, 100}, {100, 5000}} {
		r := newReservoir(c.size, 1, uint64(c.stream))
		hits := make([]int, c.stream)
		sample := make([]int, c.size)
		for range trials {
			r.begin()
			for i := range c.stream {
				if at := r.place(); at >= 0 {
					sample[at] = i
				}
			}
			if len(r.rows) != c.size || r.seen != c.stream {
				t.Fatalf("%d of %d: %d rows of %d", c.size, c.stream, len(r.rows), r.seen)
			}
			for _, i := range sample {
				hits[i]++
			}
		}
		// The expected number of hits, and chi-squared over all sockets, each
		// of which is in a sample or isn't: its variance is p(1−p).
		p := float64(c.size) / float64(c.stream)
		want, variance := trials*p, trials*p*(1-p)
		sum := 0.0
		for _, n := range hits {
			sum += (float64(n) - want) * (float64(n) - want) / variance
		}
		freedom := float64(c.stream - 1)
		if limit := freedom + 5*math.Sqrt(2*freedom); sum > limit || sum < freedom-5*math.Sqrt(2*freedom) {
			t.Errorf("%d of %d: chi-squared %.0f, want about %.0f", c.size, c.stream, sum, freedom)
		}
		// A bias that is small for each can be large for a part.
		for part := range 5 {
			n, from, to := 0, part*c.stream/5, (part+1)*c.stream/5
			for _, h := range hits[from:to] {
				n += h
			}
			mean := want * float64(to-from)
			if off := math.Abs(float64(n)-mean) / math.Sqrt(variance*float64(to-from)); off > 5 {
				t.Errorf("%d of %d: fifth %d was taken %d times, want about %.0f", c.size, c.stream, part, n, mean)
			}
		}
	}
}

// With fewer sockets than rows, all are taken, in their order.
func TestReservoirTakesAll(t *testing.T) {
	r := newReservoir(10, 1, 2)
	for _, stream := range []int{0, 1, 9, 10} {
		r.begin()
		for i := range stream {
			if at := r.place(); at != i {
				t.Errorf("socket %d of %d goes to %d", i, stream, at)
			}
		}
		if len(r.rows) != stream || r.seen != stream {
			t.Errorf("%d rows of %d, want all of %d", len(r.rows), r.seen, stream)
		}
	}
}

// procTable writes a table as /proc/thread-self/net/tcp shows it, and returns
// the root of that procfs.
func procTable(t testing.TB, lines ...string) string {
	t.Helper()
	proc := t.TempDir()
	dir := filepath.Join(proc, "thread-self", "net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" + strings.Join(lines, "")
	if err := os.WriteFile(filepath.Join(dir, "tcp"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return proc
}

// procLine is a socket between 127.0.0.1 and 127.0.0.2; ports are hexadecimal,
// as is the time that is left, in 10 ms.
func procLine(state int, local, remote string, timer int, left string) string {
	return fmt.Sprintf("   0: 0100007F:%s 0200007F:%s %02X 00000000:00000000 %02X:%s 00000000    33        0 4711 1 0\n", local, remote, state, timer, left)
}

// The cost of a pass doesn't grow with the sockets that it passes by.
func TestReservoirAllocatesNothing(t *testing.T) {
	lines := []string{procLine(10, "0050", "0000", 0, "00000000")}
	for i := range 2000 {
		lines = append(lines, procLine(6, fmt.Sprintf("%04X", 0x8000+i), "0050", 3, "00000BB8"))
	}
	r := newReservoir(100, 1, 2)
	var rows []*inetdiag.Socket
	for s, err := range inetdiag.ProcSockets(context.Background(), procTable(t, lines...)+"/thread-self/net") {
		if err != nil {
			t.Fatal(err)
		}
		r.add(s)
		rows = append(rows, s)
	}
	if r.seen != 2000 || len(r.rows) != 100 {
		t.Fatalf("%d rows of %d, want 100 of 2000: a listener has no remote end", len(r.rows), r.seen)
	}
	if n := testing.AllocsPerRun(3, func() {
		r.begin()
		for range 100_000 {
			r.add(rows[len(rows)-1])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSampleIsBounded(t *testing.T) {
	for _, n := range []int{-1, snapshot.MaxSampledSockets + 1} {
		if _, err := New(Config{SampleSockets: n}); err == nil || !strings.Contains(err.Error(), "give at most 10000") {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func BenchmarkReservoir(b *testing.B) {
	r := newReservoir(10_000, 1, 2)
	b.ReportAllocs()
	for b.Loop() {
		r.begin()
		for range 1_000_000 {
			r.place()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1e6, "ns/socket")
}
