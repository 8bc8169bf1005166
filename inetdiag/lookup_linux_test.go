package inetdiag

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLookup(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	for _, at := range []struct{ listen, connect string }{
		{"127.0.0.1:80", "127.0.0.1:80"}, {"[::]:81", "127.0.0.1:81"}, {"[::1]:82", "[::1]:82"},
	} {
		l := listener(t, at.listen, 1)
		client, server := pair(t, l, at.connect)
		_, err := unix.Write(client.fd, []byte("hello"))
		client.must(err)
		began := time.Now()
		client.close()

		closeWait := Query{States: StatesOf(CloseWait), Filter: LocalPort(server.local().Port())}
		var id ID
		eventually(t, "CLOSE_WAIT", func() bool {
			for s, err := range c.Sockets(t.Context(), closeWait) {
				if err != nil {
					t.Fatal(err)
				}
				id = s.ID()
			}
			return id != ID{}
		})
		if id.Src() != server.local() || id.Dst() != server.remote() || id.Cookie() == 0 {
			t.Errorf("the CLOSE_WAIT is %v to %v, cookie %d", id.Src(), id.Dst(), id.Cookie())
		}

		// Its age is what has passed since the FIN.
		eventually(t, "an age", func() bool {
			info, err := c.Lookup(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			const slack = 10 * time.Millisecond // a jiffy and the clock's step
			if info.State != CloseWait || info.LastAckRecv > time.Since(began)+slack {
				t.Fatalf("%s for %v, but the FIN was sent %v ago", info.State, info.LastAckRecv, time.Since(began))
			}
			if !info.HasBytes || info.BytesReceived < 5 || info.BytesReceived > 6 {
				t.Fatalf("%d bytes received (%t), want 5 and a FIN", info.BytesReceived, info.HasBytes)
			}
			return info.LastAckRecv >= 30*time.Millisecond
		})

		// The same tuple under another cookie is another socket.
		other := NewID(mapped(id, id.Src()), mapped(id, id.Dst()), id.Interface(), id.Cookie()+1)
		if _, err := c.Lookup(t.Context(), other); !errors.Is(err, ErrNotFound) {
			t.Errorf("another cookie: %v, want ErrNotFound", err)
		}
		if _, err := c.Lookup(t.Context(), NewID(mapped(id, id.Src()), mapped(id, id.Dst()), 0, 0)); err != nil {
			t.Errorf("any cookie: %v", err)
		}
		server.close()
		eventually(t, "the socket's end", func() bool {
			_, err := c.Lookup(t.Context(), id)
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatalf("after close: %v, want ErrNotFound", err)
			}
			return err != nil
		})
		// What is left on the client's side is a TIME_WAIT.
		if _, err := c.Lookup(t.Context(), NewID(id.Dst(), id.Src(), 0, 0)); !errors.Is(err, ErrNotFound) {
			t.Errorf("TIME_WAIT: %v, want ErrNotFound", err)
		}
		l.close()
	}
}

// mapped spells an address of an IPv6 socket as the socket has it.
func mapped(id ID, a netip.AddrPort) netip.AddrPort {
	if id.Family() == FamilyIPv6 {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	return a
}

func TestInfo(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	settle(t, c, scene(t))
	infos := 0
	for s, err := range c.Sockets(t.Context(), Query{Info: true}) {
		if err != nil {
			t.Fatal(err)
		}
		info, ok := s.Info()
		if full := !s.Mini() && s.State() != SynRecv; ok != full {
			t.Errorf("%s: tcp_info is there: %t, want %t", seenOf(s), ok, full)
		}
		if ok && info.State != s.State() {
			t.Errorf("%s: tcp_info says %s", seenOf(s), info.State)
		}
		if ok {
			infos++
		}
	}
	if infos == 0 {
		t.Error("no tcp_info in the whole dump")
	}
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Info(); ok {
			t.Errorf("%s: tcp_info, unasked", seenOf(s))
		}
	}
}

// TestAge: the clock of FilledAt and the timer of a TIME_WAIT give the moment
// of its birth.
func TestAge(t *testing.T) {
	newNamespace(t)
	setSysctl(t, "net.ipv4.tcp_tw_reuse", "0")
	c := dialTest(t, nil)
	l := listener(t, "127.0.0.1:80", 1)
	client, server := pair(t, l, "127.0.0.1:80")
	before, born := Now(), int64(0)
	client.close()
	server.close()
	eventually(t, "a TIME_WAIT of 50 ms", func() bool {
		old := false
		began := Now()
		for s, err := range c.Sockets(t.Context(), Query{States: StatesOf(TimeWait)}) {
			if err != nil {
				t.Fatal(err)
			}
			if !s.Mini() || s.State() != TimeWait {
				continue
			}
			if born == 0 {
				born = Now() // at the latest
			}
			if Now()-began > int64(5*time.Millisecond) {
				continue // the machine is busy: the stamp may be off by as much
			}
			age := 60*time.Second - time.Duration(s.Expires())*time.Millisecond
			birth := time.Duration(s.FilledAt()) - age
			const slack = 15 * time.Millisecond // jiffies, and what a busy machine may take
			if birth < time.Duration(before)-slack || birth > time.Duration(born)+slack {
				t.Fatalf("born at %v, but closed between %v and %v", birth, time.Duration(before), time.Duration(born))
			}
			old = age >= 50*time.Millisecond
		}
		return old
	})
}

// A machine may be busy when a call comes back: what the call made the kernel
// fill is no younger for that.
func TestFilledBeforeTheCallCameBack(t *testing.T) {
	newNamespace(t)
	setSysctl(t, "net.ipv4.tcp_tw_reuse", "0")
	l := listener(t, "127.0.0.1:80", 16)
	for range 400 { // more than a datagram holds
		client, server := pair(t, l, "127.0.0.1:80")
		client.close()
		server.close()
	}
	c := dialTest(t, nil)
	kernel, calls := c.recv, []int64{}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	c.recv = func(buf []byte) (int, uint32, error) {
		calls = append(calls, Now())
		n, from, err := kernel(buf)
		<-tick.C
		return n, from, err
	}
	began := Now()
	for s, err := range c.Sockets(t.Context(), Query{States: StatesOf(TimeWait)}) {
		if err != nil {
			t.Fatal(err)
		}
		// The first datagram was filled by the request, each other one while
		// the one before it was received.
		from, to := began, calls[0]
		if n := len(calls); n > 2 {
			from, to = calls[n-3], calls[n-2]
		}
		if at := s.FilledAt(); at < from || at > to {
			t.Fatalf("datagram %d: filled at %d, not between %d and %d", len(calls), at, from, to)
		}
	}
	if len(calls) < 3 {
		t.Fatalf("%d datagrams", len(calls))
	}
}
