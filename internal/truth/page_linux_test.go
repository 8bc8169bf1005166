package truth

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/web"
)

var _ = emulation.SetEmulatedMedia

const hostile = `<img src=x onerror="document.title='owned'">`

// incident is the n-th report of a host on which several things are wrong, and
// every name is hostile.
func incident(n int) *snapshot.Report {
	taken := time.Date(2026, 3, 14, 3, 15, 0, 0, time.UTC).Add(time.Duration(n) * 2 * time.Second)
	minute := make([]uint32, 60)
	for i := range minute {
		minute[i] = uint32(440 + (i*37+n*11)%60)
	}
	tw := uint32(26000 + 40*n)
	ns := &snapshot.Namespace{
		Name: "host", Inode: 4026531840, Kind: "host", SampledAt: taken, CoveredSeconds: 2, Source: "inet_diag",
		States: snapshot.States{
			Established: 212, SynSent: 3, SynRecv: 5, FinWait1: 2, FinWait2: 17, TimeWait: tw + 900, CloseWait: 46, LastAck: 1, Listen: 9,
		},
		Counters: map[string]uint64{"ActiveOpens": uint64(10000 + 930*n), "PassiveOpens": uint64(500 + 20*n)},
		TimeWait: snapshot.TimeWait{BucketsUsed: int(tw) + 900, BucketsLimit: new(131072), OpenedPerSecond: minute, CloseRate: new(466.2), CloseRateBy: "timers"},
		Omitted:  snapshot.Omitted{Flows: 12},
	}
	ns.Flows = append(ns.Flows, snapshot.Flow{
		Side: snapshot.Client, Local: "10.20.30.40", Remote: "10.20.30.99", Port: 6379, Service: "redis", ServiceBy: "port",
		States: snapshot.States{Established: 2, TimeWait: tw}, CloseRate: new(465.0), MeanLifetimeSeconds: new(0.0043),
		OpenedPerSecond: minute, LongLived: new(uint32(1)),
		Ports: &snapshot.Ports{Range: 28232, Reserved: 5, Used: int(tw), Free: 28227 - int(tw), SecondsToExhaustion: new(41)},
		Processes: []snapshot.Process{
			{PID: 2210, PIDs: []int{2210, 2211}, Count: 2, Comm: hostile, Exe: "/usr/sbin/" + hostile, Cgroup: hostile, Sockets: 27, Share: 0.9, By: "inode"},
			{PID: 77, Count: 1, Comm: "cron\u202egnp.exe", Sockets: 2, Share: 0.1, By: "cookie"},
		},
		Attributed: new(0.93),
	})
	for i := range 140 {
		f := snapshot.Flow{
			Side: snapshot.Client, Local: "10.20.30.40", Remote: fmt.Sprintf("10.9.%d.%d", i/20, i), Port: []uint16{443, 5432, 3306, 8080}[i%4],
			Service: []string{"https", "postgresql", "mysql", ""}[i%4], States: snapshot.States{Established: uint32(i % 7), TimeWait: uint32(3 * i)},
			CloseRate: new(float64(i) / 20), Ports: &snapshot.Ports{Range: 28232, Reserved: 5, Used: 3 * i, Free: 28227 - 3*i},
			Processes: []snapshot.Process{{PID: 400 + i%3, Count: 1, Comm: []string{"java", "app", "node"}[i%3], Sockets: 3, Share: 0.5, By: "inode"}},
		}
		if i%10 == 0 {
			f.Side, f.Ports, f.Local, f.Remote, f.Port, f.Service = snapshot.Server, nil, "10.20.30.40", fmt.Sprintf("10.8.0.%d", i), 8443, "https"
			f.States.CloseWait = uint32(i / 5)
		}
		ns.Flows = append(ns.Flows, f)
	}
	for i := range 24 {
		ns.CloseWaits = append(ns.CloseWaits, snapshot.CloseWait{
			Local: "10.20.30.40:8443", Remote: fmt.Sprintf("10.8.0.%d:%d", i, 40000+i), Cookie: uint64(i + 1), AgeSeconds: new(float64(60*i) + 12.5),
			RecvQ: uint32(i % 3), Side: snapshot.Server, Inode: uint32(i), PID: 2210, Comm: hostile,
		})
	}
	r := &snapshot.Report{
		Schema: snapshot.Schema, Version: "0.2.0", Host: "web-17.example.net", Kernel: "6.12.9-amd64", BootID: "b", Time: taken,
		TookSeconds: 0.012, IntervalSeconds: 2, Verdict: snapshot.Critical, Namespaces: []*snapshot.Namespace{ns},
		Limited: []snapshot.Gap{{Stage: "owner", Error: hostile, Lost: "the processes of some sockets", Fix: "grant CAP_SYS_PTRACE"}},
	}
	subject := snapshot.Subject{Side: snapshot.Client, Local: "10.20.30.40", Remote: "10.20.30.99", Port: 6379, Service: "redis", Process: hostile}
	r.Findings = []snapshot.Finding{
		{
			ID: "short-connections-client", Severity: snapshot.Critical, Namespace: "host", Subject: subject, Since: taken.Add(-12 * time.Minute),
			Summary:  hostile + " opens 465 connections/s to redis at 10.20.30.99:6379 and closes each after 4.3 ms; each leaves a TIME_WAIT for 60 s.",
			Evidence: []snapshot.Evidence{{What: "connections closed", Value: 465, Unit: "1/s", Source: "TIME_WAIT timers"}, {What: "lifetime", Value: 0.0043, Unit: "s", Source: "inet_diag"}},
			Recommendations: []snapshot.Recommendation{
				{ID: "php-redis-pconnect", Title: "Keep the connection to redis open between requests", Do: "Use pconnect() in place of connect(), and let each worker keep one connection.", Snippet: "// phpredis\n$redis->pconnect('10.20.30.99', 6379);", Effect: "about 32 connections, and no TIME_WAIT", Caveats: []string{"32 workers × 1 connection must stay below redis's maxclients: CONFIG GET maxclients shows it."}, References: []string{"https://github.com/phpredis/phpredis#pconnect-popen", "javascript:alert(1)"}},
				{ID: "more-tuples", Title: "More 4-tuples", Do: "Let redis listen on a second port.", Caveats: []string{}, References: []string{}},
			},
		},
		{
			ID: "ephemeral-ports-running-out", Severity: snapshot.Critical, Namespace: "host", Subject: subject, BecauseOf: "short-connections-client",
			Summary:  "Ports from 10.20.30.40 to 10.20.30.99:6379 run out: 2,200 of 28,227 left.",
			Evidence: []snapshot.Evidence{}, Recommendations: []snapshot.Recommendation{},
		},
		{
			ID: "close-wait-leak", Severity: snapshot.Warning, Namespace: "host", Subject: snapshot.Subject{Side: snapshot.Server, Local: "10.20.30.40", Port: 8443, Process: hostile},
			Summary:  "46 connections on port 8443 wait for a close() that doesn't come, the oldest for 23 min.",
			Evidence: []snapshot.Evidence{{What: "CLOSE_WAIT", Value: 46, Unit: "sockets", Source: "inet_diag"}}, Recommendations: []snapshot.Recommendation{},
		},
		{
			ID: "time-wait-harmless", Severity: snapshot.Info, Namespace: "host", Summary: "900 connections are in TIME_WAIT on listening ports, which costs nothing.",
			Evidence: []snapshot.Evidence{}, Recommendations: []snapshot.Recommendation{},
		},
	}
	return r
}

// site serves reports that the test hands over, one by one.
func site(t *testing.T) (url string, publish func(*snapshot.Report), stop func()) {
	t.Helper()
	reports := make(chan *snapshot.Report)
	h := hub.New(hub.Config{Source: func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-reports:
					if !yield(r, nil) {
						return
					}
				}
			}
		}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = h.Run(ctx) }()
	done := make(chan struct{})
	library := must[*advice.Library](t)(advice.Load())
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = web.Server(web.Handler(web.Config{Hub: h, Metrics: prometheus.NewRegistry(), Library: library, Version: "0.2.0", Done: done}), nil)
	srv.Listener = web.Listener(must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")))
	srv.Start()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			close(done)
			srv.CloseClientConnections()
			srv.Close()
			cancel()
			<-ran
		}
	}
	t.Cleanup(stop)
	return srv.URL, func(r *snapshot.Report) { reports <- r }, stop
}

func TestPageScratch(t *testing.T) {
	url, publish, _ := site(t)
	for n := range 30 {
		publish(incident(n))
	}
	b := open(t, url)
	b.eventually(`document.querySelectorAll("#flow-rows tr").length > 5`)
	publish(incident(31))
	b.eventually(`document.querySelector("[data-rate=syn_sent]").textContent !== ""`)
	dir := os.Getenv("SHOTS")
	shot := func(name string, at string) {
		eval[bool](b, `(document.querySelector(`+"`"+at+"`"+`)?.scrollIntoView(), true)`)
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(filepath.Join(dir, name), png, 0o644)
	}
	b.eventually(`document.querySelectorAll("#history-charts figure").length === 4`)
	b.do(chromedp.EmulateViewport(1280, 1400))
	b.scheme("light")
	shot("l1.png", "header")
	shot("l2.png", "#closes")
	shot("l3.png", "#close-waits")
	b.click("#finding-list summary")
	b.click(".row")
	b.scheme("dark")
	b.eventually(`document.querySelectorAll(".detail figure svg").length === 2`)
	shot("d1.png", "header")
	shot("d2.png", "#flows")
	b.do(chromedp.EmulateViewport(390, 1600))
	b.scheme("light")
	shot("p1.png", "header")
	shot("p2.png", "#states")
	shot("p3.png", "#flows")
	fmt.Println(strings.Join(b.said(), "\n"))
	b.do(chromedp.Navigate(url+"/explain/time-wait"), chromedp.EmulateViewport(1280, 1200))
	shot("e1.png", "header")
	b.do(chromedp.Navigate(url + "/explain"))
	shot("e2.png", "header")
	fmt.Println(strings.Join(b.said(), "\n"))
}
