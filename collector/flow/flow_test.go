package flow

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/sysctl"
)

const second = int64(1e9)

// now is the start of the passes here; the rows are filled at the same time.
const now = 1000 * second

func limits() sysctl.Limits {
	return sysctl.Limits{
		IPLocalPortRange: &sysctl.PortRange{Low: 32768, High: 60999},
		TCPTWReuse:       new(0), TCPTWReuseDelay: new(1000), TCPTimestamps: new(1),
	}
}

func config() Config {
	return Config{
		Limits: limits(), Services: []uint16{6379, 2049},
		ServiceName: func(port uint16) string { return map[uint16]string{6379: "redis"}[port] },
		Start:       now, Since: now - 15*second,
	}
}

// look is one pass over rows.
func look(t testing.TB, table *Table, cfg Config, rows []row) *snapshot.Namespace {
	t.Helper()
	table.Begin(cfg)
	play(t, tape(cfg.Start, rows), table.Add)
	table.SetBoundSeen()
	n := &snapshot.Namespace{}
	table.Fill(n)
	closes(t, n)
	return n
}

// closes checks that, state by state, flows and omitted sum up to the
// namespace.
func closes(t testing.TB, n *snapshot.Namespace) {
	t.Helper()
	left, births := n.States, n.TimeWait.Births
	left.Listen, left.Close = 0, 0
	for i := range n.Flows {
		left.Subtract(&n.Flows[i].States)
		births -= n.Flows[i].Births
	}
	if diff := cmp.Diff(left, n.Omitted.States); diff != "" {
		t.Errorf("flows and omitted don't sum up to the states (-left +omitted):\n%s", diff)
	}
	if births != n.Omitted.Births {
		t.Errorf("births: %d left by the flows, %d omitted", births, n.Omitted.Births)
	}
}

func TestSides(t *testing.T) {
	listen := row{state: inetdiag.Listen, src: "0.0.0.0:8080", dst: "0.0.0.0:0"}
	for _, tt := range []struct {
		name string
		row  row
		want snapshot.Flow
	}{
		{
			"a listening port serves", established("10.0.0.5:8080", "10.0.0.9:40000"),
			snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 8080},
		},
		{
			"an ephemeral port connected", established("10.0.0.5:40000", "10.0.0.9:6379"),
			snapshot.Flow{Side: snapshot.Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379, Service: "redis", ServiceBy: "port"},
		},
		{
			"a known service is connected to", established("10.0.0.5:700", "10.0.0.9:2049"),
			snapshot.Flow{Side: snapshot.Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 2049},
		},
		{
			"a listener has gone", established("10.0.0.5:9999", "10.0.0.9:40000"),
			snapshot.Flow{Side: snapshot.Unknown, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 9999},
		},
		{
			"neither end tells", established("10.0.0.5:700", "10.0.0.9:9999"),
			snapshot.Flow{Side: snapshot.Unknown, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 9999},
		},
		{
			"v4-mapped is IPv4",
			row{state: inetdiag.Established, src: "10.0.0.5:8080", dst: "10.0.0.9:40000", mapped: true},
			snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 8080},
		},
		{
			"link-local has a device",
			row{state: inetdiag.Established, src: "[fe80::1]:40000", dst: "[fe80::2]:80", device: 3},
			snapshot.Flow{Side: snapshot.Client, Device: "if3", Local: "fe80::1", Remote: "fe80::2", Port: 80},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := look(t, NewTable(), config(), []row{listen, tt.row})
			if len(n.Flows) != 1 {
				t.Fatalf("%d flows, want 1: %+v", len(n.Flows), n.Flows)
			}
			f := n.Flows[0]
			got := snapshot.Flow{Side: f.Side, Device: f.Device, Local: f.Local, Remote: f.Remote, Port: f.Port, Service: f.Service, ServiceBy: f.ServiceBy}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTimelineAndBirths(t *testing.T) {
	rows := []row{
		timeWait("10.0.0.5:40000", "10.0.0.9:6379", 60_000), // age 0
		timeWait("10.0.0.5:40001", "10.0.0.9:6379", 59_001), // still in the youngest second
		timeWait("10.0.0.5:40002", "10.0.0.9:6379", 59_000), // exactly one second old
		timeWait("10.0.0.5:40003", "10.0.0.9:6379", 45_001), // born since the last pass, 15 s ago
		timeWait("10.0.0.5:40004", "10.0.0.9:6379", 45_000), // the last pass saw it
		timeWait("10.0.0.5:40005", "10.0.0.9:6379", 1),      // the oldest second
		timeWait("10.0.0.5:40006", "10.0.0.9:6379", 0),      // past its time: holds its port, has no second
		{state: inetdiag.FinWait2, src: "10.0.0.5:40007", dst: "10.0.0.9:6379", timer: 3, expires: 30_000},
	}
	n := look(t, NewTable(), config(), rows)
	want := make([]uint32, 60)
	want[59], want[58], want[45], want[44], want[0] = 2, 1, 1, 0, 1
	want[44] = 1 // 45,000 left: 15 s old
	want[45] = 1 // 45,001 left: 14.999 s old
	if diff := cmp.Diff(want, n.TimeWait.OpenedPerSecond); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	f := n.Flows[0]
	if diff := cmp.Diff(want, f.OpenedPerSecond); diff != "" {
		t.Errorf("the flow's timeline (-want +got):\n%s", diff)
	}
	if n.TimeWait.Births != 4 || f.Births != 4 {
		t.Errorf("births %d, of the flow %d, want 4", n.TimeWait.Births, f.Births)
	}
	if n.TimeWait.BucketsUsed != 8 {
		t.Errorf("buckets used %d, want 8: the FIN_WAIT2 mini-socket counts", n.TimeWait.BucketsUsed)
	}
	if f.Ports.Used != 8 {
		t.Errorf("ports used %d, want 8: the overdue one and the FIN_WAIT2 hold theirs", f.Ports.Used)
	}
	if *f.CloseRate != 6.0/60 || f.CloseRateSeconds != 60 {
		t.Errorf("rate %v over %v s, want 0.1 over 60", *f.CloseRate, f.CloseRateSeconds)
	}
}

// A row that was filled after the pass's start is younger than it looks: its
// second is counted from the start.
func TestTimelineCountsFromThePassStart(t *testing.T) {
	table := NewTable()
	table.Begin(config())
	play(t, tape(now+2*second, []row{
		timeWait("10.0.0.5:40000", "10.0.0.9:6379", 58_500), // closed half a second after the start
		timeWait("10.0.0.5:40001", "10.0.0.9:6379", 57_500), // half a second before
	}), table.Add)
	var n snapshot.Namespace
	table.Fill(&n)
	if got := n.TimeWait.OpenedPerSecond[59]; got != 1 || n.TimeWait.Births != 1 || n.States.TimeWait != 2 {
		t.Errorf("last second %d, births %d, TIME_WAIT %d, want 1, 1, 2", got, n.TimeWait.Births, n.States.TimeWait)
	}
}

func TestRateIsThePresentOne(t *testing.T) {
	var rows []row
	for i := range 600 { // 30/s for the last 20 s
		rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 40000+i), "10.0.0.9:6379", uint32(60_000-i*100/3)))
	}
	f := look(t, NewTable(), config(), rows).Flows[0]
	if *f.CloseRate != 30 || f.CloseRateSeconds != 10 {
		t.Errorf("rate %v over %v s, want 30 over 10", *f.CloseRate, f.CloseRateSeconds)
	}
}

func TestRateOfAYoungFlow(t *testing.T) {
	for _, tt := range []struct {
		name            string
		ages            func(i int) int // ms, of 100 closes
		perSecond, over float64
	}{
		{"steady for 4 s", func(i int) int { return i * 4000 / 99 }, 25, 4},
		{"a burst 4 s ago", func(i int) int { return 4000 - i }, 10, 10},
		{"steady for 1.25 s", func(i int) int { return i * 1250 / 99 }, 80, 1.25},
		{"too young to tell", func(i int) int { return i * 9 }, 10, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rows []row
			for i := range 100 {
				rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 40000+i), "10.0.0.9:6379", uint32(60_000-tt.ages(i))))
			}
			f := look(t, NewTable(), config(), rows).Flows[0]
			if *f.CloseRate != tt.perSecond || f.CloseRateSeconds != tt.over {
				t.Errorf("rate %v over %v s, want %v over %v", *f.CloseRate, f.CloseRateSeconds, tt.perSecond, tt.over)
			}
		})
	}
}

func TestRecycledFlowsRateByTheDelay(t *testing.T) {
	cfg := config()
	cfg.Limits.TCPTWReuse = new(2)
	var rows []row
	for i := range 3000 { // what is left of 1,500/s: all of the last second, a tenth of the minute before
		expires := uint32(60_000 - i*2/3)
		if i >= 1500 {
			expires = uint32(59_000 - (i-1500)*39)
		}
		rows = append(rows, timeWait(fmt.Sprintf("127.0.0.1:%d", 32768+2*i), "127.0.0.1:6379", expires))
	}
	f := look(t, NewTable(), cfg, rows).Flows[0]
	if !f.SurvivorsOnly || *f.CloseRate < 1480 || *f.CloseRate > 1520 {
		t.Errorf("loopback: survivors %v, rate %v, want 1500", f.SurvivorsOnly, *f.CloseRate)
	}
	if f.Ports.Reusable != 1500 && f.Ports.Reusable != 1499 {
		t.Errorf("reusable %d, want those older than the delay, 1499", f.Ports.Reusable)
	}
	cfg.Limits.TCPTimestamps = new(0)
	if f := look(t, NewTable(), cfg, rows).Flows[0]; f.SurvivorsOnly || f.Ports.Reusable != 0 {
		t.Errorf("without timestamps nothing is reused: survivors %v, reusable %d", f.SurvivorsOnly, f.Ports.Reusable)
	}
	cfg.Limits.TCPTimestamps = new(1)
	for i := range rows {
		rows[i].src = fmt.Sprintf("10.0.0.5:%d", 32768+2*i)
		rows[i].dst = "10.0.0.9:6379"
	}
	if f := look(t, NewTable(), cfg, rows).Flows[0]; f.SurvivorsOnly || f.Ports.Reusable != 0 {
		t.Errorf("value 2 is for loopback: survivors %v, reusable %d", f.SurvivorsOnly, f.Ports.Reusable)
	}
}

// Many remotes, a few of them heavy, in the order that suits them least: all
// crowd before them.
func TestHeavyRemotesAreFound(t *testing.T) {
	const crowd, heavies, each = 120_000, 10, 130
	var rows []row
	for i := range crowd {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		rows = append(rows, timeWait("192.168.0.1:443", a.String()+":50000", 30_000))
	}
	for h := range heavies {
		for i := range each {
			rows = append(rows, timeWait("192.168.0.1:443", fmt.Sprintf("172.16.0.%d:%d", h, 1024+i), 30_000))
		}
	}
	table, cfg := NewTable(), config()
	cfg.Sockets, cfg.Memory = len(rows), &Memory{}
	listen := []row{{state: inetdiag.Listen, src: "0.0.0.0:443", dst: "0.0.0.0:0"}}
	for pass := range 2 {
		n := look(t, table, cfg, append(listen, rows...))
		found := 0
		for _, f := range n.Flows {
			if len(f.Remote) > 9 && f.Remote[:9] == "172.16.0." && f.Remote[len(f.Remote)-3:] != "/24" {
				found++
				if got := int(f.States.TimeWait); got > each || got+int(f.MissedAtMost) < each {
					t.Errorf("pass %d: %s: %d, missed at most %d, true %d", pass, f.Remote, got, f.MissedAtMost, each)
				}
				if pass == 1 && f.MissedAtMost != 0 {
					t.Errorf("pass 1: %s: known from the last pass and still not exact", f.Remote)
				}
			}
		}
		if found != heavies {
			t.Errorf("pass %d: %d heavy remotes found, want %d", pass, found, heavies)
		}
		if n.States.TimeWait != crowd+heavies*each || len(n.Flows) > snapshot.MaxFlows {
			t.Errorf("pass %d: %d TIME_WAIT in %d flows", pass, n.States.TimeWait, len(n.Flows))
		}
		cfg.Start += 15 * second
		cfg.Since = cfg.Start - 15*second
	}
}

// A flood of half-open handshakes from forged addresses takes no flow from
// anybody.
func TestHalfOpenFloodTakesNoFlow(t *testing.T) {
	rows := []row{{state: inetdiag.Listen, src: "0.0.0.0:443", dst: "0.0.0.0:0"}}
	for i := range 3 * maxFlows {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		rows = append(rows, row{state: inetdiag.SynRecv, src: "192.168.0.1:443", dst: a.String() + ":50000"})
	}
	rows = append(rows, established("192.168.0.1:443", "172.16.0.1:50000"))
	n := look(t, NewTable(), config(), rows)
	if n.States.SynRecv != 3*maxFlows {
		t.Errorf("%d SYN_RECV, want %d", n.States.SynRecv, 3*maxFlows)
	}
	exact := 0
	for _, f := range n.Flows {
		if f.Local != "" {
			exact++
		}
	}
	if exact != 1 {
		t.Errorf("%d flows of their own, want only the established one", exact)
	}
}

// Whatever comes, in whatever order: sums close, nothing panics, bounds hold.
func TestSumsCloseOnAnything(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var rows []row
		for range 1 + r.IntN(30_000) {
			addr := func() string {
				if r.IntN(4) == 0 {
					return netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(200)), 7: byte(r.IntN(3))}).String()
				}
				return netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(100)), byte(r.IntN(256))}).String()
			}
			src, dst := addr(), addr()
			if netip.MustParseAddr(src).Is4() != netip.MustParseAddr(dst).Is4() {
				dst = src
			}
			at := func(a string, port int) string {
				return netip.AddrPortFrom(netip.MustParseAddr(a), uint16(port)).String()
			}
			w := row{state: inetdiag.State(1 + r.IntN(13)), src: at(src, r.IntN(65536)), dst: at(dst, r.IntN(3)*6379), expires: uint32(r.IntN(61_000)), recvQ: uint32(r.IntN(3))}
			if w.state == inetdiag.TimeWait || w.state == inetdiag.FinWait2 && r.IntN(2) == 0 {
				w.timer = 3
			}
			rows = append(rows, w)
		}
		table, cfg := NewTable(), config()
		cfg.Memory = &Memory{}
		for range 2 {
			n := look(t, table, cfg, rows)
			if got := n.States.Total(); got != len(rows) {
				t.Fatalf("seed %d: %d sockets in the states, want %d", seed, got, len(rows))
			}
		}
	}
}

func TestPassAllocatesByFlowsNotBySockets(t *testing.T) {
	allocs := func(sockets int) float64 {
		var rows []row
		for i := range sockets {
			rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 32768+i%28000), fmt.Sprintf("10.0.%d.%d:6379", i/28000, i%5), 30_000))
		}
		table, cfg := NewTable(), config()
		cfg.Memory = &Memory{}
		data := tape(cfg.Start, rows)
		return testing.AllocsPerRun(5, func() {
			table.Begin(cfg)
			play(t, data, table.Add)
			var n snapshot.Namespace
			table.Fill(&n)
		})
	}
	if few, many := allocs(10), allocs(28_000); many > few {
		t.Errorf("%v allocations with 28,000 sockets, %v with 10", many, few)
	}
}

// Ports of the other parity are taken for bound ones only where connect()
// can't have given them.
func TestParityEvidence(t *testing.T) {
	var odd, own []row
	for i := range 30 {
		odd = append(odd, established(fmt.Sprintf("10.0.0.5:%d", 40001+2*i), "10.0.0.9:6379"))
	}
	for i := range 14116 {
		own = append(own, timeWait(fmt.Sprintf("10.0.0.5:%d", 32768+2*i), "10.0.0.9:6379", 30_000))
	}
	other := established("10.0.0.5:40000", "10.0.0.8:6379")
	type pass struct {
		rows    []row
		low     uint16 // of the range; 0: 32768
		blocked int
		atMost  bool // for the other destination
	}
	for _, tt := range []struct {
		name   string
		opened uint64
		passes []pass
	}{
		{"too few connect() calls to spill over", 31, []pass{{odd, 0, 30, false}}},
		{"a first look at an old namespace", 1e6, []pass{{odd, 0, 0, true}, {odd, 0, 0, true}}},
		{"taken while watched", 1e6, []pass{{nil, 0, 0, false}, {odd, 0, 30, false}}},
		{"a spill-over, seen", 1e6, []pass{{nil, 0, 0, false}, {append(odd, own...), 0, 0, true}, {odd, 0, 0, true}}},
		{"all gone, and then anew", 1e6, []pass{{odd, 0, 0, true}, {nil, 0, 0, false}, {odd, 0, 30, false}}},
		{"another range", 1e6, []pass{{nil, 32770, 0, false}, {odd, 0, 0, true}}},
		{"another range, and few", 31, []pass{{nil, 32770, 0, false}, {odd, 0, 0, true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table, cfg := NewTable(), config()
			cfg.Memory, cfg.Opened = &Memory{}, &tt.opened
			for i, p := range tt.passes {
				cfg.Limits.IPLocalPortRange = &sysctl.PortRange{Low: max(p.low, 32768), High: 60999}
				n := look(t, table, cfg, append([]row{other}, p.rows...))
				if n.Ports.BlockedParity != p.blocked {
					t.Errorf("pass %d: %d blocked by parity, want %d", i, n.Ports.BlockedParity, p.blocked)
				}
				for _, f := range n.Flows {
					if f.Remote == "10.0.0.8" && (f.Ports.AtMost != p.atMost || n.Ports.AtMost != p.atMost) {
						t.Errorf("pass %d: at most %v, of the namespace %v, want %v", i, f.Ports.AtMost, n.Ports.AtMost, p.atMost)
					}
				}
				cfg.Since, cfg.Start = cfg.Start, cfg.Start+15*second
			}
		})
	}
}

// Which TIME_WAIT sockets had timestamps can't be told after a change of
// tcp_timestamps.
func TestTimestampsChanged(t *testing.T) {
	rows := []row{timeWait("127.0.0.1:40000", "127.0.0.1:6379", 30_000)}
	table, cfg := NewTable(), config()
	cfg.Memory, cfg.Limits.TCPTWReuse = &Memory{}, new(1)
	for i, tt := range []struct {
		timestamps, reusable int
		atMost               bool
	}{{1, 1, false}, {0, 1, true}, {0, 1, true}, {1, 1, true}} {
		cfg.Limits.TCPTimestamps = &tt.timestamps
		p := look(t, table, cfg, rows).Flows[0].Ports
		if p.Reusable != tt.reusable || p.AtMost != tt.atMost {
			t.Errorf("pass %d: %+v, want %d reusable, at most %v", i, *p, tt.reusable, tt.atMost)
		}
		cfg.Since, cfg.Start = cfg.Start, cfg.Start+15*second
	}
	cfg.Start += 63 * second
	if p := look(t, table, cfg, rows).Flows[0].Ports; p.Reusable != 1 || p.AtMost {
		t.Errorf("a minute later: %+v", *p)
	}
}

// What a SYN took over from a server shows in the growth of TW only.
func TestReopenedServerSockets(t *testing.T) {
	rows := []row{{state: inetdiag.Listen, src: "0.0.0.0:8080", dst: "0.0.0.0:0"}}
	for i := range 200 { // 50/s, each taken over after 4 s
		rows = append(rows, timeWait("10.0.0.5:8080", fmt.Sprintf("10.0.0.9:%d", 40000+i), uint32(60_000-i*20)))
	}
	cfg := config()
	for entered, floor := range map[uint64]bool{750: true, 205: false} {
		cfg.Entered = &entered
		n := look(t, NewTable(), cfg, rows)
		if f := n.Flows[0]; f.SurvivorsOnly != floor || n.TimeWait.OpenedPerSecondFloor != floor {
			t.Errorf("TW + %d with %d births: survivors %v, floor %v", entered, f.Births, f.SurvivorsOnly, n.TimeWait.OpenedPerSecondFloor)
		}
		if r := *n.Flows[0].CloseRate; floor && (r < 49 || r > 52) {
			t.Errorf("rate %v, want 50", r)
		}
	}
}
