package draw

import (
	"fmt"
	"strings"
)

// Clean makes a foreign string fit for the output: escaped ([Escape]), and
// where only ASCII shows, with nothing else in it: signs that have a likeness
// there are replaced by it, the rest by their number. Doing it twice changes
// nothing.
func (st Style) Clean(s string) string {
	s = Escape(s)
	if st.ASCII {
		s = ascii(s)
	}
	return s
}

func ascii(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch likeness := likeness(r); {
		case r <= '~':
			b.WriteRune(r)
		case likeness != "":
			b.WriteString(likeness)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// likeness is how a sign is written where only ASCII shows; "" if it has none.
func likeness(r rune) string {
	switch r {
	case '→':
		return "->"
	case '←':
		return "<-"
	case '↔':
		return "<>"
	case '↳':
		return ">"
	case '≥':
		return ">="
	case '≤':
		return "<="
	case '≈':
		return "~"
	case '×':
		return "x"
	case '▲':
		return "^"
	case '▼':
		return "v"
	case '−', '–', '—', '·':
		return "-"
	case '…':
		return "..."
	case '’', '‘':
		return "'"
	case '“', '”':
		return `"`
	case 'µ':
		return "u"
	}
	return ""
}
