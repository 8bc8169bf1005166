package top

import (
	tea "charm.land/bubbletea/v2"

	"github.com/twwatch/twwatch/internal/draw"
)

// wheelRows is how far a notch of the wheel scrolls.
const wheelRows = 3

func (m *model) wheel(msg tea.MouseWheelMsg) {
	by := wheelRows
	switch msg.Button {
	case tea.MouseWheelUp:
		by = -by
	case tea.MouseWheelDown:
	default:
		return
	}
	if m.menu != nil {
		m.menu.move(by, len(m.menu.choices))
		return
	}
	m.move(by)
}

// click is the left button: on a view's name, a column's title, a row, or the
// position bar.
func (m *model) click(msg tea.MouseClickMsg) tea.Cmd {
	if msg.Button != tea.MouseLeft || m.shown == nil || m.typing {
		return nil
	}
	m.notice = ""
	l := m.layout()
	switch {
	case m.menu != nil:
		return m.clickMenu(msg.Y - l.heading - 1 + m.menu.off)
	case msg.Y == l.tabs:
		return m.clickTab(msg.X)
	case msg.Y == l.bar:
		return m.clickBar(msg.X)
	case m.page.kind != noPage:
		return nil
	case msg.Y == l.heading && m.screen != statesScreen:
		return m.clickTitle(msg.X)
	case m.screen != statesScreen && msg.Y >= l.first && msg.Y < l.first+l.rows:
		at, n := m.list()
		i := at.off + msg.Y - l.first
		if i >= n {
			return nil
		}
		if i == at.cur && at.picked {
			return m.open()
		}
		at.move(i-at.cur, n)
	}
	return nil
}

func (m *model) clickMenu(i int) tea.Cmd {
	if i < 0 || i >= len(m.menu.choices) {
		return nil
	}
	m.menu.cur = i
	return m.inMenu("enter")
}

func (m *model) clickTab(x int) tea.Cmd {
	for i, t := range m.tabs() {
		if x -= draw.Width(t) + 2; x < 0 {
			return m.to(screen(i))
		}
	}
	return nil
}

// clickTitle sorts by a column; a second time it inverts.
func (m *model) clickTitle(x int) tea.Cmd {
	_, set, words := m.sorting()
	if set == nil {
		return nil
	}
	sort := columnAt(flowColumns(m.style, m.width, len(m.shown.Namespaces) > 1), x)
	if m.screen == waitsScreen {
		sort = columnAt(waitColumns(m.width), x)
	}
	key, _, _ := m.sorting()
	switch {
	case sort < 0:
	case sort == key():
		return m.invert()
	default:
		m.setSort(set, sort, words)
	}
	return nil
}

// columnAt is the key that the title at x sorts by; −1: none.
func columnAt[R any](columns []column[R], x int) int {
	x -= len(marker)
	for _, c := range columns {
		if x -= c.width; x < 0 {
			return c.sort
		}
	}
	return -1
}

func (m *model) clickBar(x int) tea.Cmd {
	width := m.barWidth()
	if x < 1 || x > width {
		return nil
	}
	return m.step((x-1)*len(m.reports)/width - m.index(m.shown))
}
