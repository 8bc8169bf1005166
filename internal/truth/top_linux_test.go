package truth

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/lab"
)

const incidents = "../top/testdata"

// A recorded incident, by keys in real terminals: each screen is the golden
// frame of its size, through a resize and back.
func TestTopOverAnIncident(t *testing.T) {
	t.Parallel()
	bin := program(t)
	folder := must[string](t)(filepath.Abs(incidents))
	term := openTerminal(t, nil, folder, 80, 24, []string{"NO_COLOR=1"}, bin, "top", "--as-recorded", "--source=incident.jsonl.gz")
	frame := func(size, name string) {
		t.Helper()
		want := must[[]byte](t)(os.ReadFile(filepath.Join(incidents, "frames", size, name+".txt")))
		term.becomes(size+"/"+name, string(want))
	}
	term.shows(`50/50 12:34:29 paused`)
	term.keys("[", "[")
	for _, size := range []string{"80x24", "200x60", "80x24"} {
		var width, height int
		_, _ = fmt.Sscanf(size, "%dx%d", &width, &height)
		term.resize(width, height)
		frame(size, "flows")
		term.keys("Enter")
		frame(size, "flow")
		term.keys("q")
		frame(size, "flows")
		term.click(15, 6) // the second view's name
		frame(size, "close-waits")
		term.keys("End", "Enter")
		frame(size, "close-wait")
		term.keys("q", "Home", "3")
		frame(size, "findings")
		term.keys("Enter", "n", "n", "n", "n")
		frame(size, "finding")
		term.keys("q", "4")
		frame(size, "handshakes")
		term.keys("1", "F1")
		frame(size, "help")
		term.keys("q", "F6", "Down")
		frame(size, "sort")
		term.keys("Escape")
		frame(size, "flows")
		term.keys("/", "r", "e", "d", "i", "s", "Space", "!", "s", "e", "r", "v", "e", "r")
		frame(size, "filter")
		term.keys("Escape")
		frame(size, "flows")
		term.keys("b", "b", "T")
		frame(size, "groups")
		term.keys("b", "b", "b", "P", "Home", "]", "[") // and the notice goes
		frame(size, "flows")
	}
	// The snippet in the terminal's clipboard is the report's.
	want := worst(t).Findings[0].Recommendations[4]
	term.keys("3", "Enter", "n", "n", "n", "n", "c")
	term.shows(`sent to the clipboard \(OSC 52\): ` + want.ID)
	if want.Snippet == "" {
		t.Fatalf("the fifth recommendation has no snippet: %+v", want)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if got, err := term.command("show-buffer").Output(); err != nil || string(got) != want.Snippet {
			return fmt.Errorf("clipboard %q, %w, want %q", got, err, want.Snippet)
		}
		return nil
	})
	term.keys("q", "q")
	term.ends(0)
}

// worst is the incident's thirtieth report, as it was recorded.
func worst(t *testing.T) *snapshot.Report {
	t.Helper()
	n := 0
	for r, err := range record.Reports(filepath.Join(incidents, "incident.jsonl.gz"))(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 30 {
			return r
		}
	}
	t.Fatal("no thirtieth report")
	return nil
}

// A row is what the table of flows says of one flow, by the heading's columns.
type row map[string]string

// flowRows reads the table of flows off a screen.
func flowRows(screen string) map[string]row {
	rows := map[string]row{}
	var titles []string
	for line := range strings.Lines(screen) {
		line = strings.TrimRight(line, "\n")
		fields := regexp.MustCompile(` +`).Split(strings.TrimSpace(regexp.MustCompile(`[▼▲]`).ReplaceAllString(line, " ")), -1)
		switch {
		case len(fields) > 2 && fields[0] == "FLOW":
			titles = fields[1:]
		case titles != nil && regexp.MustCompile(`^[ >][→←↔] `).MatchString(line):
			rest := line[len(" "):]
			name := regexp.MustCompile(`^[→←↔] [0-9.:]+( to :[0-9]+)?`).FindString(rest)
			values := regexp.MustCompile(`  +`).Split(strings.TrimSpace(rest), -1)[1:]
			r := row{}
			for i := range min(len(values), len(titles)) {
				r[titles[i]] = values[i]
			}
			rows[name] = r
		}
	}
	return rows
}

// ssFlow are ss's rows of connections to a service.
func ssFlow(rows []ssRow, remote string) (of []ssRow) {
	for _, r := range rows {
		if r.remote == addrPort(remote) {
			of = append(of, r)
		}
	}
	return of
}

func inState(rows []ssRow, state inetdiag.State) (n int) {
	for _, r := range rows {
		if r.state == state {
			n++
		}
	}
	return n
}

// A live storm, by keys in a real terminal: what the screen says equals what ss
// and the namespace's own counters say.
func TestTopOverALiveStorm(t *testing.T) {
	bin := program(t)
	b := newBench(t)
	b.serve("127.0.0.1:1000")
	b.serve("127.0.0.2:1000")
	manual := must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.3:1004"), lab.ListenOptions{Mode: lab.Manual}))
	term := openTerminal(t, b.ns, ".", 80, 24, nil, bin, "top", "--interval=1s", "--cpu-budget=1")
	term.shows(`no connections`, `live, every 1 s`)

	// While it blows, the header tells of it.
	stormed := make(chan error, 1)
	go func() {
		res, err := b.ns.Run(t.Context(), lab.Storm{Remotes: remotes("127.0.0.1:1000"), Rate: 30, Count: 150})
		if err == nil && res.Closed != 150 {
			err = fmt.Errorf("closed %d of 150: %w", res.Closed, res.FirstError)
		}
		stormed <- err
	}()
	term.shows(`^closes .* ([1-9]|[1-3][0-9])(\.[0-9]+)?/s into TIME_WAIT`, `→ 127\.0\.0\.1:1000`)
	b.churn(30, lab.Storm{Remotes: remotes("127.0.0.2:1000")})
	for range 6 { // the server closes, the client forgets to
		p := must[*lab.Pair](t)(b.ns.Pair(manual, lab.ConnOptions{}))
		if err := p.Server.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-stormed; err != nil {
		t.Fatal(err)
	}

	// Every figure of the table is ss's.
	var sockets []ssRow
	lab.Eventually(t, 30*time.Second, func() error {
		sockets = ss(t, b.ns)
		shown := flowRows(term.screen())
		for remote, closeWaits := range map[string]int{"127.0.0.1:1000": 0, "127.0.0.2:1000": 0, "127.0.0.3:1004": 6} {
			of := ssFlow(sockets, remote)
			want := row{
				"TIME_WAIT": strconv.Itoa(inState(of, inetdiag.TimeWait)),
				"CLOSE_W":   strconv.Itoa(inState(of, inetdiag.CloseWait)),
				"FREE":      strconv.Itoa(rangeSize - len(of)),
			}
			got := row{}
			for title := range want {
				got[title] = strings.TrimPrefix(shown["→ "+remote][title], "≤")
			}
			if diff := cmp.Diff(want, got); diff != "" || inState(of, inetdiag.CloseWait) != closeWaits {
				return fmt.Errorf("%s (-ss +screen):\n%s\n%s", remote, diff, term.screen())
			}
		}
		return nil
	})
	buckets := must[int](t)(b.ns.TimeWaits())
	limit := must[int](t)(strconv.Atoi(must[string](t)(b.ns.ReadSysctl("net.ipv4.tcp_max_tw_buckets"))))
	term.shows(fmt.Sprintf(`^buckets .* %d of %s for TIME_WAIT$`, buckets, thousands(limit)))

	// Sorted, filtered, grouped.
	term.keys("W")
	term.shows(`▼CLOSE_W(?s:.*?)^>→ 127\.0\.0\.3:1004`)
	term.keys("T")
	term.shows(`▼TIME_WAIT(?s:.*?)^>→ 127\.0\.0\.1:1000`)
	term.keys("/", "1", "2", "7", ".", "0", ".", "0", ".", "2", "Enter")
	term.shows(`^/127\.0\.0\.2 \([0-9]+\)`)
	if rows := flowRows(term.screen()); rows["→ 127.0.0.1:1000"] != nil || rows["→ 127.0.0.2:1000"] == nil {
		t.Errorf("filtered by 127.0.0.2:\n%s", term.screen())
	}
	// Into the flow: its 4-tuples are ss's, all of them after a resize.
	term.keys("Enter")
	term.shows(`^states +30 TIME_WAIT$`)
	term.resize(200, 60)
	term.shows(`^4-tuples at [0-9:]+: r lists them anew$`)
	term.lists(`(?m)^  TIME_WAIT (?P<local>[0-9.:]+) → (?P<remote>[0-9.:]+) `, ssFlow(sockets, "127.0.0.2:1000"))
	term.keys("q")
	term.shows(`^/127\.0\.0\.2 \([0-9]+\)`, `LAST MINUTE`)
	term.keys("Escape")
	term.resize(80, 24)
	term.shows(`^.→ 127\.0\.0\.1:1000`)
	term.keys("b")
	term.shows(`^.127\.0\.0\.1 \([12] flows?\) `, `grouped by remote`)
	term.keys("b", "b", "b", "b")
	term.shows(`not grouped`)

	// CLOSE_WAIT: one row for each of ss's.
	term.keys("2")
	term.shows(`\[2 CLOSE_WAIT 6\]`)
	term.lists(`(?m) idle pool\? .* (?P<remote>[0-9.:]+) +(?P<local>[0-9.:]+)$`, ssFlow(sockets, "127.0.0.3:1004"))
	// Handshakes: the diagram counts what the kernel counts.
	term.keys("4")
	states := must[map[int]int](t)(b.ns.States())
	term.shows(fmt.Sprintf(`!?TIME_WAIT %d `, states[6]), fmt.Sprintf(`!?CLOSE_WAIT %d$`, states[8]), fmt.Sprintf(`LISTEN %d$`, states[10]), fmt.Sprintf(`!?FIN_WAIT2 %d `, states[5]))

	// The finding, its evidence and its advice.
	term.keys("3")
	term.shows(`^.(CRITICAL|WARNING) .* (ephemeral-ports-|short-connections-)`, `^Enter: `)
	term.keys("Enter")
	term.shows(`^> What to do, 1 of [0-9]+: `)
	term.keys("End")
	term.shows(`^Evidence$|^twwatch explain [a-z-]+ tells why`)
	term.keys("F10", "F10")
	term.ends(0)
}

// lists waits until the 4-tuples that a pattern finds on the screen are these.
func (term *terminal) lists(pattern string, sockets []ssRow) {
	term.Helper()
	tuple := regexp.MustCompile(pattern)
	var want []string
	for _, r := range sockets {
		want = append(want, r.local.String()+" "+r.remote.String())
	}
	slices.Sort(want)
	lab.Eventually(term, 30*time.Second, func() error {
		var got []string
		screen := term.screen()
		for _, m := range tuple.FindAllStringSubmatch(screen, -1) {
			got = append(got, m[tuple.SubexpIndex("local")]+" "+m[tuple.SubexpIndex("remote")])
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("4-tuples (-ss +screen):\n%s\n%s", diff, screen)
		}
		return nil
	})
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Another twwatch is followed by its stream, over one connection; when it goes,
// that is said, and when it comes back it is followed again.
func TestTopOfAnotherHost(t *testing.T) {
	bin := program(t)
	b := newBench(t)
	b.serve(server)
	b.churn(40, lab.Storm{Remotes: remotes(server)})
	daemon := []string{bin, "serve", "--web.listen-address=127.0.0.1:998", "--interval=1s", "--cpu-budget=1"}
	stop := start(t, b.ns, daemon...)
	lab.Eventually(t, 30*time.Second, func() error { _, err := get(b.ns, "http://127.0.0.1:998/-/ready"); return err })
	term := openTerminal(t, b.ns, ".", 80, 24, nil, bin, "top", "--source=http://127.0.0.1:998")
	term.shows(`→ 127\.0\.0\.1:1000 .* 40 `, `http://127\.0\.0\.1:998, every 1 s`)
	// However many reports come, there is one connection.
	term.reports(4)
	of := ssFlow(ss(t, b.ns), "127.0.0.1:998")
	if n := inState(of, inetdiag.Established); n != 1 {
		t.Errorf("%d connections to the daemon, want the stream's: %v", n, of)
	}
	before := len(of)
	term.reports(4)
	if of := ssFlow(ss(t, b.ns), "127.0.0.1:998"); len(of) > before {
		t.Errorf("%d connections to the daemon were made meanwhile: %v", len(of)-before, of)
	}
	// 4-tuples are asked of it, too.
	term.keys("/", ":", "1", "0", "0", "0", "Enter", "Enter")
	term.resize(120, 60).shows(`^  TIME_WAIT 127\.0\.0\.1:[0-9]+ → 127\.0\.0\.1:1000 `)
	term.keys("q", "Escape")
	if out, err := stop(); err != nil {
		t.Errorf("serve: %v\n%s", err, out)
	}
	term.shows(`^! (OLD: .*)?remote: http://127\.0\.0\.1:998/api/v1/stream: .*(ended the stream|connection refused)`)
	term.shows(`^! OLD: no report for [0-9]+ s`)
	stop = start(t, b.ns, daemon...)
	term.shows(`^http://127\.0\.0\.1:998, every 1 s`)
	term.keys("C-c")
	term.ends(0)
	if out, err := stop(); err != nil {
		t.Errorf("serve: %v\n%s", err, out)
	}
}

// reports waits until so many reports have been shown, by the screen's clock.
func (term *terminal) reports(n int) {
	term.Helper()
	seen := map[string]bool{}
	lab.Eventually(term, 60*time.Second, func() error {
		seen[regexp.MustCompile(`[0-9:]{8} UTC`).FindString(term.screen())] = true
		if len(seen) < n {
			return fmt.Errorf("%d of %d reports", len(seen), n)
		}
		return nil
	})
}
