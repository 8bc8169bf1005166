package top

import (
	"slices"

	"github.com/twwatch/twwatch/internal/draw"
)

// A list is where one is in a list of rows.
type list struct {
	cur, off int
	// picked: somebody has moved the cursor, and it stays with its row when
	// rows change places. Before that it stays on top.
	picked bool
}

func (l *list) move(by, rows int) {
	l.cur = max(0, min(l.cur+by, rows-1))
	l.picked = true
}

// settle keeps the cursor within the rows and the window of height rows over it.
func (l *list) settle(rows, height int) {
	l.cur = max(0, min(l.cur, rows-1))
	height = max(1, height)
	l.off = max(0, min(l.off, rows-height, l.cur))
	l.off = max(l.off, l.cur-height+1)
}

// A column of a table of rows R. Exactly one of a table has no width: it takes
// what the others leave, within its bounds.
type column[R any] struct {
	title string
	width int // with the space that parts it from its neighbour
	least int // of the one without a width
	most  int
	right bool
	sort  int // the key that its title sorts by; −1: none
	// rank is how soon it is left out where there is no room: 0 never, and the
	// highest first.
	rank int
	cell func(*R) (string, look)
}

// fit leaves out what doesn't fit, and gives the column without a width what is left.
func fit[R any](width int, columns []column[R]) []column[R] {
	width -= len(marker)
	for {
		sum, worst := 0, -1
		for i := range columns {
			sum += max(columns[i].width, columns[i].least)
			if columns[i].rank > 0 && (worst < 0 || columns[i].rank > columns[worst].rank) {
				worst = i
			}
		}
		if worst < 0 || sum <= width {
			for i := range columns {
				if c := &columns[i]; c.width == 0 {
					c.width = max(1, min(c.least+width-sum, c.most))
				}
			}
			return columns
		}
		columns = slices.Delete(columns, worst, worst+1)
	}
}

// marker stands before the row that the cursor is on.
const marker = ">"

// heading is a table's first line. The column that it is sorted by has an
// arrow before its title: down as usual, up inverted.
func heading[R any](st draw.Style, columns []column[R], sort int, invert bool) row {
	r := row{{" ", dim}}
	for _, c := range columns {
		title, l := c.title, dim
		if c.sort >= 0 && c.sort == sort {
			arrow := "▼"
			if invert {
				arrow = "▲"
			}
			title, l = arrow+title, bold
		}
		r = append(r, span{c.pad(st, title, c.width), l})
	}
	return r
}

// pad fills the column with clean text of at most so many columns.
func (c *column[R]) pad(st draw.Style, text string, most int) string {
	if text = st.Truncate(text, most); c.right {
		return draw.PadLeft(text, c.width)
	}
	return draw.PadRight(text, c.width)
}

// cells is the line of one row.
func cells[R any](st draw.Style, columns []column[R], r *R, selected bool) row {
	line := row{{" ", 0}}
	if selected {
		line[0] = span{marker, reverse}
	}
	for _, c := range columns {
		s, l := c.cell(r)
		if selected {
			l = reverse
		}
		line = append(line, span{c.pad(st, st.Clean(s), c.width-1), l}) // a space stands between two
	}
	return line
}
