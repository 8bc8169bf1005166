package top

import (
	"strings"

	"github.com/twwatch/twwatch/internal/draw"
)

// A look is how a span appears. What it means is always said by a word or a
// sign as well.
type look uint8

const (
	bold look = 1 << iota
	dim
	red
	yellow
	green
	reverse
	// drawn is a whole line that is painted already: the state diagram's, in
	// which nothing is a report's.
	drawn
)

// paint puts the look's escape sequences round clean text.
func (l look) paint(st draw.Style, s string) string {
	if s == "" || !st.Color {
		return s
	}
	for _, p := range []struct {
		bit   look
		paint func(string) string
	}{{red, st.Red}, {yellow, st.Yellow}, {green, st.Green}, {dim, st.Dim}, {bold, st.Bold}, {reverse, st.Reverse}} {
		if l&p.bit != 0 {
			s = p.paint(s)
		}
	}
	return s
}

// A span is text with one look.
type span struct {
	text string
	look look
}

func plain(text string) span { return span{text: text} }

// A row is one line before it is cut, escaped and painted.
type row []span

// text is a row of plain text.
func text(s string) row { return row{plain(s)} }

// width is how many columns the row would take.
func (r row) width(st draw.Style) (n int) {
	for _, s := range r {
		n += draw.Width(st.Clean(s.text))
	}
	return n
}

// line makes the row a line of at most width columns. It is the only way from
// a report's strings to the screen. A row that ends reversed is filled up, so that
// the bar reaches from edge to edge.
func (r row) line(st draw.Style, width int) string {
	left, last := width, len(r)-1
	filled := st.Color && last >= 0 && r[last].look&reverse != 0
	for last > 0 && !filled && strings.Trim(r[last].text, " ") == "" {
		last-- // blanks behind the text
	}
	var b strings.Builder
	for i, s := range r[:last+1] {
		if s.look&drawn != 0 {
			b.WriteString(s.text)
			continue
		}
		t := st.Truncate(st.Clean(s.text), left)
		left -= draw.Width(t)
		switch {
		case i < last:
		case filled:
			t += strings.Repeat(" ", left)
		default:
			t = strings.TrimRight(t, " ")
		}
		b.WriteString(s.look.paint(st, t))
	}
	return b.String()
}

// plural counts things: "1 flow", "2,000 flows".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return draw.Count(int64(n)) + " " + thing + "s"
}

// join puts parts together, without the empty ones.
func join(sep string, parts ...string) string {
	var all []string
	for _, p := range parts {
		if p != "" {
			all = append(all, p)
		}
	}
	return strings.Join(all, sep)
}
