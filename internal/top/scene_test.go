package top

import (
	"fmt"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// minute is a timeline in which n connections closed in each second.
func minute(n uint32) []uint32 {
	m := make([]uint32, 60)
	for i := range m {
		m[i] = n
	}
	return m
}

func ports(free int) *snapshot.Ports {
	return &snapshot.Ports{Range: 110, Reserved: 10, Used: 100 - free, Free: free}
}

func runBy(comm string, pid int) []snapshot.Process {
	return []snapshot.Process{{PID: pid, Count: 1, Comm: comm, Exe: "/usr/bin/" + comm, Sockets: 3, Share: 0.5, By: snapshot.ByInode}}
}

// scene is the n-th report, two seconds after the one before, of a host with a
// pod: six flows of which every sort key and every grouping makes another
// order, CLOSE_WAITs of every kind, and findings.
func scene(n int) *snapshot.Report {
	taken := begun.Add(time.Duration(n) * 2 * time.Second)
	host := &snapshot.Namespace{
		Name: "host", Inode: 1, Kind: "host", SampledAt: taken, Source: "inet_diag",
		States:   snapshot.States{Established: 12, SynSent: 1, SynRecv: 3, TimeWait: 1655, CloseWait: 6, Listen: 2},
		Counters: map[string]uint64{"ActiveOpens": uint64(1000 + 110*n), "PassiveOpens": uint64(50 + 8*n)},
		TimeWait: snapshot.TimeWait{BucketsUsed: 1700, BucketsLimit: new(2000), OpenedPerSecond: minute(55), CloseRate: new(55.0)},
		HalfOpen: []snapshot.HalfOpen{{Port: 8080, Remote: "10.7.0.0/24", Sockets: 2}, {Port: 8080, Sockets: 1}},
		Listeners: []snapshot.Listener{
			{Local: "0.0.0.0:8080", Queue: 5, Backlog: 5, PID: 30, Comm: "nginx"}, {Local: "0.0.0.0:22", Backlog: 128},
		},
	}
	host.Flows = []snapshot.Flow{
		{
			Side: snapshot.Client, Local: "10.0.0.1", Remote: "10.0.0.9", Port: 6379, Service: "redis", ServiceBy: "port",
			States: snapshot.States{TimeWait: 600, Established: 4}, CloseRate: new(12.0), CloseRateSeconds: 60, MeanLifetimeSeconds: new(0.004),
			OpenedPerSecond: minute(12), Ports: ports(40), Processes: runBy("php-fpm", 10), Attributed: new(0.9), LongLived: new(uint32(1)),
		},
		{
			Side: snapshot.Client, Local: "10.0.0.1", Remote: "10.0.0.8", Port: 5432, Service: "postgresql", ServiceBy: "process",
			States: snapshot.States{TimeWait: 100, Established: 6}, CloseRate: new(3.0), CloseRateAtLeast: true, MeanLifetimeSeconds: new(2.0),
			OpenedPerSecond: minute(3), Ports: ports(10), Processes: runBy("java", 20), Attributed: new(1.0),
		},
		{
			Side: snapshot.Server, Local: "10.0.0.1", Remote: "10.1.2.3", Port: 8080, Service: "http", ServiceBy: "port",
			States: snapshot.States{TimeWait: 5, CloseWait: 5, Established: 2}, CloseWait: snapshot.CloseWaitCount{Sockets: 5, OldestSeconds: new(90.0)},
			Processes: runBy("nginx", 30), Attributed: new(1.0),
		},
		{
			Side: snapshot.Client, Local: "10.0.0.1", Remote: "10.0.0.9", Port: 443, Service: "https", ServiceBy: "port",
			States: snapshot.States{TimeWait: 50}, CloseRate: new(40.0), MeanLifetimeSeconds: new(0.5),
			OpenedPerSecond: minute(40), Ports: ports(90), Processes: runBy("java", 20), Attributed: new(1.0),
		},
		{
			Side: snapshot.Unknown, Remote: "10.9.0.0/16", Port: 0, States: snapshot.States{TimeWait: 900, CloseWait: 1}, MissedAtMost: 3,
		},
	}
	for i, w := range []snapshot.CloseWait{
		{Remote: "10.1.2.3:41000", AgeSeconds: new(90.0), Inode: 7, PID: 30, Comm: "nginx", Side: snapshot.Server},
		{Remote: "10.1.2.3:41001", AgeSeconds: new(45.0), AgeAtLeast: true, AgeAtMostSeconds: new(70.0), RecvQ: 9000, Inode: 8, PID: 30, Comm: "nginx", Side: snapshot.Server},
		{Remote: "10.1.2.3:41002", AgeSeconds: new(20.0), Side: snapshot.Server, RecvQ: 1},
		{Remote: "10.1.2.3:41003", AgeSeconds: new(10.0), Inode: 9, PID: 30, Comm: "nginx", Side: snapshot.Server, SendQ: 7},
		{Remote: "10.0.0.8:5432", Inode: 10, PID: 20, Comm: "java", Side: snapshot.Client, RecvQ: 1},
	} {
		w.Local, w.Cookie = fmt.Sprintf("10.0.0.1:%d", 8080+i), uint64(i+1)
		host.CloseWaits = append(host.CloseWaits, w)
	}
	host.Owners = []snapshot.Owner{{PID: 30, Comm: "nginx", Exe: "/usr/sbin/nginx", Cgroup: "/system.slice/nginx.service", Sockets: 9, CloseWait: 5, Descriptors: new(900), DescriptorLimit: new(1024)}}
	pod := &snapshot.Namespace{
		Name: "pod-a", Inode: 2, Kind: "pod", SampledAt: taken, Source: "inet_diag",
		States:   snapshot.States{TimeWait: 60, Listen: 1},
		TimeWait: snapshot.TimeWait{BucketsUsed: 60, BucketsLimit: new(2000), OpenedPerSecond: minute(1), CloseRate: new(1.0)},
		Flows: []snapshot.Flow{{
			Side: snapshot.Client, Local: "10.2.0.1", Remote: "10.0.0.9", Port: 6379, Service: "redis", ServiceBy: "port",
			States: snapshot.States{TimeWait: 60}, CloseRate: new(1.0), OpenedPerSecond: minute(1), Ports: ports(70), Processes: runBy("php-fpm", 40),
		}},
	}
	subject := snapshot.Subject{Side: snapshot.Client, Local: "10.0.0.1", Remote: "10.0.0.9", Port: 6379, Service: "redis", Process: "php-fpm"}
	return &snapshot.Report{
		Schema: snapshot.Schema, Host: "web-17", Time: taken, IntervalSeconds: 2, Verdict: snapshot.Critical,
		Namespaces: []*snapshot.Namespace{host, pod},
		Findings: []snapshot.Finding{
			{
				ID: "short-connections-client", Severity: snapshot.Critical, Namespace: "host", Subject: subject, Since: begun.Add(-time.Minute),
				Summary:  "php-fpm opens a new connection to redis for every request.",
				Evidence: []snapshot.Evidence{{What: "connections closed", Value: 12, Unit: "1/s", Source: "inet_diag"}},
				Recommendations: []snapshot.Recommendation{
					{ID: "pool", Title: "Keep connections open", Do: "Use a pool.\nOne for each worker.", Effect: "4 connections", Caveats: []string{"maxclients"}, References: []string{"https://example.net/pool"}},
					{ID: "php-redis-pconnect", Title: "pconnect", Do: "Call it.", Snippet: "$redis->pconnect('10.0.0.9', 6379);\n\t// once\n"},
				},
			},
			{
				ID: "ephemeral-ports-slow", Severity: snapshot.Warning, Namespace: "host", Subject: subject, BecauseOf: "short-connections-client",
				Summary: "60 of 100 ports are taken.",
			},
			{ID: "close-wait-leak", Severity: snapshot.Warning, Namespace: "host", Subject: snapshot.Subject{Port: 8080, Process: "nginx"}, Summary: "nginx forgets to close."},
		},
	}
}
