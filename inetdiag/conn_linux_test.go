package inetdiag

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var cmpAddr = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// settle waits until the table shows want: a FIN takes its time.
func settle(t testing.TB, c *Conn, want []seen) {
	t.Helper()
	var got []seen
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		got = collect(t, c, Query{})
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the dump is not what was opened (-want +got):\n%s", cmp.Diff(want, got, cmpAddr))
		}
		<-tick.C
	}
}

func TestDumpShowsWhatWasOpened(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	want := scene(t)
	settle(t, c, want)

	if diff := cmp.Diff(asSS(want), ssRows(t)); diff != "" {
		t.Errorf("ss sees other sockets (-dump +ss):\n%s", diff)
	}

	// Each family by itself, and both through the newer request.
	only := func(f Family) []seen {
		return slices.DeleteFunc(slices.Clone(want), func(s seen) bool { return s.Family != f })
	}
	for _, f := range []Family{FamilyIPv4, FamilyIPv6} {
		if diff := cmp.Diff(only(f), collect(t, c, Query{Family: f}), cmpAddr); diff != "" {
			t.Errorf("%s alone (-want +got):\n%s", f, diff)
		}
	}
	c.noLegacy = true
	if diff := cmp.Diff(want, collect(t, c, Query{}), cmpAddr); diff != "" {
		t.Errorf("one request a family (-want +got):\n%s", diff)
	}
	c.noLegacy = false

	// Each state by itself.
	for state := Established; state <= Closing; state++ {
		part := slices.DeleteFunc(slices.Clone(want), func(s seen) bool { return s.State != state })
		if diff := cmp.Diff(part, collect(t, c, Query{States: StatesOf(state)}), cmpAddr); len(part) > 0 && diff != "" {
			t.Errorf("%s alone (-want +got):\n%s", state, diff)
		}
	}
	if n := c.Duplicates(); n != 0 {
		t.Errorf("%d duplicates in a quiet namespace", n)
	}
}

// TestOrder: the listeners first, then what is merely bound, then the rest,
// whichever way the kernel is asked. The dump decides sides while it runs.
func TestOrder(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	all := scene(t)
	settle(t, c, all)
	before := sceneBound(t)
	q := Query{States: AllStates | StatesOf(BoundInactive)}
	for _, legacy := range []bool{true, false} {
		c.noLegacy = !legacy
		var (
			rank int
			got  []seen
		)
		for s, err := range c.Sockets(t.Context(), q) {
			if err != nil {
				t.Fatal(err)
			}
			r := map[State]int{Listen: 1, Close: 2}[s.State()]
			if r == 0 {
				r = 3
			}
			if r < rank {
				t.Errorf("legacy=%t: %s after a row of rank %d", legacy, seenOf(s), rank)
			}
			rank = max(rank, r)
			if s.State() == Close {
				got = append(got, seenOf(s))
			}
		}
		if len(got) == 0 {
			lacking(t, "bound-inactive", errors.New("this kernel shows no BOUND_INACTIVE sockets (6.8 does)"))
		}
		if diff := cmp.Diff(before, sorted(got), cmpAddr); diff != "" {
			t.Errorf("legacy=%t: bound sockets (-want +got):\n%s", legacy, diff)
		}
	}
	if got := collect(t, c, Query{States: StatesOf(Close)}); len(got) != 0 {
		t.Errorf("asking for CLOSE shows %v: BoundInactive must be asked for", got)
	}
}

func TestNetNS(t *testing.T) {
	newNamespace(t)
	listener(t, "127.0.0.1:80", 1)
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()

	rows := make(chan []seen, 1)
	go func() { // elsewhere: this goroutine's thread is in the test's first namespace
		defer close(rows)
		c, err := Dial(&Config{NetNS: int(ns.Fd())})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		var got []seen
		for s, err := range c.Sockets(context.Background(), Query{}) {
			if err != nil {
				t.Error(err)
				return
			}
			got = append(got, seenOf(s))
		}
		rows <- got
	}()
	if got := <-rows; len(got) != 1 || got[0].Src.Port() != 80 {
		t.Errorf("from outside the namespace shows %v", got)
	}
}

// TestUnprivileged drops every capability: a dump needs none.
func TestUnprivileged(t *testing.T) {
	newNamespace(t)
	want := scene(t)
	settle(t, dialTest(t, nil), want)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil { // this thread only
		t.Fatal(err)
	}
	c := dialTest(t, nil)
	if diff := cmp.Diff(want, collect(t, c, Query{}), cmpAddr); diff != "" {
		t.Errorf("without capabilities (-want +got):\n%s", diff)
	}
}

// TestLegacyRefused puts a refusal in the place of a real answer.
func TestLegacyRefused(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	want := scene(t)
	settle(t, c, want)

	for _, errno := range []int32{errnoINVAL, errnoOPNOTSUPP, errnoNOENT} {
		c := dialTest(t, nil)
		kernel, asked := c.recv, 0
		c.recv = func(buf []byte) (int, uint32, error) {
			if c.dump.typ != typeLegacy {
				return kernel(buf)
			}
			asked++
			for { // the real answer, out of the way
				n, from, err := kernel(buf)
				if err != nil || c.dump.answered(buf[:n]) {
					s := newSynth()
					s.seq, s.port = c.dump.seq, c.dump.port
					return copy(buf, s.refuse(-errno).msgs), from, err
				}
			}
		}
		for range 2 {
			if diff := cmp.Diff(want, collect(t, c, Query{}), cmpAddr); diff != "" {
				t.Errorf("refused with %d (-want +got):\n%s", errno, diff)
			}
		}
		if asked != 1 {
			t.Errorf("refused with %d: asked %d times, want once", errno, asked)
		}
	}
}

func TestCancel(t *testing.T) {
	newNamespace(t)
	many(t, 1000)
	c := dialTest(t, nil)

	ctx, cancel := context.WithCancel(t.Context())
	rows, last := 0, error(nil)
	for _, err := range c.Sockets(ctx, Query{}) {
		if err != nil {
			last = err
			continue
		}
		rows++
		cancel()
	}
	if !errors.Is(last, context.Canceled) || rows == 0 || rows >= 1000 {
		t.Errorf("%d rows and then %v, want some and then context.Canceled", rows, last)
	}
	if _, _, err := c.Drain(t.Context(), Query{}); !errors.Is(err, ErrSpent) {
		t.Errorf("after a cancelled dump: %v, want ErrSpent", err)
	}

	// A receive that waits for what never comes.
	c = dialTest(t, nil)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	stop := c.watch(ctx)
	if _, err := c.receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting: %v, want context.DeadlineExceeded", err)
	}
	stop()
	if got := collect(t, c, Query{States: StatesOf(Listen)}); len(got) != 1 {
		t.Errorf("the deadline outlived its request: %v", got)
	}

	// Cancelled from the start: nothing is left behind.
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, _, err := c.Drain(ctx, Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

func TestBusy(t *testing.T) {
	newNamespace(t)
	want := scene(t)
	c := dialTest(t, nil)
	settle(t, c, want)
	var got []seen
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, seenOf(s))
		if _, err := c.Lookup(t.Context(), s.ID()); !errors.Is(err, ErrBusy) {
			t.Fatalf("a lookup in the loop's body: %v, want ErrBusy", err)
		}
		for _, err := range c.Sockets(t.Context(), Query{}) {
			if !errors.Is(err, ErrBusy) {
				t.Fatalf("a dump in the loop's body: %v, want ErrBusy", err)
			}
		}
	}
	if diff := cmp.Diff(want, sorted(got), cmpAddr); diff != "" {
		t.Errorf("the outer loop (-want +got):\n%s", diff)
	}
}

func TestSpent(t *testing.T) {
	newNamespace(t)
	many(t, 10)
	c := dialTest(t, nil)
	for _, err := range c.Sockets(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if s != nil || !errors.Is(err, ErrSpent) {
			t.Errorf("after a loop that was left: %v, want ErrSpent", err)
		}
	}
	if _, err := c.Lookup(t.Context(), ID{}); !errors.Is(err, ErrSpent) {
		t.Errorf("lookup: %v, want ErrSpent", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestSmallBuffer: what doesn't fit is noticed, not lost in silence.
func TestSmallBuffer(t *testing.T) {
	newNamespace(t)
	many(t, 10)
	c := dialTest(t, nil)
	c.buf = c.buf[:512]
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if s != nil || !errors.Is(err, ErrTruncated) {
			t.Errorf("a buffer too small gives %v, want ErrTruncated", err)
		}
	}
}

// TestForeignDatagram: another socket of this host sends what looks like an
// answer.
func TestForeignDatagram(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	if _, _, err := c.Drain(t.Context(), Query{}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	forged := newSynth()
	forged.seq, forged.port = c.dump.seq+1, c.dump.port
	forged.row(rowA).done(0)
	if err := unix.Sendto(fd, forged.msgs, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.dump.port}); err != nil {
		t.Fatal(err)
	}
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if s != nil || !errors.Is(err, ErrForeign) {
			t.Errorf("a forged row gives %v and %v, want ErrForeign", s, err)
		}
	}
}

func TestClosed(t *testing.T) {
	c := dialTest(t, nil)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if s != nil || err == nil {
			t.Error("a closed Conn shows rows")
		}
	}
}

func TestAllocationsAreConstant(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	measure := func() (rows int, allocs float64) {
		allocs = testing.AllocsPerRun(20, func() {
			rows = 0
			for _, err := range c.Sockets(ctx, Query{}) {
				if err != nil {
					t.Fatal(err)
				}
				rows++
			}
		})
		return rows, allocs
	}
	l := many(t, 9)
	few, fewAllocs := measure()
	if few < 10 {
		t.Fatalf("%d sockets, want 10", few)
	}
	grow(t, l, 10_000)
	lots, lotsAllocs := measure()
	if lots < 10_000 {
		t.Fatalf("%d sockets, want 10,000", lots)
	}
	stamps(t, c)
	if fewAllocs != lotsAllocs {
		t.Errorf("%d sockets cost %v allocations, %d cost %v", few, fewAllocs, lots, lotsAllocs)
	}
	t.Logf("%v allocations a dump", lotsAllocs)
}

// stamps: a datagram's rows have one time, never earlier than the one before,
// all of them between the dump's beginning and its end.
func stamps(t *testing.T, c *Conn) {
	t.Helper()
	before, last, changes := Now(), int64(0), 0
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if s.FilledAt() < max(before, last) {
			t.Fatalf("filled at %d, the row before at %d, the dump began at %d", s.FilledAt(), last, before)
		}
		if s.FilledAt() != last {
			changes++
		}
		last = s.FilledAt()
	}
	if changes < 10 || changes > 1000 || last > Now() {
		t.Errorf("10,000 rows have %d times, the last %d, now it is %d", changes, last, Now())
	}
}
