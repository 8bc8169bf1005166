package truth

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// quietNamespace keeps every TIME_WAIT for its minute.
func quietNamespace(t *testing.T) *lab.Namespace {
	t.Helper()
	ns := lab.NewT(t)
	sysctls(t, ns, "net.ipv4.tcp_tw_reuse", "0", "net.ipv4.tcp_rfc1337", "1")
	return ns
}

// programs are two processes that the watch knows from the start.
func twoPrograms(t *testing.T, ns *lab.Namespace, watches ...*watch) (more, less *puppet) {
	t.Helper()
	must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.1:1001"), lab.ListenOptions{Mode: lab.Never}))
	more, less = newPuppet(t, ns, "more"), newPuppet(t, ns, "less")
	more.do("dial 127.0.0.1:1001 1")
	less.do("dial 127.0.0.1:1001 1")
	for _, w := range watches {
		w.until(t, 3*time.Minute, func(r *snapshot.Report) error {
			if f := flow(r.Namespaces[0], snapshot.Client, "127.0.0.1", 1001); f == nil || *f.Attributed != 1 {
				return errors.New("the first search isn't over")
			}
			return nil
		})
	}
	return more, less
}

// settled waits until a client's flow has so many sockets, all in TIME_WAIT.
func (w *watch) settled(t *testing.T, port uint16, n int) *snapshot.Flow {
	t.Helper()
	var f *snapshot.Flow
	w.until(t, time.Minute, func(r *snapshot.Report) error {
		if f = flow(r.Namespaces[0], snapshot.Client, "127.0.0.1", port); f == nil {
			return errors.New("no flow")
		}
		if s := f.States; int(s.TimeWait) != n || int(s.Total()) != n {
			return fmt.Errorf("%+v, want %d in TIME_WAIT", s, n)
		}
		return nil
	})
	return f
}

// owns is how many of a flow's sockets are each process's.
func owns(f *snapshot.Flow) map[int]int {
	of := map[int]int{}
	for i := range f.Processes {
		of[f.Processes[i].PID] = int(f.Processes[i].Sockets)
	}
	return of
}

// Of 1,000 connections to one destination, each of which lived through one look
// and was closed before the next, every TIME_WAIT is its process's.
func TestTimeWaitsOfLongConnections(t *testing.T) {
	t.Parallel()
	const waves, ofMore, ofLess = 2, 350, 150
	ns := quietNamespace(t)
	must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.1:1000"), lab.ListenOptions{}))
	w := newWatch(t, ns, collector.Config{Interval: 500 * time.Millisecond}, nil)
	more, less := twoPrograms(t, ns, w)
	more.do("keep")
	less.do("keep")
	for range waves {
		more.do("dial 127.0.0.1:1000 %d", ofMore)
		less.do("dial 127.0.0.1:1000 %d", ofLess)
		w.fresh(t)
		more.do("close")
		less.do("close")
	}
	f := w.settled(t, 1000, waves*(ofMore+ofLess))
	if diff := cmp.Diff(map[int]int{more.pid: waves * ofMore, less.pid: waves * ofLess}, owns(f)); diff != "" || *f.Attributed != 1 {
		t.Errorf("attributed %v; sockets of processes (-made +reported):\n%s", *f.Attributed, diff)
	}
	for i := range f.Processes {
		if f.Processes[i].By != snapshot.ByCookie {
			t.Errorf("known by %s", f.Processes[i].By)
		}
	}
}

// Of connections that live shorter than the interval some are seen. What is said
// of them is what the programs' own records say: each that was there during a
// whole look is known, none that was at no look, and nothing is extrapolated. With
// looks at live sockets in between more are known.
func TestTimeWaitsOfShortConnections(t *testing.T) {
	t.Parallel()
	const ofMore, ofLess = 600, 200
	ns := quietNamespace(t)
	must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.1:1000"), lab.ListenOptions{}))
	const interval = 2500 * time.Millisecond
	passes := newWatch(t, ns, collector.Config{Interval: interval}, nil)
	glances := newWatch(t, ns, collector.Config{Interval: interval, LiveEvery: collector.MinLiveEvery}, nil)
	more, less := twoPrograms(t, ns, passes, glances)
	more.do("load close 75 %d 700ms 127.0.0.1:1000", ofMore)
	less.do("load close 25 %d 700ms 127.0.0.1:1000", ofLess)
	records := map[int][]made{more.pid: more.record(), less.pid: less.record()}

	few := passes.settled(t, 1000, ofMore+ofLess)
	all := 0
	for pid, record := range records {
		least, most := passes.seen(record)
		got := owns(few)[pid]
		if got < least || got > most {
			t.Errorf("%d connections of %d are known, truly %d to %d were seen", got, len(record), least, most)
		}
		all += got
		t.Logf("passes: %d of %d known, %d to %d seen", got, len(record), least, most)
	}
	if want := float64(all) / (ofMore + ofLess); *few.Attributed != want || want == 1 {
		t.Errorf("attributed %v, want %v", *few.Attributed, want)
	}

	many := glances.settled(t, 1000, ofMore+ofLess)
	for pid, record := range records {
		if got := owns(many)[pid]; got <= owns(few)[pid] || got > len(record) {
			t.Errorf("%d connections of %d are known with looks in between, %d without", got, len(record), owns(few)[pid])
		}
	}
	if *many.Attributed <= *few.Attributed || *many.Attributed > 1 {
		t.Errorf("attributed %v with looks in between, %v without", *many.Attributed, *few.Attributed)
	}
	t.Logf("glances: %v", *many.Attributed)
}

// seen bounds how many connections were there at a look: at least those that were
// during a whole one, at most those that were during a part of one.
func (w *watch) seen(record []made) (least, most int) {
	for _, c := range record {
		whole, part := false, false
		for _, r := range w.all() {
			from := r.Time.UnixNano()
			to := from + int64(r.TookSeconds*1e9)
			whole = whole || c.Dialed < from && c.Closing > to
			part = part || c.Dialing < to && c.Closed > from
		}
		if whole {
			least++
		}
		if part {
			most++
		}
	}
	return least, most
}
