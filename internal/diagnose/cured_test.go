package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
)

// A second of a client's load: what it closes, what the other end closes, and
// what of its connections stays open.
type second struct{ closes, far, kept, open uint32 }

// drama judges a load as a daemon does: one pass after the other, each with what
// was found before, in a window of at most forty. It tells what was found at
// each, by the second, where that changed.
func drama(t *testing.T, interval int, load []second) (story []string, last Result) {
	t.Helper()
	var window []*snapshot.Report
	var previous []snapshot.Finding
	before := "\x00"
	for at := interval; at <= len(load); at += interval {
		now := load[at-1]
		f := closing("10.0.0.9", 6379, 0, 0)
		f = by(f, "api", "go", 1)
		var tw, opened uint64
		var recent, minute uint32
		for i := range at {
			tw += uint64(load[i].closes)
			opened += uint64(load[i].closes + load[i].far)
			if ago := at - 1 - i; ago < 60 {
				f.OpenedPerSecond[59-ago] = load[i].closes
				minute += load[i].closes
				if ago < 10 {
					recent += load[i].closes
				}
			}
		}
		f.States.TimeWait, f.States.Established, f.LongLived = minute, now.open, new(now.kept)
		f.Ports.Used, f.Ports.Free = int(minute), 28232-int(minute)
		f.CloseRate, f.CloseRateSeconds = new(float64(recent)/10), 10
		if recent < 10 {
			f.CloseRate, f.CloseRateSeconds = new(float64(minute)/60), 60
		}
		if minute == 0 {
			f.OpenedPerSecond = nil
		}
		r := host(float64(at), all(flows(f), counts(counters.Set{"TW": tw, "ActiveOpens": opened, "CurrEstab": uint64(now.open)})))
		r.IntervalSeconds = float64(interval)
		if window = append(window, r); len(window) > 40 {
			window = window[1:]
		}
		last = Judge(window, previous, Settings{})
		r.Findings, previous = last.Findings, last.Findings
		var ids []string
		for _, f := range last.Findings {
			ids = append(ids, f.ID)
		}
		if now := strings.Join(ids, " "); now != before {
			story = append(story, strings.TrimSpace(fmt.Sprintf("%d: %s", at, now)))
			before = now
		}
	}
	return story, last
}

func acts(parts ...[]second) []second { return slices.Concat(parts...) }

func lasting(seconds int, s second) []second { return slices.Repeat([]second{s}, seconds) }

func TestCured(t *testing.T) {
	short := second{closes: 40, open: 1}
	pooled := second{kept: 8, open: 8}
	for _, tt := range []struct {
		name     string
		interval int
		load     []second
		want     []string
	}{
		{
			"as it should be, and told for ten minutes", 15, acts(lasting(60, short), lasting(720, pooled)),
			[]string{"15: " + ShortClient, "75: " + ShortCured, "690:"},
		},
		{
			"looked at often: the rate falls in steps", 2, acts(lasting(60, short), lasting(30, pooled)),
			[]string{"2:", "6: " + ShortClient, "68:", "70: " + ShortCured},
		},
		{"it merely went quiet", 15, acts(lasting(60, short), lasting(60, second{})), []string{"15: " + ShortClient, "75:"}},
		{
			"a pool that has less to do", 15, acts(lasting(60, second{closes: 40, open: 4, kept: 2}), lasting(60, second{open: 2, kept: 2})),
			[]string{"15: " + ShortClient, "75:"},
		},
		{
			"a pool that was made larger", 15, acts(lasting(60, second{closes: 40, open: 4, kept: 2}), lasting(60, second{open: 20, kept: 20})),
			[]string{"15: " + ShortClient, "75: " + ShortCured},
		},
		{
			"the rate comes back", 15, acts(lasting(60, short), lasting(60, pooled), lasting(60, short)),
			[]string{"15: " + ShortClient, "75: " + ShortCured, "135: " + ShortClient},
		},
		{
			"then it vanishes", 15, acts(lasting(60, short), lasting(60, pooled), lasting(60, second{})),
			[]string{"15: " + ShortClient, "75: " + ShortCured, "135:"},
		},
		{"half cured", 15, acts(lasting(60, short), lasting(60, second{closes: 6, kept: 4, open: 4})), []string{"15: " + ShortClient, "75:"}},
		{
			"the other end closed first", 15, acts(lasting(90, second{far: 40, open: 1}), lasting(60, pooled)),
			[]string{"15:", "45: " + ShortRemoteCloses, "105: " + ShortCured},
		},
		{
			"both closed", 15, acts(lasting(60, second{closes: 20, far: 80, open: 1}), lasting(60, pooled)),
			[]string{"15: " + ShortClient, "75: " + ShortCured},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := drama(t, tt.interval, tt.load)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCuredText(t *testing.T) {
	short := second{closes: 40, open: 1}
	_, last := drama(t, 15, acts(lasting(60, short), lasting(60, second{kept: 8, open: 8})))
	golden(t, "short-connections-cured", fullText(last.Findings))
}

// A server that keeps its connections now.
func TestCuredServer(t *testing.T) {
	serve := func(each uint32, kept uint32) func(*snapshot.Namespace) {
		return all(flows(open(service(mirror(closing("10.0.0.5", 80, 0, 0), 60, each), "http", "port"), kept, new(kept))), listener("0.0.0.0:80", "app"))
	}
	window := looks(2, nil, serve(80, 0))
	before := Judge(window, nil, Settings{}).Findings
	after := looks(3, nil, serve(0, 12))[2]
	got := Judge(append(window, after), before, Settings{}).Findings
	if len(got) != 1 || got[0].ID != ShortCured || got[0].Subject.Port != 80 {
		t.Fatalf("%s", fullText(got))
	}
	want := "Connections to app on port 80 were short and now last: new ones fell from 80/s to 0/s, and 12 stay open."
	if got[0].Summary != want {
		t.Errorf("got  %s\nwant %s", got[0].Summary, want)
	}
}

// Both ends are here, and were found: what cured the client is not told of the
// server as well.
func TestCuredAtBothEnds(t *testing.T) {
	client := by(open(closing("10.0.0.5", 8080, 0, 0), 1, new(uint32(0))), "nginx", "nginx", 1)
	window := looks(2, nil, flows(client, mirror(client, 60, 80)))
	before := Judge(window, nil, Settings{}).Findings
	pooled := open(client, 4, new(uint32(4)))
	after := looks(3, nil, flows(pooled, open(mirror(client, 0, 0), 4, new(uint32(4)))))[2]
	got := Judge(append(window, after), before, Settings{}).Findings
	if !strings.HasPrefix(brief(before), "info short-connections-client, info short-connections-server <- short-connections-client") ||
		brief(got) != "info short-connections-cured, info short-connections-cured <- short-connections-cured" || got[0].Subject.Side != snapshot.Client {
		t.Errorf("%s, then\n%s", brief(before), fullText(got))
	}
}

// What hovers about a threshold doesn't flap, and what falls clear of it goes.
func TestShortConnectionsHold(t *testing.T) {
	got, _ := drama(t, 15, acts(
		lasting(45, second{closes: 9, open: 1}), lasting(30, second{closes: 10, open: 1}), lasting(30, second{closes: 9, open: 1}),
		lasting(30, second{closes: 11, open: 1}), lasting(30, second{closes: 8, open: 1}), lasting(30, second{closes: 9, open: 1})))
	want := []string{"15:", "60: " + ShortClient, "150:"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A connection of about a second.
	got, _ = drama(t, 15, acts(lasting(30, second{closes: 20, open: 19}), lasting(30, second{closes: 20, open: 21}), lasting(30, second{closes: 20, open: 24})))
	if diff := cmp.Diff([]string{"15: " + ShortClient, "75:"}, got); diff != "" {
		t.Errorf("lifetime (-want +got):\n%s", diff)
	}
}

// A range that runs dry: the cause is there first, and stays while its TIME_WAIT
// hold the ports, though nothing can be opened any more.
func TestRangeRunsDry(t *testing.T) {
	var story []string
	var previous []snapshot.Finding
	var window []*snapshot.Report
	before := ""
	for at := 1; at <= 60; at++ {
		f := by(closing("127.0.0.1", 6379, min(at, 25), 40), "storm", "go", 1)
		copy(f.OpenedPerSecond, f.OpenedPerSecond[max(0, at-25):])
		if at > 25 {
			clear(f.OpenedPerSecond[60-(at-25):])
		}
		used := 40 * min(at, 25)
		f.Ports = &snapshot.Ports{Range: 1000, Used: used, Free: 1000 - used}
		if at > 2 && used < 1000 {
			f.Ports.SecondsToExhaustion = new(25 - at)
		}
		recent := timelineSum(&f, 10, 0)
		f.CloseRate, f.CloseRateSeconds = new(recent/10), 10
		if recent == 0 {
			f.CloseRate, f.CloseRateSeconds = new(timelineSum(&f, 60, 0)/60), 60
		}
		r := host(float64(at), flows(f))
		window = append(window, r)
		res := Judge(window[max(0, len(window)-40):], previous, Settings{})
		r.Findings, previous = res.Findings, res.Findings
		var ids []string
		for _, f := range res.Findings {
			if f.BecauseOf != "" {
				f.ID = "(" + f.ID + ")"
			}
			ids = append(ids, f.ID)
		}
		if now := strings.Join(ids, " "); now != before {
			story, before = append(story, fmt.Sprintf("%d: %s", at, now)), now
		}
	}
	want := []string{
		"5: short-connections-client", "13: short-connections-client (ephemeral-ports-slow)",
		"14: short-connections-client (ephemeral-ports-running-out)", "25: short-connections-client (ephemeral-ports-exhausted)",
	}
	if diff := cmp.Diff(want, story); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
