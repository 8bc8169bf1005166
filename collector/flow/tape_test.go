package flow

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/twwatch/twwatch/inetdiag"
)

// row is a socket as a test writes it down.
type row struct {
	state    inetdiag.State
	src, dst string // address:port
	timer    uint8
	expires  uint32 // ms
	device   uint32
	cookie   uint64
	recvQ    uint32
	sendQ    uint32
	inode    uint32
	mapped   bool // an IPv6 socket that carries IPv4
}

func timeWait(src, dst string, expires uint32) row {
	return row{state: inetdiag.TimeWait, src: src, dst: dst, timer: 3, expires: expires}
}

func established(src, dst string) row {
	return row{state: inetdiag.Established, src: src, dst: dst, inode: 1}
}

// encode makes the bytes of one netlink message, header included, as the
// kernel sends it (struct nlmsghdr, struct inet_diag_msg).
func (r *row) encode() []byte {
	b := make([]byte, 16+72)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], 18) // TCPDIAG_GETSOCK
	binary.NativeEndian.PutUint16(b[6:], 2)  // NLM_F_MULTI
	binary.NativeEndian.PutUint32(b[8:], 1)
	m := b[16:]
	src, dst := netip.MustParseAddrPort(r.src), netip.MustParseAddrPort(r.dst)
	m[0], m[1], m[2] = 10, byte(r.state), r.timer
	if src.Addr().Is4() && !r.mapped {
		m[0] = 2
		copy(m[8:], src.Addr().AsSlice())
		copy(m[24:], dst.Addr().AsSlice())
	} else {
		s, d := src.Addr().As16(), dst.Addr().As16()
		copy(m[8:], s[:])
		copy(m[24:], d[:])
	}
	binary.BigEndian.PutUint16(m[4:], src.Port())
	binary.BigEndian.PutUint16(m[6:], dst.Port())
	binary.NativeEndian.PutUint32(m[40:], r.device)
	binary.NativeEndian.PutUint64(m[44:], r.cookie)
	binary.NativeEndian.PutUint32(m[52:], r.expires)
	binary.NativeEndian.PutUint32(m[56:], r.recvQ)
	binary.NativeEndian.PutUint32(m[60:], r.sendQ)
	binary.NativeEndian.PutUint32(m[68:], r.inode)
	return b
}

// tape is a recorded dump of rows, filled at the given time, a datagram for
// every 300 rows.
func tape(filled int64, rows []row) []byte {
	var out bytes.Buffer
	out.WriteString("twwatch-tape/1\n")
	record := func(b []byte) {
		var h [12]byte
		binary.LittleEndian.PutUint64(h[:], uint64(filled))
		binary.LittleEndian.PutUint32(h[8:], uint32(len(b)))
		out.Write(h[:])
		out.Write(b)
	}
	for len(rows) > 0 {
		n := min(300, len(rows))
		var b []byte
		for i := range rows[:n] {
			b = append(b, rows[i].encode()...)
		}
		record(b)
		rows = rows[n:]
	}
	done := make([]byte, 20)
	binary.NativeEndian.PutUint32(done, 20)
	binary.NativeEndian.PutUint16(done[4:], 3) // NLMSG_DONE
	binary.NativeEndian.PutUint16(done[6:], 2)
	binary.NativeEndian.PutUint32(done[8:], 1)
	record(done)
	return out.Bytes()
}

// play gives a tape's rows to take.
func play(t testing.TB, tape []byte, take func(*inetdiag.Socket)) {
	t.Helper()
	conn := inetdiag.Replay(bytes.NewReader(tape))
	for s, err := range conn.Sockets(t.Context(), inetdiag.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		take(s)
	}
}
