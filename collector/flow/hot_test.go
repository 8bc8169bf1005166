package flow

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/sysctl"
)

// The heap must choose what sorting them all would.
func TestHeaviestIsTheFirstOfTheSorted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		table := NewTable()
		table.Begin(config())
		n, most := 1+rng.IntN(300), 1+rng.IntN(40)
		var all []uint16
		for i := range n {
			k := key{dstLo: uint64(i), tail: rng.Uint64()}
			e := table.insert(&k, table.seed.of(k), 0)
			table.entries[e].births = uint32(rng.IntN(most)) // some 0, many equal
			all = append(all, e)
		}
		births := func(e *entry) uint32 { return e.births }
		want := slices.Clone(all)
		slices.SortFunc(want, func(a, b uint16) int {
			x, y := &table.entries[a], &table.entries[b]
			return cmp.Or(cmp.Compare(y.births, x.births), x.key.compare(&y.key))
		})
		top := 1 + rng.IntN(n+5)
		want = want[:min(top, n)]
		want = slices.DeleteFunc(want, func(i uint16) bool { return table.entries[i].births == 0 })
		var got []uint16
		for _, r := range table.heaviest(nil, all, top, births) {
			got = append(got, r.entry)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("the %d heaviest of %d: %v, want %v", top, n, got, want)
		}
	}
}

// The classes are laid out by copies; this is what they mean.
func TestPortClasses(t *testing.T) {
	services := []uint16{80, 40001, 65535}
	for _, c := range []struct {
		low, high uint16
		reserved  string
	}{
		{32768, 60999, ""},
		{1024, 65535, "1-2000,40000-40003,65530-65535"},
		{0, 65535, "0"},
		{5, 5, ""},
		{5, 5, "5"},
		{7, 9, "8"},
		{40000, 40199, "39990-40000,40002,40199-50000"},
	} {
		set, err := sysctl.ParsePortSet(c.reserved)
		if err != nil {
			t.Fatal(err)
		}
		r := sysctl.PortRange{Low: c.low, High: c.high}
		p := &portMap{}
		p.reset(sysctl.Limits{IPLocalPortRange: &r, IPLocalReservedPorts: &set}, services)
		var count [2]int
		reserved := 0
		for port := range 1 << 16 {
			want := uint8(0)
			if r.Contains(uint16(port)) {
				want = ephemeral
				if set.Contains(uint16(port)) {
					reserved++
				} else {
					parity := (port - int(c.low)) & 1
					count[parity]++
					want |= usable | uint8(parity)*other
				}
			}
			if slices.Contains(services, uint16(port)) {
				want |= service
			}
			if p.class[port] != want {
				t.Fatalf("%v without %q: port %d has class %b, want %b", r, c.reserved, port, p.class[port], want)
			}
		}
		if p.count != count || p.pool.Reserved != reserved || p.pool.Range != r.Size() {
			t.Errorf("%v without %q: %v ports, %+v, want %v, %d reserved", r, c.reserved, p.count, p.pool, count, reserved)
		}
	}
}

// TIME_WAIT rows are counted some at a time: whoever asks in between must not
// miss the last of them.
func TestRowsThatWaitAreCounted(t *testing.T) {
	for n := range 2*pendingRows + 2 {
		var rows []row
		for i := range n {
			rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 40000+i), "10.0.0.9:6379", 30_000))
		}
		table := NewTable()
		table.Begin(config())
		play(t, tape(now, rows), table.Add)
		if got := table.Tightest(); got != float64(n)/28232 {
			t.Errorf("%d rows: tightest %v", n, got)
		}
		again := look(t, table, config(), rows)
		if got := int(again.States.TimeWait); got != n {
			t.Errorf("%d rows: %d TIME_WAIT", n, got)
		}
	}
}

func TestLiveInRange(t *testing.T) {
	for _, c := range []struct {
		name string
		rows []row
		want bool
	}{
		{"nothing", nil, false},
		{"TIME_WAIT", []row{timeWait("10.0.0.5:40000", "10.0.0.9:6379", 1)}, false},
		{"a mini-socket", []row{{state: inetdiag.FinWait2, src: "10.0.0.5:40000", dst: "10.0.0.9:6379", timer: 3}}, false},
		{"a server's end", []row{established("10.0.0.5:80", "10.0.0.9:40000")}, false},
		{"a client", []row{established("10.0.0.5:40000", "10.0.0.9:6379")}, true},
	} {
		table := NewTable()
		table.Begin(config())
		play(t, tape(now, c.rows), table.Add)
		if got := table.LiveInRange(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		table.Begin(config())
		if table.LiveInRange() {
			t.Errorf("%s: remembered into the next pass", c.name)
		}
	}
}

// What was sighted in one pass is no sighting in the next.
func TestSightingsAreForgotten(t *testing.T) {
	var rows []row
	for i := range firstCome + 500 { // the last ones are sighted once
		rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 33000), fmt.Sprintf("10.1.%d.%d:6379", i>>8, i&255), 30_000))
	}
	table, data := NewTable(), tape(now, rows)
	for pass := range 20 {
		table.Begin(config())
		play(t, data, table.Add)
		table.countPending()
		if len(table.entries) != firstCome {
			t.Fatalf("pass %d: %d flows, want %d", pass, len(table.entries), firstCome)
		}
	}
}

// Flows whose hashes are equal are still different flows.
func TestEqualHashes(t *testing.T) {
	const hash = 12345
	table := NewTable()
	table.Begin(config())
	first := key{1, 2, 3, 4, 5}
	table.insert(&first, hash, 0)
	for i, k := range []key{{9, 2, 3, 4, 5}, {1, 9, 3, 4, 5}, {1, 2, 9, 4, 5}, {1, 2, 3, 9, 5}, {1, 2, 3, 4, 9}} {
		lookup := func() uint16 { return table.lookup(k.srcHi, k.srcLo, k.dstHi, k.dstLo, k.tail, hash) }
		if got := lookup(); got != noFlow {
			t.Errorf("%v is taken for %v", k, table.entries[got].key)
		}
		table.insert(&k, hash, 0)
		if got := lookup(); int(got) != i+1 {
			t.Errorf("%v is found as %d, want %d", k, got, i+1)
		}
	}
}

// The kernel's timers count in ticks, so that a socket closed just before the
// start may look as if it had been closed just after it. It belongs to the last
// second; as a birth it is left to the next pass, which will see it once more.
func TestClosedWithinATickOfTheStart(t *testing.T) {
	table := NewTable()
	table.Begin(config())
	play(t, tape(now, []row{
		timeWait("10.0.0.5:40000", "10.0.0.9:6379", 60_000+tickMS),
		timeWait("10.0.0.5:40001", "10.0.0.9:6379", 60_001+tickMS),
	}), table.Add)
	var n snapshot.Namespace
	table.Fill(&n)
	if got := n.TimeWait.OpenedPerSecond[59]; got != 1 || n.TimeWait.Births != 0 {
		t.Errorf("last second %d, births %d, want 1 and 0", got, n.TimeWait.Births)
	}
}

func TestFlowsThatSurviveMakeTheMinuteAFloor(t *testing.T) {
	for reuse, want := range []bool{false, true, true} {
		for remote, loopback := range map[string]bool{"127.0.0.2:6379": true, "10.0.0.9:6379": false} {
			cfg := config()
			cfg.Limits.TCPTWReuse = &reuse
			n := look(t, NewTable(), cfg, []row{timeWait("127.0.0.1:40000", remote, 30_000)})
			if !loopback {
				n = look(t, NewTable(), cfg, []row{timeWait("10.0.0.5:40000", remote, 30_000)})
			}
			if got := n.TimeWait.OpenedPerSecondFloor; got != (want && (loopback || reuse == 1)) {
				t.Errorf("tcp_tw_reuse %d, %s: a floor: %v", reuse, remote, got)
			}
		}
	}
}

// Who held a port in one pass doesn't hold it in the next.
func TestHoldersAreForgotten(t *testing.T) {
	var rows []row
	for i := range 30 { // bind(addr, 0) takes the odd ports
		rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 40001+2*i), "10.0.0.9:6379", 30_000))
	}
	table, cfg := NewTable(), config()
	cfg.Opened = new(uint64(30)) // so few that none can have spilled over
	if n := look(t, table, cfg, rows); n.Ports.BlockedParity != 30 {
		t.Fatalf("%d ports blocked by parity, want 30", n.Ports.BlockedParity)
	}
	if n := look(t, table, cfg, rows[:10]); n.Ports.BlockedParity != 10 {
		t.Errorf("%d ports blocked by parity, want 10", n.Ports.BlockedParity)
	}
	if n := look(t, table, config(), nil); n.Ports.BlockedParity != 0 {
		t.Errorf("%d ports blocked by parity, want none", n.Ports.BlockedParity)
	}
}
