package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A case is one window and what is found in it, with all its words in a golden
// file.
type goldenCase struct {
	name     string
	window   []*snapshot.Report
	previous []snapshot.Finding
	want     string // "severity id", in the order of the findings
}

// brief is the findings without their words.
func brief(findings []snapshot.Finding) string {
	var words []string
	for _, f := range findings {
		word := string(f.Severity) + " " + f.ID
		if f.BecauseOf != "" {
			word += " <- " + f.BecauseOf
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func judgeCases(t *testing.T, name string, cases []goldenCase) {
	t.Helper()
	var text strings.Builder
	l := library(t)
	for _, c := range cases {
		res := Judge(c.window, c.previous, Settings{Advice: l})
		if got := brief(res.Findings); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
		fmt.Fprintf(&text, "=== %s\n%s", c.name, fullText(res.Findings))
		for _, f := range res.Findings {
			sentence := strings.TrimSuffix(f.Summary, ".")
			if sentence == f.Summary || strings.Contains(sentence, ". ") {
				t.Errorf("%s: not one sentence: %s", c.name, f.Summary)
			}
			if len(f.Evidence) == 0 {
				t.Errorf("%s: %s has no evidence", c.name, f.ID)
			}
		}
	}
	golden(t, name, text.String())
}

// looked is a report of a look at sockets.
func looked(at float64, changes ...func(*snapshot.Namespace)) *snapshot.Report {
	return host(at, func(n *snapshot.Namespace) {
		n.Source = "inet_diag"
		for _, change := range changes {
			change(n)
		}
	})
}

// peers is so many connections in CLOSE_WAIT of one flow, all as the row given.
type peers struct {
	side snapshot.Side
	port uint16
	n    int
	row  snapshot.CloseWait
	age  float64
}

// waiting adds connections in CLOSE_WAIT to 10.0.0.9, or of 10.0.0.7 to a
// server here.
func waiting(p peers) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		remote := "10.0.0.9"
		if p.side == snapshot.Server {
			remote = "10.0.0.7"
		}
		i := slices.IndexFunc(n.Flows, func(f snapshot.Flow) bool { return f.Side == p.side && f.Port == p.port })
		if i < 0 {
			n.Flows = append(n.Flows, snapshot.Flow{Side: p.side, Local: "10.0.0.5", Remote: remote, Port: p.port})
			i = len(n.Flows) - 1
			if p.port == 5432 && p.side == snapshot.Client {
				n.Flows[i].Service, n.Flows[i].ServiceBy = "postgresql", "port"
			}
		}
		for k := range p.n {
			w := p.row
			w.Side = p.side
			here, there := len(n.CloseWaits)+40000, p.port
			if p.side == snapshot.Server {
				here, there = int(p.port), uint16(len(n.CloseWaits)+50000)
			}
			w.Local, w.Remote = fmt.Sprintf("10.0.0.5:%d", here), fmt.Sprintf("%s:%d", remote, there)
			w.Cookie = uint64(here)<<16 | uint64(there)
			if p.row.PID != 0 || p.row.Comm != "" {
				w.Inode = uint32(1000 + k)
			}
			if p.age >= 0 {
				w.AgeSeconds = new(p.age - float64(k)/100)
				if w.AgeAtMostSeconds == nil {
					w.AgeAtMostSeconds = w.AgeSeconds
				}
			}
			if len(n.CloseWaits) < snapshot.MaxCloseWaits {
				n.CloseWaits = append(n.CloseWaits, w)
			}
			n.States.CloseWait++
			n.Flows[i].States.CloseWait++
		}
	}
}

func ownedBy(o snapshot.Owner) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) { n.Owners = append(n.Owners, o) }
}

func descriptors(pid int, comm string, used, limit, closeWait int) snapshot.Owner {
	return snapshot.Owner{PID: pid, Start: 7, Comm: comm, CloseWait: uint32(closeWait), Descriptors: &used, DescriptorLimit: &limit}
}

func listening(local string, queue, backlog uint32, comm string, pid int) func(*snapshot.Namespace) {
	return func(n *snapshot.Namespace) {
		n.Listeners = append(n.Listeners, snapshot.Listener{Local: local, Queue: queue, Backlog: backlog, Inode: 5, PID: pid, Comm: comm})
	}
}

// series is five looks in a minute: at each, change says what there is for a
// number that grows from first to last.
func series(first, last int, change func(n int) []func(*snapshot.Namespace)) []*snapshot.Report {
	var window []*snapshot.Report
	for i := range 5 {
		window = append(window, looked(float64(15*i), change(first+(last-first)*i/4)...))
	}
	return window
}

// row is a socket of a process.
func row(comm string, pid int, recvQ uint32) snapshot.CloseWait {
	return snapshot.CloseWait{Comm: comm, PID: pid, RecvQ: recvQ, LastSentSeconds: new(3600.0)}
}

func TestCloseWaits(t *testing.T) {
	leak := func(n int, age float64) func(*snapshot.Namespace) {
		return waiting(peers{snapshot.Client, 5432, n, row("python3", 4711, 0), age})
	}
	sending := snapshot.CloseWait{Comm: "sender", PID: 9, LastSentSeconds: new(0.1), AgeAtMostSeconds: new(80.0), AgeAtLeast: true}
	big := row("java", 12, 40001)
	big.AgeAtLeast = true
	goOwner := descriptors(4711, "python3", 900, 1024, 300)
	goOwner.Runtime, goOwner.RuntimeVersion = "python", "3.11.7"
	judgeCases(t, "close-wait", []goldenCase{
		{"young", []*snapshot.Report{looked(60, leak(20, 1.9))}, nil, ""},
		{"not yet old", []*snapshot.Report{looked(60, leak(20, 59))}, nil, ""},
		{"leak, one look", []*snapshot.Report{looked(60, leak(20, 65))}, nil, "warning close-wait-leak"},
		{
			"leak that grows, far from the limit",
			series(20, 40, func(n int) []func(*snapshot.Namespace) {
				return []func(*snapshot.Namespace){leak(n, 125), ownedBy(descriptors(4711, "python3", 20+n, 65536, n))}
			}), nil, "warning close-wait-leak",
		},
		{
			"leak that will be at the limit in 8 min",
			series(20, 116, func(n int) []func(*snapshot.Namespace) {
				return []func(*snapshot.Namespace){leak(n, 125), ownedBy(descriptors(4711, "python3", 110+n, 1024, n))}
			}), nil, "critical close-wait-leak",
		},
		{
			"the same, by the flow alone",
			series(20, 116, func(n int) []func(*snapshot.Namespace) {
				if n < 116 {
					return []func(*snapshot.Namespace){leak(n, 125)}
				}
				return []func(*snapshot.Namespace){leak(n, 125), ownedBy(descriptors(4711, "python3", 110+n, 1024, n))}
			}), nil, "critical close-wait-leak",
		},
		{"many at once are no trend", []*snapshot.Report{looked(0, leak(1, 65)), looked(60, leak(400, 125), ownedBy(descriptors(4711, "python3", 500, 1024, 400)))}, nil, "warning close-wait-leak"},
		{"leak at four fifths of the limit", []*snapshot.Report{looked(60, leak(200, 400), ownedBy(goOwner))}, nil, "critical close-wait-leak"},
		{"few of many descriptors", []*snapshot.Report{looked(60, leak(4, 400), ownedBy(goOwner))}, nil, "warning close-wait-leak"},
		{"leak that is young and takes all", []*snapshot.Report{looked(60, leak(200, 20), ownedBy(descriptors(4711, "python3", 250, 256, 200)))}, nil, "critical close-wait-leak"},
		{"leak of more than is listed", []*snapshot.Report{looked(60, leak(700, 400))}, nil, "warning close-wait-leak"},
		{"leak of a server", []*snapshot.Report{looked(60, listening("0.0.0.0:8080", 0, 128, "java", 12), waiting(peers{snapshot.Server, 8080, 30, row("java", 12, 0), 4000}))}, nil, "warning close-wait-leak"},
		{"unseen program", []*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 5432, 30, snapshot.CloseWait{Inode: 7}, 4000}))}, nil, "warning close-wait-leak"},
		{
			"leak with some whose end wasn't read, 17 to 3",
			[]*snapshot.Report{looked(60, leak(17, 100), waiting(peers{snapshot.Client, 5432, 3, row("python3", 4711, 1), 100}))},
			nil, "warning close-wait-leak",
		},
		{"stale pool", []*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 5432, 20, row("python3", 4711, 1), 300}))}, nil, "info close-wait-stale-pool"},
		{"stale pool over TLS 1.3", []*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 443, 20, row("python3", 4711, 25), 300}))}, nil, "info close-wait-stale-pool"},
		{
			"stale pool with some whose FIN came with data",
			[]*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 5432, 20, row("python3", 4711, 1), 300}), leak(4, 300))},
			nil, "info close-wait-stale-pool",
		},
		{
			"what looks like a pool and goes on growing like a leak",
			series(5, 20, func(n int) []func(*snapshot.Namespace) {
				return []func(*snapshot.Namespace){waiting(peers{snapshot.Client, 5432, n, row("python3", 4711, 1), 360}), leak(n/2, 300)}
			}), nil, "warning close-wait-leak",
		},
		{
			"pool over TLS whose server closes one after another",
			series(5, 40, func(n int) []func(*snapshot.Namespace) {
				return []func(*snapshot.Namespace){waiting(peers{snapshot.Client, 443, n, row("python3", 4711, 32), 120})}
			}), nil, "info close-wait-stale-pool",
		},
		{
			"pool of goodbyes that was closed at once",
			[]*snapshot.Report{looked(0), looked(15, waiting(peers{snapshot.Client, 80, 40, row("python3", 4711, 78), 60}))},
			nil, "info close-wait-stale-pool",
		},
		{"pool that takes all descriptors", []*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 5432, 200, row("python3", 4711, 1), 300}), ownedBy(descriptors(4711, "python3", 230, 256, 200)))}, nil, "critical close-wait-leak"},
		{"stuck reader", []*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 9200, 32, big, 180}))}, nil, "warning close-wait-stuck-reader"},
		{
			"small answers unread, ever more of them",
			series(5, 50, func(n int) []func(*snapshot.Namespace) {
				return []func(*snapshot.Namespace){waiting(peers{snapshot.Client, 9200, n, row("java", 12, 200), 160})}
			}), nil, "warning close-wait-stuck-reader",
		},
		{"server that doesn't look", []*snapshot.Report{looked(60, waiting(peers{snapshot.Server, 8080, 5, row("java", 12, 1), 180}))}, nil, "warning close-wait-stuck-reader"},
		{"not accepted, for a moment", []*snapshot.Report{looked(60, listening("0.0.0.0:8000", 20, 64, "blocked", 77), waiting(peers{snapshot.Server, 8000, 20, snapshot.CloseWait{RecvQ: 11}, 9}))}, nil, ""},
		{"not accepted", []*snapshot.Report{looked(60, listening("0.0.0.0:8000", 20, 64, "blocked", 77), waiting(peers{snapshot.Server, 8000, 20, snapshot.CloseWait{RecvQ: 11}, 12}))}, nil, "warning close-wait-not-accepted"},
		{"half-close", []*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 7000, 5, sending, 75}))}, nil, "info close-wait-half-close"},
		{
			"two programs, two kinds",
			[]*snapshot.Report{looked(60, leak(6, 100), waiting(peers{snapshot.Client, 443, 4, row("curl", 3, 25), 100}))},
			nil, "warning close-wait-leak, info close-wait-stale-pool",
		},
		{
			"one stray beside thirty",
			[]*snapshot.Report{looked(60, leak(30, 100), waiting(peers{snapshot.Client, 443, 2, row("python3", 4711, 25), 100}))},
			nil, "warning close-wait-leak",
		},
		{
			"hostile name",
			[]*snapshot.Report{looked(60, waiting(peers{snapshot.Client, 5432, 4, row("a\n\u202e{{.X}}", 8, 0), 100}))},
			nil, "warning close-wait-leak",
		},
		{"all ended", []*snapshot.Report{looked(60, leak(20, 65)), looked(75)}, nil, ""},
	})
}

// What was sent before the peer finished is no half-close.
func TestHalfCloseIsAfterTheFIN(t *testing.T) {
	for _, c := range []struct {
		name                  string
		sent, atMost, atleast float64
		sendQ                 uint32
		want                  closeWaitKind
	}{
		{"a request, then the answer with the FIN", 3.01, 3, 3, 0, leaked},
		{"nothing, and the end right after the handshake", 2.996, 3.004, 3, 0, leaked},
		{"sends on after half a minute", 0.2, 30, 0.2, 0, halfClosed},
		{"sent long ago", 11, 60, 60, 0, leaked},
		{"has more to send", 11, 60, 60, 1, halfClosed},
	} {
		w := closeWait{CloseWait: &snapshot.CloseWait{Inode: 3, SendQ: c.sendQ, LastSentSeconds: &c.sent, AgeAtMostSeconds: &c.atMost, AgeSeconds: &c.atleast}, side: snapshot.Client}
		if got := w.tell(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.id(), c.want.id())
		}
	}
}

// What lies unread is a goodbye if it is a TLS alert, whenever the FIN came, or
// came with the FIN and is little.
func TestGoodbyes(t *testing.T) {
	for _, c := range []struct {
		name           string
		side           snapshot.Side
		recvQ          uint32
		atLeast, atMax float64
		want           closeWaitKind
	}{
		{"the FIN alone", snapshot.Client, 1, 20, 3600, stale},
		{"close_notify and FIN", snapshot.Client, 25, 20, 20, stale},
		{"close_notify and FIN, and keepalive since", snapshot.Client, 25, 4, 50, stale},
		{"HTTP 408", snapshot.Client, 78, 20, 20.01, stale},
		{"an answer, and the FIN soon after", snapshot.Client, 200, 20, 20.9, stale},
		{"an answer, and the FIN later", snapshot.Client, 200, 20, 22, unread},
		{"a long answer with the FIN", snapshot.Client, 513, 20, 20, unread},
		{"a request that the server doesn't read", snapshot.Server, 25, 20, 20, unread},
	} {
		w := closeWait{CloseWait: &snapshot.CloseWait{Inode: 3, RecvQ: c.recvQ, AgeSeconds: &c.atLeast, AgeAtMostSeconds: &c.atMax}, side: c.side}
		if got := w.tell(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.id(), c.want.id())
		}
	}
}

// An age that isn't told is at least the time for which the socket was seen.
func TestCloseWaitAgeUnknown(t *testing.T) {
	nameless := waiting(peers{snapshot.Client, 5432, 20, row("python3", 4711, 0), -1})
	first := looked(0, nameless)
	res := Judge([]*snapshot.Report{first}, nil, Settings{})
	if len(res.Findings) != 0 || !slices.Contains(res.NotJudged, CloseWaitLeak) {
		t.Errorf("a single look: %s; not judged %v", brief(res.Findings), res.NotJudged)
	}
	res = Judge([]*snapshot.Report{first, looked(90, nameless)}, nil, Settings{})
	if brief(res.Findings) != "warning close-wait-leak" || !strings.Contains(res.Findings[0].Summary, "at least 1 min 30 s") {
		t.Errorf("%+v", res.Findings)
	}
}

// A leak neither flaps about its thresholds nor loses its start.
func TestCloseWaitHolds(t *testing.T) {
	at := func(time, age float64, used int, previous []snapshot.Finding) []snapshot.Finding {
		return Judge([]*snapshot.Report{looked(time,
			waiting(peers{snapshot.Client, 5432, 200, row("python3", 4711, 0), age}),
			ownedBy(descriptors(4711, "python3", used, 1000, 200)))}, previous, Settings{}).Findings
	}
	first := at(0, 60, 800, nil)
	second := at(15, 55, 730, first)
	if brief(first) != "critical close-wait-leak" || brief(second) != "critical close-wait-leak" || !second[0].Since.Equal(first[0].Since) {
		t.Errorf("%s, then %s", brief(first), brief(second))
	}
	if third := at(30, 55, 710, second); brief(third) != "warning close-wait-leak" {
		t.Errorf("at 71 %%: %s", brief(third))
	}
	if fresh := at(30, 55, 710, nil); brief(fresh) != "" {
		t.Errorf("at 55 s with nothing before: %s", brief(fresh))
	}
}

// Reports don't change, and their order of rows doesn't matter.
func TestCloseWaitOrder(t *testing.T) {
	r := looked(60,
		waiting(peers{snapshot.Client, 5432, 6, row("python3", 4711, 0), 100}), waiting(peers{snapshot.Client, 443, 6, row("curl", 3, 25), 100}),
		waiting(peers{snapshot.Server, 80, 6, row("nginx", 5, 0), 100}), waiting(peers{snapshot.Server, 81, 6, row("nginx", 5, 0), 100}))
	want := Judge([]*snapshot.Report{r}, nil, Settings{}).Findings
	for range 20 {
		slices.Reverse(r.Namespaces[0].CloseWaits)
		if diff := cmp.Diff(want, Judge([]*snapshot.Report{r}, nil, Settings{}).Findings); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

// A trend needs several looks, however far apart they are, and goes on.
func TestGrowthOf(t *testing.T) {
	for _, c := range []struct {
		name    string
		counts  []int
		every   float64
		more    int
		seconds float64
		grows   bool
	}{
		{"one look", []int{5}, 15, 0, 0, false},
		{"two looks", []int{5, 50}, 15, 45, 15, false},
		{"steady", []int{5, 5, 5, 5, 5}, 15, 0, 60, false},
		{"at once", []int{0, 40, 40, 40, 40}, 15, 40, 60, false},
		{"grows", []int{5, 10, 15, 20, 25}, 15, 20, 60, true},
		{"grew until a minute ago", []int{0, 10, 20, 30, 40, 40, 40, 40, 40}, 15, 0, 60, false},
		{"grows, with looks that are far apart", []int{5, 10, 15, 20, 25}, 50, 15, 150, true},
		{"grows by what comes and goes", []int{100, 101, 102, 103, 104}, 15, 4, 60, false},
		{"shrinks", []int{9, 8, 7, 6, 5}, 15, -4, 60, false},
	} {
		var window []*snapshot.Report
		for i, n := range c.counts {
			window = append(window, looked(c.every*float64(i), func(ns *snapshot.Namespace) { ns.States.CloseWait = uint32(n) }))
		}
		last := window[len(window)-1]
		s := newScene(window, last.Namespaces[0], nil, Settings{})
		g := s.growthOf(func(ns *snapshot.Namespace) (int, bool) { return int(ns.States.CloseWait), true })
		if g.more != c.more || g.seconds != c.seconds || g.grows() != c.grows {
			t.Errorf("%s: %+v grows %v, want %d in %v s, %v", c.name, g, g.grows(), c.more, c.seconds, c.grows)
		}
	}
}
