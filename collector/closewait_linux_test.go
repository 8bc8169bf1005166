package collector

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/ledger"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// tick is the coarsest clock of a kernel: it counts whole ones.
const tick = 0.010

// newCollector looks at ns until the test ends; only passes within ns.Do.
func newCollector(t testing.TB, ns *lab.Namespace, cfg Config) (c *Collector) {
	t.Helper()
	if err := ns.Do(func() (err error) { c, err = New(cfg); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func passIn(t testing.TB, ns *lab.Namespace, c *Collector) (r *snapshot.Report) {
	t.Helper()
	if err := ns.Do(func() (err error) { r, err = c.Pass(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	return r
}

func manual(t testing.TB, ns *lab.Namespace, addr string) *lab.Server {
	t.Helper()
	s, err := ns.Listen(netip.MustParseAddrPort(addr), lab.ListenOptions{Mode: lab.Manual, Backlog: 16384})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// halfClosed is a socket in CLOSE_WAIT since a time between before and after.
type halfClosed struct {
	name          string
	pair          *lab.Pair
	before, after time.Time
}

func halfClose(t *testing.T, ns *lab.Namespace, s *lab.Server, name string, first func(*lab.Pair) error) *halfClosed {
	t.Helper()
	p, err := ns.Pair(s, lab.ConnOptions{})
	if err == nil {
		err = first(p)
	}
	h := &halfClosed{name: name, pair: p, before: time.Now()}
	if err == nil {
		err = p.Server.Shutdown()
	}
	if h.after = time.Now(); err != nil {
		t.Fatal(err)
	}
	return h
}

// holds tells whether an age, seen at a time, is compatible with the truth.
func (h *halfClosed) holds(at time.Time, age *float64, atLeast bool, atMost *float64) error {
	low, high := at.Sub(h.after).Seconds(), at.Sub(h.before).Seconds()
	switch {
	case age == nil || atMost == nil:
		return fmt.Errorf("%s: no age", h.name)
	case *age > high+tick || *atMost < low-tick:
		return fmt.Errorf("%s: between %v and %v, true %v to %v", h.name, *age, *atMost, low, high)
	case !atLeast && *age < low-3*tick:
		return fmt.Errorf("%s: %v is said to be exact, true %v to %v", h.name, *age, low, high)
	}
	return nil
}

// The age of a CLOSE_WAIT lies within its bounds whatever the connection does,
// at the first look and at later ones; what is known once isn't forgotten.
func TestCloseWaitAgeBounds(t *testing.T) {
	ns := lab.NewT(t)
	s := manual(t, ns, "127.0.0.1:1004")
	quiet := func(*lab.Pair) error { return nil }
	all := []*halfClosed{
		halfClose(t, ns, s, "data with the FIN", func(p *lab.Pair) error { return p.Server.Write([]byte("bye")) }),
		halfClose(t, ns, s, "quiet since the handshake", quiet),
		halfClose(t, ns, s, "sends on", quiet),
		halfClose(t, ns, s, "keepalive", func(p *lab.Pair) error {
			for _, o := range [][3]int{{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.SOL_TCP, unix.TCP_KEEPIDLE, 1}, {unix.SOL_TCP, unix.TCP_KEEPINTVL, 1}} {
				if err := unix.SetsockoptInt(p.Client.FD(), o[0], o[1], o[2]); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	byLocal := make(map[string]*halfClosed)
	for _, h := range all {
		byLocal[h.pair.Client.Local().String()] = h
	}
	sends, began := all[2].pair.Client, time.Now()
	watcher := newCollector(t, ns, Config{SampleSockets: 100})
	kept := make(map[string]time.Duration) // local → the least age, less the time since the start
	fresh := make(map[string]float64)
	lab.Eventually(t, 20*time.Second, func() error {
		if err := sends.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Collector{watcher, newCollector(t, ns, Config{})} {
			n := passIn(t, ns, c).Namespaces[0]
			if len(n.CloseWaits) != len(all) {
				t.Fatalf("%d CLOSE_WAIT sockets, want %d", len(n.CloseWaits), len(all))
			}
			for _, w := range n.CloseWaits {
				if err := byLocal[w.Local].holds(n.SampledAt, w.AgeSeconds, w.AgeAtLeast, w.AgeAtMostSeconds); err != nil {
					t.Fatal(err)
				}
				if c != watcher {
					fresh[w.Local] = *w.AgeSeconds
					continue
				}
				since := time.Duration(*w.AgeSeconds*1e9) - n.SampledAt.Sub(began)
				if before, ok := kept[w.Local]; ok && since < before-5*time.Millisecond {
					t.Fatalf("%s: %v older than the test, and before %v", byLocal[w.Local].name, since, before)
				}
				kept[w.Local] = since
			}
			checkSample(t, n)
		}
		if time.Since(began) < 2300*time.Millisecond { // two keepalive probes
			return fmt.Errorf("the sockets are only %v old", time.Since(began))
		}
		return nil
	})
	for _, h := range all[2:] {
		if age := fresh[h.pair.Client.Local().String()]; age > 1.5 {
			t.Errorf("%s: a first look knows an age of %v: the test tests nothing", h.name, age)
		}
	}
	checkOlder(t, ns, all)
}

// checkSample holds the sample against the rows of the same look.
func checkSample(t *testing.T, n *snapshot.Namespace) {
	t.Helper()
	for _, s := range n.Sockets {
		for _, w := range n.CloseWaits {
			if s.Cookie == w.Cookie && (*s.AgeSeconds != *w.AgeSeconds || s.AgeAtLeast != w.AgeAtLeast || *s.AgeAtMostSeconds != *w.AgeAtMostSeconds) {
				t.Fatalf("sample %+v, row %+v", s, w)
			}
		}
	}
}

// checkOlder: no socket that is two seconds old is hidden from who asks for that.
func checkOlder(t *testing.T, ns *lab.Namespace, all []*halfClosed) {
	t.Helper()
	c := newCollector(t, ns, Config{})
	for older, want := range map[time.Duration]int{2 * time.Second: len(all), time.Hour: 0} {
		q := snapshot.SocketQuery{States: []string{"close_wait"}, Older: older}
		var list *snapshot.SocketList
		if err := ns.Do(func() (err error) { list, err = c.Sockets(t.Context(), q); return err }); err != nil {
			t.Fatal(err)
		}
		if len(list.Sockets) != want {
			t.Errorf("%d sockets may be older than %v, want %d: %+v", len(list.Sockets), older, want, list.Sockets)
		}
		for _, s := range list.Sockets {
			for _, h := range all {
				if s.Local == h.pair.Client.Local().String() {
					if err := h.holds(time.Now(), s.AgeSeconds, true, new(*s.AgeAtMostSeconds+5)); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
}

// More CLOSE_WAIT sockets than are asked for one by one, then more than fit:
// all ages are learnt, and the oldest is found.
func TestManyCloseWaits(t *testing.T) {
	ns := lab.NewT(t)
	if err := ns.Sysctl("net.core.somaxconn", "16384"); err != nil {
		t.Fatal(err)
	}
	s := manual(t, ns, "127.0.0.1:1004")
	oldest := halfClose(t, ns, s, "the oldest", func(*lab.Pair) error { return nil })
	lab.Eventually(t, 5*time.Second, func() error { // older by more than the kernel's clock, and than a dump takes
		if since := time.Since(oldest.after); since < 300*time.Millisecond {
			return fmt.Errorf("only %v older", since)
		}
		return nil
	})
	opened := 0
	more := func(n int) { // unaccepted: they take no descriptor
		for ; opened < n; opened++ {
			c, err := ns.Open(s.Addr(), lab.ConnOptions{})
			if err == nil {
				err = c.Close()
			}
			if err != nil {
				t.Fatalf("connection %d: %v", opened, err)
			}
		}
	}
	c := newCollector(t, ns, Config{})
	for _, n := range []int{maxLookups + 100, 4096 + 400} {
		more(n)
		for _, look := range []string{"first", "second"} {
			r := passIn(t, ns, c)
			ns := r.Namespaces[0]
			if len(r.Incomplete) != 0 || int(ns.States.CloseWait) != n+1 || len(ns.CloseWaits) != snapshot.MaxCloseWaits {
				t.Fatalf("%d sockets, %s look: %d counted, %d rows, gaps %v", n, look, ns.States.CloseWait, len(ns.CloseWaits), r.Incomplete)
			}
			w := ns.CloseWaits[0]
			if w.Local != oldest.pair.Client.Local().String() {
				t.Errorf("%d sockets, %s look: %+v comes first", n, look, w)
			} else if err := oldest.holds(ns.SampledAt, w.AgeSeconds, w.AgeAtLeast, w.AgeAtMostSeconds); err != nil {
				t.Error(err)
			}
			for _, w := range ns.CloseWaits {
				if w.AgeSeconds == nil {
					t.Fatalf("%d sockets, %s look: no age: %+v", n, look, w)
				}
			}
			for _, f := range ns.Flows {
				if f.CloseWait.Sockets > 0 && f.CloseWait.OldestSeconds == nil {
					t.Errorf("%d sockets, %s look: %+v", n, look, f.CloseWait)
				}
			}
			if known := c.home.ledger.Fins(); known != min(n+1, ledger.MaxFins) {
				t.Errorf("%d sockets, %s look: %d are remembered", n, look, known)
			}
		}
	}
}
