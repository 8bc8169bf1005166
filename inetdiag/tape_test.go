package inetdiag

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// lacking skips a test for want of an ability, and fails it where
// TWWATCH_REQUIRE says that the ability must be there.
func lacking(t testing.TB, ability string, why error) {
	t.Helper()
	required := strings.Split(os.Getenv("TWWATCH_REQUIRE"), ",")
	if slices.Contains(required, ability) || slices.Contains(required, "all") {
		t.Fatalf("TWWATCH_REQUIRE names %q, and it is lacking: %v", ability, why)
	}
	t.Skipf("ability %q is lacking: %v", ability, why)
}

// synth writes tapes as a kernel would have filled them: the tests' and
// benchmarks' stand-in for one.
type synth struct {
	seq, port uint32
	typ       uint16
	flags     uint16
	msgs      []byte // the datagram under way
	tape      bytes.Buffer
}

func newSynth() *synth {
	s := &synth{seq: 7, port: 4711, typ: typeLegacy, flags: 0x2}
	s.tape.WriteString(tapeMagic)
	return s
}

// message appends a message to the datagram under way.
func (s *synth) message(typ uint16, payload ...byte) *synth {
	b := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, s.flags)
	b = binary.NativeEndian.AppendUint32(b, s.seq)
	b = binary.NativeEndian.AppendUint32(b, s.port)
	s.msgs = append(append(s.msgs, b...), payload...)
	return s
}

func (s *synth) row(r synthRow) *synth { return s.message(s.typ, r.bytes()...) }

func (s *synth) done(errno int32) *synth {
	return s.message(msgDone, binary.NativeEndian.AppendUint32(nil, uint32(errno))...)
}

func (s *synth) refuse(errno int32) *synth {
	b := binary.NativeEndian.AppendUint32(nil, uint32(errno))
	return s.message(msgError, append(b, make([]byte, headerSize)...)...)
}

// cut ends the datagram.
func (s *synth) cut() *synth {
	s.record(s.msgs)
	s.msgs = s.msgs[:0]
	return s
}

// record puts any bytes on the tape as a datagram.
func (s *synth) record(b []byte) {
	h := binary.LittleEndian.AppendUint64(nil, 1000)
	s.tape.Write(binary.LittleEndian.AppendUint32(h, uint32(len(b))))
	s.tape.Write(b)
}

func (s *synth) replay() *Conn { return Replay(bytes.NewReader(s.tape.Bytes())) }

// synthRow is a row of a synthetic dump.
type synthRow struct {
	state    State
	timer    uint8
	src, dst string
	cookie   uint64
	expires  uint32
	attrs    []byte
}

func (r synthRow) bytes() []byte {
	b := make([]byte, rowSize, rowSize+len(r.attrs))
	id := NewID(netip.MustParseAddrPort(r.src), netip.MustParseAddrPort(r.dst), 0, r.cookie)
	b[rowFamily], b[rowState], b[rowTimer] = byte(id.family), byte(r.state), r.timer
	copy(b[rowSockID:], id.sock[:])
	if r.cookie == 0 {
		clear(b[rowCookie : rowCookie+8])
	}
	binary.NativeEndian.PutUint32(b[rowExpires:], r.expires)
	return append(b, r.attrs...)
}

// timeWaits is a tape of n TIME_WAIT rows, as large datagrams as the kernel's.
func timeWaits(n int) []byte {
	s := newSynth()
	const perDatagram = 338
	row := synthRow{
		state: TimeWait, timer: timerTimeWait, src: "10.0.0.5:32768", dst: "10.0.0.9:6379",
		cookie: 1, expires: 30_000, attrs: []byte{8, 0, 15, 0, 0, 0, 0, 0},
	}
	b := row.bytes()
	for i := range n {
		binary.BigEndian.PutUint16(b[rowSrcPort:], uint16(i))
		binary.NativeEndian.PutUint32(b[rowCookie:], uint32(i+1))
		b[rowAddrs+16+3] = byte(i >> 16)
		s.message(s.typ, b...)
		if i%perDatagram == perDatagram-1 {
			s.cut()
		}
	}
	if len(s.msgs) > 0 {
		s.cut()
	}
	s.done(0).cut()
	return bytes.Clone(s.tape.Bytes())
}

func BenchmarkTape(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		tape := timeWaits(n)
		name := map[int]string{10: "10", 1_000: "1k", 100_000: "100k"}[n]
		reader := bytes.NewReader(nil)
		b.Run("drain/"+name, func(b *testing.B) {
			b.ReportAllocs()
			c := Replay(reader)
			for b.Loop() {
				rewind(c, reader, tape)
				if _, _, err := c.Drain(b.Context(), Query{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/socket")
		})
		b.Run("sockets/"+name, func(b *testing.B) {
			b.ReportAllocs()
			c := Replay(reader)
			for b.Loop() {
				rewind(c, reader, tape)
				states := [14]int{}
				for s, err := range c.Sockets(b.Context(), Query{}) {
					if err != nil {
						b.Fatal(err)
					}
					states[s.State()]++
				}
				if states[TimeWait] != n {
					b.Fatalf("%d rows, want %d", states[TimeWait], n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/socket")
		})
	}
}

// rewind plays the tape from its beginning on the same Conn.
func rewind(c *Conn, r *bytes.Reader, tape []byte) {
	r.Reset(tape)
	c.replay.started, c.replay.err, c.spent = false, nil, false
}
