package inetdiag

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	rowA = synthRow{state: Listen, src: "0.0.0.0:80", dst: "0.0.0.0:0", cookie: 1}
	rowB = synthRow{state: TimeWait, timer: 3, src: "10.0.0.1:4000", dst: "10.0.0.2:80", cookie: 2, expires: 1000}
	rowC = synthRow{state: CloseWait, src: "[::ffff:10.0.0.1]:80", dst: "[::ffff:10.0.0.3]:4001", cookie: 3}
)

// sources reads all local endpoints, and the error that came last.
func sources(t *testing.T, c *Conn, q Query) (rows []string, err error) {
	t.Helper()
	for s, e := range c.Sockets(t.Context(), q) {
		if err != nil {
			t.Error("the loop went on after an error")
		}
		if err = e; e != nil {
			if s != nil {
				t.Error("an error came with a row")
			}
			continue
		}
		rows = append(rows, s.Src().String())
	}
	return rows, err
}

// errRefused stands for an error number without a sentinel.
var errRefused = errors.New("refused")

// TestBadDatagrams: each kind of damage has its error, what stood before it
// is kept, and the Conn is spent unless the answer had come to its end.
func TestBadDatagrams(t *testing.T) {
	two := func() *synth { return newSynth().row(rowA).row(rowB) }
	tests := []struct {
		name  string
		tape  *synth
		query Query
		want  error
		rows  int
		alive bool
	}{
		{name: "good", tape: two().cut().row(rowC).done(0).cut(), rows: 3, alive: true},
		{name: "good, the end alone", tape: two().row(rowC).cut().done(0).cut(), rows: 3, alive: true},
		{name: "good, an end without a number", tape: two().cut().message(msgDone).cut(), rows: 2, alive: true},
		{name: "good, nothing to show", tape: newSynth().done(0).cut(), alive: true},
		{name: "good, a no-op between", tape: two().message(msgNoop).row(rowC).done(0).cut(), rows: 3, alive: true},
		{name: "empty", tape: two().cut().cut(), want: ErrMalformed, rows: 2},
		{name: "stray bytes", tape: damaged(two(), func(b []byte) []byte { return append(b, 1, 2, 3) }), want: ErrMalformed, rows: 2},
		{name: "cut in a row", tape: damaged(two(), func(b []byte) []byte { return b[:len(b)-5] }), want: ErrMalformed, rows: 1},
		{name: "cut in a header", tape: damaged(two(), func(b []byte) []byte { return b[:rowMessage+headerSize-1] }), want: ErrMalformed, rows: 1},
		{name: "length 0", tape: damaged(two(), put32(rowMessage, 0)), want: ErrMalformed, rows: 1},
		{name: "length 15", tape: damaged(two(), put32(rowMessage, 15)), want: ErrMalformed, rows: 1},
		{name: "length over the end", tape: damaged(two(), put32(rowMessage, rowMessage+4)), want: ErrMalformed, rows: 1},
		{name: "length 2³²−1", tape: damaged(two(), put32(rowMessage, 1<<32-1)), want: ErrMalformed, rows: 1},
		{name: "a short row", tape: two().message(typeLegacy, make([]byte, rowSize-1)...).cut(), want: ErrMalformed, rows: 2},
		{name: "an empty row", tape: two().message(typeLegacy).cut(), want: ErrMalformed, rows: 2},
		{name: "a row of another family", tape: two().message(typeLegacy, make([]byte, rowSize)...).cut(), want: ErrMalformed, rows: 2},
		{name: "an unknown type", tape: two().message(99, make([]byte, rowSize)...).cut(), want: ErrMalformed, rows: 2},
		{name: "a row of the other request", tape: two().message(typeFamily, rowC.bytes()...).cut(), want: ErrMalformed, rows: 2},
		{name: "oversized", tape: oversized(two().cut()), want: ErrTruncated, rows: 2},
		{name: "overrun", tape: two().message(msgOverrun).cut(), want: ErrTruncated, rows: 2},
		{name: "another sequence", tape: damaged(two(), put32(rowMessage+8, 8)), want: ErrSequence, rows: 1},
		{name: "reordered: an end of the next request", tape: with(two(), func(s *synth) { s.seq++ }).done(0).cut(), want: ErrSequence, rows: 2},
		{name: "another port", tape: damaged(two(), put32(rowMessage+12, 1)), want: ErrForeign, rows: 1},
		{name: "an error without a number", tape: two().message(msgError, 1, 2).cut(), want: ErrMalformed, rows: 2},
		{name: "an error that is none", tape: two().refuse(0).cut(), want: ErrMalformed, rows: 2},
		{name: "an error of a wild number", tape: two().refuse(-1 << 31).cut(), want: ErrMalformed, rows: 2},
		{name: "refused midway", tape: two().refuse(-errnoINVAL).cut(), query: Query{Family: FamilyIPv4}, want: errRefused, rows: 2},
		{name: "refused", tape: newSynth().refuse(-errnoINVAL).cut(), query: Query{Family: FamilyIPv4}, want: errRefused, alive: true},
		{name: "busy", tape: two().refuse(-errnoBUSY).cut(), want: ErrBusy, rows: 2},
		{name: "busy at once", tape: newSynth().refuse(-errnoBUSY).cut(), want: ErrBusy},
		{name: "forbidden", tape: newSynth().refuse(-errnoPERM).cut(), want: os.ErrPermission, alive: true},
		{name: "no buffers", tape: newSynth().refuse(-errnoNOBUFS).cut(), query: Query{Family: FamilyIPv4}, want: ErrTruncated, alive: true},
		{name: "unknown to the kernel", tape: newSynth().refuse(-errnoNOENT).cut(), query: Query{Family: FamilyIPv4}, want: ErrNotSupported, alive: true},
		{name: "failed at its end", tape: two().done(-errnoBUSY).cut(), want: ErrBusy, rows: 2, alive: true},
		{name: "interrupted", tape: with(two(), func(s *synth) { s.flags |= flagDumpIntr }).row(rowC).done(0).cut(), want: ErrInterrupted, rows: 3, alive: true},
		{name: "no end", tape: two().cut(), want: io.EOF, rows: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.tape.replay()
			rows, err := sources(t, c, tt.query)
			if len(rows) != tt.rows {
				t.Errorf("%d rows before the end, want %d", len(rows), tt.rows)
			}
			if errors.Is(tt.want, errRefused) {
				if no := (*refusal)(nil); !errors.As(err, &no) {
					t.Errorf("the error is %v, want the kernel's refusal", err)
				}
				checkError(t, err, err)
			} else {
				checkError(t, err, tt.want)
			}
			_, err = sources(t, c, tt.query)
			if spent := errors.Is(err, ErrSpent); spent == tt.alive {
				t.Errorf("afterwards %v; spent is %t, want %t", err, spent, !tt.alive)
			}

			// A drain looks at no rows, but must not fail where a dump is good.
			_, _, err = tt.tape.replay().Drain(t.Context(), tt.query)
			if strings.HasPrefix(tt.name, "good") && err != nil {
				t.Errorf("drain: %v", err)
			}
		})
	}
}

// checkError checks the type, the kind and that there is advice.
func checkError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the error is %v, want %v", err, want)
	}
	if err == nil {
		return
	}
	if _, ok := errors.AsType[*OpError](err); !ok {
		t.Fatalf("%v is a %T, want an *OpError", err, err)
	}
	head, advice, ok := strings.Cut(err.Error(), "; ")
	if !ok || advice == "" || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(head, "inetdiag: ") {
		t.Errorf("the message %q is not one line that ends with what to do", err)
	}
}

// damaged ends the datagram under way with its bytes changed.
func damaged(s *synth, change func([]byte) []byte) *synth {
	s.msgs = change(s.msgs)
	return s.cut()
}

func put32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.NativeEndian.PutUint32(b[at:], v)
		return b
	}
}

func with(s *synth, change func(*synth)) *synth {
	change(s)
	return s
}

func oversized(s *synth) *synth {
	s.record(make([]byte, bufferSize+1))
	return s
}

// TestForeignSender: the datagram's sender isn't on a tape, so the seam says
// that it was another process.
func TestForeignSender(t *testing.T) {
	c := newSynth().row(rowA).cut().row(rowB).done(0).cut().replay()
	tape, n := c.recv, 0
	c.recv = func(buf []byte) (int, uint32, error) {
		size, _, err := tape(buf)
		n++
		if n == 2 {
			return size, 4242, err
		}
		return size, 0, err
	}
	rows, err := sources(t, c, Query{})
	checkError(t, err, ErrForeign)
	if len(rows) != 1 {
		t.Errorf("%d rows, want 1", len(rows))
	}
}

// TestSequences: what a live request checks against is its own number, not
// the first one that comes.
func TestSequences(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(d *dump)
		want   error
	}{
		"sequence": {func(d *dump) { d.seq++ }, ErrSequence},
		"port":     {func(d *dump) { d.port++ }, ErrForeign},
	} {
		c := newSynth().row(rowA).done(0).cut().replay()
		tape := c.recv
		c.recv = func(buf []byte) (int, uint32, error) {
			c.dump.seq, c.dump.port, c.dump.learn = 7, 4711, false
			tt.change(&c.dump)
			return tape(buf)
		}
		rows, err := sources(t, c, Query{})
		if len(rows) != 0 || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v and %v, want %v", name, rows, err, tt.want)
		}
	}
}

// TestFallback: the walk of both families is refused, and each family gets
// its own, listeners first.
func TestFallback(t *testing.T) {
	s := newSynth().refuse(-errnoINVAL).cut()
	s.typ = typeFamily
	for range 2 { // the second time without the refusal
		for _, r := range []*synthRow{&rowA, nil, &rowB, &rowC} {
			s.seq++
			if r != nil {
				s.row(*r)
			}
			s.done(0).cut()
		}
	}
	c := s.replay()
	for range 2 {
		rows, err := sources(t, c, Query{})
		if diff := cmp.Diff([]string{"0.0.0.0:80", "10.0.0.1:4000", "10.0.0.1:80"}, rows); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}

	// Drain goes the same way.
	if n, _, err := s.replay().Drain(t.Context(), Query{}); n != 5 || err != nil {
		t.Errorf("drained %d datagrams, %v; want 5", n, err)
	}

	// Refused after a row, or for being busy or forbidden: no second way.
	for _, s := range []*synth{
		newSynth().row(rowA).refuse(-errnoINVAL).cut(),
		newSynth().refuse(-errnoBUSY).cut(),
		newSynth().refuse(-errnoPERM).cut(),
	} {
		c := s.done(0).cut().done(0).cut().replay()
		if _, err := sources(t, c, Query{}); err == nil || c.noLegacy {
			t.Errorf("%v, and the legacy request is given up: %t", err, c.noLegacy)
		}
	}
}

func TestDuplicates(t *testing.T) {
	numbered := func(i int) synthRow {
		return synthRow{state: Established, src: fmt.Sprintf("10.0.0.1:%d", i), dst: "10.0.0.2:80", cookie: uint64(i)}
	}
	s := newSynth()
	for i := 1; i <= 100; i++ {
		s.row(numbered(i))
	}
	anonymous := numbered(101)
	anonymous.cookie = 0
	s.row(anonymous)
	s.cut()
	s.row(numbered(86)).row(numbered(100)) // the last 16 are 86 to 101
	s.row(numbered(85))                    // too far from the edge: shown again
	s.row(anonymous)                       // no cookie, no verdict
	other := numbered(200)
	other.cookie = 99
	s.row(other) // the cookie alone proves nothing
	for i := 102; i <= 112; i++ {
		s.row(numbered(i))
	}
	s.row(numbered(98)) // the 17th after the edge
	s.cut().done(0).cut()

	c := s.replay()
	rows, err := sources(t, c, Query{})
	if err != nil || len(rows) != 101+3+11+1 || c.Duplicates() != 2 {
		t.Errorf("%d rows, %d duplicates, %v; want 116, 2, nil", len(rows), c.Duplicates(), err)
	}
}

func TestReplayedContext(t *testing.T) {
	c := newSynth().row(rowA).cut().row(rowB).done(0).cut().replay()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("enough")
	var last error
	rows := 0
	for _, err := range c.Sockets(ctx, Query{}) {
		if last = err; err == nil {
			rows++
			cancel(why)
		}
	}
	if rows != 1 || !errors.Is(last, why) {
		t.Errorf("%d rows, then %v; want 1, then the context's cause", rows, last)
	}
}

func TestDamagedTapes(t *testing.T) {
	good := newSynth().row(rowA).cut().row(rowB).done(0).cut().tape.Bytes()
	for n := range good {
		c := Replay(bytes.NewReader(good[:n]))
		_, err := sources(t, c, Query{})
		checkError(t, err, ErrMalformed)
	}
	for name, tape := range map[string][]byte{
		"another magic": append([]byte("twwatch-tape/2\n"), good[len(tapeMagic):]...),
		"text":          []byte("{\"schema\": \"twwatch.report/v1\"}\n"),
		"a huge record": append([]byte(tapeMagic), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff),
	} {
		_, err := sources(t, Replay(bytes.NewReader(tape)), Query{})
		if name == "a huge record" && !strings.Contains(err.Error(), "4294967295") {
			t.Errorf("%s: %v doesn't tell its size", name, err)
		}
		if checkError(t, err, ErrMalformed); errors.Is(err, io.EOF) {
			t.Errorf("%s: %v claims a clean end", name, err)
		}
	}
	_, err := sources(t, Replay(failing{}), Query{})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails gives %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestReplayAllocations: a tape of ten sockets and one of ten thousand.
func TestReplayAllocations(t *testing.T) {
	allocs := func(n int) float64 {
		tape, r := timeWaits(n), bytes.NewReader(nil)
		c := Replay(r)
		return testing.AllocsPerRun(10, func() {
			rewind(c, r, tape)
			for _, err := range c.Sockets(t.Context(), Query{}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if few, many := allocs(10), allocs(10_000); few != many {
		t.Errorf("10 sockets cost %v allocations, 10,000 cost %v", few, many)
	}
}

// TestRecordedScene replays a dump of Linux 6.18 with sockets of every kind,
// recorded by TestRecordScene.
func TestRecordedScene(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		lacking(t, "little-endian", errors.New("the recording is from such a machine"))
	}
	tape, err := os.Open(filepath.Join("testdata", "scene.tape"))
	if err != nil {
		t.Fatal(err)
	}
	defer tape.Close()
	want, err := os.ReadFile(filepath.Join("testdata", "scene.golden"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), describe(t, Replay(tape))); diff != "" {
		t.Errorf("the recording reads otherwise (-want +got):\n%s", diff)
	}
}

// describe writes every field of a dump, and of a lookup of each CLOSE_WAIT.
func describe(t testing.TB, c *Conn) string {
	t.Helper()
	var out strings.Builder
	var ids []ID
	for s, err := range c.Sockets(t.Context(), Query{States: AllStates | StatesOf(BoundInactive), Info: true}) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s %v > %v timer=%d expires=%d mini=%t if=%d cookie=%d rqueue=%d wqueue=%d uid=%d inode=%d filled=%d",
			s.Family(), s.State(), s.Src(), s.Dst(), s.Timer(), s.Expires(), s.Mini(), s.Interface(), s.Cookie(),
			s.RQueue(), s.WQueue(), s.UID(), s.Inode(), s.FilledAt())
		if id, ok := s.CgroupID(); ok {
			fmt.Fprintf(&out, " cgroup=%d", id)
		}
		if info, ok := s.Info(); ok {
			fmt.Fprintf(&out, " info=%+v", info)
		}
		out.WriteByte('\n')
		if s.State() == CloseWait {
			ids = append(ids, s.ID())
		}
	}
	for _, id := range ids {
		info, err := c.Lookup(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "lookup %v > %v: %+v\n", id.Src(), id.Dst(), info)
	}
	return out.String()
}
