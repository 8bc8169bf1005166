package snapshot

import (
	"reflect"
	"testing"
	"time"

	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// full is the report of a web host whose PHP workers connect anew to redis for
// every request. Every key of the model has a value somewhere in it.
func full(t *testing.T) *Report {
	t.Helper()
	taken := time.Date(2026, 3, 14, 3, 15, 9, 265358979, time.UTC)
	return &Report{
		Schema: Schema, Version: "0.1.0", Host: "web-17.example.net", Kernel: "6.12.9-amd64",
		BootID: "3f0c2f9e-8d55-4c1b-9d0a-0b6b6d1f2a77", Time: taken, Uptime: 86461.25,
		TookSeconds: 0.0314, IntervalSeconds: 15, Verdict: Critical,
		Incomplete: []Gap{{
			Stage: "limits", Namespace: "default/cart-5d9f/app", Error: "open /proc/sys/net/ipv4/tcp_tw_reuse: permission denied",
			Lost: "the settings of this namespace", Fix: "grant CAP_SYS_ADMIN",
		}},
		Limited: []Gap{{
			Stage: "owner", Namespace: "default/cart-5d9f/app", Error: "descriptors of other users' processes can't be read",
			Lost: "the processes of some sockets", Fix: "grant CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE",
		}},
		LiveDumps:  &LiveDumps{Count: 14, CPUSeconds: 0.021},
		NotJudged:  []string{"time-wait-overflow"},
		HostLimits: fullHostLimits(),
		Thresholds: map[string]float64{"ports.warning": 0.5, "ports.critical": 0.8},
		Namespaces: []*Namespace{fullNamespace(t, taken), podNamespace(taken)},
		Findings:   []Finding{fullFinding(taken)},
		Redacted:   true,
	}
}

func fullHostLimits() *sysctl.HostLimits {
	return &sysctl.HostLimits{
		TCPMaxOrphans: new(65536), TCPMem: &[3]int{188319, 251092, 376638},
		NFConntrackMax: new(262144), NFConntrackBuckets: new(65536),
	}
}

// fullLimits gives every number of the limits a value of its own.
func fullLimits(t *testing.T) sysctl.Limits {
	t.Helper()
	var l sysctl.Limits
	v := reflect.ValueOf(&l).Elem()
	for i := range v.NumField() {
		if number, ok := reflect.TypeAssert[*int](v.Field(i)); ok && number == nil {
			v.Field(i).Set(reflect.ValueOf(new(100 + i)))
		}
	}
	l.TCPMaxTWBuckets, l.TCPTWReuse, l.TCPTWReuseDelay = new(131072), new(2), new(1000)
	l.IPLocalPortRange = &sysctl.PortRange{Low: 32768, High: 60999}
	reserved, err := sysctl.ParsePortSet("33060,35357-35360")
	if err != nil {
		t.Fatal(err)
	}
	l.IPLocalReservedPorts = &reserved
	return l
}

func fullNamespace(t *testing.T, taken time.Time) *Namespace {
	t.Helper()
	return &Namespace{
		Name: "host", Inode: 4026531840, Cookie: 1, Kind: "host", SampledAt: taken.Add(time.Millisecond),
		CoveredSeconds: 15.002, Source: "inet_diag",
		States: States{
			Established: 212, SynSent: 3, SynRecv: 5, FinWait1: 2, FinWait2: 17, TimeWait: 27930,
			Close: 4, CloseWait: 6, LastAck: 1, Listen: 9, Closing: 1,
		},
		Limits:   fullLimits(t),
		Counters: counters.Set{"TW": 9182736, "TWRecycled": 12, "TCPTimeWaitOverflow": 0, "ActiveOpens": 10293847},
		Sockstat: counters.Sockstat{
			InUse: new(231), TimeWait: new(27940), TCP6InUse: new(14), Orphan: new(3), Alloc: new(260), Mem: new(88),
		},
		Conntrack: &counters.Conntrack{
			Entries: new(uint64(58211)), Found: new(uint64(4)), Invalid: new(uint64(91)), InsertFailed: new(uint64(2)),
			Drop: new(uint64(2)), EarlyDrop: new(uint64(1)), SearchRestart: new(uint64(7)),
		},
		TimeWait: TimeWait{
			BucketsUsed: 27940, BucketsLimit: new(131072), OpenedPerSecond: minute(466), OpenedPerSecondFloor: true,
			CloseRate: new(466.2), CloseRateBy: "timers", Births: 6993,
		},
		Flows: []Flow{redisFlow(), fcgiFlow(), {
			Side: Unknown, Remote: "10.7.8.0/24", Port: 443, States: States{TimeWait: 40},
			CloseRate: new(0.7), CloseRateSeconds: 60, Births: 10, Processes: []Process{},
		}},
		Omitted:    Omitted{Flows: 311, States: States{TimeWait: 12, Established: 4}, Births: 3},
		Listeners:  []Listener{{Local: "[fe80::1c2d:3eff:fe4f:5a6b%ens3]:9000", Device: "ens3", Queue: 2, Backlog: 4096, Inode: 30417, UID: 33, PID: 2209, Comm: "php-fpm8.3"}},
		CloseWaits: []CloseWait{{Local: "127.0.0.1:9000", Remote: "10.20.30.41:51514", Cookie: 77123, AgeSeconds: new(3605.5), AgeAtLeast: true, AgeAtMostSeconds: new(4000.25), RecvQ: 26, SendQ: 10, LastSentSeconds: new(3611.25), Side: Server, Inode: 998877, UID: 33, PID: 2210, Comm: "php-fpm8.3"}},
		HalfOpen:   []HalfOpen{{Port: 443, Remote: "10.7.8.0/24", Sockets: 4}},
		Owners: []Owner{{
			PID: 2210, Start: 88123, Comm: "php-fpm8.3", Exe: "/usr/sbin/php-fpm8.3", Cgroup: "/system.slice/php8.3-fpm.service",
			Runtime: "php-fpm", RuntimeVersion: "8.3", Sockets: 33, CloseWait: 6, Descriptors: new(61), DescriptorLimit: new(1024),
		}},
		Ports: &PortPool{
			Range: 28232, Reserved: 5, BlockedListen: 2, BlockedBound: 1, BlockedExplicit: 1, BlockedParity: 4, Blocked: 8, BoundSeen: true, AtMost: true,
		},
		Sockets: []Socket{{
			State: "time_wait", Local: "10.20.30.40:41234", Remote: "10.20.30.99:6379", Device: "ens3", AgeSeconds: new(12.5),
			Timer: "time_wait", TimerSeconds: new(47.5), Cookie: 77001,
		}, {
			State: "close_wait", Local: "127.0.0.1:9000", Remote: "10.20.30.41:51514", AgeSeconds: new(3605.5), AgeAtLeast: true, AgeAtMostSeconds: new(4000.25),
			RecvQ: 26, SendQ: 10, UID: new(uint32(33)), Inode: 998877, Cookie: 77123, PID: 2210, Comm: "php-fpm8.3",
		}},
		SocketsOf: new(28177),
	}
}

func redisFlow() Flow {
	return Flow{
		Side: Client, Device: "ens3", Local: "10.20.30.40", Remote: "10.20.30.99", RemoteName: "default/redis-0", Port: 6379, Service: "redis", ServiceBy: "port",
		States: States{Established: 2, TimeWait: 27890}, MissedAtMost: 7,
		CloseRate: new(465.0), CloseRateSeconds: 15, CloseRateAtLeast: true, SurvivorsOnly: true, MeanLifetimeSeconds: new(0.0043), LongLived: new(uint32(1)),
		OpenedPerSecond: minute(465), Births: 6975,
		Ports: &Ports{
			Range: 28232, Reserved: 5, Blocked: 8, Used: 27892, Reusable: 5, Free: 332, AtMost: true, Bound: 3, SecondsToExhaustion: new(41),
		},
		Processes: []Process{{
			PID: 2210, PIDs: []int{2210, 2211}, Count: 2, Comm: "php-fpm8.3", Exe: "/usr/sbin/php-fpm8.3", Cgroup: "/system.slice/php8.3-fpm.service",
			Runtime: "php-fpm", RuntimeVersion: "8.3", Sockets: 27, Share: 0.9, By: "inode",
		}},
		Attributed: new(0.93),
	}
}

func fcgiFlow() Flow {
	return Flow{
		Side: Server, Local: "::1", Remote: "::1", Port: 9000, Service: "fastcgi", ServiceBy: "process",
		States:    States{Established: 1, CloseWait: 6, TimeWait: 0},
		CloseWait: CloseWaitCount{Sockets: 6, OldestSeconds: new(3605.5), OldestAtLeast: true, EOFRead: 3, Unread: 2, Unaccepted: 1},
		Processes: []Process{},
	}
}

func podNamespace(taken time.Time) *Namespace {
	return &Namespace{
		Name: "default/cart-5d9f/app", Inode: 4026532771, Kind: "pod", Addresses: []string{"10.42.0.17"}, SampledAt: taken, Repeated: true, Source: "proc",
		Workload: &Workload{
			Namespace: "default", Pod: "cart-5d9f", PodUID: "5f1c7d2e-0b3a-4c8d-9e6f-7a8b9c0d1e2f", Container: "app", ContainerID: "0123abcd",
			Runtime: "containerd", Unit: "crio.service", Labels: map[string]string{"app": "cart"},
		},
		TimeWait: TimeWait{OpenedPerSecond: []uint32{}}, Counters: counters.Set{}, Flows: []Flow{},
	}
}

func fullFinding(taken time.Time) Finding {
	return Finding{
		ID: "ephemeral-ports-nearly-exhausted", Severity: Critical, Namespace: "host",
		Subject: Subject{
			Side: Client, Device: "ens3", Local: "10.20.30.40", Remote: "10.20.30.99", Port: 6379, Service: "redis", Process: "php-fpm8.3", Setting: "net.ipv4.ip_local_port_range",
		},
		Summary:  "php-fpm8.3 on web-17.example.net has 332 ports left to 10.20.30.99:6379 (redis), for 41 s",
		Evidence: []Evidence{{What: "free ports", Value: 332, Unit: "ports", Source: "inet_diag, ip_local_port_range"}},
		Recommendations: []Recommendation{{
			ID: "php-redis-pconnect", Title: "Keep redis connections open", Do: "Connect with pconnect() and keep workers alive.",
			Snippet: "$redis->pconnect('10.20.30.99', 6379);", Effect: "466 connections a second become 30 that stay",
			Caveats: []string{"at most 30 connections at once for pm.max_children = 30"}, References: []string{"https://example.org/phpredis"},
		}},
		BecauseOf: "short-connections-client", Since: taken.Add(-90 * time.Second),
	}
}

// minute is a timeline around a rate, not all equal.
func minute(rate uint32) []uint32 {
	list := make([]uint32, 60)
	for i := range list {
		list[i] = rate - 3 + uint32(i*i%7)
	}
	return list
}

// The fixture sets every key, so that the golden file shows them all.
func TestFullIsFull(t *testing.T) {
	set := map[string]bool{}
	visitFields(reflect.ValueOf(full(t)), func(path string, v reflect.Value) {
		set[path] = set[path] || !v.IsZero()
	})
	for path, ok := range set {
		if !ok {
			t.Errorf("%s has no value in full(): give it one, and run go test -update", path)
		}
	}
}

// visitFields calls visit for every exported field of every struct in v, with
// the path of its type.
func visitFields(v reflect.Value, visit func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			visitFields(v.Elem(), visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			visitFields(v.Index(i), visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				visit(v.Type().String()+"."+f.Name, v.Field(i))
				visitFields(v.Field(i), visit)
			}
		}
	}
}
