package flow

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// side is a snapshot.Side in one byte.
type side uint8

const (
	unknown side = iota
	client
	server
)

func (s side) snapshot() snapshot.Side {
	switch s {
	case client:
		return snapshot.Client
	case server:
		return snapshot.Server
	}
	return snapshot.Unknown
}

// A key names a flow: both addresses in their 16-byte form, IPv4 as
// v4-mapped (so that a v4-mapped IPv6 socket falls together with its IPv4
// twin, as it does in the kernel), and the service port, side and device
// packed into one word. Little endian throughout.
type key struct {
	srcHi, srcLo, dstHi, dstLo uint64
	tail                       uint64 // port | side<<16 | device<<32
}

const (
	familyIPv4 = inetdiag.FamilyIPv4
	// mapped is ::ffff: as the lower half of bytes 8..15 reads in little endian.
	mapped = 0xffff0000
)

// addresses loads a row's two addresses in normal form.
func addresses(s *inetdiag.Socket) (srcHi, srcLo, dstHi, dstLo uint64) {
	a := s.Addrs()
	if s.Family() == familyIPv4 {
		srcLo = uint64(binary.LittleEndian.Uint32(a[0:]))<<32 | mapped
		dstLo = uint64(binary.LittleEndian.Uint32(a[16:]))<<32 | mapped
		return 0, srcLo, 0, dstLo
	}
	return binary.LittleEndian.Uint64(a[0:]), binary.LittleEndian.Uint64(a[8:]),
		binary.LittleEndian.Uint64(a[16:]), binary.LittleEndian.Uint64(a[24:])
}

func pack(port uint16, sd side, device uint32) uint64 {
	return uint64(port) | uint64(sd)<<16 | uint64(device)<<32
}

func (k key) port() uint16   { return uint16(k.tail) }
func (k key) side() side     { return side(k.tail >> 16) }
func (k key) device() uint32 { return uint32(k.tail >> 32) }

func (k key) local() netip.Addr  { return addr(k.srcHi, k.srcLo) }
func (k key) remote() netip.Addr { return addr(k.dstHi, k.dstLo) }

func addr(hi, lo uint64) netip.Addr {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], hi)
	binary.LittleEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b).Unmap()
}

// isLoopback tells whether the kernel takes this address for loopback when
// it decides on tcp_tw_reuse=2: 127.0.0.0/8, ::1, and 127/8 mapped
// (tcp_twsk_unique, net/ipv4/tcp_ipv4.c).
func isLoopback(hi, lo uint64) bool {
	if hi != 0 {
		return false
	}
	return lo&0xffffffff == mapped && lo>>32&0xff == 127 || lo == 1<<56
}

// seed makes every process hash differently, so that nobody can choose
// addresses that collide.
type seed [5]uint64

func newSeed() (s seed) {
	for i := range s {
		s[i] = rand.Uint64() | 1
	}
	return s
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (s *seed) hash(srcHi, srcLo, dstHi, dstLo, tail uint64) uint64 {
	h := mix(srcLo^s[0], dstLo^s[1])
	h ^= mix(srcHi^s[2], dstHi^s[3])
	return mix(h^s[4], tail^s[0])
}

func (s *seed) of(k key) uint64 { return s.hash(k.srcHi, k.srcLo, k.dstHi, k.dstLo, k.tail) }

// compare orders keys by nothing but their bits, for a stable choice among
// equals.
func (k *key) compare(o *key) int {
	return cmp.Or(cmp.Compare(k.dstHi, o.dstHi), cmp.Compare(k.dstLo, o.dstLo), cmp.Compare(k.srcHi, o.srcHi),
		cmp.Compare(k.srcLo, o.srcLo), cmp.Compare(k.tail, o.tail))
}
