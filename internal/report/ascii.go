package report

import (
	"fmt"
	"strings"
)

// ascii replaces what an ASCII terminal can't show: signs that have a likeness
// by it, the rest by its number.
func ascii(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r <= '~':
			b.WriteRune(r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			if likeness, ok := likenesses()[r]; ok {
				b.WriteString(likeness)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		}
	}
	return b.String()
}

func likenesses() map[rune]string {
	return map[rune]string{
		'→': "->", '←': "<-", '↔': "<>", '↳': ">", '≥': ">=", '≤': "<=", '≈': "~", '×': "x", '−': "-",
		'–': "-", '—': "-", '…': "...", '·': "-", '’': "'", '‘': "'", '“': `"`, '”': `"`, 'µ': "u",
	}
}
