package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// line is a timeline whose last so many seconds have each the same closes.
func line(seconds int, each uint32) []uint32 {
	l := make([]uint32, 60)
	for i := 60 - seconds; i < 60; i++ {
		l[i] = each
	}
	return l
}

// closing is a client flow from 10.0.0.5 that has closed so many connections in
// each of the last so many seconds.
func closing(remote string, port uint16, seconds int, each uint32) snapshot.Flow {
	used := int(each) * seconds
	f := snapshot.Flow{
		Side: snapshot.Client, Local: "10.0.0.5", Remote: remote, Port: port,
		States:          snapshot.States{TimeWait: uint32(used)},
		OpenedPerSecond: line(seconds, each), Births: uint64(each) * 15,
		Ports: &snapshot.Ports{Range: 28232, Used: used, Free: max(0, 28232-used)},
	}
	f.CloseRate, f.CloseRateSeconds = new(float64(each)), 10
	if seconds < 10 {
		f.CloseRate = new(float64(used) / 10)
	}
	return f
}

// by adds a program to a flow.
func by(f snapshot.Flow, comm, runtime string, attributed float64) snapshot.Flow {
	n := total(&f.States)
	f.Processes = []snapshot.Process{{
		PID: 100, Count: 4, Comm: comm, Runtime: runtime, Sockets: uint32(float64(n) * attributed), Share: attributed, By: snapshot.ByInode,
	}}
	f.Attributed = new(attributed)
	return f
}

func service(f snapshot.Flow, id, how string) snapshot.Flow {
	f.Service, f.ServiceBy = id, how
	return f
}

func open(f snapshot.Flow, established uint32, long *uint32) snapshot.Flow {
	f.States.Established, f.LongLived = established, long
	return f
}

// mirror is the server's end of a client flow, with closes of its own.
func mirror(f snapshot.Flow, seconds int, each uint32) snapshot.Flow {
	m := closing(f.Local, f.Port, seconds, each)
	m.Side, m.Local, m.Ports = snapshot.Server, f.Remote, nil
	return m
}

// flows puts flows into a namespace and lets its sums close.
func flows(all ...snapshot.Flow) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		n.Flows = append(n.Flows, all...)
		n.Limits.IPLocalReservedPorts = &sysctl.PortSet{}
		n.Limits.TCPTWReuse, n.Limits.TCPTimestamps = new(2), new(1)
		n.TimeWait.OpenedPerSecond = make([]uint32, 60)
		sum := 0.0
		for i := range all {
			f := &all[i]
			n.States.TimeWait += f.States.TimeWait
			n.States.Established += f.States.Established
			for j, v := range f.OpenedPerSecond {
				n.TimeWait.OpenedPerSecond[j] += v
			}
			if f.CloseRate != nil {
				sum += *f.CloseRate
			}
		}
		n.TimeWait.CloseRate = &sum
		n.TimeWait.BucketsUsed = int(n.States.TimeWait)
	}
}

// counts sets counters.
func counts(set counters.Set) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		maps.Copy(n.Counters, set)
	}
}

func all(changes ...func(*snapshot.Namespace)) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		for _, c := range changes {
			c(n)
		}
	}
}

// looks makes a window of looks 15 s apart; counters grow by the given rates
// per second.
func looks(n int, rates counters.Set, change func(*snapshot.Namespace)) []*snapshot.Report {
	var window []*snapshot.Report
	for i := range n {
		at := float64(i * 15)
		r := host(at, change)
		for k, v := range rates {
			r.Namespaces[0].Counters[k] += v * uint64(i*15)
		}
		for _, k := range []string{"ActiveOpens", "PassiveOpens", "TW", "TCPAbortOnClose", "TCPAbortOnData", "CurrEstab"} {
			r.Namespaces[0].Counters[k] += 0
		}
		r.IntervalSeconds = 15
		window = append(window, r)
	}
	return window
}

func single(change func(*snapshot.Namespace)) []*snapshot.Report {
	return []*snapshot.Report{host(0, change)}
}

// repeat makes many flows of one program, each to another address.
func repeat(n int, f func(i int, remote string) snapshot.Flow) func(*snapshot.Namespace) {
	var many []snapshot.Flow
	for i := range n {
		many = append(many, f(i, fmt.Sprintf("10.0.1.%d", i+1)))
	}
	return flows(many...)
}

const everySecond = 60

// A scenario is a window and what has to be found in it.
type scenario struct {
	name     string
	window   []*snapshot.Report
	previous []snapshot.Finding
	want     []string // severity id [because of]
}

func scenarios() []scenario {
	redis := func(each uint32) snapshot.Flow {
		return service(by(closing("10.0.0.9", 6379, everySecond, each), "php-fpm", "php-fpm", 0.93), "redis", "process")
	}
	model := func() snapshot.Flow {
		f := open(redis(470), 1, new(uint32(0)))
		f.Ports.Free, f.Ports.Used, f.Ports.SecondsToExhaustion = 232, 28000, new(40)
		f.States.TimeWait = 27999
		return f
	}
	loop := func(f snapshot.Flow) snapshot.Flow { // recycled on loopback: only the last second is whole
		f.Local, f.Remote, f.SurvivorsOnly, f.CloseRateSeconds = "127.0.0.1", "127.0.0.1", true, 1
		return f
	}
	upstream := open(by(closing("10.77.0.2", 8081, 10, 18), "nginx", "nginx", 1), 1, new(uint32(0)))
	inFront := service(by(open(closing("10.0.0.5", 8080, 0, 0), 1, new(uint32(0))), "nginx", "nginx", 1), "http", "process")
	return []scenario{
		{
			"no pool: the model", looks(2, counters.Set{"TW": 470, "ActiveOpens": 470}, flows(model())), nil,
			[]string{"critical short-connections-client", "critical ephemeral-ports-running-out because of short-connections-client"},
		},
		{
			"no pool, known by its port alone, one look", single(flows(open(service(closing("10.0.0.9", 6379, everySecond, 120), "redis", "port"), 3, nil))), nil,
			[]string{"warning short-connections-client"},
		},
		{
			"few of its sockets are known", single(flows(by(closing("10.0.0.9", 8081, everySecond, 20), "worker", "", 0.12))), nil,
			[]string{"info short-connections-client"},
		},
		{
			"the pool is too small", looks(3, nil, flows(service(by(open(closing("10.0.0.9", 3306, everySecond, 180), 22, new(uint32(2))), "api", "go", 0.95), "mysql", "process"))), nil,
			[]string{"warning short-connections-client"},
		},
		{"a connection that lives", looks(2, nil, flows(open(closing("10.0.0.9", 3306, everySecond, 12), 40, new(uint32(0))))), nil, nil},
		{"too slow to matter", looks(2, nil, flows(closing("10.0.0.9", 3306, everySecond, 9))), nil, nil},
		{"a burst of a second", looks(2, nil, flows(closing("10.0.0.9", 3306, 1, 900))), nil, nil},
		{"recycled on loopback, five seconds seen", single(flows(loop(open(redis(184), 2, nil)))), nil, []string{"warning short-connections-client"}},
		{"recycled so fast that a second is left, one look", single(flows(loop(closing("127.0.0.1", 6379, 1, 5000)))), nil, []string{"info time-wait-harmless"}},
		{"recycled so fast that a second is left, counted", looks(2, counters.Set{"TWRecycled": 5000, "TW": 5000, "ActiveOpens": 5000}, flows(loop(func() snapshot.Flow {
			f := closing("127.0.0.1", 6379, 1, 5000)
			f.CloseRate = new(5000.0)
			return f
		}()))), nil, []string{"warning short-connections-client"}},
		{"exhausted, and the load has ended", single(flows(func() snapshot.Flow {
			f := by(closing("10.0.0.9", 6379, 25, 40), "storm", "go", 1)
			f.Ports = &snapshot.Ports{Range: 1000, Used: 1000, Free: 0}
			copy(f.OpenedPerSecond, f.OpenedPerSecond[15:])
			clear(f.OpenedPerSecond[45:])
			f.CloseRate, f.CloseRateSeconds = new(1000.0/60), 60
			return f
		}())), nil, []string{"critical short-connections-client", "critical ephemeral-ports-exhausted because of short-connections-client"}},
		{"a proxy with many backends", looks(2, nil, repeat(12, func(i int, remote string) snapshot.Flow {
			f := service(by(open(closing(remote, 8080, everySecond, uint32(20+i)), 1, new(uint32(0))), "nginx", "nginx", 1), "http", "port")
			if i > 5 {
				f.Ports.Free = 9000
				f.States.TimeWait = 19232
			}
			return f
		})), nil, []string{"warning short-connections-client", "warning ephemeral-ports-slow because of short-connections-client", "warning time-wait-buckets-near-limit because of short-connections-client"}},
		{"health checks", looks(2, nil, repeat(30, func(i int, remote string) snapshot.Flow {
			f := by(closing(remote, uint16(8080+i%3), 0, 0), "kubelet", "kubelet", 1)
			for s := 3 + i%10; s < 60; s += 10 {
				f.OpenedPerSecond[s]++
			}
			f.States.TimeWait, f.CloseRate, f.CloseRateSeconds = 6, new(0.1), 60
			return f
		})), nil, []string{"info short-connections-client"}},
		{"health checks of which few were seen", looks(2, nil, repeat(30, func(i int, remote string) snapshot.Flow {
			f := closing(remote, 8080, 0, 0)
			for s := 3 + i%10; s < 60; s += 10 {
				f.OpenedPerSecond[s]++
			}
			f.States.TimeWait, f.CloseRate, f.CloseRateSeconds = 6, new(0.1), 60
			if f.Attributed = new(0.0); i%10 == 1 {
				f = by(f, "kubelet", "kubelet", 0.5)
			}
			return f
		})), nil, []string{"info short-connections-client"}},
		{"one probe", looks(2, nil, repeat(1, func(_ int, remote string) snapshot.Flow {
			f := closing(remote, 9100, 0, 0)
			for s := 9; s < 60; s += 10 {
				f.OpenedPerSecond[s]++
			}
			f.States.TimeWait, f.CloseRate, f.CloseRateSeconds = 6, new(0.1), 60
			return f
		})), nil, nil},
		{"a probe each second", looks(2, nil, repeat(10, func(_ int, remote string) snapshot.Flow {
			f := by(closing(remote, 7001, 30, 1), "checker", "go", 1)
			f.OpenedPerSecond[50], f.OpenedPerSecond[51] = 0, 2
			f.CloseRate, f.CloseRateSeconds = new(0.5), 60
			return f
		})), nil, []string{"info short-connections-client"}},
		{"requests now and then", looks(2, nil, repeat(20, func(i int, remote string) snapshot.Flow {
			f := by(closing(remote, 7001, 0, 0), "crawler", "go", 1)
			for _, s := range []int{2, 3, 9, 17, 19, 20, 21, 38, 44, 59} {
				f.OpenedPerSecond[s] = uint32(1 + i%2)
			}
			f.States.TimeWait, f.CloseRate, f.CloseRateSeconds = 12, new(0.2), 60
			return f
		})), nil, nil},
		{"the server closes first", looks(2, counters.Set{"PassiveOpens": 83, "TW": 83}, all(flows(
			service(by(mirror(closing("10.0.0.5", 80, 0, 0), 60, 50), "nginx", "nginx", 1), "http", "process"),
			func() snapshot.Flow {
				f := service(mirror(closing("10.0.0.5", 80, 0, 0), 60, 33), "http", "process")
				f.Remote = "10.0.3.0/24"
				f.OpenedPerSecond = nil
				return f
			}(),
		), listener("0.0.0.0:80", "nginx"))), nil, []string{"info short-connections-server", "info time-wait-harmless because of short-connections-server"}},
		{
			"the server here closes its clients' connections, all of them", looks(2, counters.Set{"PassiveOpens": 80, "ActiveOpens": 80, "TW": 80}, flows(
				inFront, mirror(inFront, 60, 80))), nil,
			[]string{"info short-connections-client", "info short-connections-server because of short-connections-client", "info time-wait-harmless because of short-connections-client"},
		},
		{
			"and none is alive just now", looks(2, counters.Set{"PassiveOpens": 80, "ActiveOpens": 80, "TW": 80}, all(flows(service(mirror(inFront, 60, 80), "http", "process")),
				ownedBy(snapshot.Owner{PID: 100, Comm: "nginx", Runtime: "nginx", RuntimeVersion: "1.22.1"}))),
			[]snapshot.Finding{{ID: ShortClient, Namespace: "host", Severity: snapshot.Info, Subject: subject(&inFront), Evidence: []snapshot.Evidence{{What: evidenceFar, Value: 80}}}},
			[]string{"info short-connections-client", "info short-connections-server because of short-connections-client", "info time-wait-harmless because of short-connections-client"},
		},
		{
			"the server closed first, in a burst", looks(2, nil, all(flows(service(mirror(closing("127.0.0.1", 8080, 0, 0), 2, 2500), "http", "port")), listener("127.0.0.1:8080", "closer"))), nil,
			[]string{"info time-wait-harmless"},
		},
		{
			"clients and servers, all well", looks(2, nil, flows(
				mirror(closing("10.0.0.5", 80, 0, 0), 60, 20), service(closing("10.0.0.9", 6379, everySecond, 5), "redis", "port"),
				open(closing("10.0.0.10", 5432, everySecond, 4), 80, new(uint32(76))))), nil,
			[]string{"info time-wait-harmless"},
		},
		{
			"RST by unread data", looks(3, counters.Set{"TCPAbortOnClose": 50, "ActiveOpens": 50, "OutRsts": 50}, flows(
				by(open(closing("10.0.0.9", 8080, 0, 0), 2, new(uint32(0))), "careless", "go", 1), open(closing("10.0.0.10", 5432, 0, 0), 20, new(uint32(20))))), nil,
			[]string{"warning short-connections-reset"},
		},
		{
			"RST by SO_LINGER 0, both ends here", looks(3, counters.Set{"TCPAbortOnData": 50, "ActiveOpens": 50, "PassiveOpens": 50, "OutRsts": 50}, flows(
				service(by(open(closing("10.0.0.9", 6379, 0, 0), 1, new(uint32(0))), "linger", "go", 1), "redis", "port"),
				open(mirror(closing("10.0.0.9", 6379, 0, 0), 0, 0), 1, new(uint32(0))))), nil,
			[]string{"warning short-connections-reset"},
		},
		{
			"RST, of nobody knows whom", looks(3, counters.Set{"TCPAbortOnClose": 30, "TCPAbortOnData": 25, "PassiveOpens": 55}, nil), nil,
			[]string{"warning short-connections-reset"},
		},
		{"RST for one span only", looks(2, counters.Set{"TCPAbortOnClose": 50}, nil), nil, nil},
		{
			"the other end closes first", looks(3, counters.Set{"ActiveOpens": 80}, flows(
				by(open(closing("10.77.0.2", 8081, 0, 0), 1, new(uint32(0))), "batch", "python", 1), open(closing("10.0.0.10", 5432, 0, 0), 20, new(uint32(20))))), nil,
			[]string{"warning short-connections-remote-closes"},
		},
		{
			"the other end closes first, of nobody knows whom", looks(3, counters.Set{"ActiveOpens": 20}, nil), nil,
			[]string{"info short-connections-remote-closes"},
		},
		{
			"the other end resets", looks(3, counters.Set{"ActiveOpens": 20, "EstabResets": 20}, flows(
				by(open(closing("10.77.0.2", 8081, 0, 0), 1, new(uint32(0))), "batch", "python", 1))), nil,
			[]string{"info short-connections-remote-closes"},
		},
		{
			"both ends close, on two hosts", looks(3, counters.Set{"ActiveOpens": 100, "TW": 18}, flows(upstream)), nil,
			[]string{"warning short-connections-client"},
		},
		{
			"both ends close, on one host", looks(3, counters.Set{"ActiveOpens": 100, "PassiveOpens": 100, "TW": 101}, flows(upstream, mirror(upstream, 60, 82))), nil,
			[]string{"warning short-connections-client", "info short-connections-server because of short-connections-client"},
		},
		{"what was opened stays", looks(3, counters.Set{"ActiveOpens": 50, "CurrEstab": 50}, nil), nil, nil},
		{"nobody answers", looks(3, counters.Set{"ActiveOpens": 50, "TCPSynRetrans": 50}, nil), nil, nil},
		{"long ones that the other end closes", looks(3, counters.Set{"ActiveOpens": 20}, flows(open(closing("10.77.0.2", 8081, 0, 0), 3000, new(uint32(2000))))), nil, nil},
		{
			"a server for others, and its clients' closes", looks(3, counters.Set{"ActiveOpens": 20, "TW": 60, "PassiveOpens": 40}, flows(
				mirror(closing("10.0.3.3", 80, 0, 0), 60, 40), closing("10.0.0.9", 3306, everySecond, 20))), nil,
			[]string{"info short-connections-client"},
		},
		{
			"binds before connect()", looks(2, nil, all(
				flows(
					func() snapshot.Flow {
						f := by(open(closing("10.0.0.7", 7001, 0, 0), 6000, new(uint32(6000))), "istio-proxy", "envoy", 1)
						f.Ports = &snapshot.Ports{Range: 28232, Used: 6000, Bound: 6000, Blocked: 9000, Free: 13232, AtMost: true}
						return f
					}(),
					func() snapshot.Flow {
						f := service(by(open(closing("10.0.0.8", 3306, 0, 0), 20, new(uint32(20))), "plain", "", 1), "mysql", "port")
						f.Ports = &snapshot.Ports{Range: 28232, Used: 20, Blocked: 15000, Free: 13212, AtMost: true}
						return f
					}(),
				),
				func(n *snapshot.Namespace) { n.Ports.BlockedParity, n.Ports.Blocked = 15000, 15000 })), nil,
			[]string{"warning bind-before-connect", "warning ephemeral-ports-slow because of bind-before-connect", "warning ephemeral-ports-slow because of bind-before-connect"},
		},
		{"few binds", looks(2, nil, func(n *snapshot.Namespace) { n.Ports.BlockedExplicit, n.Ports.Blocked = 1411, 1411 }), nil, nil},
		{
			"listeners in the range of a busy client", looks(2, nil, all(
				flows(open(closing("10.0.0.8", 3306, 0, 0), 8000, new(uint32(8000))), func() snapshot.Flow {
					f := closing("10.0.0.9", 3306, 0, 0)
					f.Ports.Used, f.Ports.Free = 7058, 21174
					return f
				}()),
				listener("0.0.0.0:50051", "grpc-server"), listener("[::]:50051", "grpc-server"), listener("127.0.0.1:40001", "helper"), listener("0.0.0.0:22", "sshd"))), nil,
			[]string{"info listeners-inside-port-range"},
		},
		{
			"a known service in a range that was widened", looks(2, nil, all(func(n *snapshot.Namespace) {
				n.Limits.IPLocalPortRange, n.Limits.IPLocalReservedPorts = &sysctl.PortRange{Low: 1024, High: 65535}, &sysctl.PortSet{}
			}, listener("10.0.0.5:6379", ""), listener("0.0.0.0:5432", "postgres"))), nil,
			[]string{"info listeners-inside-port-range"},
		},
		{"a quiet host with listeners", looks(2, nil, all(listener("127.0.0.1:40001", "helper"), listener("0.0.0.0:50051", "app"), listener("0.0.0.0:22", "sshd"))), nil, nil},
		{
			"the buckets and conntrack are a client's", looks(2, nil, all(flows(redis(470)), func(n *snapshot.Namespace) { n.TimeWait.BucketsLimit = new(30000) })), nil,
			[]string{"critical short-connections-client", "critical ephemeral-ports-running-out because of short-connections-client", "warning time-wait-buckets-near-limit because of short-connections-client"},
		},
		{"quiet", looks(3, counters.Set{"ActiveOpens": 1, "PassiveOpens": 1, "TW": 1}, flows(open(closing("10.0.0.9", 6379, 60, 0), 5, new(uint32(5))))), nil, nil},
	}
}

// listener adds one.
func listener(local, comm string) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		n.Listeners = append(n.Listeners, snapshot.Listener{Local: local, Backlog: 128, Comm: comm})
	}
}

// The whole text of every rule about ports, TIME_WAIT and short connections, as
// an operator gets it.
func TestShortConnections(t *testing.T) {
	var text strings.Builder
	settings := Settings{Advice: library(t), OwnPort: 10060}
	made := map[string]bool{}
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			res := Judge(sc.window, sc.previous, settings)
			var got []string
			for _, f := range res.Findings {
				line := string(f.Severity) + " " + f.ID
				if f.BecauseOf != "" {
					line += " because of " + f.BecauseOf
				}
				got = append(got, line)
				made[f.ID] = true
				if strings.Count(f.Summary, ". ") > 0 || !strings.HasSuffix(f.Summary, ".") {
					t.Errorf("not one sentence: %s", f.Summary)
				}
				if len(f.Evidence) == 0 {
					t.Errorf("%s: no evidence", f.ID)
				}
				if f.BecauseOf == "" && f.ID != ShortCured && len(f.Recommendations) == 0 {
					t.Errorf("%s: no advice", f.ID)
				}
			}
			if diff := cmp.Diff(sc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, fullText(res.Findings))
			}
			if len(res.Findings) > 0 {
				fmt.Fprintf(&text, "=== %s\n\n%s", sc.name, fullText(res.Findings))
			}
		})
	}
	for _, r := range slices.Concat(portRules(), timeWaitRules(), shortRules(), harmlessRules()) {
		for _, id := range r.ids {
			if !made[id] && id != ShortCured && id != PortsSlow && id != BucketsOverflow {
				t.Errorf("no scenario makes %s", id)
			}
		}
	}
	golden(t, "short-connections", text.String())
}

// One burst that two looks see, since each looks ten seconds back, is no load.
func TestBurstUnderReuseIsNoLoad(t *testing.T) {
	var window []*snapshot.Report
	for _, second := range []int{0, 3, 6, 9} {
		f := closing("127.0.0.1", 8081, 0, 0)
		f.SurvivorsOnly, f.CloseRate, f.States.TimeWait = true, new(20.0), 200
		f.OpenedPerSecond[59-second] = 200
		window = append(window, host(float64(second), flows(f)))
		if res := Judge(window, nil, Settings{}); len(res.Findings) != 0 {
			t.Errorf("after %d s: %s", second, brief(res.Findings))
		}
	}
}

// A thousand clients whose servers close first, watched each second: whose
// short connections they are is asked of every look of the last minute.
func BenchmarkJudgeManyClients(b *testing.B) {
	var window []*snapshot.Report
	for i := range 60 {
		ns := &snapshot.Namespace{Name: "host", Source: "inet_diag", Counters: counters.Set{
			"ActiveOpens": uint64(i * 2000), "TW": uint64(i), "TCPAbortOnClose": 0, "TCPAbortOnData": 0,
		}}
		flows := 100 // as the window keeps of an older look
		if i >= 58 {
			flows = 1000
		}
		for j := range flows {
			ns.Flows = append(ns.Flows, open(closing(fmt.Sprintf("10.1.%d.%d", j/250, j%250), 6379, 20, 1), 2, new(uint32(1))))
		}
		window = append(window, &snapshot.Report{Uptime: float64(1000 + i), IntervalSeconds: 1, Namespaces: []*snapshot.Namespace{ns}})
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(Judge(window, nil, Settings{}).Findings) == 0 {
			b.Fatal("nothing found")
		}
	}
}

// Where sockets are recycled the present rate is that of a moment, in which a
// busy host may have stood still; the seconds before tell the peak.
func TestPeakUnderReuse(t *testing.T) {
	f := open(closing("127.0.0.1", 6379, 20, 400), 4, nil)
	f.SurvivorsOnly, f.CloseRate, f.CloseRateSeconds = true, new(30.0), 0.75
	f.OpenedPerSecond[50] = 5310
	res := Judge([]*snapshot.Report{host(0, flows(f))}, nil, Settings{})
	if len(res.Findings) == 0 || res.Findings[0].ID != ShortClient {
		t.Fatal(brief(res.Findings))
	}
	if peak, _ := evidence(&res.Findings[0], evidencePeak); peak != 5310 {
		t.Errorf("peak %v, want the fullest second's 5310", peak)
	}
}
