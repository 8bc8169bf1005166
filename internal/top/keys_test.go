package top

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

const (
	redis    = "→ 10.0.0.9:6379 redis"
	postgres = "→ 10.0.0.8:5432 postgresql"
	web      = "← 10.1.2.3 to :8080 http"
	api      = "→ 10.0.0.9:443 https"
	rest     = "↔ others in 10.9.0.0/16"
)

func live(t testing.TB) *rig { return newRig(t, Config{}, scene(0)) }

func TestViews(t *testing.T) {
	r := live(t)
	for _, step := range []struct {
		key   string
		want  screen
		shows string
	}{
		{"2", waitsScreen, "[2 CLOSE_WAIT 6]"},
		{"3", findingsScreen, "[3 Findings 3!]"},
		{"4", statesScreen, "[4 Handshakes]"},
		{"tab", flowsScreen, "[1 Flows 6]"},
		{"tab", waitsScreen, "KIND"},
		{"shift+tab", flowsScreen, "TIME_WAIT"},
		{"shift+tab", statesScreen, "SYN_RECV 3"},
		{"1", flowsScreen, redis},
	} {
		if r.keys(step.key).shows(step.shows); r.screen != step.want {
			t.Errorf("%s: screen %d, want %d", step.key, r.screen, step.want)
		}
	}
	if r.keys("q"); !r.quit {
		t.Error("q doesn't quit")
	}
}

// What is open is left with Esc, Backspace and q; nothing is left by accident.
func TestBackAndQuit(t *testing.T) {
	r := live(t)
	for _, key := range []string{"esc", "backspace", "q"} {
		for _, open := range []string{"1", "2", "3"} {
			if r.keys(open, "enter"); r.page.kind == noPage {
				t.Fatalf("%s, Enter opens nothing", open)
			}
			if r.keys(key); r.page.kind != noPage || r.quit {
				t.Errorf("%s: page %d, quit %v", key, r.page.kind, r.quit)
			}
		}
	}
	r.keys("1", "f6", "q", "esc")
	if r.quit || r.menu != nil {
		t.Error("q in a menu quits, or leaves it open")
	}
	for _, at := range [][]string{{}, {"enter"}, {"?"}, {"f6"}} {
		r := live(t)
		if r.keys(append(at, "ctrl+c")...); !r.quit {
			t.Errorf("^C after %q doesn't quit", at)
		}
	}
	if r := live(t).keys("f10"); !r.quit {
		t.Error("F10 doesn't quit")
	}
}

func TestHelp(t *testing.T) {
	for _, key := range []string{"?", "h", "f1"} {
		r := live(t).keys("enter", key).shows("Views", "q F10", "Esc back")
		if r.page.kind != helpPageKind {
			t.Errorf("%s opens page %d", key, r.page.kind)
		}
		if r.keys(key).shows(postgres, "this host connects"); r.page.kind != flowPageKind {
			t.Errorf("%s again: page %d, want the flow's", key, r.page.kind)
		}
	}
	r := live(t).keys("?").size(80, 200)
	for _, s := range sections() {
		for _, b := range s.bindings {
			if b.name != "" {
				r.shows("  " + b.name)
			}
		}
	}
	newRig(t, Config{}).keys("?").shows("Waiting for the first report from test", "Views").keys("q").hides("Views")
}

// A key means one thing, and each key's name in the help is one of its keys.
func TestBindings(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sections() {
		for _, b := range s.bindings {
			for _, key := range b.keys {
				if seen[key] {
					t.Errorf("%s is bound twice", key)
				}
				seen[key] = true
				if got := keyPress(key).String(); got != key {
					t.Errorf("the test presses %q for %q", got, key)
				}
			}
		}
	}
}

func TestMoving(t *testing.T) {
	r := live(t)
	for _, step := range []struct {
		keys string
		want int
	}{
		{"down", 1},
		{"j", 2},
		{"up", 1},
		{"k", 0},
		{"up", 0},
		{"end", 5},
		{"down", 5},
		{"home", 0},
		{"G", 5},
		{"g", 0},
		{"pgdown", 5},
		{"pgup", 0},
		{"ctrl+f", 5},
		{"ctrl+b", 0},
	} {
		if r.keys(step.keys); r.flows.cur != step.want {
			t.Errorf("%s: at %d, want %d", step.keys, r.flows.cur, step.want)
		}
	}
	r.size(80, 10).keys("end").shows(">← 10.1.2.3").keys("home", "pgdown")
	if r.flows.cur != r.layout().rows-1 {
		t.Errorf("a screen down of %d rows is at %d", r.layout().rows, r.flows.cur)
	}
	r.size(80, 14).keys("3", "enter", "end").shows("tells why, with sources").keys("home").shows("CRITICAL short-connections-client")
	r.keys("4", "end").shows("5 of 5 full at 0.0.0.0:8080, nginx").keys("home").shows("LISTEN")
}

func TestSorting(t *testing.T) {
	r := live(t).named(postgres, redis, redis, api, rest, web)
	for _, step := range []struct {
		keys []string
		want []string
	}{
		{[]string{">"}, []string{api, redis, postgres, redis, rest, web}}, // closes/s
		{[]string{">"}, []string{rest, redis, postgres, redis, api, web}}, // TIME_WAIT
		{[]string{"."}, []string{web, rest, redis, postgres, redis, api}}, // CLOSE_WAIT
		{[]string{"I"}, []string{redis, postgres, redis, api, rest, web}},
		{[]string{">"}, []string{redis, api, postgres, rest, redis, web}}, // lifetime: the unknown at the end
		{[]string{"I"}, []string{postgres, api, redis, rest, redis, web}}, // … either way
		{[]string{">"}, []string{postgres, api, web, redis, redis, rest}}, // process
		{[]string{">"}, []string{postgres, redis, redis, api, rest, web}}, // round
		{[]string{"<"}, []string{postgres, api, web, redis, redis, rest}},
		{[]string{","}, []string{redis, api, postgres, rest, redis, web}},
		{[]string{"C"}, []string{api, redis, postgres, redis, rest, web}},
		{[]string{"T"}, []string{rest, redis, postgres, redis, api, web}},
		{[]string{"W"}, []string{web, rest, redis, postgres, redis, api}},
		{[]string{"L"}, []string{redis, api, postgres, rest, redis, web}},
		{[]string{"N"}, []string{postgres, api, web, redis, redis, rest}},
		{[]string{"P"}, []string{postgres, redis, redis, api, rest, web}},
		{[]string{"f6", "down", "j", "enter"}, []string{rest, redis, postgres, redis, api, web}},
		{[]string{"s", "up", "esc"}, []string{rest, redis, postgres, redis, api, web}},
	} {
		r.keys(step.keys...)
		if got := r.names(); !slices.Equal(got, step.want) {
			t.Errorf("%q, by %v:\n%q, want\n%q", step.keys, r.flows.sort, got, step.want)
		}
	}
	r.shows("▼TIME_WAIT").keys("I").shows("▲TIME_WAIT")
}

// The cursor is on top until somebody moves it, and then stays with its row.
func TestCursorStaysWithItsRow(t *testing.T) {
	r := live(t)
	r.keys("T").shows(">↔ others in").keys("down", "P").shows(">" + redis)
	if r.flows.cur != 1 {
		t.Errorf("at %d", r.flows.cur)
	}
	next := scene(1)
	next.Namespaces[0].Flows[0].Ports = ports(1)
	r.send(reportsMsg{reports: []*snapshot.Report{next}})
	if r.shows(">" + redis); r.flows.cur != 0 {
		t.Errorf("at %d", r.flows.cur)
	}
	r.keys("2", "down").shows(">    ≥45s")
	next = scene(2)
	next.Namespaces[0].CloseWaits[1].AgeSeconds = new(900.0)
	r.send(reportsMsg{reports: []*snapshot.Report{next}})
	r.shows(">    ≥15m ")
	r.keys("3", "down", "down").shows(">WARNING")
	next = scene(3)
	next.Findings = append(next.Findings[2:], next.Findings[0])
	r.send(reportsMsg{reports: []*snapshot.Report{next}})
	r.shows(">WARNING        new  close-wait-leak", "\n CRITICAL")
}

func TestGrouping(t *testing.T) {
	r := live(t)
	r.keys("b").shows("grouped by remote").named("10.0.0.8 (1 flow)", "10.0.0.9 (3 flows)", "others in 10.9.0.0/16 (1 flow)", "10.1.2.3 (1 flow)")
	g := &r.flows.rows[1]
	if g.timeWait != 710 || *g.rate != 53 || g.ports.Free != 40 || g.seconds[59] != 53 || g.established != 4 || g.programsName() != "php-fpm +1" {
		t.Errorf("sums of a group: %d TIME_WAIT, %v/s, %d free, %d in the last second, %d established, %s",
			g.timeWait, *g.rate, g.ports.Free, g.seconds[59], g.established, g.programsName())
	}
	if mean := (12*0.004 + 40*0.5) / 52; math.Abs(*g.lifetime-mean) > 1e-9 {
		t.Errorf("lifetime %v, want %v", *g.lifetime, mean)
	}
	r.keys("b").named("postgresql (1 flow)", "redis (2 flows)", "https (1 flow)", "port 0 (1 flow)", "http (1 flow)")
	r.keys("b").named("java (2 flows)", "php-fpm (2 flows)", "unknown (1 flow)", "nginx (1 flow)")
	r.keys("f5").named("host (5 flows)", "pod-a (1 flow)")
	r.keys("b").shows("not grouped").named(postgres, redis, redis, api, rest, web)

	r.keys("b", "b", "down", "enter").shows("in redis").named(redis, redis)
	r.keys("enter").shows("from        10.0.0.1, namespace host")
	r.keys("esc").named(redis, redis).keys("esc").named("postgresql (1 flow)", "redis (2 flows)", "https (1 flow)", "port 0 (1 flow)", "http (1 flow)")
	r.keys("2", "b").shows("only flows are grouped")
	if r.flows.group != byService {
		t.Errorf("b in another view groups by %v", r.flows.group)
	}
}

func TestFilter(t *testing.T) {
	r := live(t)
	r.keys("/").typed("redis").named(redis, redis).shows("/redis  Enter keeps it, Esc leaves it")
	r.keys("enter").shows("/redis (2)")
	r.keys("/", "space").typed("!pod").named(redis).keys("esc").named(redis, redis)
	r.keys("/", "ctrl+w").typed("PHP-FPM host").named(redis).keys("backspace", "backspace", "backspace", "backspace", "backspace").named(redis, redis)
	r.keys("ctrl+u").typed("10.9.").named(rest).keys("enter", "esc").named(postgres, redis, redis, api, rest, web)
	r.keys("f4").typed("20").named(postgres, api) // a pid
	r.keys("ctrl+u").typed("nothing").shows("none of 6 flows matches /nothing").keys("enter", "b").shows("none of 6 flows")
	r.keys("2").shows("none of 5 sockets matches /nothing").keys("3").shows("none of 3 findings matches /nothing").keys("4").shows("LISTEN")
	r.keys("esc", "2", "/").typed("read()").shows("no read()").hides("no close()")
	r.keys("enter", "3", "/", "ctrl+u").typed("warning !leak").shows("ephemeral-ports-slow").hides("close-wait-leak", "CRITICAL  ")

	r.keys("ctrl+c")
	if r.typing || r.quit {
		t.Error("^C in the filter doesn't leave just it")
	}
	r.keys("/", "ctrl+u")
	r.send(tea.PasteMsg{Content: "a\nb\x1b[31m" + strings.Repeat("x", 100)})
	if r.filter != "a b\x1b[31m"+strings.Repeat("x", 56) {
		t.Errorf("pasted %q", r.filter)
	}
	r.keys("esc")
	r.send(tea.PasteMsg{Content: "q"})
	if r.quit || r.typing {
		t.Error("what is pasted into no filter does something")
	}
}

func TestCloseWaits(t *testing.T) {
	r := live(t).keys("2")
	kinds := func() (names []string) {
		for i := range r.waits.rows {
			names = append(names, r.waits.rows[i].kind.name)
		}
		return names
	}
	for _, step := range []struct {
		key  string
		want []string
	}{
		{"", []string{"no close()", "no read()", "no accept()", "half-closed", "idle pool?"}},
		{">", []string{"no read()", "no accept()", "idle pool?", "no close()", "half-closed"}},
		{">", []string{"half-closed", "idle pool?", "no accept()", "no close()", "no read()"}},
		{"I", []string{"no read()", "no close()", "no accept()", "idle pool?", "half-closed"}},
		{">", []string{"no accept()", "idle pool?", "no close()", "no read()", "half-closed"}},
		{">", []string{"idle pool?", "no close()", "no read()", "no accept()", "half-closed"}},
		{">", []string{"no close()", "no read()", "no accept()", "half-closed", "idle pool?"}},
	} {
		if step.key != "" {
			r.keys(step.key)
		}
		if got := kinds(); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.key, got, step.want)
		}
	}
	r.shows("1m30s no close()", "≥45s no read()", "? idle pool?", "nginx 30", "unknown")
	r.keys("enter").shows("10.0.0.1:8080 → 10.1.2.3:41000", "a leak", "1 min 30 s since", "/system.slice/nginx.service", "900 open of 1,024 allowed", "close-wait-leak")
	r.keys("esc", "down", "enter").shows("45 s to 1 min 10 s since", "9,000 bytes unread")
}

func TestFindings(t *testing.T) {
	r := live(t).keys("3").shows("CRITICAL", "   ephemeral-ports-slow", "php-fpm opens a new connection to redis", "Enter: Keep connections open")
	r.keys("c").shows("sent to the clipboard (OSC 52): php-redis-pconnect, 2 lines") // the first that has one
	const want = "$redis->pconnect('10.0.0.9', 6379);\n\t// once\n"
	if r.clip != want {
		t.Errorf("copied %q, want %q", r.clip, want)
	}
	r.keys("enter").shows("> What to do, 1 of 2: Keep connections open", "    Use a pool.", "    One for each worker.", "effect: 4 connections", "but: maxclients", "see: https://example.net/pool")
	r.clip = ""
	if r.keys("c").shows("this recommendation has no snippet"); r.clip != "" {
		t.Errorf("copied %q", r.clip)
	}
	r.keys("n").shows("> What to do, 2 of 2: pconnect", "\n$redis->pconnect('10.0.0.9', 6379);\n    // once\n").keys("y")
	if r.clip != want {
		t.Errorf("copied %q, want %q", r.clip, want)
	}
	r.keys("n").shows("> What to do, 2 of 2").keys("p", "p").shows("> What to do, 1 of 2")
	r.size(80, 40).shows("connections closed: 12/s (inet_diag)", "twwatch explain short-connections-client")
	r.keys("esc", "down", "enter").shows("Follows from short-connections-client").keys("c").shows("no snippet")
	r.keys("esc", "1", "c").shows("nothing to copy")
	// A flow's page tells its findings, and not others'.
	r.keys("down", "enter").shows("CRITICAL short-connections-client", "WARNING ephemeral-ports-slow").hides("close-wait-leak")
}

func TestSnippetHoldsNoControlCharacters(t *testing.T) {
	report := scene(0)
	report.Findings[0].Recommendations = []snapshot.Recommendation{{ID: "x", Snippet: "a\x1b]52;c;\x07\r\n\tb\u202e"}}
	r := newRig(t, Config{}, report).keys("3", "c")
	if want := `a\x1b]52;c;\x07\x0d` + "\n\t" + `b\u202e`; r.clip != want {
		t.Errorf("copied %q, want %q", r.clip, want)
	}
}

func TestDrillingDown(t *testing.T) {
	var asked []snapshot.SocketQuery
	fail := error(nil)
	socket := func(state, local, remote string) snapshot.Socket {
		return snapshot.Socket{State: state, Local: local, Remote: remote, AgeSeconds: new(12.0)}
	}
	cfg := Config{Sockets: func(_ context.Context, q snapshot.SocketQuery) (*snapshot.SocketList, error) {
		asked = append(asked, q)
		if len(q.States) > 1 {
			s := socket("established", "10.0.0.1:40000", "10.0.0.9:6379")
			s.AgeSeconds, s.RecvQ, s.PID, s.Comm = nil, 3, 10, "php-fpm"
			return &snapshot.SocketList{Sockets: []snapshot.Socket{s, socket("established", "10.0.0.2:40001", "10.0.0.9:6379")}}, fail
		}
		return &snapshot.SocketList{Sockets: []snapshot.Socket{socket("time_wait", "10.0.0.1:40002", "10.0.0.9:6379")}, Truncated: true, Lost: "half of it"}, fail
	}}
	r := newRig(t, cfg, scene(0)).size(100, 60).keys("down", "enter")
	r.shows(
		"from        10.0.0.1, namespace host", "side        this host connects", "redis (by its port", "600 TIME_WAIT", "12/s into TIME_WAIT here, the mean of the last 1 min",
		"lifetime    4 ms", "1 of 4 open connections", "40 of 100 free, 60 used by this flow, 10 reserved", "past the half", "timeline", "the most: 12",
		"known for 90 % of the sockets", "php-fpm (pid 10), 3 sockets (50 %), by inode", "/usr/bin/php-fpm",
		"4-tuples at 12:40:00: r lists them anew", "half of it",
		"  ESTABLISHED 10.0.0.1:40000 → 10.0.0.9:6379  recv-q 3 send-q 0, php-fpm 10", "  TIME_WAIT   10.0.0.1:40002 → 10.0.0.9:6379  12s", "and more, not listed",
	).hides("10.0.0.2:40001") // of another local address
	if len(asked) != 2 || asked[0].Remote.String() != "10.0.0.9/32" || asked[0].Port != 6379 || !cmp.Equal(asked[1].States, []string{"time_wait"}) ||
		slices.Contains(asked[0].States, "time_wait") || asked[0].Limit != askedSockets {
		t.Errorf("asked %+v", asked)
	}
	fail = errors.New("no right\nto look")
	r.keys("r").shows("could not be listed: no right; to look")
	if len(asked) != 3 { // the first failed
		t.Errorf("asked %d times", len(asked))
	}
	r.keys("esc", "end", "up", "enter").shows("these sockets have no address in common to ask for")
	r.keys("esc", "home", "down", "down", "enter").shows("namespace pod-a", "only the sockets of host can be listed")
	live(t).keys("enter").size(100, 60).shows("this source lists no single sockets")
}

// An answer that comes when its page is closed or another is open is nobody's;
// one that comes under the help is kept.
func TestLateAnswers(t *testing.T) {
	cfg := Config{Sockets: func(context.Context, snapshot.SocketQuery) (*snapshot.SocketList, error) {
		return &snapshot.SocketList{Sockets: []snapshot.Socket{{State: "established", Local: "10.0.0.1:40000", Remote: "10.0.0.9:6379"}}}, nil
	}}
	r := newRig(t, cfg, scene(0)).size(100, 60)
	open := func() tea.Msg {
		r.keys("home", "down")
		r.send(keyPress("enter"))
		r.shows("being listed")
		return r.cmd()
	}
	answer := open()
	r.keys("esc", "home", "enter")
	r.send(answer)
	r.hides("10.0.0.1:40000")
	r.keys("esc")
	answer = open()
	r.keys("?")
	r.send(answer)
	r.shows("Views").keys("?").shows("10.0.0.1:40000")
}

func TestGone(t *testing.T) {
	r := live(t).size(80, 30)
	empty := &snapshot.Report{Time: begun, Verdict: snapshot.Healthy, Namespaces: []*snapshot.Namespace{{Name: "host", Inode: 1}}}
	for key, text := range map[string]string{"1": "→ 10.0.0.8:5432", "2": "10.0.0.1:8080 → 10.1.2.3:41000", "3": "short-connections-client"} {
		r.keys(key, "home", "enter").shows(text)
		r.send(reportsMsg{reports: []*snapshot.Report{empty}})
		r.shows(text, "! gone: this is how it was last seen").keys("c", "n", "r").shows(text)
		r.send(reportsMsg{reports: []*snapshot.Report{scene(0)}})
		r.shows(text).hides("gone").keys("esc")
	}
	r.send(reportsMsg{reports: []*snapshot.Report{empty}})
	r.keys("1").shows("no connections").keys("enter", "2").shows("no socket is in CLOSE_WAIT").keys("enter", "3").shows("nothing was found").keys("enter", "c")
}

func TestPauseAndStep(t *testing.T) {
	r := live(t)
	more := func(n int) { r.send(reportsMsg{reports: []*snapshot.Report{scene(n)}}) }
	more(1)
	r.shows("12:40:02 UTC").hides("paused").keys("space").shows("2/2 12:40:02 paused", "[CCCC")
	more(2)
	r.shows("2/3 12:40:02 paused")
	r.keys("left").shows("1/3 12:40:00").keys("left").shows("1/3").keys("right").shows("2/3").keys("right").shows("12:40:04 UTC").hides("paused", "3/3")
}

func TestFollowing(t *testing.T) {
	r := live(t)
	for n := 1; n < 30; n++ {
		r.send(reportsMsg{reports: []*snapshot.Report{scene(n)}})
	}
	r.keys("[").shows("20/30").keys("[", "[").shows("1/30").keys("]").shows("11/30").keys("{").shows("1/30 12:40:00 paused")
	r.keys("}").shows("12:40:58 UTC").hides("paused")
	r.keys("left").shows("29/30 12:40:56 paused").keys("right")
	if !r.follow {
		t.Error("the last step on doesn't follow again")
	}
	r.keys("space", "left").shows("29/30").keys("space").shows("12:40:58 UTC").hides("paused")
}

func TestRecording(t *testing.T) {
	reports := []*snapshot.Report{scene(0), scene(1), scene(2), scene(3)}
	r := newRig(t, Config{Recorded: true}, reports...).shows("4/4 12:40:06 paused")
	play := func() { r.send(playMsg(r.plays)) }
	r.keys("space").shows("1/4 12:40:00 playing")
	play()
	r.shows("2/4 12:40:02 playing")
	old := playMsg(r.plays)
	r.keys("space").shows("2/4 12:40:02 paused")
	r.send(old) // a timer that was stopped
	r.shows("2/4").keys("space")
	play()
	play()
	r.shows("4/4 12:40:06 paused")
	if r.playing {
		t.Error("it plays on at the end")
	}
	r.keys("left", "left", "space")
	r.keys("right").shows("3/4 12:40:04 paused")
	// The sample of a recording is what there is of single sockets.
	reports[3].Namespaces[0].Sockets = []snapshot.Socket{{State: "time_wait", Local: "10.0.0.1:40000", Remote: "10.0.0.8:5432", AgeSeconds: new(30.0)}}
	reports[3].Namespaces[0].SocketsOf = new(1700)
	r.size(80, 60).keys("enter").shows("the recording holds no single sockets").keys("}").shows("from a random sample of 1 of the 1,700 sockets", "TIME_WAIT 10.0.0.1:40000 → 10.0.0.8:5432  30s")
}

func TestTroubleAndLateness(t *testing.T) {
	r := newRig(t, Config{From: "http://web-17:10060"})
	r.shows("Waiting for the first report from http://web-17:10060")
	r.send(reportsMsg{err: errors.New("connection\nrefused \x1b[2J")})
	r.shows(`! connection; refused \x1b[2J`)
	r.send(reportsMsg{reports: []*snapshot.Report{scene(0)}})
	r.hides("refused").shows("http://web-17:10060, every 2 s  12:40:00 UTC")
	now := begun
	r.now = func() time.Time { return now }
	now = now.Add(3 * time.Second)
	r.send(watchMsg(r.watch))
	r.hides("OLD")
	now = now.Add(4 * time.Second)
	old := r.watch
	r.send(watchMsg(r.watch))
	r.shows("! OLD: no report for 7 s")
	now = now.Add(time.Minute)
	r.send(watchMsg(old)) // a timer that was stopped
	r.shows("for 7 s")
	r.send(watchMsg(r.watch))
	r.send(reportsMsg{err: errors.New("no route")})
	r.shows("! OLD: no report for 1 min 7 s: no route")
	r.send(reportsMsg{reports: []*snapshot.Report{scene(1)}})
	r.hides("OLD", "no route")
	r.send(reportsMsg{ended: true})
	r.shows("ended")
	r = newRig(t, Config{From: "empty.jsonl"})
	r.send(reportsMsg{ended: true})
	r.shows("! there is no report in empty.jsonl")
}

func TestMouse(t *testing.T) {
	r := live(t)
	click := func(x, y int) *rig { r.send(tea.MouseClickMsg{X: x, Y: y, Button: tea.MouseLeft}); return r }
	l := r.layout()
	click(15, l.tabs).shows("[2 CLOSE_WAIT 6]")
	click(1, l.tabs).shows("[1 Flows 6]")
	for i, title := range []string{"FREE", "CLOSES/S", "TIME_WAIT", "CLOSE_W", "LIFE", "PROCESS"} {
		line := strings.Split(r.screenText(), "\n")[l.heading]
		before, _, _ := strings.Cut(line, title)
		click(draw.Width(before), l.heading)
		if r.flows.sort != sortKey(i) || r.flows.invert != (i == 0) {
			t.Errorf("a click on %s sorts by %v, inverted %v", title, r.flows.sort, r.flows.invert)
		}
	}
	click(3, l.heading) // the name sorts nothing
	r.keys("P")
	if click(5, l.first+2); r.flows.cur != 2 || r.page.kind != noPage {
		t.Errorf("a click on the third row is at %d", r.flows.cur)
	}
	click(5, l.first+2).shows("this host connects").keys("esc")
	click(5, l.first+9) // below the rows
	r.send(tea.MouseWheelMsg{Button: tea.MouseWheelDown})
	r.send(tea.MouseWheelMsg{Button: tea.MouseWheelLeft})
	if r.flows.cur != 5 {
		t.Errorf("the wheel is at %d", r.flows.cur)
	}
	r.keys("f6")
	r.send(tea.MouseWheelMsg{Button: tea.MouseWheelDown})
	if r.menu.cur != 3 || r.flows.cur != 5 {
		t.Errorf("the wheel in a menu: at %d, and the table at %d", r.menu.cur, r.flows.cur)
	}
	if click(5, l.heading+3); r.menu != nil || r.flows.sort != byTimeWait {
		t.Errorf("a click in a menu sorts by %v", r.flows.sort)
	}
	for n := 1; n < 10; n++ {
		r.send(reportsMsg{reports: []*snapshot.Report{scene(n)}})
	}
	r.keys("space")
	click(1, r.layout().bar).shows("1/10")
	click(r.barWidth(), r.layout().bar)
	if !r.follow {
		t.Error("a click on the bar's end doesn't follow")
	}
	r.keys("m").shows("mouse off")
	if r.View().MouseMode != tea.MouseModeNone {
		t.Error("the mouse is on")
	}
	if r.keys("m"); r.View().MouseMode == tea.MouseModeNone {
		t.Error("the mouse is off")
	}
	r.send(tea.MouseClickMsg{X: 1, Y: l.tabs, Button: tea.MouseRight})
	newRig(t, Config{}).send(tea.MouseClickMsg{X: 1, Y: 3, Button: tea.MouseLeft})
}
