package truth

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/lab"
)

// fewCloseWaitSeconds are thresholds that let a test end: what is compared with
// them is an age that the tests hold against the truth.
func fewCloseWaitSeconds() map[string]float64 {
	return map[string]float64{"close_wait_seconds": 4, "close_wait_unaccepted_seconds": 4}
}

// A forsaken is a program with connections that the other end has closed.
type forsaken struct {
	*puppet
	id       string // of the finding
	severity snapshot.Severity
	side     snapshot.Side
	port     uint16
	sockets  int
	recvQ    float64  // the most
	remedies []string // their ids
	begin    func()   // opens the connections
	closing  func()   // the other ends close
	then     func()   // what the program does about it
	from, to time.Time
}

// Each kind of CLOSE_WAIT, made by a program of its own, is told from the
// others, with whose it is, its age and what helps. Pools that lie idle are
// stale and not stuck, whatever TLS has said before the end.
func TestKindsOfCloseWait(t *testing.T) {
	t.Parallel()
	ns := lab.NewT(t)
	all := []*forsaken{
		leaker(t, ns), pool(t, ns), tlsPool(t, ns, "pool12", 1003, tls.VersionTLS12, 32), tlsPool(t, ns, "pool13", 1004, tls.VersionTLS13, 25),
		stuck(t, ns), stuckClient(t, ns), busy(t, ns), sender(t, ns),
	}
	w := newWatch(t, ns, collector.Config{Interval: 250 * time.Millisecond}, fewCloseWaitSeconds())
	for _, f := range all {
		f.begin()
	}
	w.only(t) // nothing has been closed
	for _, f := range all {
		f.from = time.Now()
		f.closing()
		f.to = time.Now()
		f.then()
	}
	r := w.until(t, time.Minute, func(r *snapshot.Report) error {
		if len(r.Findings) < len(all) {
			return fmt.Errorf("%d findings of %d", len(r.Findings), len(all))
		}
		return nil
	})
	seen := slices.IndexFunc(w.all(), func(r *snapshot.Report) bool { return r.Time.After(all[len(all)-1].to) })
	first := w.all()[seen]
	allowed := []string{}
	for _, f := range all {
		allowed = append(allowed, string(f.severity)+" "+f.id)
		t.Run(f.name, func(t *testing.T) { f.check(t, first, r) })
	}
	w.only(t, allowed...)
	if r.Verdict != snapshot.Warning {
		t.Errorf("the verdict is %s", r.Verdict)
	}
}

// check holds a report against the truth; first was the first that saw it.
func (f *forsaken) check(t *testing.T, first, r *snapshot.Report) {
	t.Helper()
	i := slices.IndexFunc(r.Findings, func(g snapshot.Finding) bool { return g.Subject.Process == f.name })
	if i < 0 {
		t.Fatalf("no finding about it: %s", said(r))
	}
	g := &r.Findings[i]
	if g.ID != f.id || g.Severity != f.severity || g.Subject.Side != f.side || g.Subject.Port != f.port {
		t.Errorf("%s %+v, want %s %s on the %s side of port %d", headline(g), g.Subject, f.severity, f.id, f.side, f.port)
	}
	if who := fmt.Sprintf("%s (pid %d)", f.name, f.pid); !strings.Contains(g.Summary, who) {
		t.Errorf("no %q in %q", who, g.Summary)
	}
	if n := evidence(t, g, "sockets in CLOSE_WAIT for 2 s or more"); int(n) != f.sockets {
		t.Errorf("%v sockets, want %d", n, f.sockets)
	}
	if q := evidence(t, g, "Recv-Q, most"); q != f.recvQ {
		t.Errorf("Recv-Q %v, want %v", q, f.recvQ)
	}
	age, low, high := evidence(t, g, "age of the oldest"), r.Time.Sub(f.to).Seconds(), r.Time.Sub(f.from).Seconds()
	if f.id == diagnose.CloseWaitHalfClose {
		// What this end has sent was acknowledged: only what was known before that
		// tells the time of the FIN.
		low = r.Time.Sub(first.Time).Seconds()
	}
	if age < low-1 || age > high+1 {
		t.Errorf("age %v, true between %v and %v", age, low, high)
	}
	if diff := cmp.Diff(f.remedies, recommended(g)); diff != "" {
		t.Errorf("remedies (-want +got):\n%s", diff)
	}
	open, limit := evidence(t, g, "open descriptors"), evidence(t, g, "limit of descriptors")
	if has := number(f.do("descriptors")); int(open) != has || limit != descriptorLimit {
		t.Errorf("%v of %v descriptors open, want %d of %d", open, limit, has, descriptorLimit)
	}
}

// descriptorLimit is that of each of these programs.
const descriptorLimit = 500

func newForsaken(f *forsaken) *forsaken {
	f.do("limit %d", descriptorLimit)
	f.then = func() {}
	return f
}

// keeper is a server in the test's own process that keeps what it accepts until
// release is called.
func keeper(t *testing.T, ns *lab.Namespace, port uint16, n int) (address string, ready, release func()) {
	address = fmt.Sprintf("127.0.0.1:%d", port)
	s := must[*lab.Server](t)(ns.Listen(addrPort(address), lab.ListenOptions{Mode: lab.Never}))
	ready = func() {
		lab.Eventually(t, time.Minute, func() error {
			if held := s.Held(); held != n {
				return fmt.Errorf("%d of %d connections accepted on port %d", held, n, port)
			}
			return nil
		})
	}
	return address, ready, func() {
		if err := s.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

// leaker reads to the end, and doesn't close.
func leaker(t *testing.T, ns *lab.Namespace) *forsaken {
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, "leaker"), id: diagnose.CloseWaitLeak, severity: snapshot.Warning, side: snapshot.Client, port: 1001,
		sockets: 5, recvQ: 0, remedies: []string{"go-close-body", "close-the-socket"},
	})
	address, ready, closing := keeper(t, ns, f.port, f.sockets)
	f.begin = func() { f.do("dial %s %d", address, f.sockets); ready() }
	f.closing, f.then = closing, func() { f.do("end") }
	return f
}

// pool has idle connections, and doesn't look at them.
func pool(t *testing.T, ns *lab.Namespace) *forsaken {
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, "pool"), id: diagnose.CloseWaitStalePool, severity: snapshot.Info, side: snapshot.Client, port: 1002,
		sockets: 4, recvQ: 1, remedies: []string{"shorter-pool-idle"},
	})
	address, ready, closing := keeper(t, ns, f.port, f.sockets)
	f.begin = func() { f.do("dial %s %d", address, f.sockets); ready() }
	f.closing = closing
	return f
}

// tlsPool is a pool whose server says goodbye.
func tlsPool(t *testing.T, ns *lab.Namespace, name string, port uint16, version int, goodbye float64) *forsaken {
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, name), id: diagnose.CloseWaitStalePool, severity: snapshot.Info, side: snapshot.Client, port: port,
		sockets: 7, recvQ: goodbye, remedies: []string{"shorter-pool-idle"},
	})
	server := newPuppet(t, ns, name+"-server")
	address := fmt.Sprintf("127.0.0.1:%d", port)
	server.do("serve-tls %s %d", address, version)
	f.begin = func() { f.do("dial-tls %s %d %d", address, version, f.sockets) }
	f.closing = func() { server.do("close-tls") }
	return f
}

// stuck is a server that doesn't read what it is asked.
func stuck(t *testing.T, ns *lab.Namespace) *forsaken {
	const unread = 10_000
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, "stuck"), id: diagnose.CloseWaitStuckReader, severity: snapshot.Warning, side: snapshot.Server, port: 1005,
		sockets: 3, recvQ: unread + 1, remedies: []string{"unblock-reader"},
	})
	address := fmt.Sprintf("127.0.0.1:%d", f.port)
	f.do("listen %s 100", address)
	var clients []*lab.Conn
	f.begin = func() { clients = openAll(t, ns, address, f.sockets); f.do("accept %d", f.sockets) }
	f.closing = func() { writeAndClose(t, clients, unread) }
	return f
}

// stuckClient is a client that doesn't read the answer.
func stuckClient(t *testing.T, ns *lab.Namespace) *forsaken {
	const unread = 20_000
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, "stuckclient"), id: diagnose.CloseWaitStuckReader, severity: snapshot.Warning, side: snapshot.Client, port: 1006,
		sockets: 3, recvQ: unread + 1, remedies: []string{"unblock-reader"},
	})
	s := must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.1:1006"), lab.ListenOptions{Mode: lab.Manual}))
	var servers []*lab.Conn
	f.begin = func() {
		f.do("dial %s %d", s.Addr(), f.sockets)
		for range f.sockets {
			servers = append(servers, must[*lab.Conn](t)(s.Accept()))
		}
	}
	f.closing = func() { writeAndClose(t, servers, unread) }
	return f
}

// busy listens, and doesn't accept.
func busy(t *testing.T, ns *lab.Namespace) *forsaken {
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, "busy"), id: diagnose.CloseWaitNotAccepted, severity: snapshot.Warning, side: snapshot.Server, port: 1007,
		sockets: 6, recvQ: 6, remedies: []string{"accept-faster", "raise-backlog"},
	})
	address := fmt.Sprintf("127.0.0.1:%d", f.port)
	f.do("listen %s 100", address)
	var clients []*lab.Conn
	f.begin = func() { clients = openAll(t, ns, address, f.sockets) }
	f.closing = func() { writeAndClose(t, clients, 5) }
	return f
}

// sender has read the end, and goes on sending.
func sender(t *testing.T, ns *lab.Namespace) *forsaken {
	f := newForsaken(&forsaken{
		puppet: newPuppet(t, ns, "sender"), id: diagnose.CloseWaitHalfClose, severity: snapshot.Info, side: snapshot.Server, port: 1008,
		sockets: 2, recvQ: 0, remedies: []string{"half-close-is-fine"},
	})
	address := fmt.Sprintf("127.0.0.1:%d", f.port)
	f.do("listen %s 100", address)
	var clients []*lab.Conn
	f.begin = func() { clients = openAll(t, ns, address, f.sockets); f.do("accept %d", f.sockets) }
	f.closing = func() {
		for _, c := range clients {
			if err := c.Shutdown(); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.then = func() { f.do("end"); f.do("trickle") }
	return f
}

func openAll(t *testing.T, ns *lab.Namespace, address string, n int) []*lab.Conn {
	t.Helper()
	var all []*lab.Conn
	for range n {
		all = append(all, must[*lab.Conn](t)(ns.Open(addrPort(address), lab.ConnOptions{})))
	}
	return all
}

func writeAndClose(t *testing.T, all []*lab.Conn, n int) {
	t.Helper()
	for _, c := range all {
		if err := errors.Join(c.Write(make([]byte, n)), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A leak is told before its process has no descriptor left, and when that will
// be: at the rate at which it really leaks.
func TestLeakUntilTheLimit(t *testing.T) {
	t.Parallel()
	const rate, limit = 20, 200
	ns := lab.NewT(t)
	must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.1:1001"), lab.ListenOptions{Mode: lab.CloseByServer}))
	p := newPuppet(t, ns, "leaker")
	p.do("limit %d", limit)
	w := newWatch(t, ns, collector.Config{Interval: 500 * time.Millisecond}, nil)
	p.do("leak 127.0.0.1:1001 %d", rate)
	var times []int64
	if err := json.Unmarshal([]byte(p.do("full")), &times); err != nil || len(times) < limit-20 {
		t.Fatalf("%d times, %v", len(times), err)
	}
	full := time.Unix(0, times[len(times)-1])
	last := w.fresh(t)
	told := 0
	for _, r := range w.all() {
		for i := range r.Findings {
			f := &r.Findings[i]
			if headline(f) != "critical "+diagnose.CloseWaitLeak || f.Subject.Process != p.name {
				t.Errorf("another finding: %s", said(r))
				continue
			}
			open := evidence(t, f, "open descriptors")
			if l := evidence(t, f, "limit of descriptors"); l != limit || open > limit || r == last && open < limit {
				t.Errorf("%v of %v descriptors", open, l)
			}
			if r.Time.After(full) || !leaksSteadily(times, rate, r.TookSeconds) {
				continue
			}
			told++
			left := evidence(t, f, "time until the limit")
			if truth := full.Sub(r.Time).Seconds(); math.Abs(left-truth) > 0.1*truth+1.0/rate+r.TookSeconds {
				t.Errorf("none is left in %v s, truly in %v s", left, truth)
			}
		}
	}
	if len(last.Findings) == 0 || told == 0 && leaksSteadily(times, rate, last.TookSeconds) {
		t.Errorf("told in %d of %d reports; at the end %s", told, len(w.all()), said(last))
	}
	t.Logf("told %d times", told)
}

// leaksSteadily tells whether all was done at a rate, within the time that a pass took
// and the pause between two: else a machine that is too busy made the rate.
func leaksSteadily(times []int64, rate, took float64) bool {
	for i, at := range times {
		due := float64(times[0]) + float64(i)/rate*1e9
		if math.Abs(float64(at)-due) > (took+1/rate)*1e9 {
			return false
		}
	}
	return true
}
