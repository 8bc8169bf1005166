package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/sysctl"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		if err := os.WriteFile(path+".got", []byte(got), 0o644); err != nil {
			t.Error(err)
		}
		t.Errorf("%s (-want +got), see %s.got:\n%s", path, path, diff)
	}
}

func text(t *testing.T, r *snapshot.Report, o Options) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	for _, test := range []struct {
		name    string
		report  *snapshot.Report
		options Options
	}{
		{"healthy", healthy(), Options{}},
		{"storm", storm(), Options{}},
		{"storm-verbose-wide", storm(), Options{Verbose: true, Width: 132}},
		{"storm-narrow", storm(), Options{Width: 48}},
		{"exhausted", exhausted(), Options{}},
		{"exhausted-coloured", exhausted(), Options{Style: draw.Style{Color: true}}},
		{"exhausted-ascii", exhausted(), Options{Style: draw.Style{ASCII: true}}},
		{"harmless", harmlessLook(), Options{}},
		{"survivors", survivors(), Options{}},
		{"ipv6", ipv6(), Options{}},
		{"hostile", hostile(), Options{}},
		{"hostile-ascii", hostile(), Options{Style: draw.Style{ASCII: true}}},
		{"incomplete", incompleteLook(), Options{}},
		{"many", many(), Options{Flows: 3}},
		{"nothing", &snapshot.Report{Namespaces: []*snapshot.Namespace{nil}}, Options{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			golden(t, test.name, text(t, test.report, test.options))
		})
	}
}

// The reports of the golden files. Each differs from the one before it.

func healthy() *snapshot.Report {
	return &snapshot.Report{
		Schema: snapshot.Schema, Version: "0.1.0", Host: "web-1", Kernel: "6.12.9",
		Time: time.Date(2026, 3, 1, 2, 59, 58, 0, time.UTC), TookSeconds: 0.0031, Verdict: snapshot.Healthy,
		Namespaces: []*snapshot.Namespace{{
			Name: "host", Kind: "host", Source: "inet_diag",
			States: snapshot.States{Established: 41, TimeWait: 1239, FinWait2: 1, Listen: 14},
			Limits: sysctl.Limits{IPLocalPortRange: &sysctl.PortRange{Low: 32768, High: 60999}},
			TimeWait: snapshot.TimeWait{
				BucketsUsed: 1240, BucketsLimit: new(131072), OpenedPerSecond: minute(func(s int) int { return 20 + s%3 }),
				CloseRate: new(20.65), CloseRateBy: "timers",
			},
			Ports: &snapshot.PortPool{Range: 28232, BoundSeen: true},
			Flows: []snapshot.Flow{
				flowTo("10.0.0.9", 6379, "redis", 1130, 12, 18.8),
				serverFlow("10.0.0.5", 443, "https", "10.0.7.2", 109, 20, 1.8),
				serverFlow("10.0.0.5", 22, "ssh", "10.0.7.9", 0, 1, 0),
			},
		}},
	}
}

func storm() *snapshot.Report {
	r := healthy()
	ns := r.Namespaces[0]
	f := &ns.Flows[0]
	*f = flowTo("10.0.0.9", 6379, "redis", 25811, 31, 466.2)
	f.Ports.SecondsToExhaustion = new(41)
	f.MeanLifetimeSeconds = new(0.0041)
	f.Processes = []snapshot.Process{
		{PID: 812, Count: 32, Comm: "php-fpm", Sockets: 24800, Share: 0.96, By: snapshot.ByCookie},
		{PID: 44, Count: 1, Comm: "cron", Sockets: 1, Share: 0.03, By: snapshot.ByInode},
	}
	ns.Flows[1].Processes = []snapshot.Process{{PID: 77, Count: 1, Comm: "nginx", By: snapshot.ByListener}}
	f.OpenedPerSecond = minute(func(s int) int { return s * s / 4 })
	ns.Flows[1].States.CloseWait = 3
	ns.Flows[1].CloseWait = snapshot.CloseWaitCount{Sockets: 3, OldestSeconds: new(7812.0), OldestAtLeast: true, EOFRead: 2, Unread: 1}
	ns.States.TimeWait, ns.States.CloseWait, ns.TimeWait.BucketsUsed = 25920, 3, 25921
	ns.TimeWait.OpenedPerSecond, ns.TimeWait.CloseRate = f.OpenedPerSecond, new(468.0)
	ns.Ports = &snapshot.PortPool{Range: 28232, BlockedListen: 2, BlockedParity: 5, Blocked: 7, BoundSeen: true}
	ns.Omitted = snapshot.Omitted{Flows: 37, States: snapshot.States{TimeWait: 44, Established: 6}}
	r.Verdict = snapshot.Critical
	subject := snapshot.Subject{Side: snapshot.Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379, Service: "redis", Process: "php-fpm"}
	r.Findings = []snapshot.Finding{{
		ID: "short-connections-client", Severity: snapshot.Critical, Namespace: "host", Since: r.Time.Add(-95 * time.Second), Subject: subject,
		Summary: "php-fpm opens a new connection to redis at 10.0.0.9:6379 for every request (466/s, each lives 4.1 ms); 92 % of the ports to it are taken, and none is left in 41 s.",
		Evidence: []snapshot.Evidence{
			{What: "connections closed", Value: 466.2, Unit: "1/s", Source: "TIME_WAIT timers of inet_diag"},
			{What: "mean lifetime", Value: 0.0041, Unit: "seconds", Source: "computed"},
		},
		Recommendations: []snapshot.Recommendation{
			{
				ID: "phpredis-pconnect", Title: "PHP - keep redis connections over requests",
				Do:      "Connect with pconnect(), so that a worker keeps its connection.",
				Snippet: "[www]\n; a pool of connections that outlives the request\nredis.pconnect.pooling_enabled = 1\t; and a comment that goes on beyond the eightieth column\n",
				Effect:  "A connection that is not closed leaves no TIME_WAIT.", Caveats: []string{"All idle connections together must stay below what the server accepts."},
				References: []string{"https://blog.cloudflare.com/how-to-stop-running-out-of-ephemeral-ports-and-start-to-love-long-lived-connections/"},
			},
			{ID: "unix-socket", Title: "A Unix socket for a server on this host", Do: "It has no ports."},
		},
	}, {
		ID: "ephemeral-ports-running-out", Severity: snapshot.Critical, Namespace: "host", BecauseOf: "short-connections-client", Subject: subject,
		Summary: "Ports from 10.0.0.5 to redis at 10.0.0.9:6379 run out: 2,390 of 28,232 left, 25,811 of them by closed connections in TIME_WAIT; at the present rate none is left in 41 s.",
		Evidence: []snapshot.Evidence{
			{What: "free ports", Value: 2390, Unit: "ports", Source: "inet_diag, ip_local_port_range, ip_local_reserved_ports"},
			{What: "share in use", Value: 0.9153, Unit: "ratio", Source: "computed"},
		},
		Recommendations: []snapshot.Recommendation{{ID: "more-ports", Title: "Until then widen ip_local_port_range", Do: "A wider range lasts longer."}},
	}, {
		ID: "close-wait-leak", Severity: snapshot.Warning, Namespace: "host",
		Summary:  "nginx (pid 77) holds 3 sockets that their clients have closed, the oldest for 2 h 10 min at least.",
		Evidence: []snapshot.Evidence{{What: "CLOSE_WAIT", Value: 3, Unit: "sockets", Source: "inet_diag"}},
	}}
	return r
}

func exhausted() *snapshot.Report {
	r := storm()
	f := &r.Namespaces[0].Flows[0]
	f.States.TimeWait, f.States.SynSent = 28200, 1
	f.Ports.Used, f.Ports.Free, f.Ports.SecondsToExhaustion = 28232, 0, nil
	r.Findings = r.Findings[1:2]
	r.Findings[0].ID, r.Findings[0].BecauseOf = "ephemeral-ports-exhausted", "something-unknown"
	r.Findings[0].Summary = "No port left from 10.0.0.5 to 10.0.0.9:6379 (usually redis): all 28,232 are taken, and connect() fails with EADDRNOTAVAIL."
	r.Findings[0].Evidence[0].Value = 0
	return r
}

// harmlessLook is many TIME_WAIT, and no reason to act.
func harmlessLook() *snapshot.Report {
	r := healthy()
	r.Findings = []snapshot.Finding{{
		ID: "time-wait-harmless", Severity: snapshot.Info, Namespace: "host",
		Summary: "5,000 TIME_WAIT, and no reason to act: they are on port 443, where this host listens, so they take no port.",
	}}
	return r
}

// survivors is a loopback flow whose TIME_WAIT sockets are recycled.
func survivors() *snapshot.Report {
	r := healthy()
	ns := r.Namespaces[0]
	f := flowTo("127.0.0.1", 3306, "mysql", 14210, 8, 1495)
	f.Local, f.SurvivorsOnly, f.MissedAtMost = "127.0.0.1", true, 7
	f.Ports.Reusable, f.Ports.Free, f.Ports.AtMost = 12700, 26714, true
	f.OpenedPerSecond = minute(func(s int) int { return 180 + 1300*(s/59) })
	ns.Flows = []snapshot.Flow{f}
	ns.States = snapshot.States{TimeWait: 14210, Established: 8, Listen: 2}
	ns.TimeWait = snapshot.TimeWait{
		BucketsUsed: 14210, BucketsLimit: new(131072), OpenedPerSecond: f.OpenedPerSecond, OpenedPerSecondFloor: true,
		CloseRate: new(1497.2), CloseRateBy: "counter",
	}
	ns.Ports.BoundSeen = false
	return r
}

func ipv6() *snapshot.Report {
	r := healthy()
	ns := r.Namespaces[0]
	long := flowTo("2001:db8:1111:2222:3333:4444:5555:6667", 27017, "mongodb", 20000, 12, 333)
	long.Local = "2001:db8:1111:2222:3333:4444:5555:6666"
	short := flowTo("fe80::2", 9200, "", 12, 0, 0.2)
	short.Local, short.Device = "fe80::1", "wlan0"
	in := serverFlow("2001:db8:1111:2222:3333:4444:5555:6666", 443, "https", "2001:db8:1111:2222::/64", 93, 1, 1.5)
	rest := snapshot.Flow{Side: snapshot.Unknown, States: snapshot.States{TimeWait: 4}}
	ns.Flows = []snapshot.Flow{short, long, in, rest}
	return r
}

func hostile() *snapshot.Report {
	const evil = "evil\x1b[2J\n\r\u202e$(reboot)`id`\x00\u200b\xff é"
	r := exhausted()
	r.Host, r.Kernel = evil, evil
	ns := r.Namespaces[0]
	ns.Name, ns.Kind = evil, "named"
	f := &ns.Flows[0]
	f.Device, f.Service, f.Local, f.Remote = evil, evil, evil, evil
	f.Processes[0].Comm = evil
	fd := &r.Findings[0]
	fd.ID, fd.Summary, fd.BecauseOf, fd.Namespace = evil, evil, evil, evil
	fd.Severity = snapshot.Severity("crit\x1b[31m")
	fd.Evidence[0] = snapshot.Evidence{What: evil, Unit: evil, Source: evil}
	fd.Recommendations[0] = snapshot.Recommendation{Title: evil, Do: evil, Snippet: evil}
	r.Incomplete = []snapshot.Gap{{Stage: evil, Namespace: evil, Error: evil, Lost: evil, Fix: evil}}
	r.NotJudged = []string{evil}
	return r
}

func incompleteLook() *snapshot.Report {
	r := healthy()
	ns := r.Namespaces[0]
	ns.Limits = sysctl.Limits{}
	ns.Ports, ns.TimeWait.BucketsLimit, ns.TimeWait.CloseRate, ns.TimeWait.OpenedPerSecond = nil, nil, nil, nil
	ns.Flows = ns.Flows[:1]
	ns.Flows[0].Ports, ns.Flows[0].CloseRate, ns.Flows[0].OpenedPerSecond = nil, nil, nil
	ns.Flows[0].States.CloseWait, ns.Flows[0].CloseWait.Sockets = 2, 2
	r.Incomplete = []snapshot.Gap{{
		Stage: "limits", Namespace: "host", Error: "open /proc/sys/net/ipv4: permission denied",
		Lost: "the kernel's limits: ports and buckets can't be compared with anything", Fix: "check that /proc/sys/net is readable",
	}}
	r.Limited = []snapshot.Gap{{
		Stage: "owner", Error: "descriptors of other users' processes can't be read",
		Lost: "the processes of other users' sockets", Fix: "grant CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, or run as root",
	}}
	r.NotJudged = []string{"ephemeral-ports-exhausted", "ephemeral-ports-running-out", "ephemeral-ports-slow", "time-wait-buckets-near-limit"}
	return r
}

// many is two namespaces, and more flows than are shown.
func many() *snapshot.Report {
	r := storm()
	pod := healthy().Namespaces[0]
	pod.Name, pod.Kind = "shop/cart-7d9f", "pod"
	for i := range 9 {
		pod.Flows = append(pod.Flows, serverFlow("10.0.0.5", uint16(8000+i), "", "10.9.0.1", uint32(i), 1, 0))
	}
	r.Namespaces = append(r.Namespaces, pod)
	return r
}

func minute(f func(second int) int) []uint32 {
	counts := make([]uint32, 60)
	for s := range counts {
		counts[s] = uint32(f(s))
	}
	return counts
}

func flowTo(remote string, port uint16, service string, timeWait, established uint32, perSecond float64) snapshot.Flow {
	f := serverFlow("10.0.0.5", port, service, remote, timeWait, established, perSecond)
	f.Side = snapshot.Client
	used := int(timeWait + established)
	f.Ports = &snapshot.Ports{Range: 28232, Used: used, Free: max(0, 28232-used)}
	return f
}

func serverFlow(local string, port uint16, service, remote string, timeWait, established uint32, perSecond float64) snapshot.Flow {
	return snapshot.Flow{
		Side: snapshot.Server, Local: local, Remote: remote, Port: port, Service: service,
		States: snapshot.States{TimeWait: timeWait, Established: established}, CloseRate: &perSecond,
		OpenedPerSecond: minute(func(int) int { return int(perSecond) }),
	}
}
