package draw

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes a foreign string safe to print: whatever is not a visible
// character becomes visible as \x1b (ASCII controls and bytes that are no
// UTF-8) or \u202e, \U000e0041 (the rest). That is control characters, line and
// paragraph separators, bidirectional overrides and isolates, zero-width and
// other invisible characters, spaces other than ' ', private and unassigned
// code points. Printable text is unchanged, backslashes too, so the result is
// for reading and can't be taken back.
func Escape(s string) string {
	start := strings.IndexFunc(s, hidden)
	if start < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch size := utf8.RuneLen(r); {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !hidden(r):
			b.WriteRune(r)
		case size == 1:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// EscapeShort is Escape of the first most bytes of s, or of up to three fewer,
// so that no character is cut; cut tells whether s is longer.
func EscapeShort(s string, most int) (text string, cut bool) {
	if len(s) <= most {
		return Escape(s), false
	}
	end := most
	for end > max(0, most-utf8.UTFMax+1) && !utf8.RuneStart(s[end]) {
		end--
	}
	return Escape(s[:end]), true
}

// hidden reports whether r shows nothing, or something else than itself.
func hidden(r rune) bool {
	if r < 0x80 {
		return r < ' ' || r == 0x7F
	}
	switch {
	case !unicode.IsPrint(r): // Cc, Cf with all of bidi, Zl, Zp, Zs but ' ', Co, Cs, Cn
		return true
	case r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0: // Hangul fillers: letters, and blank
		return true
	case r == 0x034F, r == 0x17B4, r == 0x17B5, r == 0x2800: // joiner, inherent vowels, blank Braille
		return true
	case r >= 0x180B && r <= 0x180F, r >= 0xFE00 && r <= 0xFE0F, r >= 0xE0100 && r <= 0xE01EF: // variation selectors
		return true
	}
	return false
}
