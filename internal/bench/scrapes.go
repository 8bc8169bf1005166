//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// scrapesResult is what one scrape of `twwatch serve` costs it.
type scrapesResult struct {
	args   string // of serve
	series int
	bytes  int // of one answer
	ns     []int64
	target float64 // ms
}

// scrapesAtOnce is how many scrapes a turn has: one is short beside the clock.
const scrapesAtOnce = 20

// crowdedPods is how many pods the host has whose metrics are scraped.
const crowdedPods = 30

// measureScrapes has serve show a recording of a host with more flows than it
// exports, once as it is by default and once with as many as 800 series have, and
// scrapes it. The source has ended by then, so that nothing else takes time.
func (r *results) measureScrapes(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "twwatch-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	recording := filepath.Join(dir, "recording.jsonl")
	last, err := recordCrowdedHost(recording)
	if err != nil {
		return err
	}
	ns, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	for _, s := range []scrapesResult{{target: 3}, {args: "--metrics.flows=48", target: 6}} {
		if err := s.measure(ctx, &table{ns: ns}, r, recording, last); err != nil {
			return err
		}
		r.scrapes = append(r.scrapes, s)
	}
	return nil
}

func (s *scrapesResult) measure(ctx context.Context, t *table, r *results, recording string, last time.Time) error {
	args := []string{"serve", "--web.listen-address=" + servePort, "--log.level=error", "--source=" + recording}
	if s.args != "" {
		args = append(args, s.args)
	}
	d, err := startDaemon(ctx, t, servePort, "/-/ready", r.twwatch, args...)
	if err != nil {
		return err
	}
	defer d.stop()
	d.client.Transport.(*http.Transport).DisableCompression = true
	stamp := fmt.Appendf(nil, "\ntwwatch_last_collect_timestamp_seconds %s\n", strconv.FormatFloat(float64(last.Unix()), 'g', -1, 64))
	var body []byte
	for deadline := time.Now().Add(20 * time.Second); !bytes.Contains(body, stamp); { // until all is read
		if body, err = d.get(ctx, "/metrics"); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("serve doesn't come to the recording's end")
		}
	}
	for line := range bytes.Lines(body) {
		if line[0] != '#' {
			s.series++
		}
	}
	s.bytes = len(body)
	for range r.pairs {
		before := d.cpu()
		for range scrapesAtOnce {
			if _, err := d.get(ctx, "/metrics"); err != nil {
				return err
			}
		}
		s.ns = append(s.ns, int64(d.cpu()-before)/scrapesAtOnce)
	}
	return nil
}

// recordCrowdedHost writes a recording of a host with 400 client and 400 server
// flows and many pods, and returns the time of its last report. Half an hour
// lies between two reports, so that every flow that may be exported is: only so
// many new ones are in an hour.
func recordCrowdedHost(path string) (last time.Time, err error) {
	f, err := os.Create(path)
	if err != nil {
		return last, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for n := range 12 {
		last = time.Date(2026, 3, 1, 0, 30*n, 0, 0, time.UTC)
		if err := snapshot.Encode(f, crowdedHost(last)); err != nil {
			return last, err
		}
	}
	return last, nil
}

func crowdedHost(at time.Time) *snapshot.Report {
	host := crowdedNamespace("host", "host", 1, at)
	r := &snapshot.Report{
		Schema: snapshot.Schema, Host: "crowded", Time: at, TookSeconds: 0.02, IntervalSeconds: 15, Verdict: snapshot.Healthy, Namespaces: []*snapshot.Namespace{host},
	}
	for i := range 400 {
		used := 20_000 - 10*i
		host.Flows = append(host.Flows,
			snapshot.Flow{
				Side: snapshot.Client, Local: "10.0.0.5", Remote: fmt.Sprintf("10.1.%d.%d", i/200, i%200), Port: 6379, Service: "redis", ServiceBy: "port",
				States: snapshot.States{TimeWait: uint32(used), Established: 4}, CloseRate: new(16.0), Births: 240,
				Ports: &snapshot.Ports{Range: 28232, Used: used, Free: 28232 - used},
			},
			snapshot.Flow{
				Side: snapshot.Server, Local: fmt.Sprintf("10.0.0.%d", i%100), Remote: fmt.Sprintf("192.0.2.%d", i%250), Port: uint16(80 + i%7), Service: "http", ServiceBy: "port",
				States: snapshot.States{TimeWait: 900, CloseWait: 2, Established: 9}, Births: 12,
			})
	}
	for i := range crowdedPods {
		pod := crowdedNamespace("pod", fmt.Sprint("shop/cart-", i), uint64(1000+i), at)
		pod.Flows = []snapshot.Flow{{
			Side: snapshot.Client, Local: "10.244.0.7", Remote: "10.9.9.9", Port: 3306, Service: "mysql", ServiceBy: "port",
			States: snapshot.States{TimeWait: uint32(300 + i)}, Ports: &snapshot.Ports{Range: 28232, Used: 300 + i, Free: 27_932 - i},
		}}
		r.Namespaces = append(r.Namespaces, pod)
	}
	for _, n := range r.Namespaces {
		for i := range n.Flows {
			n.States.Add(&n.Flows[i].States)
		}
		n.TimeWait.BucketsUsed = int(n.States.TimeWait)
	}
	return r
}

func crowdedNamespace(kind, name string, inode uint64, at time.Time) *snapshot.Namespace {
	return &snapshot.Namespace{
		Name: name, Kind: kind, Inode: inode, SampledAt: at, CoveredSeconds: 15, Source: "inet_diag",
		Counters: map[string]uint64{"TW": 1 << 20, "TWRecycled": 9, "TCPTimeWaitOverflow": 7, "ListenOverflows": 5, "ListenDrops": 6, "SyncookiesSent": 3},
		TimeWait: snapshot.TimeWait{BucketsLimit: new(131_072)}, Ports: &snapshot.PortPool{Range: 28_232},
	}
}

func (r *results) scrapeTargets() (list []target) {
	for _, s := range r.scrapes {
		cost := milliseconds(s.ns).median()
		list = append(list, target{
			fmt.Sprintf("a scrape of %d series, uncompressed", s.series), fmt.Sprintf("≤ %.0f ms of CPU", s.target), fmt.Sprintf("%.2f ms", cost), cost <= s.target,
		})
	}
	return list
}

func (r *results) writeScrapes(p *page) {
	p.line("\n## Scrapes\n")
	p.line("CPU time of `twwatch serve` for one scrape of /metrics over a kept connection, uncompressed, the HTTP server and garbage collection included. It shows a recording of a host with 400 client flows, 400 server flows and %d pods, which has ended, so that no pass is made. Median of %d turns of %d scrapes. `scripts/bench -rows 1000` repeats it.\n", crowdedPods, r.pairs, scrapesAtOnce)
	p.table("`twwatch serve`", "series", "KiB", "CPU, ms")
	for _, s := range r.scrapes {
		name := "as it is"
		if s.args != "" {
			name = "`" + s.args + "`"
		}
		p.row(name, fmt.Sprint(s.series), fmt.Sprintf("%.0f", float64(s.bytes)/1024), milliseconds(s.ns).spread(2))
	}
}
