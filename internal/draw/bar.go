package draw

import (
	"math"
	"strings"
)

// Bar draws a share of 1 as a bar of width columns, with a line at mark (a
// share, too; 0 for none):
//
//	██████│███░░░░   ######|###....  in ASCII
//
// It is empty only for 0 and full only for 1 and above: a share between fills
// at least one column and leaves at least one. An unknown share (NaN) is a row
// of question marks.
func Bar(share float64, width int, mark float64, ascii bool) string {
	if width <= 0 {
		return ""
	}
	if math.IsNaN(share) {
		return strings.Repeat("?", width)
	}
	full, rest, line := '█', '░', '│'
	if ascii {
		full, rest, line = '#', '.', '|'
	}
	room, at := width, -1
	if mark > 0 && mark < 1 && width >= 3 {
		room, at = width-1, min(width-1, int(math.Round(mark*float64(width-1))))
	}
	filled := int(math.Round(min(1, max(0, share)) * float64(room)))
	if share > 0 {
		filled = max(1, filled)
	}
	if share < 1 {
		filled = min(room-1, filled)
	}
	row := make([]rune, 0, width)
	for i := range room {
		if i == at {
			row = append(row, line)
		}
		if i < filled {
			row = append(row, full)
		} else {
			row = append(row, rest)
		}
	}
	if at == room {
		row = append(row, line)
	}
	return string(row)
}

// Bar is the function [Bar] in the style's characters.
func (st Style) Bar(share float64, width int, mark float64) string {
	return Bar(share, width, mark, st.ASCII)
}
