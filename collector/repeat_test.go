package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/netns"
)

// closedAt is a timeline with so many closes in the second that ended so many
// seconds ago.
func closedAt(at map[int]uint32) []uint32 {
	line := make([]uint32, 60)
	for ago, n := range at {
		line[59-ago] = n
	}
	return line
}

func TestRepeatedAges(t *testing.T) {
	line := closedAt(map[int]uint32{5: 30, 50: 10})
	found := &snapshot.Namespace{
		Name: "old name", CoveredSeconds: 15, SampledAt: time.Unix(1000, 0),
		States:   snapshot.States{TimeWait: 42, Established: 3, CloseWait: 1},
		TimeWait: snapshot.TimeWait{BucketsUsed: 43, OpenedPerSecond: line, CloseRate: new(40.0 / 60), CloseRateBy: "timers", Births: 7},
		Flows: []snapshot.Flow{{
			Side: snapshot.Client, States: snapshot.States{TimeWait: 40, Established: 3, CloseWait: 1}, OpenedPerSecond: line,
			CloseRate: new(40.0 / 60), Births: 7, Ports: &snapshot.Ports{Range: 100, Used: 44, Reusable: 4, Free: 60, SecondsToExhaustion: new(9)},
			CloseWait: snapshot.CloseWaitCount{Sockets: 1, OldestSeconds: new(100.0)},
		}},
		Omitted:    snapshot.Omitted{States: snapshot.States{TimeWait: 2}},
		CloseWaits: []snapshot.CloseWait{{AgeSeconds: new(100.0), AgeAtMostSeconds: nil}},
	}
	before := found.Cut(snapshot.Bounds{Flows: 1, CloseWaits: 1})
	n := *found
	n.Flows = append([]snapshot.Flow(nil), found.Flows...)
	age(&n, 20*time.Second, 31) // the ten of 50 s ago have expired, and the kernel counts 31

	f := n.Flows[0]
	got := map[string]any{
		"flow": f.States.TimeWait, "rate": *f.CloseRate, "used": f.Ports.Used, "free": f.Ports.Free, "reusable": f.Ports.Reusable,
		"namespace": n.States.TimeWait, "omitted": n.Omitted.States.TimeWait, "buckets": n.TimeWait.BucketsUsed, "since": *n.CloseWaits[0].AgeSeconds,
		"oldest": *f.CloseWait.OldestSeconds, "live": n.States.Established,
	}
	want := map[string]any{
		"flow": uint32(30), "rate": 0.5, "used": 34, "free": 66, "reusable": 0,
		"namespace": uint32(31), "omitted": uint32(1), "buckets": 31, "since": 120.0, "oldest": 120.0, "live": uint32(3),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("20 s later (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(closedAt(map[int]uint32{25: 30}), n.TimeWait.OpenedPerSecond); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	if f.Ports.SecondsToExhaustion != nil || n.CloseWaits[0].AgeAtMostSeconds != nil {
		t.Error("a still namespace runs out, or what was unknown is known")
	}
	if diff := cmp.Diff(before, found); diff != "" {
		t.Errorf("what was published is changed (-before +now):\n%s", diff)
	}
}

// Whatever the kernel counts, and however long ago it was: sums close and
// nothing is below 0.
func TestRepeatedSumsClose(t *testing.T) {
	for _, passed := range []time.Duration{0, time.Millisecond, time.Second, 59 * time.Second, time.Hour} {
		for _, mini := range []int{0, 1, 39, 45, 1000} {
			line := closedAt(map[int]uint32{0: 1, 1: 19, 30: 10, 59: 10})
			o := &other{Namespace: &netns.Namespace{}, found: &snapshot.Namespace{
				States:   snapshot.States{TimeWait: 45},
				TimeWait: snapshot.TimeWait{BucketsUsed: 45, OpenedPerSecond: line},
				Flows:    []snapshot.Flow{{States: snapshot.States{TimeWait: 40}, OpenedPerSecond: line, Births: 3, Ports: &snapshot.Ports{Range: 50, Used: 40, Free: 10}}},
				Omitted:  snapshot.Omitted{States: snapshot.States{TimeWait: 5}, Births: 2},
			}}
			n := *o.found
			n.Flows = append([]snapshot.Flow(nil), n.Flows...)
			age(&n, passed, mini)
			f := n.Flows[0]
			if n.States.TimeWait != f.States.TimeWait+n.Omitted.States.TimeWait || n.States.TimeWait > 45 || f.Ports.Used < 0 || f.Ports.Free > 50 {
				t.Errorf("%v later, %d by the kernel's count: %d in all, %d of the flow, %d omitted; %d ports used, %d free",
					passed, mini, n.States.TimeWait, f.States.TimeWait, n.Omitted.States.TimeWait, f.Ports.Used, f.Ports.Free)
			}
		}
	}
}

func TestSelection(t *testing.T) {
	pod := &named{name: "default/web-1", kind: "pod", workload: &snapshot.Workload{Labels: map[string]string{"app": "web", "tier": "front"}}}
	blue := &named{name: "net:[4026532249]", kind: "process"}
	for _, c := range []struct {
		s         Selection
		pod, blue bool
	}{
		{Selection{All: true}, true, true},
		{Selection{Names: []string{"default/*"}}, true, false},
		{Selection{Names: []string{"*"}}, false, true}, // crosses no slash
		{Selection{Names: []string{"net:[4026532249]"}}, false, true},
		{Selection{All: true, Include: []string{"kind:pod"}}, true, false},
		{Selection{All: true, Include: []string{"app=w*"}}, true, false},
		{Selection{All: true, Exclude: []string{"tier=front"}}, false, true},
		{Selection{All: true, Include: []string{"kind:pod"}, Exclude: []string{"default/web-?"}}, false, false},
		{Selection{}, false, false},
	} {
		if err := c.s.Check(); err != nil {
			t.Errorf("%+v: %v", c.s, err)
		}
		if pod, blue := c.s.wants(pod), c.s.wants(blue); pod != c.pod || blue != c.blue {
			t.Errorf("%+v: the pod %v, the process %v; want %v, %v", c.s, pod, blue, c.pod, c.blue)
		}
	}
	for _, bad := range []string{"", "a[", `\`} {
		if (&Selection{Exclude: []string{bad}}).Check() == nil {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
}

func TestMovedSince(t *testing.T) {
	before := netns.Pulse{InSegs: 10, OutSegs: 20, InUse: 5, TimeWait: 100}
	for name, c := range map[string]struct {
		change func(*netns.Pulse)
		found  snapshot.States
		want   bool
	}{
		"still":                       {func(*netns.Pulse) {}, snapshot.States{Established: 4, CloseWait: 1, FinWait2: 3, TimeWait: 97}, false},
		"TIME_WAIT expire":            {func(p *netns.Pulse) { p.TimeWait -= 50 }, snapshot.States{TimeWait: 100}, false},
		"a segment came":              {func(p *netns.Pulse) { p.InSegs++ }, snapshot.States{}, true},
		"a segment went":              {func(p *netns.Pulse) { p.OutSegs++ }, snapshot.States{}, true},
		"a socket more":               {func(p *netns.Pulse) { p.InUse++ }, snapshot.States{}, true},
		"TIME_WAIT come":              {func(p *netns.Pulse) { p.TimeWait++ }, snapshot.States{}, true},
		"some FIN_WAIT2 may be gone":  {func(p *netns.Pulse) { p.TimeWait-- }, snapshot.States{FinWait2: 1, TimeWait: 99}, true},
		"a handshake may have ended":  {func(*netns.Pulse) {}, snapshot.States{SynRecv: 1}, true},
		"a connect may have failed":   {func(*netns.Pulse) {}, snapshot.States{SynSent: 1}, true},
		"an orphan may be given up":   {func(*netns.Pulse) {}, snapshot.States{FinWait1: 1}, true},
		"another may be given up":     {func(*netns.Pulse) {}, snapshot.States{LastAck: 1}, true},
		"a third one may be given up": {func(*netns.Pulse) {}, snapshot.States{Closing: 1}, true},
	} {
		now := before
		c.change(&now)
		if got := movedSince(&before, &now, &c.found); got != c.want {
			t.Errorf("%s: moved %v, want %v", name, got, c.want)
		}
	}
}

// Whatever the interval, a TIME_WAIT of a namespace that moves is seen before its
// 60 s are over.
func TestEachTimeWaitIsSeen(t *testing.T) {
	for interval := time.Second; interval <= MaxInterval; interval += time.Second {
		o := &other{Namespace: &netns.Namespace{}, found: &snapshot.Namespace{}, moved: true}
		var longest time.Duration
		for now := time.Duration(0); now < time.Hour; now += interval {
			if o.urgency(int64(now+interval)) == pressing {
				longest = max(longest, now-time.Duration(o.dumpAt))
				o.dumpAt = int64(now)
			}
		}
		if longest > seenWithin || interval < 10*time.Second && longest < 40*time.Second {
			t.Errorf("every %v: %v between two dumps", interval, longest)
		}
	}
}

// Of namespaces that nothing moves in no more is kept than there is room for,
// however few they were when they were read.
func TestRoomIsShared(t *testing.T) {
	s := &sweep{}
	for i := range 800 {
		s.order = append(s.order, &other{
			Namespace: &netns.Namespace{Serial: uint64(i)}, moved: true,
			found: &snapshot.Namespace{Flows: make([]snapshot.Flow, 100), CloseWaits: make([]snapshot.CloseWait, 100)},
		})
	}
	r := &snapshot.Report{}
	s.show(r)
	flows, waits := 0, 0
	for i, n := range r.Namespaces {
		flows, waits = flows+len(n.Flows), waits+len(n.CloseWaits)
		if kept := s.order[i].found; len(kept.Flows) > len(n.Flows) || len(n.Flows)+n.Omitted.Flows != 100 {
			t.Fatalf("%d flows are kept, %d shown, %d omitted", len(kept.Flows), len(n.Flows), n.Omitted.Flows)
		}
	}
	if flows > roomFlows || waits > roomCloseWaits {
		t.Errorf("%d flows and %d CLOSE_WAIT rows", flows, waits)
	}
}

func TestOnce(t *testing.T) {
	gap := func(ns, err, lost string) snapshot.Gap {
		return snapshot.Gap{Stage: "owner", Namespace: ns, Error: err, Lost: lost}
	}
	got := once([]snapshot.Gap{gap("a", "3 left", "x"), gap("b", "4 left", "x"), gap("c", "4 left", "x"), gap("c", "denied", "y")})
	want := []snapshot.Gap{gap("", "3 left", "x"), gap("c", "denied", "y")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
