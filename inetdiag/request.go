package inetdiag

import "encoding/binary"

// Netlink message types and flags (include/uapi/linux/netlink.h).
const (
	msgNoop    = 1
	msgError   = 2
	msgDone    = 3
	msgOverrun = 4

	typeLegacy = 18 // TCPDIAG_GETSOCK: IPv4 and IPv6 in one walk
	typeFamily = 20 // SOCK_DIAG_BY_FAMILY: one family

	flagRequest  = 0x1
	flagDumpIntr = 0x10
	flagDump     = 0x300 // NLM_F_ROOT | NLM_F_MATCH

	protocolTCP  = 6
	extInfo      = 1 << (attrInfo - 1)
	attrBytecode = 1 // INET_DIAG_REQ_BYTECODE
)

// request is one netlink request, without its header.
type request struct {
	typ, flags uint16
	payload    []byte
}

// legacyDump is a struct inet_diag_req: family, src_len, dst_len, ext,
// sockid, states, dbs.
func legacyDump(q Query) request {
	b := make([]byte, 60, 60+attrHeader+len(q.Filter.code))
	b[3] = extensions(q)
	binary.NativeEndian.PutUint32(b[52:], uint32(q.states()))
	return request{typeLegacy, flagRequest | flagDump, withFilter(b, q.Filter)}
}

// familyDump is a struct inet_diag_req_v2: family, protocol, ext, pad,
// states, sockid.
func familyDump(q Query) request {
	b := make([]byte, 56, 56+attrHeader+len(q.Filter.code))
	b[0], b[1], b[2] = byte(q.Family), protocolTCP, extensions(q)
	binary.NativeEndian.PutUint32(b[4:], uint32(q.states()))
	return request{typeFamily, flagRequest | flagDump, withFilter(b, q.Filter)}
}

// exact asks for one socket with its tcp_info.
func exact(id ID) request {
	b := make([]byte, 56)
	b[0], b[1], b[2] = byte(id.family), protocolTCP, extInfo
	binary.NativeEndian.PutUint32(b[4:], uint32(AllStates))
	copy(b[8:], id.sock[:])
	return request{typeFamily, flagRequest, b}
}

func (q Query) states() States {
	if q.States == 0 {
		return AllStates
	}
	return q.States
}

func extensions(q Query) byte {
	if q.Info {
		return extInfo
	}
	return 0
}

func withFilter(b []byte, f Filter) []byte {
	if len(f.code) == 0 {
		return b
	}
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(f.code)))
	b = binary.NativeEndian.AppendUint16(b, attrBytecode)
	return append(b, f.code...)
}

// requests is what a query takes: one walk for both families, or, for a
// single family and where the kernel refuses that, one for each. To keep the
// listeners first, then the bound sockets, those are asked for on their own
// when there are two walks.
func (c *Conn) requests(q Query) []request {
	switch {
	case q.Family != 0:
		return []request{familyDump(q)}
	case !c.noLegacy:
		return []request{legacyDump(q)}
	}
	var all []request
	states := q.states()
	first := StatesOf(Listen, BoundInactive)
	for _, part := range []States{StatesOf(Listen), StatesOf(BoundInactive), ^first} {
		if states&part == 0 {
			continue
		}
		for _, family := range []Family{FamilyIPv4, FamilyIPv6} {
			q.States, q.Family = states&part, family
			all = append(all, familyDump(q))
		}
	}
	return all
}
