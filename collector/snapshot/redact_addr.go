package snapshot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// A scrambler replaces addresses by a keyed permutation, in two steps: the
// network (/24 or /64), and within it the host. So it needs no memory, two
// addresses never become one, and a prefix's replacement holds those of its
// addresses.
type scrambler struct {
	block cipher.Block
}

func newScrambler(key []byte) scrambler {
	sum := sha256.Sum256(append([]byte("twwatch redact v1\x00"), key...))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err) // 32 bytes are a key of AES
	}
	return scrambler{block}
}

// Tags keep the permutations apart.
const (
	tagNet4 = iota + 1
	tagLink4
	tagHost4
	tagNet6
	tagHost6
	tagName
)

// random returns 64 keyed bits of its arguments.
func (s scrambler) random(tag, round byte, tweak uint64, x uint32) uint64 {
	var b [aes.BlockSize]byte
	b[0], b[1] = tag, round
	binary.BigEndian.PutUint64(b[2:], tweak)
	binary.BigEndian.PutUint32(b[10:], x)
	s.block.Encrypt(b[:], b[:])
	return binary.BigEndian.Uint64(b[:])
}

// permute is a permutation of the numbers of an even count of bits, at most
// 64: a Feistel network.
func (s scrambler) permute(tag byte, tweak uint64, bits int, x uint64) uint64 {
	half := bits / 2
	mask := uint64(1)<<half - 1
	left, right := x>>half, x&mask
	for round := range byte(10) {
		left, right = right, left^s.random(tag, round, tweak, uint32(right))&mask
	}
	return left<<half | right
}

// addr replaces an address. Loopback and the unspecified address stay, and
// link-local addresses stay link-local. IPv6 addresses become documentation
// ones (2001:db8::/32). A v4-mapped address is taken for the IPv4 one; a zone
// is dropped.
func (s scrambler) addr(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	switch {
	case a.IsLoopback() || a.IsUnspecified():
		return a
	case a.Is4():
		b := a.As4()
		n := binary.BigEndian.Uint32(b[:])
		host := s.permute(tagHost4, uint64(n>>8), 8, uint64(n&0xff))
		binary.BigEndian.PutUint32(b[:], s.net4(n>>8)<<8|uint32(host))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(b[:8], s.net6(hi))
	binary.BigEndian.PutUint64(b[8:], s.permute(tagHost6, hi, 64, lo))
	return netip.AddrFrom16(b)
}

// prefix replaces a prefix. With 24 bits of IPv4 and 64 of IPv6 it holds the
// replacements of its addresses.
func (s scrambler) prefix(p netip.Prefix) netip.Prefix {
	a := p.Addr().Unmap()
	if p.Bits() == 0 || a.IsLoopback() || a.IsUnspecified() {
		return p
	}
	replaced, _ := s.addr(p.Masked().Addr()).Prefix(min(p.Bits(), a.BitLen())) // the bits fit
	return replaced
}

// class4 parts the /24 networks of IPv4: a replacement is of the same class.
func class4(net uint32) (class int, linkLocal bool) {
	switch first := net >> 16; {
	case net>>8 == 169<<8|254:
		return 0, true
	case first == 127:
		return 1, false
	case first == 0 || first >= 224: // none of a host's, normally
		return 2, false
	}
	return 3, false
}

// net4 permutes the ordinary /24 networks among themselves: it takes the next
// number of the permutation's cycle until one is of the same class.
func (s scrambler) net4(net uint32) uint32 {
	class, linkLocal := class4(net)
	if linkLocal {
		return net&^0xff | uint32(s.permute(tagLink4, 0, 8, uint64(net&0xff)))
	}
	for {
		net = uint32(s.permute(tagNet4, 0, 24, uint64(net)))
		if c, link := class4(net); c == class && !link {
			return net
		}
	}
}

// net6 replaces the upper half of an IPv6 address.
func (s scrambler) net6(hi uint64) uint64 {
	if hi>>54 == 0xfe80>>6 {
		return hi
	}
	return 0x20010db8<<32 | s.random(tagNet6, 0, hi, 0)>>32
}
