package top

import (
	"context"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// patient is how many intervals may pass without a report before the newest is
// called old.
const patient = 3

// A model is the state and what moves it: messages in, commands out.
type model struct {
	*state
	cfg      Config
	ctx      context.Context
	now      func() time.Time // a test's clock
	arrived  time.Time        // when the newest report came
	watch    int              // the timer that counts: others are too old
	plays    int              // the same, of playing
	requests int              // for 4-tuples
	drawn    string           // the frame, "" after a change
}

// Messages, beside bubbletea's.
type (
	// reportsMsg is what the source gave: reports, then perhaps an error, then
	// perhaps its end.
	reportsMsg struct {
		reports []*snapshot.Report
		err     error
		ended   bool
	}
	// watchMsg asks whether reports still come.
	watchMsg int
	// playMsg shows the next report of a recording.
	playMsg int
	// tuplesMsg answers a request for a flow's 4-tuples.
	tuplesMsg struct {
		request int
		flow    snapshot.Flow
		lists   []*snapshot.SocketList
		err     error
	}
)

func newModel(ctx context.Context, cfg Config) *model {
	return &model{state: newState(&cfg), cfg: cfg, ctx: ctx, now: time.Now, arrived: time.Now()}
}

// Init waits for the first report.
func (m *model) Init() tea.Cmd { return m.watchOn() }

// Update takes one message.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	cmd, changed := m.handle(msg)
	if changed {
		m.settle()
		m.drawn = ""
	}
	return m, cmd
}

// handle is Update, and tells whether the frame may have changed.
func (m *model) handle(msg tea.Msg) (cmd tea.Cmd, changed bool) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(1, msg.Width), max(1, msg.Height)
		if m.shown != nil {
			m.repage()
		}
	case tea.KeyPressMsg:
		if m.typing {
			cmd = m.edit(msg.String(), msg.Text)
		} else {
			cmd = m.press(msg.String())
		}
	case tea.PasteMsg:
		if m.typing {
			cmd = m.edit("", strings.Join(strings.Fields(msg.Content), " "))
		}
	case tea.MouseClickMsg:
		cmd = m.click(msg)
	case tea.MouseWheelMsg:
		m.wheel(msg)
	case reportsMsg:
		cmd = m.receive(msg)
	case watchMsg:
		if int(msg) != m.watch || m.ended {
			return nil, false
		}
		cmd = m.lateness()
	case playMsg:
		if int(msg) != m.plays || !m.playing {
			return nil, false
		}
		cmd = m.playNext()
	case tuplesMsg:
		m.answer(msg)
	default:
		return nil, false
	}
	return cmd, true
}

// receive takes what the source gave.
func (m *model) receive(msg reportsMsg) tea.Cmd {
	if len(msg.reports) > 0 {
		m.take(msg.reports...)
		m.arrived = m.now()
	}
	if msg.err != nil {
		m.trouble = oneLine(msg.err.Error())
	}
	if msg.ended {
		m.ended, m.late = true, 0
		if m.shown == nil && m.trouble == "" {
			m.trouble = "there is no report in " + m.from
		}
		return nil
	}
	if len(msg.reports) == 0 {
		return nil // the timer is running
	}
	return m.watchOn()
}

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// watchOn looks again when the next report is overdue.
func (m *model) watchOn() tea.Cmd { return m.watchIn(patient * m.every()) }

func (m *model) watchIn(d time.Duration) tea.Cmd {
	m.watch++
	watch := m.watch
	return tea.Tick(d, func(time.Time) tea.Msg { return watchMsg(watch) })
}

// lateness says how old the newest report is, once it is too old, every
// second.
func (m *model) lateness() tea.Cmd {
	if age := m.now().Sub(m.arrived); age >= patient*m.every() {
		m.late = age
		return m.watchIn(time.Second)
	}
	return m.watchOn()
}

// playOn shows the next report of a recording after an interval.
func (m *model) playOn() tea.Cmd {
	m.plays++
	plays := m.plays
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return playMsg(plays) })
}

func (m *model) playNext() tea.Cmd {
	at := m.index(m.shown) + 1
	if at >= len(m.reports) {
		m.playing = false
		return nil
	}
	m.show(m.reports[at])
	if at == len(m.reports)-1 && m.ended {
		m.playing = false
		return nil
	}
	return m.playOn()
}

// ask lists 4-tuples in the background.
func (m *model) ask(request int, f snapshot.Flow, queries ...snapshot.SocketQuery) tea.Cmd {
	ctx, sockets := m.ctx, m.cfg.Sockets
	return func() tea.Msg {
		answer := tuplesMsg{request: request, flow: f}
		for _, q := range queries {
			list, err := sockets(ctx, q)
			if err != nil {
				answer.err = err
				break
			}
			answer.lists = append(answer.lists, list)
		}
		return answer
	}
}

// answer puts 4-tuples on the page that asked for them, if it is still open.
func (m *model) answer(msg tuplesMsg) {
	p := &m.page
	if p.under != nil {
		p = p.under
	}
	if p.kind != flowPageKind || p.asked != msg.request {
		return
	}
	p.tuples = tupleList{at: m.now()}
	for _, list := range msg.lists {
		p.tuples.take(&msg.flow, list)
	}
	if msg.err != nil {
		p.tuples.err = oneLine(msg.err.Error())
	}
	m.repage()
}

// View is the frame. It is made once for each change.
func (m *model) View() tea.View {
	if m.drawn == "" {
		m.drawn = strings.Join(m.frame(), "\n")
	}
	v := tea.NewView(m.drawn)
	v.AltScreen = true
	v.WindowTitle = "twwatch top"
	if m.mouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	if m.typing {
		v.Cursor = tea.NewCursor(min(m.width-1, 1+draw.Width(m.style.Clean(m.filter))), m.height-1)
	}
	return v
}
