package flow

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// benchRows makes rows to so many remotes, in the order of a recent kernel's table:
// a few flows at a time, their ports ascending.
func benchRows(sockets, remotes int) []row {
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]row, 0, sockets)
	var streams [4]int
	port := make([]int, remotes)
	next := 0
	for i := range streams {
		streams[i], next = next%remotes, next+1
	}
	for len(rows) < sockets {
		s := rng.IntN(len(streams))
		r := streams[s]
		a := netip.AddrFrom4([4]byte{10, byte(r >> 16), byte(r >> 8), byte(r)})
		rows = append(rows, timeWait(fmt.Sprintf("10.255.0.5:%d", 1024+port[r]), a.String()+":999", uint32(1+rng.IntN(60_000))))
		port[r]++
		if port[r]%1000 == 0 || port[r] >= sockets/remotes {
			streams[s], next = next%remotes, next+1
		}
	}
	return rows
}

func benchConfig() Config {
	cfg := config()
	cfg.Limits.IPLocalPortRange.Low, cfg.Limits.IPLocalPortRange.High = 1024, 65535
	cfg.Memory = &Memory{}
	return cfg
}

// BenchmarkTable is Begin, Add for every row of a replayed dump, and Fill; the
// replay alone is there to be subtracted. min-ns is the quickest run, which a
// busy machine blurs least.
func BenchmarkTable(b *testing.B) {
	for _, size := range []struct{ sockets, remotes int }{
		{10, 1}, {1_000, 64}, {10_000, 64}, {100_000, 64}, {100_000, 100_000},
	} {
		cfg := benchConfig()
		cfg.Sockets = size.sockets
		data := tape(cfg.Start, benchRows(size.sockets, size.remotes))
		table := NewTable()
		name := fmt.Sprintf("%dx%d/", size.sockets, size.remotes)
		run := func(step string, per int, prepare, measured func()) {
			b.Run(name+step, func(b *testing.B) {
				b.ReportAllocs()
				quickest := time.Hour
				for b.Loop() {
					b.StopTimer()
					prepare()
					b.StartTimer()
					start := time.Now()
					measured()
					quickest = min(quickest, time.Since(start))
				}
				b.ReportMetric(float64(quickest.Nanoseconds())/float64(per), "min-ns")
			})
		}
		begin := func() { table.Begin(cfg) }
		add := func() { play(b, data, table.Add) }
		run("replay", size.sockets, func() {}, func() { play(b, data, func(*inetdiag.Socket) {}) })
		run("add", size.sockets, begin, add)
		run("begin", 1, func() {}, begin)
		run("fill", 1, func() { begin(); add() }, func() {
			var n snapshot.Namespace
			table.Fill(&n)
		})
	}
}
