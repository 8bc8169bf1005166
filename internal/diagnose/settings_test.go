package diagnose

import (
	"slices"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// defaultLimits are a kernel's settings as nobody has changed them.
func defaultLimits(n *snapshot.Namespace) {
	none, _ := sysctl.ParsePortSet("")
	n.Limits = sysctl.Limits{
		TCPMaxTWBuckets: new(131072), TCPEhashEntries: new(262144), IPLocalPortRange: &sysctl.PortRange{Low: 32768, High: 60999}, IPLocalReservedPorts: &none,
		IPUnprivilegedPortStart: new(1024), TCPTWReuse: new(2), TCPTWReuseDelay: new(1000), TCPTimestamps: new(1), TCPFinTimeout: new(60),
		TCPMaxSynBacklog: new(2048), Somaxconn: new(4096), TCPSyncookies: new(1), TCPSynackRetries: new(5), TCPOrphanRetries: new(0),
		NFConntrackTCPTimeoutTimeWait: new(120),
	}
}

func limits(change func(*sysctl.Limits)) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		defaultLimits(n)
		change(&n.Limits)
	}
}

// counting has every counter that a kernel has, at zero.
func counting(n *snapshot.Namespace) {
	for _, name := range counters.Names() {
		n.Counters[name] = 0
	}
	n.Conntrack = &counters.Conntrack{Entries: new(uint64(500)), InsertFailed: new(uint64(0)), Drop: new(uint64(0)), EarlyDrop: new(uint64(0))}
	n.Sockstat.Orphan = new(3)
}

// A host with a kernel's own settings and a little of everything has no finding,
// and nothing is left unjudged.
func TestQuietHost(t *testing.T) {
	quiet := func(at float64) *snapshot.Report {
		r := looked(at, defaultLimits, counting, listening("0.0.0.0:443", 1, 128, "nginx", 31), func(n *snapshot.Namespace) {
			n.States = snapshot.States{Established: 40, SynRecv: 1, FinWait1: 2, FinWait2: 5, TimeWait: 9, LastAck: 1, CloseWait: 1, Listen: 1}
			n.CloseWaits = []snapshot.CloseWait{{Local: "10.0.0.5:443", Remote: "10.0.0.7:5000", Side: snapshot.Server, Inode: 9, PID: 31, Comm: "nginx", RecvQ: 318, AgeSeconds: new(0.004)}}
			n.HalfOpen = []snapshot.HalfOpen{{Port: 443, Remote: "10.0.0.0/24", Sockets: 1}}
			n.Counters["ActiveOpens"] = uint64(at)
		})
		r.HostLimits = &sysctl.HostLimits{TCPMaxOrphans: new(131072), NFConntrackMax: new(262144), NFConntrackBuckets: new(262144)}
		return r
	}
	for name, window := range map[string][]*snapshot.Report{
		"serve": {quiet(0), quiet(15), quiet(30), quiet(45), quiet(60)}, "check": {quiet(0), quiet(3)}, "one look": {quiet(0)},
	} {
		res := Judge(window, nil, Settings{})
		if len(res.Findings) != 0 || res.Verdict != snapshot.Healthy {
			t.Errorf("%s: %s", name, brief(res.Findings))
		}
		if len(window) > 1 && len(res.NotJudged) != 0 {
			t.Errorf("%s: not judged: %v", name, res.NotJudged)
		}
	}
}

func TestSettings(t *testing.T) {
	reuse := limits(func(l *sysctl.Limits) { l.TCPTWReuse, l.TCPTimestamps = new(1), new(0) })
	lowered := limits(func(l *sysctl.Limits) { l.TCPMaxTWBuckets, l.TCPEhashEntries = new(16384), new(-262144) })
	withBuckets := func(used int) func(*snapshot.Namespace) {
		return func(n *snapshot.Namespace) {
			n.TimeWait = snapshot.TimeWait{BucketsUsed: used, BucketsLimit: n.Limits.TCPMaxTWBuckets}
		}
	}
	tight := func(n *snapshot.Namespace) {
		client(14000, nil)(n)
		n.Flows[0].CloseRate = nil
	}
	judgeCases(t, "settings", []goldenCase{
		{"defaults", []*snapshot.Report{looked(0, defaultLimits)}, nil, ""},
		{"reuse without timestamps", []*snapshot.Report{looked(0, reuse)}, nil, "info tw-reuse-without-timestamps"},
		{"reuse without timestamps, ports tight", []*snapshot.Report{looked(0, reuse, tight)}, nil, "warning ephemeral-ports-slow, warning tw-reuse-without-timestamps"},
		{"reuse on loopback alone", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPTimestamps = new(0) }))}, nil, ""},
		{"reuse with timestamps", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPTWReuse = new(1) }))}, nil, ""},
		{"buckets lowered", []*snapshot.Report{looked(0, lowered, withBuckets(100))}, nil, "info tw-buckets-lowered"},
		{"buckets lowered and used", []*snapshot.Report{looked(0, lowered, withBuckets(13200))}, nil, "warning tw-buckets-lowered, warning time-wait-buckets-near-limit <- tw-buckets-lowered"},
		{
			"buckets overflow",
			[]*snapshot.Report{looked(0, defaultLimits, counting), looked(3, defaultLimits, counting, withBuckets(131072), counted(map[string]uint64{"TCPTimeWaitOverflow": 1200}))},
			nil, "warning time-wait-buckets-overflow",
		},
		{"buckets raised", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPMaxTWBuckets = new(1 << 20) }))}, nil, ""},
		{"recycle", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPTWRecycle = new(1) }))}, nil, "info tw-recycle-on"},
		{"recycle off", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPTWRecycle = new(0) }))}, nil, ""},
		{"fin timeout", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPFinTimeout = new(15) }))}, nil, "info fin-timeout-myth"},
		{"parity", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.IPLocalPortRange = &sysctl.PortRange{Low: 1024, High: 65000} }))}, nil, "info port-range-parity"},
		{"parity, odd", []*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.IPLocalPortRange = &sysctl.PortRange{Low: 1025, High: 65535} }))}, nil, "info port-range-parity"},
	})
	// A setting that has been there without harm limits from the threshold on, and
	// no longer once its number is clear of it.
	at := func(free int, previous []snapshot.Finding) Result {
		return Judge([]*snapshot.Report{looked(0, reuse, func(n *snapshot.Namespace) { client(free, nil)(n); n.Flows[0].CloseRate = nil })}, previous, Settings{})
	}
	harmless := at(15000, nil) // 47 %
	if again := at(15000, harmless.Findings); brief(again.Findings) != "info tw-reuse-without-timestamps" {
		t.Errorf("at 47 %%, and before: %s", brief(again.Findings))
	}
	if held := at(15000, at(14000, nil).Findings); !strings.Contains(brief(held.Findings), "warning tw-reuse-without-timestamps") {
		t.Errorf("at 47 %% after 50: %s", brief(held.Findings))
	}
	old := Judge([]*snapshot.Report{looked(0, limits(func(l *sysctl.Limits) { l.TCPMaxTWBuckets, l.TCPEhashEntries = new(5000), nil }))}, nil, Settings{})
	if len(old.Findings) != 0 || !slices.Contains(old.NotJudged, BucketsLowered) {
		t.Errorf("a kernel that doesn't show its hash entries: %s, not judged %s", brief(old.Findings), strings.Join(old.NotJudged, " "))
	}
}

func TestNAT(t *testing.T) {
	paws := func(at float64, pairs map[string]uint64) *snapshot.Report {
		return looked(at, defaultLimits, counting, counted(pairs), func(n *snapshot.Namespace) {
			n.Flows = append(n.Flows,
				snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.5", Remote: "203.0.113.7", Port: 443, States: snapshot.States{TimeWait: 40}},
				snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.5", Remote: "203.0.113.8", Port: 443, States: snapshot.States{TimeWait: 4}})
		})
	}
	oldPAWS := func(at float64, n uint64) *snapshot.Report {
		r := paws(at, map[string]uint64{"PAWSEstab": n})
		delete(r.Namespaces[0].Counters, "PAWSTimewait")
		return r
	}
	table := func(at float64, entries, drop, failed uint64, more ...func(*snapshot.Namespace)) *snapshot.Report {
		r := looked(at, append([]func(*snapshot.Namespace){defaultLimits, counting, func(n *snapshot.Namespace) {
			n.Conntrack.Entries, n.Conntrack.Drop, n.Conntrack.InsertFailed = &entries, &drop, &failed
		}}, more...)...)
		r.HostLimits = &sysctl.HostLimits{NFConntrackMax: new(262144), NFConntrackBuckets: new(65536), TCPMaxOrphans: new(131072)}
		return r
	}
	hanging := func(remote string, n uint32) func(*snapshot.Namespace) {
		return func(ns *snapshot.Namespace) {
			ns.States.SynSent += n
			ns.Flows = append(ns.Flows, snapshot.Flow{Side: snapshot.Client, Local: "10.0.0.5", Remote: remote, Port: 6379, Service: "redis", ServiceBy: "port", States: snapshot.States{SynSent: n}})
		}
	}
	repeated := func(n uint64) func(*snapshot.Namespace) { return counted(map[string]uint64{"TCPSynRetrans": n}) }
	judgeCases(t, "nat", []goldenCase{
		{"a stray segment", []*snapshot.Report{paws(0, nil), paws(60, map[string]uint64{"PAWSTimewait": 5, "PAWSEstab": 500})}, nil, ""},
		{"a stray segment in a short look", []*snapshot.Report{paws(0, nil), paws(3, map[string]uint64{"PAWSTimewait": 2})}, nil, ""},
		{"clients behind one address", []*snapshot.Report{paws(0, nil), paws(60, map[string]uint64{"PAWSTimewait": 6})}, nil, "warning paws-drops"},
		{"the same on Linux 6.12", []*snapshot.Report{oldPAWS(0, 100), oldPAWS(60, 292)}, nil, "warning paws-drops"},
		{"answers with old echoes", []*snapshot.Report{paws(0, nil), paws(60, map[string]uint64{"PAWSActive": 60})}, nil, "warning paws-drops"},
		{
			"recycle and NAT",
			[]*snapshot.Report{paws(0, nil), func() *snapshot.Report {
				r := paws(60, map[string]uint64{"PAWSTimewait": 60})
				r.Namespaces[0].Limits.TCPTWRecycle = new(1)
				return r
			}()},
			nil, "warning tw-recycle-on, warning paws-drops <- tw-recycle-on",
		},
		{"conntrack below", []*snapshot.Report{table(0, 200000, 0, 0)}, nil, ""},
		{"conntrack near", []*snapshot.Report{table(0, 210000, 9, 0)}, nil, "warning conntrack-near-limit"},
		{"conntrack nearly full", []*snapshot.Report{table(0, 250000, 9, 0)}, nil, "critical conntrack-near-limit"},
		{"conntrack drops", []*snapshot.Report{table(0, 210000, 9, 0), table(60, 215000, 1209, 0)}, nil, "critical conntrack-near-limit"},
		{"drops of a table that isn't full", []*snapshot.Report{table(0, 1000, 9, 0), table(60, 1000, 1209, 0)}, nil, ""},

		{"UDP races alone", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 6000, 6000)}, nil, ""},
		{"UDP races and many handshakes to a dead server", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 60, 60, hanging("10.0.0.9", 40), repeated(1800))}, nil, ""},
		{"UDP races and a dead server", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 60, 60, hanging("10.0.0.9", 4), repeated(100))}, nil, ""},
		{"hanging connections alone", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 0, 0, hanging("10.0.0.9", 40), repeated(1800))}, nil, ""},
		{"few repeated SYNs", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 0, 90, hanging("10.0.0.9", 40), repeated(59))}, nil, ""},
		{"no destination dominates", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 0, 900, hanging("10.0.0.9", 10), hanging("10.0.0.8", 10), hanging("10.0.0.7", 10), repeated(600))}, nil, ""},
		{"over before the last look", []*snapshot.Report{table(0, 1000, 0, 0), table(45, 1000, 0, 900, repeated(600)), table(60, 1000, 0, 900, hanging("10.0.0.9", 40), repeated(600))}, nil, ""},
		{"no port for SNAT", []*snapshot.Report{table(0, 1000, 0, 0), table(60, 1000, 2300, 2300, hanging("10.0.0.9", 40), hanging("10.0.0.8", 10), repeated(1800))}, nil, "critical snat-exhaustion"},
		{"a full table", []*snapshot.Report{table(0, 262144, 0, 0), table(60, 262144, 2300, 2300, hanging("10.0.0.9", 40), repeated(1800))}, nil, "critical conntrack-near-limit"},
	})
	single := Judge([]*snapshot.Report{table(0, 1000, 0, 0)}, nil, Settings{})
	for _, id := range []string{PAWSDrops, SNATExhaustion} {
		if !slices.Contains(single.NotJudged, id) {
			t.Errorf("%s was judged by a single look", id)
		}
	}
	if slices.Contains(single.NotJudged, ConntrackNear) {
		t.Error("one look at a table is enough")
	}
}

// Conntrack's counters are 32 bits per CPU: a sum that shrinks says nothing.
func TestConntrackWraps(t *testing.T) {
	at := func(at float64, failed uint64) *snapshot.Report {
		return looked(at, counting, func(n *snapshot.Namespace) { n.Conntrack.InsertFailed = &failed })
	}
	res := Judge([]*snapshot.Report{at(0, 1<<32), at(60, 5)}, nil, Settings{})
	if !slices.Contains(res.NotJudged, SNATExhaustion) {
		t.Errorf("not judged: %v", res.NotJudged)
	}
}
