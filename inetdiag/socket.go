package inetdiag

import (
	"encoding/binary"
	"net/netip"
)

// Where the fields of struct inet_diag_msg lie (include/uapi/linux/inet_diag.h).
const (
	rowSize = 72

	rowFamily    = 0
	rowState     = 1
	rowTimer     = 2
	rowRetrans   = 3
	rowSockID    = 4 // struct inet_diag_sockid, 48 bytes
	rowSrcPort   = 4
	rowDstPort   = 6
	rowAddrs     = 8
	rowInterface = 40
	rowCookie    = 44
	rowExpires   = 52
	rowRQueue    = 56
	rowWQueue    = 60
	rowUID       = 64
	rowInode     = 68
)

const sockIDSize = 48

// Attributes that follow a row.
const (
	attrHeader   = 4
	attrTypeMask = 1<<14 - 1 // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	attrInfo     = 2         // INET_DIAG_INFO
	attrCgroupID = 21        // INET_DIAG_CGROUP_ID
)

// timerTimeWait is idiag_timer of a mini-socket.
const timerTimeWait = 3

// Socket is a borrowed view of one row of a dump: struct inet_diag_msg and
// the attributes behind it. It is valid until the loop's next step; the loop
// hands out the same *Socket every time.
//
// Every number is as the kernel gave it, in host byte order.
type Socket struct {
	row      *[rowSize]byte
	attrs    []byte
	filledAt int64
}

// Family is the family of the socket, not of what it carries: a v4-mapped
// connection of an IPv6 socket has FamilyIPv6.
func (s *Socket) Family() Family { return Family(s.row[rowFamily]) }

// State is the state as the kernel gave it. [BoundInactive] sockets have
// [Close].
func (s *Socket) State() State { return State(s.row[rowState]) }

// Timer says what Expires counts down to: 0 nothing, 1 retransmission (or the
// SYN-ACK's), 2 keepalive or the end of an orphan, 3 the end of a
// mini-socket, 4 a zero-window probe.
func (s *Socket) Timer() uint8 { return s.row[rowTimer] }

// Mini tells a mini-socket, struct inet_timewait_sock: TIME_WAIT, or a
// FIN_WAIT2 that no process holds any more. It has no inode, uid or queues.
func (s *Socket) Mini() bool { return s.row[rowTimer] == timerTimeWait }

// SrcPort is the local port.
func (s *Socket) SrcPort() uint16 { return binary.BigEndian.Uint16(s.row[rowSrcPort:]) }

// DstPort is the remote port; 0 if there is no remote end.
func (s *Socket) DstPort() uint16 { return binary.BigEndian.Uint16(s.row[rowDstPort:]) }

// Interface is the index of the device that the socket is bound to, or that
// its link-local address belongs to; 0 for none.
func (s *Socket) Interface() uint32 { return binary.NativeEndian.Uint32(s.row[rowInterface:]) }

// Cookie identifies the socket while the host runs; a TIME_WAIT has that of
// the connection it came from if something had asked for it. 0 only from
// [ProcSockets].
func (s *Socket) Cookie() uint64 { return cookieOf(s.row) }

// Expires is the time left on Timer, in milliseconds; 0 if it is overdue. For
// a mini-socket 60,000 − Expires is its age (net/ipv4/inet_diag.c,
// inet_twsk_diag_fill).
func (s *Socket) Expires() uint32 { return binary.NativeEndian.Uint32(s.row[rowExpires:]) }

// RQueue is the bytes received and not read, the FIN counted as 1; for LISTEN
// the connections waiting for accept().
func (s *Socket) RQueue() uint32 { return binary.NativeEndian.Uint32(s.row[rowRQueue:]) }

// WQueue is the bytes sent and not acknowledged or not yet sent; for LISTEN
// the backlog.
func (s *Socket) WQueue() uint32 { return binary.NativeEndian.Uint32(s.row[rowWQueue:]) }

// UID is the owner's user id; 0 for mini-sockets.
func (s *Socket) UID() uint32 { return binary.NativeEndian.Uint32(s.row[rowUID:]) }

// Inode is the socket's inode number; 0 if no process holds it (mini-sockets,
// orphans, connections not accepted yet).
func (s *Socket) Inode() uint32 { return binary.NativeEndian.Uint32(s.row[rowInode:]) }

// Addrs is the local address in 16 bytes and the remote address in 16 bytes,
// borrowed like the Socket itself. IPv4 stands in the first 4 bytes of each;
// a v4-mapped IPv6 address stands as ::ffff:a.b.c.d.
func (s *Socket) Addrs() *[32]byte { return (*[32]byte)(s.row[rowAddrs : rowAddrs+32]) }

// Src is the local address and port, v4-mapped ones as IPv4, without a zone.
func (s *Socket) Src() netip.AddrPort {
	return netip.AddrPortFrom(rowAddr(s.Family(), s.row[rowAddrs:]), s.SrcPort())
}

// Dst is the remote address and port, v4-mapped ones as IPv4, without a zone.
func (s *Socket) Dst() netip.AddrPort {
	return netip.AddrPortFrom(rowAddr(s.Family(), s.row[rowAddrs+16:]), s.DstPort())
}

// ID returns a copy of what identifies the socket.
func (s *Socket) ID() ID { return idOf(s.row) }

// CgroupID is the inode number of the socket's cgroup-v2 directory. Kernels
// from 5.8 on tell it for full sockets without being asked.
func (s *Socket) CgroupID() (uint64, bool) {
	if v := attribute(s.attrs, attrCgroupID); len(v) >= 8 {
		return binary.NativeEndian.Uint64(v), true
	}
	return 0, false
}

// Info is the socket's tcp_info; false unless [Query.Info] asked for it and
// the socket has one (mini-sockets and SYN_RECV have none).
func (s *Socket) Info() (Info, bool) { return parseInfo(attribute(s.attrs, attrInfo)) }

// FilledAt is when the kernel filled this row in, on [Now]'s clock, in
// nanoseconds: read once per datagram, just before the one before it was asked
// for (for the first, before the request was sent), since within that call the
// kernel goes on. It is early by what the filling takes, about 0.1 ms and the
// walk over foreign sockets.
func (s *Socket) FilledAt() int64 { return s.filledAt }

// ID identifies one socket: its family and struct inet_diag_sockid (ports,
// addresses, device, cookie). It is comparable.
type ID struct {
	family Family
	sock   [sockIDSize]byte
}

func idOf(row *[rowSize]byte) ID {
	return ID{Family(row[rowFamily]), [sockIDSize]byte(row[rowSockID:])}
}

// NewID makes an ID for [Conn.Lookup] from its parts. An IPv6 socket that
// carries IPv4 needs v4-mapped addresses. A cookie of 0 means any.
func NewID(src, dst netip.AddrPort, device uint32, cookie uint64) ID {
	var id ID
	id.family = FamilyIPv6
	if src.Addr().Is4() {
		id.family = FamilyIPv4
	}
	binary.BigEndian.PutUint16(id.sock[0:], src.Port())
	binary.BigEndian.PutUint16(id.sock[2:], dst.Port())
	copy(id.sock[4:20], src.Addr().AsSlice())
	copy(id.sock[20:36], dst.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id.sock[36:], device)
	if cookie == 0 {
		cookie = anyCookie
	}
	binary.NativeEndian.PutUint32(id.sock[40:], uint32(cookie))
	binary.NativeEndian.PutUint32(id.sock[44:], uint32(cookie>>32))
	return id
}

// Family is the family of the socket.
func (id ID) Family() Family { return id.family }

// Src is the local address and port, v4-mapped ones as IPv4.
func (id ID) Src() netip.AddrPort {
	return netip.AddrPortFrom(rowAddr(id.family, id.sock[4:]), binary.BigEndian.Uint16(id.sock[0:]))
}

// Dst is the remote address and port, v4-mapped ones as IPv4.
func (id ID) Dst() netip.AddrPort {
	return netip.AddrPortFrom(rowAddr(id.family, id.sock[20:]), binary.BigEndian.Uint16(id.sock[2:]))
}

// Interface is the index of the device bound to; 0 for none.
func (id ID) Interface() uint32 { return binary.NativeEndian.Uint32(id.sock[36:]) }

// Cookie is the socket's cookie.
func (id ID) Cookie() uint64 {
	return uint64(binary.NativeEndian.Uint32(id.sock[40:])) | uint64(binary.NativeEndian.Uint32(id.sock[44:]))<<32
}

// anyCookie is INET_DIAG_NOCOOKIE in both halves.
const anyCookie = 1<<64 - 1

// names tells whether id is s. A listener answers for every remote end, so
// that only what the request must have found is compared.
func (id ID) names(s *Socket) bool {
	if id.Cookie() == anyCookie {
		return id.Src().Port() == s.SrcPort()
	}
	return id.Cookie() == s.Cookie() && id.Src().Port() == s.SrcPort()
}

// cookieOf joins the cookie's halves: the lower one comes first on every
// machine (net/core/sock_diag.c, sock_diag_save_cookie).
func cookieOf(row *[rowSize]byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(row[rowCookie:])) | uint64(binary.NativeEndian.Uint32(row[rowCookie+4:]))<<32
}

// rowAddr makes an address of its 16 bytes in a row.
func rowAddr(family Family, b []byte) netip.Addr {
	if family == FamilyIPv4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// attribute returns the payload of the first attribute of that type, nil if
// there is none. The list ends where an attribute would reach past it.
func attribute(b []byte, typ uint16) []byte {
	for len(b) >= attrHeader {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeader || n > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&attrTypeMask == typ {
			return b[attrHeader:n]
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

func align4(n int) int { return (n + 3) &^ 3 }
