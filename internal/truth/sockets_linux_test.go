package truth

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/lab"
)

// in runs fn with a collector in the namespace.
func in(t *testing.T, ns *lab.Namespace, cfg collector.Config, fn func(c *collector.Collector) error) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := collector.New(cfg)
		if err != nil {
			return err
		}
		defer c.Close()
		return fn(c)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tuples are sockets as text, sorted.
func tuples(t *testing.T, sockets []snapshot.Socket) []string {
	t.Helper()
	texts := []string{}
	for _, s := range sockets {
		local, remote := addrPort(s.Local), netip.AddrPort{}
		if s.Remote != "" {
			remote = addrPort(s.Remote)
		}
		texts = append(texts, fmt.Sprint(s.State, " ", local, " ", remote))
	}
	slices.Sort(texts)
	return texts
}

// ssTuples asks ss, which filters by itself. With a single state it leaves the
// state out.
func ssTuples(t *testing.T, ns *lab.Namespace, filter string) []string {
	t.Helper()
	lab.Require(t, "ss")
	out := must[string](t)(ns.Command(t.Context(), "ss", append([]string{"-Htan"}, strings.Fields(filter)...)...))
	texts := []string{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if strings.HasPrefix(filter, "state ") && strings.Count(filter, "state ") == 1 {
			f = append(strings.Fields(filter)[1:2], f...)
		}
		local, remote := ssAddr(t, f[3]), ssAddr(t, f[4])
		if remote.Port() == 0 {
			remote = netip.AddrPort{}
		}
		texts = append(texts, fmt.Sprint(must[inetdiag.State](t)(inetdiag.ParseState(f[0])), " ", local, " ", remote))
	}
	slices.Sort(texts)
	return texts
}

// mixture makes sockets of many states, both families and both ends, and waits
// until they are as they will stay. connected is how many have a remote end.
func mixture(t *testing.T) (b *bench, connected int) {
	t.Helper()
	b = newBench(t)
	b.serve("127.0.0.1:1000")
	b.serve("127.1.0.1:1000")
	b.serve("[::1]:1001")
	must[*lab.Server](t)(b.ns.Listen(addrPort("[::]:1002"), lab.ListenOptions{DualStack: true}))
	must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1003"), lab.ListenOptions{Mode: lab.CloseByServer}))
	manual := must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1004"), lab.ListenOptions{Mode: lab.Manual}))
	b.churn(30, lab.Storm{Remotes: append(remotes("127.0.0.1:1000"), remotes("127.1.0.1:1000")...)})
	b.churn(20, lab.Storm{Remotes: remotes("[::1]:1001")})
	b.churn(10, lab.Storm{Remotes: remotes("127.0.0.1:1002")}) // to an [::] listener
	b.churn(10, lab.Storm{Remotes: remotes("127.0.0.1:1003"), Closer: lab.ServerEnd})
	b.open(5, "[::1]:1002", lab.ConnOptions{})
	b.open(5, "127.1.0.1:1002", lab.ConnOptions{})
	for range 6 { // CLOSE_WAIT at the client, FIN_WAIT2 at the server
		p := must[*lab.Pair](t)(b.ns.Pair(manual, lab.ConnOptions{}))
		if err := p.Server.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
	connected = 70 + 2*(5+5) + 2*6
	lab.Eventually(t, 30*time.Second, func() error {
		s := look(t, b.ns).States
		if s.TimeWait != 70 || s.Established != 20 || s.CloseWait != 6 || s.FinWait2 != 6 || s.Listen != 6 {
			return fmt.Errorf("states %+v", s)
		}
		return nil
	})
	return b, connected
}

// What each filter lets through is what ss shows under the same filter: live,
// from /proc, and from a report's sample that holds all.
func TestSocketsEqualSS(t *testing.T) {
	b, connected := mixture(t)
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		q      snapshot.SocketQuery
		filter string
		least  int // rows, so that the comparison means something
	}{
		{snapshot.SocketQuery{}, "", connected + 6},
		{snapshot.SocketQuery{States: []string{"time_wait"}}, "state time-wait", 70},
		{snapshot.SocketQuery{States: []string{"established"}}, "state established", 20},
		{snapshot.SocketQuery{States: []string{"close_wait"}}, "state close-wait", 6},
		{snapshot.SocketQuery{States: []string{"fin_wait2"}}, "state fin-wait-2", 6},
		{snapshot.SocketQuery{States: []string{"listen"}}, "state listening", 6},
		{snapshot.SocketQuery{States: []string{"close_wait", "fin_wait2"}}, "state close-wait state fin-wait-2", 12},
		{snapshot.SocketQuery{Remote: prefix("127.0.0.0/8")}, "dst 127.0.0.0/8", 50},
		{snapshot.SocketQuery{Remote: prefix("127.1.0.0/16")}, "dst 127.1.0.0/16", 15},
		{snapshot.SocketQuery{Remote: prefix("::1/128")}, "dst [::1]", 20},
		{snapshot.SocketQuery{Port: 1002}, "( sport = :1002 or dport = :1002 )", 30},
		{snapshot.SocketQuery{Port: 1003}, "( sport = :1003 or dport = :1003 )", 10},
		{snapshot.SocketQuery{Port: 9}, "( sport = :9 or dport = :9 )", 0},
		{snapshot.SocketQuery{States: []string{"time_wait"}, Remote: prefix("127.0.0.0/16"), Port: 1000}, "state time-wait dst 127.0.0.0/16 dport = :1000", 15},
	} {
		want := ssTuples(t, b.ns, tt.filter)
		if len(want) < tt.least {
			t.Errorf("%q: ss shows only %d", tt.filter, len(want))
		}
		for _, cfg := range []collector.Config{{}, {ForceProc: true}} {
			in(t, b.ns, cfg, func(c *collector.Collector) error {
				list, err := c.Sockets(t.Context(), tt.q)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(want, tuples(t, list.Sockets)); diff != "" || list.Truncated || (list.Lost != "") != cfg.ForceProc {
					t.Errorf("%q, /proc %v, lost %q (-ss +list):\n%s", tt.filter, cfg.ForceProc, list.Lost, diff)
				}
				q := tt.q
				if q.Limit = len(want) - 1; q.Limit > 0 {
					if list, err := c.Sockets(t.Context(), q); err != nil || len(list.Sockets) != q.Limit || !list.Truncated {
						t.Errorf("%q, at most %d: %d, %v", tt.filter, q.Limit, len(list.Sockets), err)
					}
				}
				return nil
			})
		}
		in(t, b.ns, collector.Config{SampleSockets: snapshot.MaxSampledSockets}, func(c *collector.Collector) error {
			r, err := c.Pass(t.Context())
			if err != nil {
				return err
			}
			all, _ := tt.q.Select(r.Namespaces[0].Sockets)
			want := slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "listen ") })
			if diff := cmp.Diff(want, tuples(t, all)); diff != "" {
				t.Errorf("%q (-ss +report):\n%s", tt.filter, diff)
			}
			return nil
		})
	}
}

// Bound sockets are listed as close, and only by sock_diag.
func TestSocketsBound(t *testing.T) {
	b := newBench(t)
	must[*lab.Conn](t)(b.ns.Bind(addrPort("127.0.0.1:1234"), lab.ConnOptions{}))
	in(t, b.ns, collector.Config{}, func(c *collector.Collector) error {
		list, err := c.Sockets(t.Context(), snapshot.SocketQuery{States: []string{"close"}})
		if err != nil {
			return err
		}
		if len(list.Sockets) != 1 || list.Sockets[0].Local != "127.0.0.1:1234" || list.Sockets[0].Remote != "" {
			t.Errorf("got %+v", list.Sockets)
		}
		return nil
	})
}

// --older tells sockets by the time that they have been in their state.
func TestSocketsOlder(t *testing.T) {
	b := newBench(t)
	b.serve("127.0.0.1:1000")
	manual := must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1004"), lab.ListenOptions{Mode: lab.Manual}))
	shutdown := func(n int) {
		for range n {
			if err := must[*lab.Pair](t)(b.ns.Pair(manual, lab.ConnOptions{})).Server.Shutdown(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.churn(20, lab.Storm{Remotes: remotes("127.0.0.1:1000")})
	shutdown(4)
	first := time.Now()
	lab.Eventually(t, 30*time.Second, func() error {
		if age := time.Since(first); age < 1200*time.Millisecond {
			return fmt.Errorf("only %v old", age)
		}
		return nil
	})
	second := time.Now()
	b.churn(10, lab.Storm{Remotes: remotes("127.0.0.1:1000")})
	shutdown(3)
	list := func(cfg collector.Config, q snapshot.SocketQuery) (n int) {
		in(t, b.ns, cfg, func(c *collector.Collector) error {
			list, err := c.Sockets(t.Context(), q)
			if err == nil {
				n = len(list.Sockets)
			}
			return err
		})
		return n
	}
	for _, tt := range []struct {
		cfg    collector.Config
		states []string
		older  bool // than the young ones
		want   int
	}{
		{collector.Config{}, []string{"time_wait"}, false, 30},
		{collector.Config{}, []string{"time_wait"}, true, 20},
		{collector.Config{}, []string{"close_wait"}, true, 4},
		{collector.Config{}, []string{"close_wait", "fin_wait2"}, true, 4},
		{collector.Config{}, nil, true, 24},
		{collector.Config{ForceProc: true}, nil, true, 20},
	} {
		// A list in which the young ones could have come of age says nothing.
		lab.Eventually(t, 30*time.Second, func() error {
			q := snapshot.SocketQuery{States: tt.states}
			if tt.older {
				q.Older = time.Since(second) + 500*time.Millisecond
			}
			got := list(tt.cfg, q)
			if tt.older && time.Since(second) > q.Older {
				return fmt.Errorf("the list took longer than %v", 500*time.Millisecond)
			}
			if got != tt.want {
				t.Errorf("%+v: %d, want %d", q, got, tt.want)
			}
			return nil
		})
	}
}

// A report's sample has the size asked for, says of how many, holds nothing
// that isn't there, and is another one in every pass.
func TestSampleOfSockets(t *testing.T) {
	b, connected := mixture(t)
	all := ssTuples(t, b.ns, "")
	for _, cfg := range []collector.Config{{SampleSockets: 30}, {SampleSockets: 30, ForceProc: true}} {
		seen := map[string]bool{}
		in(t, b.ns, cfg, func(c *collector.Collector) error {
			for range 20 {
				r, err := c.Pass(t.Context())
				if err != nil {
					return err
				}
				n := r.Namespaces[0]
				if n.SocketsOf == nil || *n.SocketsOf != connected || len(n.Sockets) != cfg.SampleSockets {
					t.Fatalf("%d sockets of %v, want %d of %d", len(n.Sockets), n.SocketsOf, cfg.SampleSockets, connected)
				}
				if !slices.IsSortedFunc(n.Sockets, func(a, b snapshot.Socket) int { return strings.Compare(a.Remote, b.Remote) }) {
					t.Error("the sample isn't sorted")
				}
				now := map[string]bool{}
				for i, text := range tuples(t, n.Sockets) {
					if !slices.Contains(all, text) || now[text] {
						t.Errorf("%s: not there, or twice", text)
					}
					now[text], seen[text] = true, true
					checkAge(t, n, &n.Sockets[i])
				}
			}
			return nil
		})
		// The chance of one socket to be in none of 20 is 1 in 800.
		if len(seen) < connected*9/10 {
			t.Errorf("in 20 samples of 30 only %d of %d sockets", len(seen), connected)
		}
	}
	if n := look(t, b.ns); n.Sockets != nil || n.SocketsOf != nil {
		t.Error("a sample that nobody asked for")
	}
}

// checkAge holds a sampled socket's age to what the report says of it besides.
func checkAge(t *testing.T, n *snapshot.Namespace, s *snapshot.Socket) {
	t.Helper()
	var want *float64
	switch {
	case s.State == "time_wait":
		want = new(60 - *s.TimerSeconds)
	case s.State == "close_wait" && n.Source == "inet_diag":
		i := slices.IndexFunc(n.CloseWaits, func(c snapshot.CloseWait) bool { return c.Cookie == s.Cookie })
		if i < 0 {
			t.Errorf("%+v isn't among the report's CLOSE_WAIT sockets", s)
			return
		}
		want = n.CloseWaits[i].AgeSeconds
	}
	if (want == nil) != (s.AgeSeconds == nil) {
		t.Errorf("%+v: age %v, want %v", s, s.AgeSeconds, want)
	} else if want != nil && (*s.AgeSeconds < *want-0.011 || *s.AgeSeconds > *want+0.011) {
		t.Errorf("%+v: age %v, want %v", s, *s.AgeSeconds, *want)
	}
}
