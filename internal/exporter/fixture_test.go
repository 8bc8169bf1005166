package exporter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

func epoch() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// at makes a report n passes of 15 s after the first.
func at(n int, namespaces ...*snapshot.Namespace) *snapshot.Report {
	t := epoch().Add(time.Duration(n) * 15 * time.Second)
	for _, ns := range namespaces {
		ns.SampledAt = t
	}
	return &snapshot.Report{Time: t, TookSeconds: 0.0125, IntervalSeconds: 15, Namespaces: namespaces}
}

func client(remote string, port uint16, used int, states snapshot.States) snapshot.Flow {
	return snapshot.Flow{
		Side: snapshot.Client, Local: "10.0.0.5", Remote: remote, Port: port, States: states,
		Ports: &snapshot.Ports{Range: 28232, Used: used, Free: 28232 - used},
	}
}

func server(local, remote string, port uint16, states snapshot.States) snapshot.Flow {
	return snapshot.Flow{Side: snapshot.Server, Local: local, Remote: remote, Port: port, States: states}
}

func tw(n uint32) snapshot.States { return snapshot.States{TimeWait: n} }

// namespace sums its flows into its states, and adds what was omitted.
func namespace(kind, name string, inode uint64, omitted snapshot.Omitted, flows ...snapshot.Flow) *snapshot.Namespace {
	ns := &snapshot.Namespace{
		Kind: kind, Name: name, Inode: inode, Source: "inet_diag", Flows: flows, Omitted: omitted,
		States: omitted.States,
		Ports:  &snapshot.PortPool{Range: 28232},
	}
	ns.TimeWait.Births = omitted.Births
	for i := range flows {
		s := &flows[i].States
		ns.States.TimeWait += s.TimeWait
		ns.States.CloseWait += s.CloseWait
		ns.States.Established += s.Established
		ns.States.SynSent += s.SynSent
		ns.States.SynRecv += s.SynRecv
		ns.States.FinWait2 += s.FinWait2
		ns.TimeWait.Births += flows[i].Births
	}
	ns.TimeWait.BucketsUsed = int(ns.States.TimeWait + ns.States.FinWait2)
	return ns
}

// hostNamespace has something of everything.
func hostNamespace() *snapshot.Namespace {
	redis := client("10.0.0.9", 6379, 21174, snapshot.States{TimeWait: 21000, Established: 174})
	redis.Service, redis.ServiceBy, redis.Births = "redis", "port", 5250
	redis.CloseRate = new(350.0)
	redis.Ports.Reserved, redis.Ports.Blocked, redis.Ports.Free = 32, 200, 28232-32-200-21174
	loop := client("127.0.0.1", 9000, 900, snapshot.States{TimeWait: 880, SynSent: 20})
	loop.Local, loop.SurvivorsOnly, loop.CloseRate, loop.Births = "127.0.0.1", true, new(1400.0), 870
	loop.Ports.Reusable, loop.Ports.Free = 800, 28232-100
	bound := client("10.0.0.9", 6379, 3, snapshot.States{Established: 3})
	bound.Device = "eth0"
	web1 := server("10.0.0.5", "192.0.2.7", 443, snapshot.States{TimeWait: 40, Established: 10, CloseWait: 2})
	web1.Service, web1.Births = "https", 12
	web1.CloseWait = snapshot.CloseWaitCount{Sockets: 2, OldestSeconds: new(91.5), Unread: 1}
	web2 := server("10.0.0.5", "192.0.2.8", 443, snapshot.States{TimeWait: 2})
	web2.Service, web2.Births = "https", 1
	forged := server("10.0.0.5", "203.0.113.66", 22, snapshot.States{SynRecv: 900})
	lost := snapshot.Flow{Side: snapshot.Unknown, Local: "10.0.0.5", Remote: "10.0.0.77", Port: 41000, States: tw(5)}
	crowd := snapshot.Flow{Side: snapshot.Server, Remote: "198.51.100.0/24", Port: 443, States: tw(77), Births: 20}

	ns := namespace("host", "host", 4026531840,
		snapshot.Omitted{Flows: 3, States: snapshot.States{TimeWait: 9, LastAck: 1}, Births: 2},
		redis, loop, bound, web1, web2, forged, lost, crowd)
	ns.States.Listen = 12
	ns.Limits.TCPTWReuseDelay = new(1000)
	ns.TimeWait.BucketsLimit = new(131072)
	ns.Counters = counters.Set{
		"TW": 812345, "TCPTimeWaitOverflow": 0, "ListenOverflows": 3, "ListenDrops": 4, "SyncookiesSent": 900,
	}
	ns.Conntrack = &counters.Conntrack{Entries: new(uint64(4321))}
	ns.Ports.Reserved = 32
	ns.CloseWaits = []snapshot.CloseWait{
		{RecvQ: 0, Inode: 5, AgeSeconds: new(91.5)},
		{RecvQ: 33, Inode: 6},
	}
	ns.Owners = []snapshot.Owner{
		{PID: 7, CloseWait: 2, Descriptors: new(256), DescriptorLimit: new(1024)},
		{PID: 8, Descriptors: new(1000), DescriptorLimit: new(1024)}, // holds none
	}
	return ns
}

// fixture is a report of a host, of two namespaces with one name, and of
// hostile names.
func fixture(n int) *snapshot.Report {
	shop := func(inode uint64, flows ...snapshot.Flow) *snapshot.Namespace {
		return namespace("named", "shop", inode, snapshot.Omitted{}, flows...)
	}
	mysql := client("10.0.0.10", 3306, 12000, snapshot.States{TimeWait: 11990, Established: 10})
	mysql.Service, mysql.Births = "mysql\x1b[31m", 3000
	bad := namespace("pod", "caf\xe9\n\"x\"\u202e", 77, snapshot.Omitted{})
	bad.Ports = nil // range not known
	leak := shop(501, server("10.0.0.6", "192.0.2.9", 8080, snapshot.States{CloseWait: 12}))
	leak.Owners = []snapshot.Owner{{PID: 9, Comm: "py\x1bthon", CloseWait: 12}}
	leak.CloseWaits = []snapshot.CloseWait{{Inode: 9, AgeSeconds: new(3600.0), PID: 9, Comm: "py\x1bthon"}}
	bad.Workload = &snapshot.Workload{
		Namespace: "caf\xe9", Pod: "\n\"x\"\u202e", PodUID: "7d9f2c4e-8a31-4b0e-9c55-0d1e2f3a4b5c", Container: strings.Repeat("\x1b", 100),
		Labels: map[string]string{"app": "not exported"},
	}
	r := at(n, hostNamespace(), leak, shop(502, mysql), bad)
	r.HostLimits = &sysctl.HostLimits{NFConntrackMax: new(262144)}
	r.Incomplete = []snapshot.Gap{{Stage: "close_wait_age", Namespace: "host", Error: "not permitted"}}
	r.Findings = []snapshot.Finding{
		{
			ID: "ephemeral-ports-near-limit", Severity: snapshot.Critical, Namespace: "host",
			Subject: snapshot.Subject{Side: snapshot.Client, Port: 6379, Service: "redis"},
		},
		{
			ID: "ephemeral-ports-near-limit", Severity: snapshot.Warning, Namespace: "host",
			Subject: snapshot.Subject{Side: snapshot.Client, Port: 6379, Service: "redis"},
		},
		{ID: "idle", Severity: snapshot.Info, Namespace: "host"},
		{ID: "bad\xffid\n", Severity: snapshot.Warning, Namespace: "shop"},
	}
	return r
}

// scrape registers the exporter alone and gathers; a registry's error is the
// test's.
func scrape(t testing.TB, e *Exporter) []*dto.MetricFamily {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(e); err != nil {
		t.Fatal(err)
	}
	mfs, err := reg.Gather()
	if err != nil {
		t.Fatalf("the scrape fails: %v", err)
	}
	return mfs
}

// series gives every series but build_info as `name{a="b",…}` → value.
func series(t testing.TB, e *Exporter) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for _, mf := range scrape(t, e) {
		if mf.GetName() == "twwatch_build_info" {
			continue
		}
		for _, m := range mf.GetMetric() {
			all[seriesName(mf, m)] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

func seriesName(mf *dto.MetricFamily, m *dto.Metric) string {
	var b strings.Builder
	b.WriteString(mf.GetName())
	for i, l := range m.GetLabel() {
		fmt.Fprintf(&b, "%s%s=%q", []string{"{", ","}[min(i, 1)], l.GetName(), l.GetValue())
	}
	if len(m.GetLabel()) > 0 {
		b.WriteByte('}')
	}
	return b.String()
}

// named keeps the series of one name, sorted, as lines.
func named(all map[string]float64, name string) string {
	var lines []string
	for k, v := range all {
		if strings.HasPrefix(k, name+"{") || k == name {
			lines = append(lines, fmt.Sprintf("%s %v", strings.TrimPrefix(k, name), v))
		}
	}
	slices.Sort(lines)
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	return b.String()
}
