package snapshot

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// appendString appends s as a JSON string that is safe to show: whatever is
// not printable (control and bidi characters, line separators, byte order
// marks) stands as \uXXXX, which reads back as the same string. Bytes that are
// no UTF-8 become U+FFFD. More than [MaxString] bytes are cut short, and end
// in "…".
func appendString(out []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(out, '"'), s...), '"')
	}
	out = append(out, '"')
	size := 0 // bytes of the string that a reader gets
	long := len(s) > MaxString/3 && decodedLen(s) > MaxString
	for i := 0; i < len(s); {
		r, width := utf8.DecodeRuneInString(s[i:])
		size += utf8.RuneLen(r)
		if long && size > MaxString-len("…") {
			out = append(out, "…"...)
			break
		}
		out = appendRune(out, r)
		i += width
	}
	return append(out, '"')
}

// isPlain reports whether s is short and stands in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return len(s) <= MaxString
}

// decodedLen is the length of s once bad bytes have become U+FFFD.
func decodedLen(s string) int {
	n := 0
	for _, r := range s {
		n += utf8.RuneLen(r)
	}
	return n
}

func appendRune(out []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(out, '\\', byte(r))
	case r >= ' ' && r < 0x7f:
		return append(out, byte(r))
	case r == '\n':
		return append(out, `\n`...)
	case r == '\t':
		return append(out, `\t`...)
	case r != utf8.RuneError && unicode.IsPrint(r):
		return utf8.AppendRune(out, r)
	case r > 0xffff: // a surrogate pair
		r -= 0x10000
		return appendHex(appendHex(out, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return appendHex(out, r)
}

func appendHex(out []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// quote returns the beginning of text that somebody else wrote, escaped, as
// one line, in quotes.
func quote(s string) string {
	const most = 64
	cut := len(s) > most
	if cut {
		s = strings.TrimRightFunc(s[:most], func(r rune) bool { return r == utf8.RuneError })
	}
	out := string(appendString(nil, s))
	if cut {
		out += "…"
	}
	return out
}

// oneLine returns a message that may hold somebody else's text as one short
// line without control characters.
func oneLine(message string) string {
	const most = 300
	var out []byte
	for _, r := range message {
		if len(out) > most {
			return string(out) + "…"
		}
		if r == '"' || r == '\\' {
			out = append(out, byte(r))
			continue
		}
		out = appendRune(out, r)
	}
	return string(out)
}
