package draw

import "strings"

// A Style says what the output can show. The zero value is plain UTF-8 text.
type Style struct {
	// Color allows escape sequences for colour and weight.
	Color bool
	// ASCII asks for nothing beyond ASCII in what is drawn.
	ASCII bool
}

// Detect returns the style for an output, by the environment (os.Getenv). There
// is colour on a terminal, unless NO_COLOR is set to anything non-empty or TERM
// is "dumb". ASCII is for a locale that names another character set than UTF-8:
// the first of LC_ALL, LC_CTYPE and LANG that is set counts, as in POSIX. None
// set, as is usual in containers, is taken for UTF-8.
func Detect(isTerminal bool, getenv func(string) string) Style {
	st := Style{Color: isTerminal && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(getenv(name)); locale != "" {
			st.ASCII = !strings.Contains(locale, "utf-8") && !strings.Contains(locale, "utf8")
			break
		}
	}
	return st
}

// Red returns s in red, or unchanged without Color; so do the others.
func (st Style) Red(s string) string { return st.sgr("31", s) }

// Yellow returns s in yellow.
func (st Style) Yellow(s string) string { return st.sgr("33", s) }

// Green returns s in green.
func (st Style) Green(s string) string { return st.sgr("32", s) }

// Bold returns s in bold.
func (st Style) Bold(s string) string { return st.sgr("1", s) }

// Dim returns s dimmed.
func (st Style) Dim(s string) string { return st.sgr("2", s) }

// Reverse returns s with foreground and background exchanged.
func (st Style) Reverse(s string) string { return st.sgr("7", s) }

// sgr puts an escape sequence round s. Nothing stays switched on behind it.
func (st Style) sgr(code, s string) string {
	if !st.Color || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Sparkline is the function [Sparkline] in the style's characters.
func (st Style) Sparkline(values []int, width int) string {
	return Sparkline(values, width, st.ASCII)
}

// Truncate is the function [Truncate], with ~ for … where only ASCII shows.
func (st Style) Truncate(s string, w int) string {
	if st.ASCII {
		return truncate(s, w, "~")
	}
	return truncate(s, w, "…")
}
