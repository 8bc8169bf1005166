package top

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Config says what to show. Only Source is required.
type Config struct {
	// Source yields judged reports, without a nil among their namespaces, until
	// it ends or the context does. An error is shown, and the source goes on if
	// it wants to.
	Source func(context.Context) iter.Seq2[*snapshot.Report, error]
	// Sockets lists single sockets of the first namespace; nil: it can't. It is
	// called in a goroutine of its own, and answers a query or its context's
	// end.
	Sockets func(context.Context, snapshot.SocketQuery) (*snapshot.SocketList, error)
	// From names the source for people.
	From string
	// Recorded: the source has an end, can be played, and its reports hold
	// what there is of single sockets.
	Recorded bool
	// Interval is the time between two reports where they don't say, and that
	// between two reports of a recording that is played; 0 is 2 s.
	Interval time.Duration
	Style    draw.Style

	// What is shown first: indexes into Views, Sorts and Groupings.
	View, Sort, Group int
	Invert            bool
	Filter            string
}

// DefaultInterval is the time between two reports.
const DefaultInterval = 2 * time.Second

// framesPerSecond is how often the screen is looked after: a key's echo may take
// a tenth of a second. An idle program wakes up as often, which at 20 added a
// tenth to what passes over 100,000 sockets cost.
const framesPerSecond = 10

// A Terminal is where to show it.
type Terminal struct {
	In      io.Reader // nil is standard input, or /dev/tty where that is none
	Out     io.Writer // nil is standard output
	Environ []string  // nil is the process's
}

func (c *Config) withDefaults() Config {
	d := *c
	if d.Interval <= 0 {
		d.Interval = DefaultInterval
	}
	return d
}

// Run shows reports until the user quits or ctx ends, neither of which is an
// error.
func Run(ctx context.Context, cfg Config, t Terminal) error {
	cfg = cfg.withDefaults()
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	options := []tea.ProgramOption{tea.WithContext(ctx), tea.WithoutSignalHandler(), tea.WithFPS(framesPerSecond)}
	if t.In != nil {
		options = append(options, tea.WithInput(t.In))
	}
	if t.Out != nil {
		options = append(options, tea.WithOutput(t.Out))
	}
	if t.Environ != nil {
		options = append(options, tea.WithEnvironment(t.Environ))
	}
	program := tea.NewProgram(newModel(ctx, cfg), options...)
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		pump(ctx, cfg.Source, func(msg reportsMsg) { program.Send(msg) })
	}()
	_, err := program.Run()
	cancel()
	<-pumped // the source is let go of before Run returns
	if err == nil || outer.Err() != nil && !errors.Is(err, tea.ErrProgramPanic) {
		return nil
	}
	return fmt.Errorf("top: %w", err)
}

// pump hands on what the source gives. Reports that come while the last ones
// are being drawn are handed on together: a long recording is not drawn report
// by report.
func pump(ctx context.Context, source func(context.Context) iter.Seq2[*snapshot.Report, error], send func(reportsMsg)) {
	type item struct {
		report *snapshot.Report
		err    error
	}
	const ahead = 64
	items := make(chan item, ahead)
	go func() {
		defer close(items)
		for r, err := range source(ctx) {
			select {
			case items <- item{r, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for first := range items {
		msg := reportsMsg{}
		for next, more := first, true; more; {
			if next.report != nil {
				msg.reports, msg.err = append(msg.reports, next.report), nil
			}
			if next.err != nil && ctx.Err() == nil {
				msg.err = next.err
			}
			select {
			case next, more = <-items:
			default:
				more = false
			}
			if len(msg.reports) >= ahead {
				send(msg)
				msg = reportsMsg{}
			}
		}
		if len(msg.reports) > 0 || msg.err != nil {
			send(msg)
		}
	}
	if ctx.Err() == nil {
		send(reportsMsg{ended: true})
	}
}

// Once writes what would be on the screen as plain text, with every row of the
// view, and returns w's error. width is the number of columns.
func Once(w io.Writer, cfg Config, r *snapshot.Report, width int) error {
	cfg = cfg.withDefaults()
	s := newState(&cfg)
	s.width, s.height = max(40, width), 1<<20
	s.take(r)
	b := bufio.NewWriter(w)
	put := func(rows []row) {
		for _, row := range rows {
			fmt.Fprintln(b, row.line(s.style, s.width))
		}
	}
	put(verdictRows(s.style, s.width, maxParagraph, r))
	put(gaugeRows(s.style, s.width, &s.gauges))
	fmt.Fprintln(b)
	put(s.onceRows())
	if note := s.narrowed(); note != "" {
		put([]row{nil, text(note)})
	}
	return b.Flush()
}

// onceRows are all rows of a view, without a cursor.
func (s *state) onceRows() []row {
	l := layout{rows: 1 << 20}
	none := &list{cur: -1}
	switch s.screen {
	case waitsScreen:
		return tableRows(s.style, waitColumns(s.width), s.waits.rows, none, &l, int(s.waits.sort), s.waits.invert, s.emptyWaits())
	case findingsScreen:
		if len(s.finds.rows) == 0 {
			return []row{text(s.emptyFindings())}
		}
		w := &writer{style: s.style, width: s.width}
		for i := range s.finds.rows {
			if i > 0 {
				w.blank()
			}
			findingPage(w, s.finds.rows[i].Finding, s.shown, -1)
		}
		return w.rows
	case statesScreen:
		w := &writer{style: s.style, width: s.width}
		s.census.asWords(w) // a drawing can't be read aloud
		handshakesPage(w, s.shown)
		return w.rows
	}
	columns := flowColumns(s.style, s.width, len(s.shown.Namespaces) > 1)
	return tableRows(s.style, columns, s.flows.rows, none, &l, int(s.flows.sort), s.flows.invert, s.emptyFlows())
}
