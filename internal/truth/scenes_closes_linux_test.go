package truth

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// perSecond is the rate of the loads of these scenes.
const perSecond = 15

// rate fails the test unless a rate is that of the load; the spans that it is
// counted over have their ends somewhere between two connections.
func rate(t *testing.T, f *snapshot.Finding, what string) {
	t.Helper()
	if got := evidence(t, f, what); got < 0.8*perSecond || got > 1.2*perSecond {
		t.Errorf("%s: %v/s, truly %d/s", what, got, perSecond)
	}
}

// lingers: a client closes with SO_LINGER 0.
func lingers(t *testing.T) []*scene {
	a, b := hosts(t)
	must[*lab.Server](t)(b.Listen(addrPort(far+":1000"), lab.ListenOptions{}))
	s := &scene{name: "linger", ns: a, want: []string{"warning short-connections-reset"}, ready: programNamed}
	p := s.keep(t, "lingers", b, far)
	s.load = func() { p.do("load linger %d 10000 300ms %s:1000", perSecond, far) }
	s.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Client, Local: near, Remote: far, Port: 1000, Process: "lingers"}, "linger-for-aborts-only")
		rate(t, f, "closed with SO_LINGER 0, or sent to after the close")
	}
	return []*scene{s, {name: "linger, the other end", ns: b}}
}

// closesUnread: a server closes without having read what it was asked.
func closesUnread(t *testing.T) []*scene {
	a, b := hosts(t)
	newPuppet(t, b, "rude").do("serve-rudely %s:1000 300ms", far)
	server := &scene{name: "unread data", ns: b, want: []string{"warning short-connections-reset"}, ready: programNamed}
	server.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Server, Local: far, Port: 1000, Process: "rude"}, "read-before-close")
		rate(t, f, "closed with unread data")
	}
	client := &scene{name: "unread data, the other end", ns: a, want: []string{"info short-connections-remote-closes"}, ready: programNamed}
	p := client.keep(t, "asks", b, far)
	client.load = func() { p.do("load ask %d 10000 0s %s:1000", perSecond, far) }
	client.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Client, Local: near, Remote: far, Port: 1000, Process: "asks"}, "reuse-connections")
		rate(t, f, "reset by the other end")
		if !strings.Contains(f.Summary, "no TIME_WAIT stays at either end") {
			t.Error(f.Summary)
		}
	}
	return []*scene{server, client}
}

// remoteCloses: the server closes first.
func remoteCloses(t *testing.T) []*scene {
	a, b := hosts(t)
	must[*lab.Server](t)(b.Listen(addrPort(far+":1000"), lab.ListenOptions{Mode: lab.CloseByServer, After: 300 * time.Millisecond}))
	s := &scene{name: "the remote closes", ns: a, want: []string{"info short-connections-remote-closes"}, ready: programNamed}
	p := s.keep(t, "waits", b, far)
	s.load = func() { p.do("load wait %d 10000 0s %s:1000", perSecond, far) }
	s.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Client, Local: near, Remote: far, Port: 1000, Process: "waits"}, "reuse-connections")
		rate(t, f, "closed first by the other end")
		if life := evidence(t, f, "mean lifetime, at most"); life < 0.3 || !strings.Contains(f.Summary, "the TIME_WAIT are over there") {
			t.Errorf("each lives 0.3 s: %s", f.Summary)
		}
	}
	return []*scene{s, {name: "the remote closes, the other end", ns: b}}
}

// healthChecks: a program looks at twelve others, at each every two seconds.
func healthChecks(t *testing.T) []*scene {
	ns := lab.NewT(t)
	must[*lab.Server](t)(ns.Listen(addrPort("0.0.0.0:1000"), lab.ListenOptions{}))
	var to []string
	for i := range 12 {
		to = append(to, fmt.Sprintf("127.0.1.%d:1000", i+1))
	}
	s := &scene{name: "health checks", ns: ns, want: []string{"info short-connections-client"}}
	p := s.keep(t, "prober", ns, "127.0.0.1")
	s.load = func() { p.do("load close 6 10000 500ms %s", strings.Join(to, " ")) }
	s.ready = func(r *snapshot.Report) error {
		if !strings.Contains(r.Findings[0].Summary, fmt.Sprintf("each of %d destinations", len(to))) {
			return errors.New("not all are found")
		}
		return programNamed(r)
	}
	s.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Client, Port: 1000, Process: "prober"}, "probe-less-often")
		if r.Verdict != snapshot.Healthy || !strings.Contains(f.Summary, "every 2 s, as health checks and scrapes do") {
			t.Error(said(r))
		}
	}
	return []*scene{s}
}

// buckets: more connections close at once than there are buckets.
func buckets(t *testing.T) []*scene {
	const closes, room = 300, 100
	ns := lab.NewT(t)
	sysctls(t, ns, "net.ipv4.tcp_max_tw_buckets", fmt.Sprint(room))
	server := must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.1:1000"), lab.ListenOptions{}))
	return []*scene{{
		name: "buckets", ns: ns,
		want: []string{"warning tw-buckets-lowered", "warning time-wait-buckets-overflow tw-buckets-lowered"},
		also: []string{"info tw-buckets-lowered"}, once: true,
		load: func() {
			res, err := ns.Run(t.Context(), lab.Storm{Remotes: []netip.AddrPort{server.Addr()}, Count: closes})
			if err != nil || res.Closed != closes {
				t.Fatalf("%+v, %v", res, err)
			}
		},
		check: func(t *testing.T, r *snapshot.Report) {
			lost := must[int64](t)(ns.Counter("TcpExt", "TCPTimeWaitOverflow"))
			if n := evidence(t, &r.Findings[1], "connections closed without TIME_WAIT"); int64(n) != lost || lost < closes/2 {
				t.Errorf("%v closed without TIME_WAIT, the kernel says %d of %d", n, lost, closes)
			}
		},
	}}
}
