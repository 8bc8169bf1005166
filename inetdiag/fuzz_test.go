package inetdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// walk reads all there is and checks what must hold whatever the input: no
// more rows than fit into it, each whole, an error of this package's type,
// and nothing after it.
func walk(t *testing.T, c *Conn, size int) (rows int, last error) {
	t.Helper()
	for s, err := range c.Sockets(t.Context(), Query{Family: FamilyIPv4}) {
		if last != nil {
			t.Fatalf("the loop goes on after %v", last)
		}
		if err != nil {
			var op *OpError
			if s != nil || !errors.As(err, &op) || err.Error() == "" {
				t.Fatalf("row %v, error %v of type %T", s, err, err)
			}
			last = err
			continue
		}
		rows++
		if len(s.row) < rowSize || cap(s.attrs) > bufferSize {
			t.Fatalf("a row of %d bytes with %d bytes of attributes", len(s.row), len(s.attrs))
		}
		touch(t, s)
	}
	if rows*rowMessage > size {
		t.Fatalf("%d rows in %d bytes", rows, size)
	}
	return rows, last
}

// touch calls everything that reads the row.
func touch(t *testing.T, s *Socket) {
	t.Helper()
	if f := s.Family(); f != FamilyIPv4 && f != FamilyIPv6 {
		t.Fatalf("family %v", f)
	}
	id := s.ID()
	if !s.Src().IsValid() || !s.Dst().IsValid() || id.Src() != s.Src() || id.Dst() != s.Dst() || id.Cookie() != s.Cookie() {
		t.Fatalf("%v > %v has the id %v > %v", s.Src(), s.Dst(), id.Src(), id.Dst())
	}
	if s.Mini() != (s.Timer() == 3) || s.Src().Port() != s.SrcPort() || s.Dst().Port() != s.DstPort() {
		t.Fatalf("accessors disagree about %v", s.Src())
	}
	if s.Src().Addr().Is4In6() || s.Dst().Addr().Is4In6() {
		t.Fatalf("%v > %v is not folded", s.Src(), s.Dst())
	}
	_ = fmt.Sprint(s.State(), s.Expires(), s.RQueue(), s.WQueue(), s.UID(), s.Inode(), s.Interface(), s.FilledAt(), s.Addrs())
	if info, ok := s.Info(); ok && len(s.attrs) < infoSize {
		t.Fatalf("an info %v of %d bytes", info, len(s.attrs))
	}
	if _, ok := s.CgroupID(); ok && len(s.attrs) < attrHeader+8 {
		t.Fatalf("a cgroup id of %d bytes", len(s.attrs))
	}
}

// FuzzDatagrams gives any two datagrams to a dump.
func FuzzDatagrams(f *testing.F) {
	var datagrams [][]byte
	for tape := sceneTape(f); len(tape) >= tapeHeader; {
		n := tapeHeader + int(binary.LittleEndian.Uint32(tape[8:]))
		datagrams = append(datagrams, tape[tapeHeader:n])
		tape = tape[n:]
	}
	for i := range datagrams {
		f.Add(datagrams[i], datagrams[(i+1)%len(datagrams)])
	}
	f.Add(newSynth().row(rowB).refuse(-errnoBUSY).msgs, newSynth().done(0).msgs)
	f.Add(newSynth().row(rowC).row(rowC).msgs, newSynth().row(rowC).done(-1).msgs)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := newSynth()
		s.record(first)
		s.record(second)
		rows, last := walk(t, s.replay(), min(len(first), bufferSize)+min(len(second), bufferSize))

		c := s.replay()
		datagrams, size, err := c.Drain(t.Context(), Query{Family: FamilyIPv4})
		if datagrams > 2 || size > len(first)+len(second) {
			t.Fatalf("drained %d datagrams of %d bytes", datagrams, size)
		}
		if _, err := s.replay().Lookup(t.Context(), ID{}); err == nil && rows == 0 {
			t.Fatal("a lookup finds what a dump doesn't")
		}
		_, _ = last, err
	})
}

// FuzzTape gives any bytes for a recording.
func FuzzTape(f *testing.F) {
	f.Add(append([]byte(tapeMagic), sceneTape(f)...))
	f.Add(newSynth().row(rowA).cut().row(rowB).done(0).cut().tape.Bytes())
	f.Add(oversized(newSynth().row(rowA).cut()).tape.Bytes())
	f.Add([]byte("twwatch-tape/2\n"))
	f.Fuzz(func(t *testing.T, tape []byte) {
		if _, last := walk(t, Replay(bytes.NewReader(tape)), len(tape)); last == nil && len(tape) < len(tapeMagic)+tapeHeader+headerSize {
			t.Fatalf("%q is a whole dump", tape)
		}

		// What can be read can be recorded, and is the same again.
		var copied bytes.Buffer
		c := Replay(bytes.NewReader(tape))
		c.tape = &tapeWriter{w: &copied}
		rows, _ := walk(t, c, len(tape))
		again, _ := walk(t, Replay(&copied), len(tape))
		if again != rows {
			t.Fatalf("%d rows, but %d in the copy", rows, again)
		}
	})
}

// FuzzProc gives any bytes for /proc/net/tcp and tcp6.
func FuzzProc(f *testing.F) {
	f.Add([]byte(procHead+procListen+procWait+procClose), false)
	f.Add([]byte(procHead6+procListen6+procMapped+procLocal6), true)
	f.Add([]byte("\n"+procWait[:80]+"\n"), false)
	f.Add([]byte("\n0:00000000:0 00000000:0 1 0:0 0:0 0 0 0 0\n"), false)
	f.Fuzz(func(t *testing.T, file []byte, v6 bool) {
		family, least := FamilyIPv4, len("0:00000000:0 00000000:0 1 0:0 0:0 0 0 0 0\n")
		if v6 {
			family, least = FamilyIPv6, least+2*24
		}
		table := newProcTable(bytes.NewReader(file), family)
		rows := 0
		for {
			ok, err := table.next()
			if err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v is not ErrMalformed", err)
			}
			if !ok {
				break
			}
			rows++
			touch(t, &table.sock)
			again := [rowSize]byte{}
			if err := parseProcLine(&again, procText(&table.sock), family); err != nil || again != table.row {
				t.Fatalf("%q reads as %x, and that, written, as %x: %v", file, table.row, again, err)
			}
		}
		if rows*least > len(file) {
			t.Fatalf("%d rows in %d bytes", rows, len(file))
		}
	})
}

// procText writes a row as the kernel would.
func procText(s *Socket) []byte {
	addr := func(b []byte) (text string) {
		if s.Family() == FamilyIPv4 {
			b = b[:4]
		}
		for ; len(b) > 0; b = b[4:] {
			text += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b))
		}
		return text
	}
	a := s.Addrs()
	return fmt.Appendf(nil, "%4d: %s:%04X %s:%04X %02X %08X:%08X %02X:%08X %08X %5d %8d %d 1\n", 0,
		addr(a[:16]), s.SrcPort(), addr(a[16:]), s.DstPort(), uint8(s.State()), s.WQueue(), s.RQueue(),
		s.Timer(), s.Expires()/10, s.row[rowRetrans], s.UID(), 0, s.Inode())
}

// sceneTape is the recording without its magic.
func sceneTape(f *testing.F) []byte {
	f.Helper()
	tape, err := os.ReadFile(filepath.Join("testdata", "scene.tape"))
	if err != nil {
		f.Fatal(err)
	}
	if len(tape) < len(tapeMagic) {
		f.Fatal(io.ErrUnexpectedEOF)
	}
	return tape[len(tapeMagic):]
}
