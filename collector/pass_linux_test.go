package collector

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/lab"
)

// A dump that breaks after some rows: they are told, and what is lost too.
func TestDumpBreaks(t *testing.T) {
	ns := lab.NewT(t)
	if _, err := ns.FillTimeWait(t.Context(), lab.Fill{Rows: 2000, Remotes: 1}); err != nil {
		t.Fatal(err)
	}
	var tape bytes.Buffer
	whole := 0
	if err := ns.Do(func() error {
		conn, err := inetdiag.Dial(&inetdiag.Config{Tape: &tape})
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, err := range conn.Sockets(t.Context(), inetdiag.Query{}) {
			if err != nil {
				return err
			}
			whole++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c := newCollector(t, ns, Config{})
	dials := 0
	c.dial = func() (*inetdiag.Conn, error) {
		if dials++; dials == 1 {
			return inetdiag.Replay(bytes.NewReader(tape.Bytes()[:tape.Len()/2])), nil
		}
		return inetdiag.Dial(nil)
	}
	r := passIn(t, ns, c)
	n := r.Namespaces[0]
	rows := n.States.Total()
	if rows < whole/4 || rows > whole*3/4 {
		t.Errorf("%d rows of %d, want about half", rows, whole)
	}
	if len(r.Incomplete) != 1 || r.Incomplete[0].Stage != stageDump || r.Incomplete[0].Lost != fmt.Sprintf("the sockets after the first %d", rows) {
		t.Errorf("%d rows, gaps %+v", rows, r.Incomplete)
	}
	if n.Source != sourceDiag {
		t.Errorf("source %q: /proc was read on top", n.Source)
	}
	// The netlink socket is another one in the next pass, and all is well.
	if r := passIn(t, ns, c); len(r.Incomplete) != 0 || r.Namespaces[0].States.Total() != whole || dials != 2 {
		t.Errorf("next: %d of %d rows, %d sockets dialled, gaps %+v", r.Namespaces[0].States.Total(), whole, dials, r.Incomplete)
	}
}

// Without any row, /proc/net/tcp is the source.
func TestDialFails(t *testing.T) {
	ns := lab.NewT(t)
	manual(t, ns, "127.0.0.1:1004")
	c := newCollector(t, ns, Config{})
	c.dial = func() (*inetdiag.Conn, error) { return nil, errors.New("seccomp says no") }
	r := passIn(t, ns, c)
	n := r.Namespaces[0]
	if n.Source != sourceProc || n.States.Listen != 1 || len(r.Incomplete) != 1 || !strings.Contains(r.Incomplete[0].Error, "seccomp says no") {
		t.Errorf("source %q, %d listen, gaps %+v", n.Source, n.States.Listen, r.Incomplete)
	}
}

// What a pass allocates doesn't depend on the number of sockets.
func TestPassAllocations(t *testing.T) {
	// Beyond the noise of other goroutines: a slice that grows once more, say.
	const few = 20
	measure := func(rows int) float64 {
		ns := lab.NewT(t)
		if _, err := ns.FillTimeWait(t.Context(), lab.Fill{Rows: rows, Remotes: 1}); err != nil {
			t.Fatal(err)
		}
		c := newCollector(t, ns, Config{})
		var allocs float64
		if err := ns.Do(func() (failed error) {
			pass := func() {
				if r, err := c.Pass(t.Context()); err != nil {
					failed = err
				} else if got := int(r.Namespaces[0].States.TimeWait); got != rows {
					failed = fmt.Errorf("%d rows, want %d", got, rows)
				}
			}
			pass() // fills what is kept between passes
			pass()
			allocs = testing.AllocsPerRun(5, pass)
			return failed
		}); err != nil {
			t.Fatal(err)
		}
		return allocs
	}
	const most = manySockets - 50 // from manySockets on, a pass leaves walks out
	if small, large := measure(10), measure(most); math.Abs(large-small) > few {
		t.Errorf("%v allocations with 10 sockets, %v with %d", small, large, most)
	}
}

// Two Collectors in two namespaces at once: each sees its own, and keeps to it.
func TestTwoNamespacesAtOnce(t *testing.T) {
	var waits []func() error
	for i, listeners := range []int{2, 5} {
		ns := lab.NewT(t)
		for port := range listeners {
			manual(t, ns, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+port)).String())
		}
		if err := ns.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", 20000, 20099+100*i)); err != nil {
			t.Fatal(err)
		}
		c := newCollector(t, ns, Config{})
		waits = append(waits, ns.Go(func() error {
			for range 200 {
				r, err := c.Pass(t.Context())
				if err != nil {
					return err
				}
				n := r.Namespaces[0]
				if int(n.States.Listen) != listeners || n.Limits.IPLocalPortRange.Size() != 100+100*i || n.Sockstat.InUse == nil || *n.Sockstat.InUse != listeners {
					return fmt.Errorf("namespace %d: %d listeners, %d ports, sockstat %v; want %d and %d",
						i, n.States.Listen, n.Limits.IPLocalPortRange.Size(), n.Sockstat.InUse, listeners, 100+100*i)
				}
			}
			return nil
		}))
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}
