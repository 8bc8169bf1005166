package top

import (
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// A screen is one of the four views.
type screen int

const (
	flowsScreen screen = iota
	waitsScreen
	findingsScreen
	statesScreen
	screens
)

// Views are the names of the views, in the order of their keys, 1 first.
func Views() []string { return []string{"flows", "close-wait", "findings", "handshakes"} }

// A pageKind is what is looked into.
type pageKind int

const (
	noPage pageKind = iota
	flowPageKind
	waitPageKind
	findingPageKind
	helpPageKind
)

// A page is what lies over a table: rows to scroll in.
type page struct {
	kind   pageKind
	rows   []row
	off    int
	gone   bool // its subject isn't in the report shown
	flow   flowKey
	tuples tupleList
	asked  int // the request for 4-tuples whose answer is awaited
	socket waitID
	find   findingKey
	at     int   // recommendation
	starts []int // lines at which recommendations begin
	under  *page // what the help lies over; nil: it is no help
}

// A waitID tells one CLOSE_WAIT from all others.
type waitID struct {
	inode  uint64
	cookie uint64
	local  string
	remote string
}

func waitIDOf(ns *snapshot.Namespace, w *snapshot.CloseWait) waitID {
	return waitID{ns.Inode, w.Cookie, w.Local, w.Remote}
}

// A waitTable is the CLOSE_WAITs of the report shown.
type waitTable struct {
	list
	sort   waitSort
	invert bool
	rows   []waitRow
	total  int // sockets in CLOSE_WAIT, listed or not
	listed int // rows before the filter
}

// A findingTable is the findings of the report shown, as they were judged:
// worst first, what follows under its cause.
type findingTable struct {
	list
	rows  []findingRow
	total int
	worst snapshot.Severity
}

// A menu is a choice of what to sort by.
type menu struct {
	list
	choices []string
}

// A state is all that a frame depends on. Nothing in it is written by a view.
type state struct {
	style    draw.Style
	from     string        // the source, for people
	recorded bool          // it has an end, and can be played
	interval time.Duration // between two reports, where they don't say

	width, height int

	history
	shown   *snapshot.Report // nil before the first
	follow  bool             // the newest is shown when it comes
	playing bool
	ended   bool          // the source has
	trouble string        // its last error, "" since the last report
	late    time.Duration // the newest report's age if it is too old, else 0

	screen screen
	filter string
	typing bool   // the filter is being written
	before string // the filter before that
	flows  flowTable
	waits  waitTable
	finds  findingTable
	states list // lines scrolled
	census census
	gauges gauges
	page   page
	menu   *menu
	notice string // until the next key
	mouse  bool
}

func newState(cfg *Config) *state {
	s := &state{
		style: cfg.Style, from: cfg.From, recorded: cfg.Recorded, interval: cfg.Interval,
		history: newHistory(cfg.Recorded), follow: true, mouse: true,
		screen: screen(cfg.View), filter: cfg.Filter, width: 80, height: 24,
	}
	s.flows.sort, s.flows.invert, s.flows.group = sortKey(cfg.Sort), cfg.Invert, grouping(cfg.Group)
	return s
}

// take adds reports of the source, one at least, and shows the last if the
// newest is followed.
func (s *state) take(reports ...*snapshot.Report) {
	for _, r := range reports {
		s.add(r)
	}
	s.trouble, s.late = "", 0
	switch {
	case s.follow || s.shown == nil:
		s.show(reports[len(reports)-1])
	case s.index(s.shown) < 0: // forgotten meanwhile
		s.show(s.nearest(s.shown))
	}
}

// show puts one of the history's reports on the screen.
func (s *state) show(r *snapshot.Report) {
	s.shown = r
	s.refill()
}

// refill puts the report's rows in order anew.
func (s *state) refill() {
	r := s.shown
	if r == nil {
		return
	}
	f := parseFilter(s.filter)
	s.gauges = gauge(r)
	s.census = takeCensus(r, s.previous())
	s.flows.fill(r, f)
	s.fillWaits(f)
	s.fillFindings(f)
	s.repage()
}

// previous is the report before the one shown.
func (s *state) previous() *snapshot.Report {
	if i := s.index(s.shown); i > 0 {
		return s.reports[i-1]
	}
	return nil
}

func (s *state) fillWaits(f filter) {
	t := &s.waits
	var picked waitID
	if t.picked && t.cur < len(t.rows) {
		picked = waitIDOf(t.rows[t.cur].ns, t.rows[t.cur].wait)
	}
	t.rows, t.total, t.listed = nil, 0, 0
	for _, ns := range s.shown.Namespaces {
		t.total += int(ns.States.CloseWait)
		t.listed += len(ns.CloseWaits)
		for i := range ns.CloseWaits {
			if w := &ns.CloseWaits[i]; f.wait(ns, w) {
				t.rows = append(t.rows, waitRow{ns, w, kindOf(w)})
			}
		}
	}
	sortWaits(t.rows, t.sort, t.invert)
	for i := range t.rows {
		if t.picked && waitIDOf(t.rows[i].ns, t.rows[i].wait) == picked {
			t.cur = i
			return
		}
	}
}

func (s *state) fillFindings(f filter) {
	t := &s.finds
	var picked findingKey
	if t.picked && t.cur < len(t.rows) {
		picked = findingKeyOf(t.rows[t.cur].Finding)
	}
	t.rows = nil
	t.total, t.worst = severityCount(s.shown.Findings)
	for i := range s.shown.Findings {
		if fi := &s.shown.Findings[i]; f.finding(fi) {
			t.rows = append(t.rows, findingRow{fi})
		}
	}
	for i := range t.rows {
		if t.picked && findingKeyOf(t.rows[i].Finding) == picked {
			t.cur = i
			return
		}
	}
}

// list is the one of the screen, and how many rows it has.
func (s *state) list() (*list, int) {
	switch s.screen {
	case waitsScreen:
		return &s.waits.list, len(s.waits.rows)
	case findingsScreen:
		return &s.finds.list, len(s.finds.rows)
	case statesScreen:
		return &s.states, len(s.statesRows())
	}
	return &s.flows.list, len(s.flows.rows)
}

// settle brings cursors and offsets within what there is; every change of the
// state ends with it.
func (s *state) settle() {
	body := s.layout().rows
	l, n := s.list()
	if s.screen == statesScreen {
		l.off = max(0, min(l.off, n-body))
	} else {
		l.settle(n, body)
	}
	s.page.off = max(0, min(s.page.off, len(s.page.rows)-s.layout().page))
	if s.menu != nil {
		s.menu.settle(len(s.menu.choices), s.layout().page-1)
	}
}

// findFlow is the flow of that key in the report shown; nil if there is none.
func (s *state) findFlow(key flowKey) (*snapshot.Namespace, *snapshot.Flow) {
	for _, ns := range s.shown.Namespaces {
		if ns.Inode != key.inode {
			continue
		}
		for i := range ns.Flows {
			if keyOf(ns, &ns.Flows[i]) == key {
				return ns, &ns.Flows[i]
			}
		}
	}
	return nil, nil
}

// finding is the one that a key to copy means: the page's, or the selected one.
func (s *state) finding() *snapshot.Finding {
	switch {
	case s.shown == nil:
	case s.page.kind == findingPageKind:
		for i := range s.shown.Findings {
			if f := &s.shown.Findings[i]; findingKeyOf(f) == s.page.find {
				return f
			}
		}
	case s.page.kind == noPage && s.screen == findingsScreen && s.finds.cur < len(s.finds.rows):
		return s.finds.rows[s.finds.cur].Finding
	}
	return nil
}

// repage writes the open page anew. One whose subject is gone stays as it was.
func (s *state) repage() {
	p := &s.page
	w := &writer{style: s.style, width: s.width}
	found := false
	switch p.kind {
	case noPage:
		return
	case helpPageKind:
		found = true
		helpPage(w)
	case flowPageKind:
		if ns, f := s.findFlow(p.flow); f != nil {
			found = true
			if s.recorded {
				p.tuples = sampled(ns, f)
			}
			flowPage(w, ns, f, s.shown, &p.tuples)
		}
	case waitPageKind:
		for _, ns := range s.shown.Namespaces {
			for i := range ns.CloseWaits {
				if wait := &ns.CloseWaits[i]; waitIDOf(ns, wait) == p.socket {
					found = true
					waitPage(w, &waitRow{ns, wait, kindOf(wait)}, s.shown)
				}
			}
		}
	case findingPageKind:
		if f := s.finding(); f != nil {
			found = true
			p.at = max(0, min(p.at, len(f.Recommendations)-1))
			p.starts = findingPage(w, f, s.shown, p.at)
		}
	}
	if p.gone = !found; found {
		p.rows = w.rows
	}
}
