package inetdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Filter is a condition that the kernel itself applies to every socket of a
// dump: a program in the bytecode of net/ipv4/inet_diag.c. The zero Filter
// passes everything. Filters are immutable and can be combined freely.
//
// Filters work on TIME_WAIT too, with one exception: [ExplicitBind].
type Filter struct {
	code []byte
	err  error
}

// Bytecode operations (include/uapi/linux/inet_diag.h). Each is a conditional
// jump forward: struct inet_diag_bc_op {u8 code, yes; u16 no}, where yes must
// be the operation's own length, and a jump to 4 bytes past the end refuses
// the socket.
const (
	opJump       = 1 // always takes its "no"
	opSrcGE      = 2
	opSrcLE      = 3
	opDstGE      = 4
	opDstLE      = 5
	opAuto       = 6
	opSrcCond    = 7
	opDstCond    = 8
	opSrcEQ      = 11 // Linux 4.17
	opDstEQ      = 12
	opSize       = 4
	maxFilter    = 16 << 10 // bytes; the kernel's check of a program is quadratic
	hostCondSize = 8        // struct inet_diag_hostcond without the address
	anyPort      = -1
)

// LocalPort passes sockets with that local port.
func LocalPort(port uint16) Filter { return portOp(opSrcEQ, port) }

// RemotePort passes sockets with that remote port.
func RemotePort(port uint16) Filter { return portOp(opDstEQ, port) }

// LocalPortRange passes sockets whose local port is in [first, last].
func LocalPortRange(first, last uint16) Filter {
	return And(portOp(opSrcGE, first), portOp(opSrcLE, last))
}

// RemotePortRange passes sockets whose remote port is in [first, last].
func RemotePortRange(first, last uint16) Filter {
	return And(portOp(opDstGE, first), portOp(opDstLE, last))
}

// Local passes sockets whose local address, as [Socket.Src] shows it, is in
// the prefix: an IPv4 prefix takes v4-mapped addresses of IPv6 sockets too,
// and no IPv6 prefix does, unless it is a v4-mapped prefix itself.
func Local(p netip.Prefix) Filter { return hostCond(opSrcCond, p) }

// Remote is as [Local], for the remote address.
func Remote(p netip.Prefix) Filter { return hostCond(opDstCond, p) }

// ExplicitBind passes sockets that a bind() with a port number was called
// on: those that fail INET_DIAG_BC_AUTO. Listeners are among them, accepted
// connections are not, and a TIME_WAIT never is, since the kernel has
// forgotten by then.
func ExplicitBind() Filter { return Not(operation(opAuto)) }

// And passes what every one of the filters passes; And() everything.
func And(filters ...Filter) Filter {
	var all Filter
	for _, f := range filters {
		all = and(all, f)
	}
	return all
}

// Or passes what at least one of the filters passes; Or() nothing.
func Or(filters ...Filter) Filter {
	some := Not(Filter{})
	for i, f := range filters {
		if i == 0 {
			some = f
			continue
		}
		some = or(some, f)
	}
	return some
}

// Not passes what f does not.
func Not(f Filter) Filter {
	if f.err != nil {
		return f
	}
	// A success runs into the jump, which goes 4 past the end; a failure in
	// f goes 4 past f's own end, which is now the end.
	code := append([]byte(nil), f.code...)
	return checked(append(code, opJump, opSize, 0, 0), func(code []byte) {
		binary.NativeEndian.PutUint16(code[len(code)-2:], 2*opSize)
	})
}

func and(a, b Filter) Filter {
	switch {
	case a.err != nil:
		return a
	case b.err != nil || len(a.code) == 0:
		return b
	case len(b.code) == 0:
		return a
	}
	code := append([]byte(nil), a.code...)
	return checked(append(code, b.code...), func(code []byte) {
		// What refused in a must now go 4 past the new end.
		for at := 0; at < len(a.code); at += int(code[at+1]) {
			no := binary.NativeEndian.Uint16(code[at+2:])
			if at+int(no) == len(a.code)+opSize {
				binary.NativeEndian.PutUint16(code[at+2:], no+uint16(len(b.code)))
			}
		}
	})
}

func or(a, b Filter) Filter {
	switch {
	case a.err != nil:
		return a
	case b.err != nil:
		return b
	case len(a.code) == 0 || len(b.code) == 0:
		return Filter{}
	}
	// What refuses in a goes 4 past a's end, and there b begins; what passes
	// in a runs into the jump over b.
	code := append([]byte(nil), a.code...)
	code = append(code, opJump, opSize, 0, 0)
	return checked(append(code, b.code...), func(code []byte) {
		binary.NativeEndian.PutUint16(code[len(a.code)+2:], uint16(opSize+len(b.code)))
	})
}

// checked finishes a program with patch if it is not too long.
func checked(code []byte, patch func(code []byte)) Filter {
	if len(code) > maxFilter {
		return Filter{err: fmt.Errorf("the filter takes %d bytes of bytecode, at most %d are allowed", len(code), maxFilter)}
	}
	patch(code)
	return Filter{code: code}
}

// operation is a single operation with its arguments; it refuses what it
// doesn't match.
func operation(code byte, args ...byte) Filter {
	n := opSize + len(args)
	b := append([]byte{code, byte(n), 0, 0}, args...)
	binary.NativeEndian.PutUint16(b[2:], uint16(n+opSize))
	return Filter{code: b}
}

// portOp compares a port, which stands in the "no" of a second operation.
func portOp(code byte, port uint16) Filter {
	f := operation(code, 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(f.code[6:], port)
	return f
}

func hostCond(code byte, p netip.Prefix) Filter {
	if !p.IsValid() {
		return Filter{err: errors.New("the address prefix is not valid")}
	}
	p = p.Masked()
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	family := FamilyIPv6
	if p.Addr().Is4() {
		family = FamilyIPv4 // the kernel matches it with v4-mapped addresses too
	}
	args := make([]byte, hostCondSize, hostCondSize+16)
	args[0], args[1] = byte(family), byte(p.Bits())
	port := anyPort
	binary.NativeEndian.PutUint32(args[4:], uint32(port))
	f := operation(code, append(args, p.Addr().AsSlice()...)...)

	mapped := netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96)
	if family == FamilyIPv6 && p.Overlaps(mapped) {
		f = And(f, Not(hostCond(code, netip.PrefixFrom(netip.IPv4Unspecified(), 0))))
	}
	return f
}
