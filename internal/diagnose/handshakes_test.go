package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/sysctl"
)

// counted sets cumulative counters.
func counted(pairs map[string]uint64) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		maps.Copy(n.Counters, pairs)
	}
}

// halfOpen adds handshakes in SYN_RECV.
func halfOpen(rows ...snapshot.HalfOpen) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		for _, h := range rows {
			n.HalfOpen = append(n.HalfOpen, h)
			n.States.SynRecv += h.Sockets
		}
		n.Limits.TCPSyncookies, n.Limits.TCPMaxSynBacklog, n.Limits.TCPSynackRetries = new(1), new(1024), new(5)
		n.Limits.Somaxconn = new(4096)
	}
}

func cookiesOff(n *snapshot.Namespace) { n.Limits.TCPSyncookies = new(0) }

func TestHandshakes(t *testing.T) {
	nothing := counted(map[string]uint64{"SyncookiesSent": 0, "TCPReqQFullDrop": 0, "TCPReqQFullDoCookies": 0, "ListenOverflows": 0, "ListenDrops": 0})
	web := listening("0.0.0.0:443", 0, 128, "nginx", 31)
	one := snapshot.HalfOpen{Port: 443, Remote: "198.51.100.0/24", Sockets: 120}
	blocked := func(queue uint32) func(*snapshot.Namespace) {
		return listening("0.0.0.0:8080", queue, 8, "blocked", 77)
	}
	judgeCases(t, "handshakes", []goldenCase{
		{"a few handshakes", []*snapshot.Report{looked(0, nothing), looked(60, nothing, web, halfOpen(snapshot.HalfOpen{Port: 443, Remote: "198.51.100.0/24", Sockets: 90}))}, nil, ""},
		{"one look", []*snapshot.Report{looked(60, web, halfOpen(one))}, nil, "warning half-open-flood"},
		{
			"cookies from many networks",
			[]*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"SyncookiesSent": 12000, "TCPReqQFullDoCookies": 12000, "TCPReqQFullDrop": 0}), web,
				halfOpen(one, snapshot.HalfOpen{Port: 443, Remote: "203.0.113.0/24", Sockets: 6}, snapshot.HalfOpen{Port: 443, Sockets: 3}))},
			nil, "warning half-open-flood",
		},
		{
			"cookies off",
			[]*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"TCPReqQFullDrop": 5300, "SyncookiesSent": 0, "ListenDrops": 5300}), web, halfOpen(one), cookiesOff)},
			nil, "critical half-open-flood",
		},
		{
			"over three quarters of tcp_max_syn_backlog, cookies off",
			[]*snapshot.Report{looked(60, listening("0.0.0.0:443", 0, 4096, "nginx", 31), halfOpen(snapshot.HalfOpen{Port: 443, Remote: "198.51.100.0/24", Sockets: 768}), cookiesOff)},
			nil, "warning half-open-flood",
		},
		{"cookies some time ago", []*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"SyncookiesSent": 10}), web)}, nil, "warning half-open-flood"},
		{"cookies, few half open now", []*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"SyncookiesSent": 10}), web, halfOpen(snapshot.HalfOpen{Port: 443, Remote: "198.51.100.0/24", Sockets: 9}))}, nil, "warning half-open-flood"},
		{
			"a cookie for every SYN by setting",
			[]*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"SyncookiesSent": 10, "TCPReqQFullDoCookies": 10}), web, func(n *snapshot.Namespace) { n.Limits.TCPSyncookies = new(2) })},
			nil, "",
		},
		{"tiny queue", []*snapshot.Report{looked(60, listening("0.0.0.0:443", 0, 5, "python3", 31), halfOpen(snapshot.HalfOpen{Port: 443, Remote: "198.51.100.0/24", Sockets: 5}))}, nil, ""},
		{"several listeners share the load", []*snapshot.Report{looked(60, web, web, halfOpen(one))}, nil, ""},

		{"accept queue at its limit", []*snapshot.Report{looked(60, blocked(8))}, nil, ""},
		{"accept queue full, one look", []*snapshot.Report{looked(60, blocked(9))}, nil, "warning accept-queue-overflow"},
		{
			"accept queue overflows",
			[]*snapshot.Report{looked(0, nothing), looked(60, blocked(9), counted(map[string]uint64{"ListenOverflows": 140, "ListenDrops": 150}), halfOpen(snapshot.HalfOpen{Port: 8080, Remote: "198.51.100.0/24", Sockets: 8}))},
			nil, "critical accept-queue-overflow",
		},
		{
			"clients left meanwhile",
			[]*snapshot.Report{looked(0, nothing), looked(60, blocked(9), counted(map[string]uint64{"ListenOverflows": 140}), waiting(peers{snapshot.Server, 8080, 9, snapshot.CloseWait{RecvQ: 6}, 12}))},
			nil, "critical accept-queue-overflow, warning close-wait-not-accepted <- accept-queue-overflow",
		},
		{
			"accept() fails for want of a descriptor",
			[]*snapshot.Report{looked(0, nothing), looked(60, blocked(9), counted(map[string]uint64{"ListenOverflows": 140}), ownedBy(descriptors(77, "blocked", 1024, 1024, 0)), waiting(peers{snapshot.Server, 8080, 9, snapshot.CloseWait{RecvQ: 6}, 12}))},
			nil, "critical accept-queue-overflow, warning close-wait-not-accepted <- accept-queue-overflow",
		},
		{
			"SYN queue full behind a full accept queue",
			[]*snapshot.Report{looked(0, nothing), looked(60, blocked(9), counted(map[string]uint64{"ListenOverflows": 140, "TCPReqQFullDrop": 20}), halfOpen(snapshot.HalfOpen{Port: 8080, Remote: "198.51.100.0/24", Sockets: 9}), cookiesOff)},
			nil, "critical accept-queue-overflow, critical half-open-flood <- accept-queue-overflow",
		},
		{
			"accept queue was full",
			[]*snapshot.Report{looked(0, nothing), looked(45, nothing, blocked(9)), looked(60, counted(map[string]uint64{"ListenOverflows": 1}), blocked(0))},
			nil, "warning accept-queue-overflow",
		},
		{"accept queue was full, and refused nobody", []*snapshot.Report{looked(0, nothing), looked(45, nothing, blocked(9)), looked(60, nothing, blocked(0))}, nil, ""},
		{"some accept queue", []*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"ListenOverflows": 3, "ListenDrops": 3}), blocked(0))}, nil, "warning accept-queue-overflow"},
		{"drops at a listener for other reasons", []*snapshot.Report{looked(0, nothing), looked(60, counted(map[string]uint64{"ListenDrops": 300}), blocked(0))}, nil, ""},
	})
}

// A flood that hovers about its threshold doesn't flap.
func TestHalfOpenHolds(t *testing.T) {
	at := func(n uint32, previous []snapshot.Finding) []snapshot.Finding {
		return Judge([]*snapshot.Report{looked(60, listening("0.0.0.0:443", 0, 100, "nginx", 31),
			halfOpen(snapshot.HalfOpen{Port: 443, Remote: "198.51.100.0/24", Sockets: n}))}, previous, Settings{}).Findings
	}
	first := at(80, nil)
	if brief(first) != "warning half-open-flood" || brief(at(73, first)) != brief(first) || len(at(71, first)) != 0 || len(at(79, nil)) != 0 {
		t.Errorf("80: %s, then 73: %s, 71: %s; 79 with nothing before: %s", brief(first), brief(at(73, first)), brief(at(71, first)), brief(at(79, nil)))
	}
}

func TestCloses(t *testing.T) {
	states := func(change func(*snapshot.States)) func(*snapshot.Namespace) {
		return func(n *snapshot.Namespace) {
			change(&n.States)
			n.Flows = append(n.Flows, snapshot.Flow{
				Side: snapshot.Server, Local: "10.0.0.5", Remote: "198.51.100.7", Port: 443, States: n.States,
				Processes: []snapshot.Process{{PID: 31, Count: 1, Comm: "nginx", Sockets: 100, Share: 1, By: snapshot.ByInode}},
			})
			n.Limits.TCPFinTimeout = new(60)
		}
	}
	finWait1 := func(k uint32) func(*snapshot.Namespace) {
		return states(func(s *snapshot.States) { s.FinWait1 = k })
	}
	finWait2 := func(k uint32) func(*snapshot.Namespace) {
		return states(func(s *snapshot.States) { s.FinWait2 = k })
	}
	lastAck := func(k uint32) func(*snapshot.Namespace) {
		return states(func(s *snapshot.States) { s.LastAck = k })
	}
	closing := func(rate float64) func(*snapshot.Namespace) {
		return func(n *snapshot.Namespace) { n.TimeWait.CloseRate = &rate }
	}
	orphans := func(k int) func(*snapshot.Namespace) {
		return func(n *snapshot.Namespace) { n.Sockstat.Orphan = &k }
	}
	onHost := func(r *snapshot.Report) *snapshot.Report {
		r.HostLimits = &sysctl.HostLimits{}
		r.HostLimits.TCPMaxOrphans = new(16384)
		return r
	}
	judgeCases(t, "closes", []goldenCase{
		{"below", []*snapshot.Report{looked(0, finWait1(499), finWait2(999), lastAck(499))}, nil, ""},
		{"FIN_WAIT1", []*snapshot.Report{looked(0, finWait1(500))}, nil, "warning fin-wait-pileup"},
		{"FIN_WAIT2", []*snapshot.Report{looked(0, finWait2(1000))}, nil, "warning fin-wait-pileup"},
		{"FIN_WAIT2 of a busy host", []*snapshot.Report{looked(0, finWait2(1500), closing(300))}, nil, ""},
		{"FIN_WAIT2 beyond what a busy host has", []*snapshot.Report{looked(0, finWait2(1800), closing(300))}, nil, "warning fin-wait-pileup"},
		{"FIN_WAIT2 by the counter", []*snapshot.Report{looked(0, counted(map[string]uint64{"TW": 0})), looked(60, finWait2(1500), counted(map[string]uint64{"TW": 18000}))}, nil, ""},
		{"both", []*snapshot.Report{looked(0, states(func(s *snapshot.States) { s.FinWait1, s.FinWait2 = 700, 2000 }))}, nil, "warning fin-wait-pileup"},
		{"LAST_ACK", []*snapshot.Report{looked(0, lastAck(500))}, nil, "warning last-ack-pileup"},
		{"spread", []*snapshot.Report{looked(0, func(n *snapshot.Namespace) { n.States.LastAck = 900 })}, nil, "warning last-ack-pileup"},
		{"orphans below", []*snapshot.Report{onHost(looked(0, orphans(8191)))}, nil, ""},
		{"orphans at half of the limit", []*snapshot.Report{onHost(looked(0, orphans(8192)))}, nil, "warning orphans-near-limit"},
		{"orphans at the limit", []*snapshot.Report{onHost(looked(0, orphans(16400)))}, nil, "critical orphans-near-limit"},
		{"orphans by peers that are gone", []*snapshot.Report{onHost(looked(0, finWait1(9000), orphans(9000)))}, nil, "warning fin-wait-pileup, warning orphans-near-limit <- fin-wait-pileup"},
		{"orphans in LAST_ACK", []*snapshot.Report{onHost(looked(0, lastAck(16000), orphans(16000)))}, nil, "critical last-ack-pileup, critical orphans-near-limit <- last-ack-pileup"},
		{"orphans are the host's", []*snapshot.Report{onHost(looked(0, orphans(16400), func(n *snapshot.Namespace) { n.Kind = "container" }))}, nil, ""},
		{
			"a leak here, and its other end",
			[]*snapshot.Report{looked(60, func(n *snapshot.Namespace) {
				waiting(peers{snapshot.Client, 9200, 30, row("leaky", 5, 0), 100})(n)
				n.States.FinWait2 = 1200
				n.Flows = append(n.Flows, snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.9", Remote: "10.0.0.5", Port: 9200, States: snapshot.States{FinWait2: 1200}})
			})},
			nil, "warning close-wait-leak, warning fin-wait-pileup <- close-wait-leak",
		},
	})
	if res := Judge([]*snapshot.Report{looked(0)}, nil, Settings{}); !slices.Contains(res.NotJudged, OrphansNearLimit) {
		t.Error("orphans without a known limit were judged")
	}
}

// A scan of many ports makes no more findings than any other kind has.
func TestManyFloods(t *testing.T) {
	var changes []func(*snapshot.Namespace)
	for port := range uint16(30) {
		changes = append(changes, listening(fmt.Sprintf("0.0.0.0:%d", 8000+port), 0, 8, "server", 31),
			halfOpen(snapshot.HalfOpen{Port: 8000 + port, Remote: "198.51.100.0/24", Sockets: 8}))
	}
	found := Judge([]*snapshot.Report{looked(60, changes...)}, nil, Settings{}).Findings
	if len(found) != mostFindings {
		t.Errorf("%d findings: %s", len(found), brief(found))
	}
}
