package flow

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// alive makes a row of a live connection with a cookie and an inode.
func alive(src, dst string, id int) row {
	r := established(src, dst)
	r.cookie, r.inode = uint64(id), uint32(id)
	return r
}

func gone(src, dst string, id int) row {
	r := timeWait(src, dst, 30_000)
	r.cookie = uint64(id)
	return r
}

func fromPort(i int) string { return fmt.Sprintf("10.0.0.5:%d", 33000+i) }

// owned is a table whose flows' shares are kept.
type owned struct {
	*Table
	cfg    Config
	shares map[string][]Share // by the flow's remote
}

func newOwned() *owned {
	o := &owned{Table: NewTable(), cfg: config()}
	o.cfg.Memory, o.cfg.Interval = &Memory{}, 15*time.Second
	o.cfg.Owned = func(f *snapshot.Flow, shares []Share) {
		s := slices.Clone(shares)
		slices.SortFunc(s, func(a, b Share) int { return int(a.Process) - int(b.Process) })
		o.shares[f.Remote] = s
	}
	return o
}

// pass looks at rows later than the last one, where process names the owner of
// an inode.
func (o *owned) pass(t *testing.T, later time.Duration, rows []row, process func(inode uint32) uint16) *snapshot.Namespace {
	t.Helper()
	o.cfg.Since, o.cfg.Start = o.cfg.Start, o.cfg.Start+int64(later)
	o.shares = make(map[string][]Share)
	o.Begin(o.cfg)
	play(t, tape(o.cfg.Start, rows), o.Add)
	live := o.Follow()
	for i := range live {
		o.Attribute(&live[i], process(live[i].Inode))
	}
	o.SetSearched()
	n := &snapshot.Namespace{}
	o.Fill(n)
	closes(t, n)
	return n
}

func byInode(inode uint32) uint16 { return uint16(1 + inode%2) }

// Who held a connection keeps it until its TIME_WAIT has gone, and no longer.
func TestConnectionsAreRememberedForATimeWait(t *testing.T) {
	o := newOwned()
	const to = "10.0.0.9:6379"
	var live, closed []row
	for i := 1; i <= 10; i++ {
		live, closed = append(live, alive(fromPort(i), to, i)), append(closed, gone(fromPort(i), to, i))
	}
	orphan := row{state: inetdiag.LastAck, src: fromPort(1), dst: to, cookie: 1}
	mini := row{state: inetdiag.FinWait2, src: fromPort(2), dst: to, cookie: 2, timer: 3, expires: 1000}
	unaccepted := row{state: inetdiag.Established, src: fromPort(3), dst: to, cookie: 3}
	stranger := gone(fromPort(50), to, 50)

	n := o.pass(t, time.Second, live, byInode)
	want := fmt.Sprint([]Share{{1, 5, 0}, {2, 5, 0}})
	if got := fmt.Sprint(o.shares["10.0.0.9"]); got != want || *n.Flows[0].Attributed != 1 || n.Flows[0].LongLived != nil {
		t.Errorf("first look: %s, attributed %v, long-lived %v, want %s", got, *n.Flows[0].Attributed, n.Flows[0].LongLived, want)
	}
	// Nobody is found any more, but they are remembered.
	n = o.pass(t, 15*time.Second, live, func(uint32) uint16 { return 0 })
	if got := fmt.Sprint(o.shares["10.0.0.9"]); got != want || *n.Flows[0].Attributed != 1 || *n.Flows[0].LongLived != 10 {
		t.Errorf("second look: %s, attributed %v, long-lived %v, want %s", got, *n.Flows[0].Attributed, *n.Flows[0].LongLived, want)
	}
	n = o.pass(t, 15*time.Second, []row{orphan, mini, unaccepted, closed[4], closed[5], stranger, alive(fromPort(60), to, 60)}, byInode)
	want = fmt.Sprint([]Share{{1, 1, 2}, {2, 0, 2}}) // 2, 6 and 60; 1 and 5
	if got := fmt.Sprint(o.shares["10.0.0.9"]); got != want || *n.Flows[0].Attributed != 5.0/7 || *n.Flows[0].LongLived != 0 {
		t.Errorf("third look: %s, attributed %v, want %s", got, *n.Flows[0].Attributed, want)
	}
	var closedBy []uint16
	for p := range func(yield func(uint16) bool) { o.ClosedBy(&o.held.live[0], yield) } {
		closedBy = append(closedBy, p)
	}
	slices.Sort(closedBy)
	if !slices.Equal(closedBy, []uint16{1, 2}) {
		t.Errorf("the flow's closed sockets were held by %v", closedBy)
	}
	// 60 s, the interval and some slack after they were last seen alive.
	o.pass(t, 59*time.Second, closed, byInode)
	if got := fmt.Sprint(o.shares["10.0.0.9"]); got != fmt.Sprint([]Share{{1, 0, 5}, {2, 0, 5}}) {
		t.Errorf("74 s after: %s", got)
	}
	o.pass(t, 15*time.Second, closed, byInode)
	if got := fmt.Sprint(o.shares["10.0.0.9"]); got != fmt.Sprint([]Share{{1, 0, 1}, {2, 0, 1}}) { // 1 and 2 lived on as an orphan and a mini-socket
		t.Errorf("89 s after: %s", got)
	}
	if o.cfg.Memory.Connections() != 3 {
		t.Errorf("%d connections are remembered, want the orphan, the mini-socket and the last live one", o.cfg.Memory.Connections())
	}
}

// Beside very many live sockets only those of flows that matter are followed,
// and what was not followed isn't claimed to be short-lived.
func TestOnlyFlowsThatMatterAreFollowed(t *testing.T) {
	o := newOwned()
	var rows []row
	for i := range fewLive {
		rows = append(rows, alive(fromPort(i), "10.0.0.8:6379", 1+i)) // a great pool
	}
	busy := func(id int) row { return alive(fromPort(20_000+id), "10.0.0.9:6379", 10_000+id) }
	rows = append(rows, busy(1), gone(fromPort(25_000), "10.0.0.9:6379", 90_000))
	flow := func(n *snapshot.Namespace, remote string) *snapshot.Flow {
		for i := range n.Flows {
			if n.Flows[i].Remote == remote {
				return &n.Flows[i]
			}
		}
		t.Fatalf("no flow to %s", remote)
		return nil
	}
	for pass := range 3 {
		n := o.pass(t, time.Second, rows, byInode)
		if f := flow(n, "10.0.0.8"); f.Attributed != nil || f.LongLived != nil || len(o.shares["10.0.0.8"]) != 0 {
			t.Errorf("pass %d, the pool: attributed %v, long-lived %v", pass, f.Attributed, f.LongLived)
		}
		f := flow(n, "10.0.0.9")
		if *f.Attributed != 0.5 || (f.LongLived != nil) != (pass > 0) || pass > 0 && *f.LongLived != 1 {
			t.Errorf("pass %d, the busy one: attributed %v, long-lived %v", pass, *f.Attributed, f.LongLived)
		}
	}
	// Now it matters: nobody remembers whether its connections were there.
	rows = append(rows, gone(fromPort(26_000), "10.0.0.8:6379", 91_000))
	n := o.pass(t, time.Second, rows, byInode)
	if f := flow(n, "10.0.0.8"); f.LongLived != nil || *f.Attributed < 0.99 {
		t.Errorf("when it matters: attributed %v, long-lived %v", *f.Attributed, f.LongLived)
	}
	n = o.pass(t, time.Second, rows, byInode)
	if f := flow(n, "10.0.0.8"); f.LongLived == nil || *f.LongLived != fewLive {
		t.Errorf("and then: long-lived %v", f.LongLived)
	}
}

func TestWhatMatters(t *testing.T) {
	const r = 1000
	states := func(s inetdiag.State, n uint32) (e entry) { e.states[s] = n; return e }
	for name, tt := range map[string]struct {
		e    entry
		want bool
	}{
		"a pool":           {states(inetdiag.Established, 100), false},
		"TIME_WAIT":        {entry{timeWait: 1}, true},
		"CLOSE_WAIT":       {states(inetdiag.CloseWait, 1), true},
		"some FIN_WAIT2":   {states(inetdiag.FinWait2, manyHalfClosed-1), false},
		"many FIN_WAIT2":   {states(inetdiag.FinWait2, manyHalfClosed), true},
		"many LAST_ACK":    {states(inetdiag.LastAck, manyHalfClosed), true},
		"many SYN_SENT":    {states(inetdiag.SynSent, manyHalfClosed), true},
		"nearly a quarter": {entry{used: [2]uint32{200, 49}}, false},
		"a quarter":        {entry{used: [2]uint32{200, 50}}, true},
	} {
		if got := tt.e.matters(r); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whatever there is of live sockets and of processes, what is kept is bounded,
// and what isn't kept counts as nobody's.
func TestOwnersAreBounded(t *testing.T) {
	var h heldTable
	for i := range 3 * maxHeld {
		if s := h.at(uint16(i%maxFlows), uint16(1+i/maxFlows)); s != nil {
			s.Live++
		}
	}
	if len(h.all) != maxHeld || len(h.index) != 2*maxHeld {
		t.Fatalf("%d pairs in %d slots", len(h.all), len(h.index))
	}
	if s := h.at(5, 1); s == nil || s.Live != 1 {
		t.Errorf("a known pair of a full table: %+v", s)
	}
	if s := h.at(5, 99); s != nil {
		t.Errorf("a new pair of a full table: %+v", s)
	}
	if got := fmt.Sprint(h.of(nil, 5)); got != fmt.Sprint([]Share{{2, 1, 0}, {1, 1, 0}}) {
		t.Errorf("shares of a flow: %s", got)
	}
	h.reset()
	if got := h.of(nil, 5); len(got) != 0 {
		t.Errorf("shares after a reset: %v", got)
	}

	o := newOwned()
	var rows []row
	listen := row{state: inetdiag.Listen, src: "10.0.0.5:80", dst: "0.0.0.0:0", inode: 1 << 30}
	rows = append(rows, listen)
	for remote := range 5 {
		for i := range maxLiveFlow + 10 {
			rows = append(rows, alive("10.0.0.5:80", fmt.Sprintf("10.0.0.%d:%d", 10+remote, 1024+i), 1+remote*20_000+i))
		}
		rows = append(rows, gone("10.0.0.5:80", fmt.Sprintf("10.0.0.%d:%d", 10+remote, 1000), 200_000+remote))
	}
	for pass := range 2 {
		n := o.pass(t, time.Second, rows, byInode)
		if len(o.held.live) != maxLive || cap(o.held.live) > 2*maxLive {
			t.Fatalf("%d live sockets are kept", len(o.held.live))
		}
		for _, f := range n.Flows {
			var known uint32
			for _, s := range o.shares[f.Remote] {
				known += s.Live
			}
			want := uint32(maxLiveFlow)
			if f.Remote == "10.0.0.14" {
				want = 0 // the last: nothing was left for it
			}
			if known != want || *f.Attributed != float64(known)/float64(f.States.Total()) || f.LongLived != nil {
				t.Errorf("pass %d, %s: %d known, attributed %v, long-lived %v", pass, f.Remote, known, *f.Attributed, f.LongLived)
			}
		}
	}
}

// The hot path with a memory of connections allocates nothing, however many
// TIME_WAIT sockets are theirs.
func TestRememberedTimeWaitsAllocateNothing(t *testing.T) {
	allocs := func(sockets int) float64 {
		o := newOwned()
		var live, closed []row
		for i := range sockets {
			to := fmt.Sprintf("10.0.0.%d:6379", 1+i%5)
			live, closed = append(live, alive(fromPort(i), to, i+1)), append(closed, gone(fromPort(i), to, i+1))
		}
		for i := range 5 { // so that the flows matter
			live = append(live, gone(fromPort(25_000), fmt.Sprintf("10.0.0.%d:6379", 1+i), 1<<20+i))
		}
		o.cfg.Owned = nil
		data := [2][]byte{tape(now, live), tape(now, closed)}
		look := func(which int) {
			o.Begin(o.cfg)
			play(t, data[which], o.Add)
			for _, l := range o.Follow() {
				o.Attribute(&l, byInode(l.Inode))
			}
			o.SetSearched()
			o.Fill(&snapshot.Namespace{})
		}
		look(0)
		look(1)
		if got := o.held.all; len(got) != 10 {
			t.Fatalf("%d pairs of flow and process, want 10", len(got))
		}
		return testing.AllocsPerRun(5, func() { look(1) })
	}
	if few, many := allocs(10), allocs(20_000); many > few {
		t.Errorf("%v allocations with 20,000 sockets, %v with 10", many, few)
	}
}

// A glance makes connections known that no pass sees, and takes nothing from
// what the last pass found.
func TestGlance(t *testing.T) {
	o := newOwned()
	const to = "10.0.0.9:6379"
	glance := func(later time.Duration, rows ...row) {
		o.cfg.Start += int64(later)
		o.Glance(o.cfg.Start, o.cfg.Memory)
		play(t, tape(o.cfg.Start, rows), o.AddGlance)
		live := o.Glanced(true)
		for i := range live {
			o.See(&live[i], byInode(live[i].Inode))
		}
	}
	listen := row{state: inetdiag.Listen, src: "0.0.0.0:80", dst: "0.0.0.0:0", inode: 99}
	glance(0, listen, alive(fromPort(1), to, 1), alive(fromPort(2), to, 2), row{state: inetdiag.SynSent, src: fromPort(3), dst: to, cookie: 3})
	if got := o.cfg.Memory.Connections(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
	n := o.pass(t, time.Second, []row{alive(fromPort(1), to, 1), gone(fromPort(2), to, 2)}, byInode)
	f := n.Flows[0]
	if got := fmt.Sprint(o.shares["10.0.0.9"]); got != fmt.Sprint([]Share{{1, 0, 1}, {2, 1, 0}}) || *f.LongLived != 1 || *f.Attributed != 1 {
		t.Errorf("%s, long-lived %v, attributed %v", got, f.LongLived, *f.Attributed)
	}
	glance(time.Second, alive(fromPort(4), "10.0.0.7:5432", 4))
	n = o.pass(t, time.Second, []row{gone(fromPort(1), to, 1), gone(fromPort(4), "10.0.0.7:5432", 4)}, byInode)
	for _, f := range n.Flows {
		if *f.Attributed != 1 {
			t.Errorf("%s: attributed %v", f.Remote, *f.Attributed)
		}
	}
}

func TestPortsBound(t *testing.T) {
	var rows []row
	for i := range 30 { // bind(addr, 0) takes the odd ports, connect() the even ones
		rows = append(rows, established(fmt.Sprintf("10.0.0.5:%d", 40001+2*i), "10.0.0.9:6379"), established(fmt.Sprintf("10.0.0.5:%d", 50000+2*i), "10.0.0.9:6379"))
	}
	byChoice := []row{established("10.0.0.5:50000", "10.0.0.9:6379"), established("10.0.0.5:40001", "10.0.0.9:6379")}
	for _, tt := range []struct {
		name        string
		opened      uint64
		visible     []row
		bound, free int
	}{
		{"parity alone", 60, nil, 30, 28232 - 60},
		{"parity and what the kernel shows", 60, byChoice, 31, 28232 - 60},
		{"what the kernel shows alone", 1e6, byChoice, 2, 28232 - 60},
	} {
		table, cfg := NewTable(), config()
		cfg.Opened = &tt.opened
		table.Begin(cfg)
		play(t, tape(cfg.Start, rows), table.Add)
		play(t, tape(cfg.Start, tt.visible), table.Bound)
		n := &snapshot.Namespace{}
		table.Fill(n)
		if p := n.Flows[0].Ports; p.Bound != tt.bound || p.Free != tt.free {
			t.Errorf("%s: %+v, want %d bound", tt.name, p, tt.bound)
		}
	}
}
