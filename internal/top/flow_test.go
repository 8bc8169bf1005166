package top

import (
	"slices"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

func TestPeer(t *testing.T) {
	for want, f := range map[string]snapshot.Flow{
		"→ 10.0.0.9:6379 redis":              {Side: snapshot.Client, Remote: "10.0.0.9", Port: 6379, Service: "redis"},
		"→ [2001:db8::1]:443 %eth0":          {Side: snapshot.Client, Remote: "2001:db8::1", Port: 443, Device: "eth0"},
		"→ others in 10.9.0.0/24 port 443":   {Side: snapshot.Client, Remote: "10.9.0.0/24", Port: 443},
		"→ the rest":                         {Side: snapshot.Client},
		"← 10.0.0.9 to :80 http":             {Side: snapshot.Server, Remote: "10.0.0.9", Port: 80, Service: "http"},
		"← others in 2001:db8::/64 to :8443": {Side: snapshot.Server, Remote: "2001:db8::/64", Port: 8443},
		"↔ 10.0.0.9:5000":                    {Side: snapshot.Unknown, Remote: "10.0.0.9", Port: 5000},
	} {
		if got := peer(&f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A query for a flow's sockets knows no local address and no side: what it
// finds beyond the flow is left out.
func TestSocketsOfAFlow(t *testing.T) {
	client := snapshot.Flow{Side: snapshot.Client, Local: "10.0.0.1", Remote: "10.0.0.9", Port: 6379}
	server := snapshot.Flow{Side: snapshot.Server, Local: "10.0.0.1", Remote: "10.0.0.9", Port: 6379}
	folded := snapshot.Flow{Side: snapshot.Client, Remote: "10.0.0.0/24", Port: 6379}
	linkLocal := snapshot.Flow{Side: snapshot.Client, Device: "eth0", Local: "fe80::1", Remote: "fe80::9", Port: 6379}
	for _, tt := range []struct {
		flow           *snapshot.Flow
		local, remote  string
		device         string
		live, timeWait bool // belongs
	}{
		{&client, "10.0.0.1:40000", "10.0.0.9:6379", "", true, true},
		{&client, "[::ffff:10.0.0.1]:40000", "[::ffff:10.0.0.9]:6379", "", true, true},
		{&client, "10.0.0.1:6379", "10.0.0.9:40000", "", false, false},
		{&client, "10.0.0.2:40000", "10.0.0.9:6379", "", false, false},
		{&client, "10.0.0.1:40000", "10.0.0.8:6379", "", false, false},
		{&client, "nonsense", "10.0.0.9:6379", "", false, false},
		{&server, "10.0.0.1:6379", "10.0.0.9:40000", "", true, true},
		{&server, "10.0.0.1:40000", "10.0.0.9:6379", "", false, false},
		{&folded, "10.7.7.7:40000", "10.0.0.200:6379", "", true, true},
		{&folded, "10.7.7.7:40000", "10.0.1.200:6379", "", false, false},
		{&linkLocal, "[fe80::1%eth0]:40000", "[fe80::9%eth0]:6379", "eth0", true, true},
		{&linkLocal, "[fe80::1%eth1]:40000", "[fe80::9%eth1]:6379", "eth1", false, false},
	} {
		s := snapshot.Socket{State: "established", Local: tt.local, Remote: tt.remote, Device: tt.device}
		if got := belongs(tt.flow, &s); got != tt.live {
			t.Errorf("%s → %s belongs to %s: %v", tt.local, tt.remote, peer(tt.flow), got)
		}
		live, timeWait, ok := queries(tt.flow)
		w := s
		w.State = "time_wait"
		if !ok || tt.live && (!live.Match(&s) || live.Match(&w) || !timeWait.Match(&w) || timeWait.Match(&s)) {
			t.Errorf("the queries of %s don't find %s → %s in its state: %v", peer(tt.flow), tt.local, tt.remote, ok)
		}
		for _, q := range []snapshot.SocketQuery{live, timeWait} {
			if err := q.Check(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, f := range []snapshot.Flow{{}, {Remote: "10.0.0.9"}, {Port: 80}, {Remote: "x", Port: 80}, {Remote: "x/1", Port: 80}} {
		if _, _, ok := queries(&f); ok {
			t.Errorf("%+v has something to ask for", f)
		}
	}
}

// Lists are cut at a page's length, and say so.
func TestTuplesAreBounded(t *testing.T) {
	f := snapshot.Flow{Side: snapshot.Client, Local: "10.0.0.1", Remote: "10.0.0.9", Port: 6379}
	sockets := make([]snapshot.Socket, 300)
	for i := range sockets {
		sockets[i] = snapshot.Socket{State: []string{"time_wait", "established"}[i%2], Local: "10.0.0.1:40000", Remote: "10.0.0.9:6379"}
	}
	var list tupleList
	list.take(&f, &snapshot.SocketList{Sockets: sockets})
	if len(list.live) != shownLive || len(list.timeWait) != shownTimeWait || !list.more {
		t.Errorf("%d live, %d in TIME_WAIT, more %v", len(list.live), len(list.timeWait), list.more)
	}
}

// Whatever doesn't fit is left out by rank, what matters most stays, and the
// last column ends within the line.
func TestColumnsFit(t *testing.T) {
	titles := func(width int) (names []string) {
		sum := len(marker)
		for _, c := range flowColumns(draw.Style{}, width, true) {
			names, sum = append(names, strings.TrimSpace(c.title)), sum+c.width
		}
		if width > 60 && sum > width {
			t.Errorf("%d columns in %d: %q", sum, width, names)
		}
		return names
	}
	for width, want := range map[int][]string{
		40:  {"FLOW", "FREE", "TIME_WAIT"},
		80:  {"FLOW", "FREE", "CLOSES/S", "TIME_WAIT", "CLOSE_W", "LIFE", "PROCESS"},
		100: {"FLOW", "PORTS FREE", "CLOSES/S", "TIME_WAIT", "CLOSE_W", "LIFE", "PROCESS"},
		120: {"FLOW", "PORTS FREE", "PORTS USED", "CLOSES/S", "TIME_WAIT", "CLOSE_W", "LIFE", "PROCESS"},
		240: {"FLOW", "PORTS FREE", "PORTS USED", "CLOSES/S", "TIME_WAIT", "CLOSE_W", "ESTAB", "LIFE", "PROCESS", "LAST MINUTE", "LOCAL", "NAMESPACE"},
	} {
		if got := titles(width); !slices.Equal(got, want) {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
	for width := range 300 {
		titles(width)
	}
}
