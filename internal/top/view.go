package top

import (
	"strconv"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// A layout says which line of the screen is whose.
type layout struct {
	verdict int // lines
	gauges  int // lines: 3, or 1
	tabs    int // line
	heading int // line of the table's heading
	first   int // line of the table's first row
	rows    int // rows of the table
	summary int // lines under the table of findings
	page    int // lines of a page: heading and rows and summary
	bar     int // line of the position bar; −1: none
	status  int // line
}

// layout is made for any size; where there is next to no room, the status line
// stays, and what else doesn't fit is cut off at the end.
func (s *state) layout() layout {
	l := layout{verdict: 1, gauges: 1, bar: -1, status: s.height - 1}
	if s.height >= 20 {
		l.verdict = 2
	}
	if s.height >= 14 {
		l.gauges = 3
	}
	l.tabs = l.verdict + l.gauges
	l.heading = l.tabs + 1
	end := l.status
	if s.hasBar() {
		end--
		l.bar = end
	}
	l.page = max(1, end-l.heading)
	l.first = l.heading + 1
	if s.screen == findingsScreen && l.page >= 8 {
		l.summary = 3
	}
	l.rows = max(1, end-l.first-l.summary)
	if s.screen == statesScreen { // it has no heading
		l.first, l.rows = l.heading, l.page
	}
	return l
}

// hasBar tells whether one is somewhere in a row of reports.
func (s *state) hasBar() bool { return s.recorded || !s.follow }

// frame is the screen, a string a line. It only reads the state.
func (s *state) frame() []string {
	rows := make([]row, 0, s.height)
	l := s.layout()
	if s.shown == nil {
		rows = append(rows, text("Waiting for the first report from "+s.from+" …"))
		if s.page.kind == helpPageKind {
			rows = append(append(rows, make([]row, l.heading-1)...), s.body(&l)...)
		}
	} else {
		verdict := verdictRows(s.style, s.width, l.verdict, s.shown)
		for len(verdict) < l.verdict {
			verdict = append(verdict, nil)
		}
		rows = append(rows, verdict...)
		if l.gauges == 1 {
			rows = append(rows, gaugeLine(s.style, &s.gauges))
		} else {
			rows = append(rows, gaugeRows(s.style, s.width, &s.gauges)...)
		}
		rows = append(rows, s.tabsRow())
		rows = append(rows, s.body(&l)...)
	}
	lines := make([]string, s.height)
	for i := range min(len(rows), s.height-1) {
		lines[i] = rows[i].line(s.style, s.width)
	}
	if l.bar >= 0 && s.shown != nil && l.bar < s.height {
		lines[l.bar] = s.barRow().line(s.style, s.width)
	}
	if s.height > 0 {
		lines[s.height-1] = s.statusRow().line(s.style, s.width)
	}
	return lines
}

// body is what lies between the tabs and the last lines.
func (s *state) body(l *layout) []row {
	switch {
	case s.menu != nil:
		return s.menuRows(l)
	case s.page.kind != noPage:
		end := min(len(s.page.rows), s.page.off+l.page)
		return s.page.rows[min(s.page.off, end):end]
	}
	switch s.screen {
	case waitsScreen:
		return tableRows(s.style, waitColumns(s.width), s.waits.rows, &s.waits.list, l, int(s.waits.sort), s.waits.invert, s.emptyWaits())
	case findingsScreen:
		rows := tableRows(s.style, findingColumns(s.width, s.shown), s.finds.rows, &s.finds.list, l, -2, false, s.emptyFindings())
		return append(rows, s.summary(l, len(rows))...)
	case statesScreen:
		rows := s.statesRows()
		return rows[min(s.states.off, len(rows)):min(len(rows), s.states.off+l.rows)]
	}
	columns := flowColumns(s.style, s.width, len(s.shown.Namespaces) > 1)
	return tableRows(s.style, columns, s.flows.rows, &s.flows.list, l, int(s.flows.sort), s.flows.invert, s.emptyFlows())
}

// tableRows are a table's heading and the rows in the window.
func tableRows[R any](st draw.Style, columns []column[R], rows []R, at *list, l *layout, sort int, invert bool, empty string) []row {
	out := []row{heading(st, columns, sort, invert)}
	if len(rows) == 0 {
		return append(out, row{{"  " + empty, dim}})
	}
	for i := at.off; i < min(len(rows), at.off+l.rows); i++ {
		out = append(out, cells(st, columns, &rows[i], i == at.cur))
	}
	return out
}

func (s *state) emptyFlows() string {
	switch {
	case s.filter != "" && s.flows.total > 0:
		return "none of " + plural(s.flows.total, "flow") + " matches /" + s.filter
	case s.flows.inside != ungrouped:
		return "no flow is left in " + s.flows.within
	}
	return "no connections"
}

func (s *state) emptyWaits() string {
	switch {
	case s.filter != "" && s.waits.listed > 0:
		return "none of " + plural(s.waits.listed, "socket") + " matches /" + s.filter
	case s.waits.total > 0:
		return plural(s.waits.total, "socket") + " in CLOSE_WAIT, none of them listed in this report"
	}
	return "no socket is in CLOSE_WAIT"
}

func (s *state) emptyFindings() string {
	switch {
	case s.filter != "" && s.finds.total > 0:
		return "none of " + plural(s.finds.total, "finding") + " matches /" + s.filter
	case s.shown.Verdict == "":
		return "this report was not judged"
	}
	return "nothing was found"
}

// summary is the selected finding's sentence, in the last lines of the table's
// room.
func (s *state) summary(l *layout, used int) []row {
	if l.summary == 0 || s.finds.cur >= len(s.finds.rows) {
		return nil
	}
	f := s.finds.rows[s.finds.cur]
	rows := make([]row, max(0, l.rows+1-used)) // down to the last lines
	action := "Enter: evidence and advice"
	if len(f.Recommendations) > 0 {
		action = "Enter: " + f.Recommendations[0].Title
	}
	for i, line := range draw.Wrap(s.style.Clean(f.Summary), s.width, s.width, l.summary) {
		if i == l.summary-1 {
			break
		}
		rows = append(rows, text(line))
	}
	return append(rows, row{{action, dim}})
}

// statesRows are all lines of the view of states.
func (s *state) statesRows() []row {
	if s.shown == nil {
		return nil
	}
	w := &writer{style: s.style, width: s.width}
	if s.width >= draw.DiagramWidth && s.layout().page >= 10 {
		for _, line := range s.style.StateDiagram(s.census.of) {
			w.rows = append(w.rows, row{{line, drawn}})
		}
	} else {
		s.census.asWords(w)
	}
	handshakesPage(w, s.shown)
	return w.rows
}

// tabsRow are the names of the views. The one shown stands in brackets.
func (s *state) tabsRow() row {
	var r row
	for i, t := range s.tabs() {
		l := look(0)
		if i == int(s.screen) {
			t, l = "["+t+"]", reverse
		} else {
			t = " " + t + " "
		}
		r = append(r, span{t, l})
	}
	if last := len(r) - 1; r[last].look == reverse { // or it would fill the line
		r = append(r, plain(""))
	}
	return r
}

// tabs are the names with what there is to see.
func (s *state) tabs() []string {
	flows, waits, finds := draw.Count(int64(s.flows.total)), draw.Count(int64(s.waits.total)), draw.Count(int64(s.finds.total))
	if s.finds.worst == snapshot.Critical || s.finds.worst == snapshot.Warning {
		finds += "!"
	}
	if s.width < 66 {
		return []string{"1 Flows", "2 C_W " + waits, "3 Find " + finds, "4 TCP"}
	}
	return []string{"1 Flows " + flows, "2 CLOSE_WAIT " + waits, "3 Findings " + finds, "4 Handshakes"}
}

func (s *state) menuRows(l *layout) []row {
	rows := []row{{{"Sort by (Enter takes it, Esc leaves it):", bold}}}
	for i := s.menu.off; i < min(len(s.menu.choices), s.menu.off+l.page-1); i++ {
		if i == s.menu.cur {
			rows = append(rows, row{{marker + " " + s.menu.choices[i], reverse}})
		} else {
			rows = append(rows, text("  "+s.menu.choices[i]))
		}
	}
	return rows
}

// barRow shows where in the reports one is, and how the verdict was: a dot is
// healthy, w a warning, C critical, ? not judged.
func (s *state) barRow() row {
	at, n := max(0, s.index(s.shown)), len(s.reports)
	width := s.barWidth()
	r := row{plain("[")}
	for x := range width {
		from, to := x*n/width, max(x*n/width+1, (x+1)*n/width)
		sign, l := verdictSign(s.reports[min(from, n-1):min(to, n)])
		if from <= at && at < to {
			sign, l = "|", reverse
			if s.style.Color {
				sign, _ = verdictSign(s.reports[at : at+1])
			}
		}
		r = append(r, span{sign, l})
	}
	return append(r, plain("]"+s.position()))
}

// barWidth is what the brackets and the position leave of the line.
func (s *state) barWidth() int { return max(1, s.width-draw.Width(s.position())-2) }

// position is the report shown in words.
func (s *state) position() string {
	how := "paused"
	switch {
	case s.playing:
		how = "playing"
	case s.follow && !s.ended:
		how = "newest"
	}
	every := ""
	if s.stride > 1 {
		every = ", every " + strconv.Itoa(s.stride) + "th kept"
	}
	return " " + strconv.Itoa(max(0, s.index(s.shown))+1) + "/" + strconv.Itoa(len(s.reports)) + every + " " + clock(s.shown) + " " + how
}

// verdictSign is the sign of the worst verdict of some reports.
func verdictSign(reports []*snapshot.Report) (string, look) {
	sign, l := "?", dim
	for _, r := range reports {
		switch {
		case r.Verdict == snapshot.Critical:
			return "C", red | bold
		case r.Verdict == snapshot.Warning:
			sign, l = "w", yellow|bold
		case r.Verdict == snapshot.Healthy && sign == "?":
			sign, l = ".", 0
		}
	}
	return sign, l
}

func clock(r *snapshot.Report) string {
	if r == nil || r.Time.IsZero() {
		return "--:--:--"
	}
	return r.Time.UTC().Format("15:04:05")
}

// statusRow is the last line: what is being typed, or what there is to say, or
// where the reports come from; and how to get help.
func (s *state) statusRow() row {
	if s.typing {
		return row{{"/", bold}, plain(s.filter), {"  Enter keeps it, Esc leaves it", dim}}
	}
	help := "? help  q quit"
	switch {
	case s.notice != "": // which wants the room
		help = "? help"
	case s.page.kind == findingPageKind:
		help = "n next  c copy  Esc back  ? help"
	case s.page.kind != noPage:
		help = "Esc back  ? help"
	}
	said, l := s.said()
	room := s.width - draw.Width(help) - 1
	said = s.style.Truncate(s.style.Clean(said), max(0, room))
	return row{{draw.PadRight(said, max(0, room)+1), l}, {help, dim}}
}

func (s *state) said() (string, look) {
	switch {
	case s.notice != "":
		return s.notice, bold
	case s.late > 0:
		return "! OLD: no report for " + draw.Duration(s.late.Truncate(time.Second).Seconds()) + after(": ", s.trouble), red | bold
	case s.trouble != "":
		return "! " + s.trouble, yellow | bold
	case s.page.gone:
		return "! gone: this is how it was last seen", yellow | bold
	}
	how := s.from
	if s.shown != nil && !s.recorded {
		how += ", every " + draw.Duration(s.every().Seconds())
	}
	if s.ended && !s.recorded {
		how += ", ended"
	}
	if s.shown != nil && s.shown.Redacted {
		how += ", redacted"
	}
	if s.shown != nil && !s.hasBar() {
		how += "  " + clock(s.shown) + " UTC"
	}
	return join("  ", s.narrowed(), how), 0
}

// narrowed says what keeps rows from being shown.
func (s *state) narrowed() string {
	var parts []string
	if s.filter != "" {
		_, n := s.list()
		part := "/" + s.filter
		if s.screen != statesScreen {
			part += " (" + draw.Count(int64(n)) + ")"
		}
		parts = append(parts, part)
	}
	if s.screen == flowsScreen {
		if s.flows.inside != ungrouped {
			parts = append(parts, "in "+s.flows.within)
		}
		if s.flows.group != ungrouped {
			parts = append(parts, "by "+s.flows.group.String())
		}
	}
	return strings.Join(parts, " ")
}

// every is the time between two reports.
func (s *state) every() time.Duration {
	if s.shown != nil && s.shown.IntervalSeconds > 0 && s.shown.IntervalSeconds < 3600 {
		return time.Duration(s.shown.IntervalSeconds * float64(time.Second))
	}
	return s.interval
}

func after(sep, text string) string {
	if text == "" {
		return ""
	}
	return sep + text
}
