package top

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// A binding is what some keys do.
type binding struct {
	keys []string // as bubbletea names them
	name string   // for people; "" is not in the help
	help string
	do   func(*model) tea.Cmd
}

// A section is bindings that belong together.
type section struct {
	title    string
	bindings []binding
}

// sections are all keys, in the order of the help. What a key means depends on
// what is open (a page, a menu), which each function looks at itself.
func sections() []section {
	return []section{
		{"Views", []binding{
			{[]string{"1"}, "1", "flows: who is connected to whom", func(m *model) tea.Cmd { return m.to(flowsScreen) }},
			{[]string{"2"}, "2", "CLOSE_WAIT: sockets that wait for this host's programs", func(m *model) tea.Cmd { return m.to(waitsScreen) }},
			{[]string{"3"}, "3", "findings: what is wrong, and what to do", func(m *model) tea.Cmd { return m.to(findingsScreen) }},
			{[]string{"4"}, "4", "handshakes: where connections are, as a diagram", func(m *model) tea.Cmd { return m.to(statesScreen) }},
			{[]string{"tab"}, "Tab", "the next view", func(m *model) tea.Cmd { return m.to((m.screen + 1) % screens) }},
			{[]string{"shift+tab"}, "Shift+Tab", "the view before", func(m *model) tea.Cmd { return m.to((m.screen + screens - 1) % screens) }},
			{[]string{"?", "h", "f1"}, "? h F1", "this help", (*model).help},
			{[]string{"q", "f10"}, "q F10", "back out of what is open, or quit", (*model).quit},
			{[]string{"ctrl+c"}, "^C", "quit", func(*model) tea.Cmd { return tea.Quit }},
		}},
		{"In a list", []binding{
			{[]string{"up", "k"}, "Up k", "up", func(m *model) tea.Cmd { return m.move(-1) }},
			{[]string{"down", "j"}, "Down j", "down", func(m *model) tea.Cmd { return m.move(1) }},
			{[]string{"home", "g"}, "Home g", "to the top", func(m *model) tea.Cmd { return m.move(-endless) }},
			{[]string{"end", "G"}, "End G", "to the end", func(m *model) tea.Cmd { return m.move(endless) }},
			{[]string{"pgup", "ctrl+b"}, "PgUp", "a screen up", func(m *model) tea.Cmd { return m.move(-max(1, m.layout().rows-1)) }},
			{[]string{"pgdown", "ctrl+f"}, "PgDn", "a screen down", func(m *model) tea.Cmd { return m.move(max(1, m.layout().rows-1)) }},
			{[]string{"enter"}, "Enter", "look into it: a flow's 4-tuples, a finding's advice", (*model).open},
			{[]string{"esc", "backspace"}, "Esc", "back: closes what is open, drops the filter, leaves the group", (*model).back},
			{[]string{"/", "f3", "f4"}, "/ F4", "filter: words that must be there; !word must not", (*model).startFilter},
			{[]string{"<", ","}, "<", "sort by the column to the left", func(m *model) tea.Cmd { return m.sortBy(-1) }},
			{[]string{">", "."}, ">", "sort by the column to the right", func(m *model) tea.Cmd { return m.sortBy(1) }},
			{[]string{"f6", "s"}, "F6 s", "choose what to sort by", (*model).sortMenu},
			{[]string{"P"}, "P C T W", "sort flows by ports, closes, TIME_WAIT, CLOSE_WAIT", sortFlows(byPorts)},
			{[]string{"C"}, "", "", sortFlows(byRate)},
			{[]string{"T"}, "", "", sortFlows(byTimeWait)},
			{[]string{"W"}, "", "", sortFlows(byCloseWait)},
			{[]string{"L"}, "L N", "sort flows by lifetime, by the process's name", sortFlows(byLifetime)},
			{[]string{"N"}, "", "", sortFlows(byProcessName)},
			{[]string{"I"}, "I", "invert the order", (*model).invert},
			{[]string{"b", "f5"}, "b F5", "group flows by remote, service, process, namespace, not", (*model).regroup},
		}},
		{"Advice", []binding{
			{[]string{"c", "y"}, "c y", "copy the finding's snippet to the clipboard (OSC 52)", (*model).copy},
			{[]string{"n"}, "n", "the next recommendation of a finding", func(m *model) tea.Cmd { return m.advise(1) }},
			{[]string{"p"}, "p", "the one before", func(m *model) tea.Cmd { return m.advise(-1) }},
			{[]string{"r"}, "r", "list a flow's 4-tuples anew", (*model).relist},
		}},
		{"Time", []binding{
			{[]string{"space"}, "Space", "stop, or go on; a recording plays from here", (*model).pause},
			{[]string{"left"}, "Left", "the report before", func(m *model) tea.Cmd { return m.step(-1) }},
			{[]string{"right"}, "Right", "the next report", func(m *model) tea.Cmd { return m.step(1) }},
			{[]string{"shift+left", "["}, "[", "ten reports back", func(m *model) tea.Cmd { return m.step(-10) }},
			{[]string{"shift+right", "]"}, "]", "ten reports on", func(m *model) tea.Cmd { return m.step(10) }},
			{[]string{"{"}, "{", "the first report", func(m *model) tea.Cmd { return m.step(-endless) }},
			{[]string{"}"}, "}", "the newest report, and follow", func(m *model) tea.Cmd { return m.step(endless) }},
		}},
		{"Terminal", []binding{
			{[]string{"m"}, "m", "mouse off and on: off, the terminal selects text with it", (*model).toggleMouse},
			{[]string{"ctrl+l"}, "^L", "draw the screen anew", func(*model) tea.Cmd { return tea.ClearScreen }},
			{[]string{"ctrl+z"}, "^Z", "leave the terminal to the shell; fg comes back", func(*model) tea.Cmd { return tea.Suspend }},
		}},
	}
}

// helpPage lists the keys.
func helpPage(w *writer) {
	for i, s := range sections() {
		if i > 0 {
			w.blank()
		}
		w.head(s.title)
		for _, b := range s.bindings {
			if b.name != "" {
				w.field("  "+b.name, b.help)
			}
		}
	}
	w.blank()
	w.head("Signs")
	w.field("  group", "sums of its flows, and the ports of the tightest")
	w.field("  →  ←  ↔", "this host connects; this host serves; not known which")
	w.field("  ≥  ≤", "at least; at most")
	w.field("  ▼  ▲", "sorted by this column; inverted")
	w.field("  bar", "ports used: past the line at half, connect() has to search and is slower")
	w.field("  .  w  C", "healthy, warning, critical: a report of the position bar")
	w.field("  mouse", "click a view, a column's title or a row; a second click looks into it; the wheel scrolls")
}

// press does what a key means.
func (m *model) press(key string) tea.Cmd {
	m.notice = ""
	if m.menu != nil {
		return m.inMenu(key)
	}
	for _, s := range sections() {
		for _, b := range s.bindings {
			if slices.Contains(b.keys, key) {
				return b.do(m)
			}
		}
	}
	return nil
}

func (m *model) to(s screen) tea.Cmd {
	m.screen, m.page = s, page{}
	return nil
}

func (m *model) help() tea.Cmd {
	if m.page.kind == helpPageKind {
		return m.back()
	}
	under := m.page
	m.page = page{kind: helpPageKind, under: &under}
	m.repage()
	return nil
}

func (m *model) quit() tea.Cmd {
	if m.page.kind != noPage {
		return m.back()
	}
	return tea.Quit
}

func (m *model) back() tea.Cmd {
	switch {
	case m.page.under != nil:
		m.page = *m.page.under
		m.repage() // another report may be shown by now
	case m.page.kind != noPage:
		m.page = page{}
	case m.filter != "":
		m.filter = ""
		m.refill()
	case m.screen == flowsScreen && m.flows.inside != ungrouped:
		m.flows.group, m.flows.inside, m.flows.within = m.flows.inside, ungrouped, ""
		m.flows.list = list{}
		m.refill()
	}
	return nil
}

// endless is further than any list is long.
const endless = 1 << 30

func (m *model) move(by int) tea.Cmd {
	if m.page.kind != noPage {
		m.page.off += by
		return nil
	}
	l, n := m.list()
	if m.screen == statesScreen {
		l.off += by
		return nil
	}
	l.move(by, n)
	return nil
}

// open looks into the row under the cursor.
func (m *model) open() tea.Cmd {
	l, n := m.list()
	if m.shown == nil || m.page.kind != noPage || l.cur >= n {
		return nil
	}
	switch m.screen {
	case flowsScreen:
		r := &m.flows.rows[l.cur]
		if r.group != "" {
			m.flows.open()
			m.refill()
			return nil
		}
		m.page = page{kind: flowPageKind, flow: r.key}
		return m.relist()
	case waitsScreen:
		m.page = page{kind: waitPageKind, socket: waitIDOf(m.waits.rows[l.cur].ns, m.waits.rows[l.cur].wait)}
	case findingsScreen:
		m.page = page{kind: findingPageKind, find: findingKeyOf(m.finds.rows[l.cur].Finding)}
	}
	m.repage()
	return nil
}

func (m *model) startFilter() tea.Cmd {
	m.page = page{}
	m.typing, m.before = true, m.filter
	return nil
}

// edit is a key while the filter is written; the rows follow at once.
func (m *model) edit(key, text string) tea.Cmd {
	switch key {
	case "enter":
		m.typing = false
		return nil
	case "esc", "ctrl+c":
		m.typing, m.filter = false, m.before
	case "backspace":
		runes := []rune(m.filter)
		m.filter = string(runes[:max(0, len(runes)-1)])
	case "ctrl+u":
		m.filter = ""
	case "ctrl+w":
		trimmed := strings.TrimRight(m.filter, " ")
		m.filter = trimmed[:strings.LastIndex(trimmed, " ")+1]
	default:
		m.filter += text
	}
	const longest = 64
	if runes := []rune(m.filter); len(runes) > longest {
		m.filter = string(runes[:longest])
	}
	m.refill()
	return nil
}

// sorting is what the screen's table can be sorted by; nil: nothing.
func (m *model) sorting() (key func() int, set func(int), words []string) {
	switch m.screen {
	case flowsScreen:
		for k := range sortKeys {
			words = append(words, k.words())
		}
		return func() int { return int(m.flows.sort) }, func(k int) { m.flows.sort = sortKey(k) }, words
	case waitsScreen:
		for k := range waitSorts {
			words = append(words, k.words())
		}
		return func() int { return int(m.waits.sort) }, func(k int) { m.waits.sort = waitSort(k) }, words
	}
	return nil, nil, nil
}

func (m *model) sortBy(by int) tea.Cmd {
	key, set, words := m.sorting()
	if set == nil || m.page.kind != noPage {
		return nil
	}
	m.setSort(set, (key()+by+len(words))%len(words), words)
	return nil
}

// setSort sorts by a key, the usual way round.
func (m *model) setSort(set func(int), key int, words []string) {
	set(key)
	if m.screen == waitsScreen {
		m.waits.invert = false
	} else {
		m.flows.invert = false
	}
	m.notice = "sorted by " + words[key]
	m.refill()
}

// sortFlows sorts flows by a key.
func sortFlows(k sortKey) func(*model) tea.Cmd {
	return func(m *model) tea.Cmd {
		if _, set, words := m.sorting(); m.screen == flowsScreen && m.page.kind == noPage {
			m.setSort(set, int(k), words)
		}
		return nil
	}
}

func (m *model) sortMenu() tea.Cmd {
	key, set, words := m.sorting()
	if set == nil || m.page.kind != noPage || m.shown == nil {
		return nil
	}
	m.menu = &menu{list: list{cur: key()}, choices: words}
	return nil
}

func (m *model) inMenu(key string) tea.Cmd {
	switch key {
	case "up", "k":
		m.menu.move(-1, len(m.menu.choices))
	case "down", "j":
		m.menu.move(1, len(m.menu.choices))
	case "enter":
		_, set, words := m.sorting()
		choice := m.menu.cur
		m.menu = nil
		m.setSort(set, choice, words)
	case "ctrl+c":
		return tea.Quit
	case "esc", "q", "f6", "backspace":
		m.menu = nil
	}
	return nil
}

func (m *model) invert() tea.Cmd {
	switch {
	case m.page.kind != noPage:
		return nil
	case m.screen == flowsScreen:
		m.flows.invert = !m.flows.invert
	case m.screen == waitsScreen:
		m.waits.invert = !m.waits.invert
	}
	m.refill()
	return nil
}

func (m *model) regroup() tea.Cmd {
	switch {
	case m.page.kind != noPage:
		return nil
	case m.screen != flowsScreen:
		m.notice = "only flows are grouped: 1 shows them"
		return nil
	}
	m.flows.group = (m.flows.group + 1) % groupings
	m.flows.inside, m.flows.within, m.flows.list = ungrouped, "", list{}
	m.notice = "grouped by " + m.flows.group.String()
	if m.flows.group == ungrouped {
		m.notice = "not grouped"
	}
	m.refill()
	return nil
}

// copy hands the snippet to the terminal, which may refuse without a word.
func (m *model) copy() tea.Cmd {
	f := m.finding()
	if f == nil {
		m.notice = "nothing to copy: open a finding (3, Enter)"
		return nil
	}
	at := 0
	if m.page.kind == findingPageKind {
		at = m.page.at
	} else {
		for at < len(f.Recommendations)-1 && f.Recommendations[at].Snippet == "" {
			at++
		}
	}
	s := snippet(f, at)
	if s == "" {
		m.notice = "this recommendation has no snippet"
		return nil
	}
	m.notice = "sent to the clipboard (OSC 52): " + f.Recommendations[at].ID + ", " + plural(strings.Count(strings.TrimRight(s, "\n"), "\n")+1, "line")
	return tea.SetClipboard(s)
}

func (m *model) advise(by int) tea.Cmd {
	if m.page.kind != findingPageKind {
		return nil
	}
	m.page.at += by
	m.repage()
	if m.page.at < len(m.page.starts) {
		m.page.off = m.page.starts[m.page.at]
	}
	return nil
}

// relist asks for the 4-tuples of the flow that is open.
func (m *model) relist() tea.Cmd {
	if m.page.kind != flowPageKind {
		return nil
	}
	defer m.repage()
	m.page.tuples = tupleList{}
	ns, f := m.findFlow(m.page.flow)
	if f == nil || m.recorded {
		return nil // a recording's sample is read whenever the page is written
	}
	t := &m.page.tuples
	live, timeWait, ok := queries(f)
	switch {
	case !ok:
		t.note = "these sockets have no address in common to ask for"
		return nil
	case m.cfg.Sockets == nil:
		t.note = "this source lists no single sockets"
		return nil
	case ns != m.shown.Namespaces[0]:
		t.note = "only the sockets of " + m.shown.Namespaces[0].Name + " can be listed from here"
		return nil
	}
	t.loading = true
	m.requests++
	m.page.asked = m.requests
	return m.ask(m.requests, *f, live, timeWait)
}

// pause stops or goes on.
func (m *model) pause() tea.Cmd {
	if m.shown == nil {
		return nil
	}
	if !m.recorded {
		m.follow = !m.follow
		if m.follow {
			m.show(m.reports[len(m.reports)-1])
		}
		return nil
	}
	m.playing, m.follow = !m.playing, false
	if !m.playing {
		return nil
	}
	if m.index(m.shown) == len(m.reports)-1 {
		m.show(m.reports[0])
	}
	return m.playOn()
}

// step shows another report.
func (m *model) step(by int) tea.Cmd {
	if m.shown == nil {
		return nil
	}
	m.playing = false
	at := max(0, min(m.index(m.shown)+by, len(m.reports)-1))
	m.follow = at == len(m.reports)-1 && by > 0
	m.show(m.reports[at])
	return nil
}

func (m *model) toggleMouse() tea.Cmd {
	m.mouse = !m.mouse
	m.notice = "mouse off: the terminal selects text with it"
	if m.mouse {
		m.notice = "mouse on"
	}
	return nil
}
