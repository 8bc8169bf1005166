package snapshot

import (
	"net/netip"
	"strconv"
	"strings"
)

// text replaces in free text every address, known or not, and every known
// name that stands as a word.
func (r *Redactor) text(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); {
		if n, with := r.addressAt(s, i); n > 0 {
			out.WriteString(with)
			i += n
		} else if n, with := r.nameAt(s, i); n > 0 {
			out.WriteString(with)
			i += n
		} else {
			out.WriteByte(s[i])
			i++
		}
	}
	return out.String()
}

// nameAt finds the longest known name that begins at s[i:].
func (r *Redactor) nameAt(s string, i int) (n int, with string) {
	if i > 0 && isWord(s[i-1]) && isWord(s[i]) {
		return 0, ""
	}
	for _, n := range r.lengths {
		end := i + n
		if end > len(s) || end < len(s) && isWord(s[end-1]) && isWord(s[end]) {
			continue
		}
		if with, ok := r.names[s[i:end]]; ok {
			return n, with
		}
		if with, ok := r.extra[s[i:end]]; ok {
			return n, with
		}
	}
	return 0, ""
}

// addressAt finds an address, with a zone or prefix length if there is one,
// that begins at s[i:].
func (r *Redactor) addressAt(s string, i int) (n int, with string) {
	a, n := quadAt(s, i)
	if n == 0 {
		a, n = colonsAt(s, i)
	}
	if n == 0 {
		return 0, ""
	}
	with = r.scramble.addr(a).String()
	end := i + n
	if rest := s[end:]; strings.HasPrefix(rest, "%") {
		zone := 1
		for zone < len(rest) && (isWord(rest[zone]) || rest[zone] == '-' || rest[zone] == '.' && zone+1 < len(rest) && isWord(rest[zone+1])) {
			zone++
		}
		if zone > 1 {
			return n + zone, with + "%" + r.device(rest[1:zone])
		}
	} else if strings.HasPrefix(rest, "/") {
		digits := 1
		for digits < len(rest) && digits < 5 && isDigit(rest[digits]) {
			digits++
		}
		bits, err := strconv.Atoi(rest[1:digits])
		p, perr := a.Unmap().Prefix(bits)
		if err == nil && perr == nil && p.Addr() == a.Unmap() {
			return n + digits, r.scramble.prefix(p).String()
		}
	}
	return n, with
}

// quadAt finds four decimal numbers with dots that are no part of more.
func quadAt(s string, i int) (netip.Addr, int) {
	if !isDigit(s[i]) || i > 0 && (isDigit(s[i-1]) || s[i-1] == '.' && i > 1 && isDigit(s[i-2])) {
		return netip.Addr{}, 0
	}
	end, dots := i, 0
	for ; end < len(s) && end-i < len("255.255.255.255"); end++ {
		if s[end] == '.' && dots < 3 {
			dots++
		} else if !isDigit(s[end]) {
			break
		}
	}
	if end < len(s) && isDigit(s[end]) {
		return netip.Addr{}, 0
	}
	a, err := netip.ParseAddr(s[i:end])
	if err != nil {
		return netip.Addr{}, 0
	}
	return a, end - i
}

// colonsAt finds an IPv6 address.
func colonsAt(s string, i int) (netip.Addr, int) {
	if !isHex(s[i]) && s[i] != ':' || i > 0 && (isWord(s[i-1]) || s[i-1] == ':') {
		return netip.Addr{}, 0
	}
	end := i
	for end < len(s) && end-i < 46 && (isHex(s[end]) || s[end] == ':' || s[end] == '.') {
		end++
	}
	if strings.Count(s[i:end], ":") < 2 || end < len(s) && isWord(s[end]) {
		return netip.Addr{}, 0
	}
	for range 2 { // a sentence's full stop, the colon before an explanation
		if a, err := netip.ParseAddr(s[i:end]); err == nil {
			return a, end - i
		}
		end--
	}
	return netip.Addr{}, 0
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

// isWord reports whether c is part of a word; all beyond ASCII is.
func isWord(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}
