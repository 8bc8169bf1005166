package top

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

var update = flag.Bool("update", false, "write the golden frames and the fuzzer's first inputs anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "frames", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		if err := os.WriteFile(path+".got", []byte(got), 0o644); err != nil {
			t.Error(err)
		}
		t.Errorf("%s (-want +got), see %s.got:\n%s", path, path, diff)
	}
}

// incident is the recording's reports, with the findings that it carries.
func incident(t testing.TB) []*snapshot.Report {
	t.Helper()
	var reports []*snapshot.Report
	for r, err := range record.Reports("testdata/incident.jsonl.gz")(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	if len(reports) != 50 {
		t.Fatalf("%d reports, want 50", len(reports))
	}
	return reports
}

// begun is when the clock of every rig stands still.
var begun = time.Date(2026, 11, 22, 12, 40, 0, 0, time.UTC)

// A rig is the program without a terminal: keys and messages go in, frames come
// out.
type rig struct {
	*model
	t    testing.TB
	quit bool
	clip string // what was copied last
	cmd  tea.Cmd
}

func newRig(t testing.TB, cfg Config, reports ...*snapshot.Report) *rig {
	t.Helper()
	if cfg.From == "" {
		cfg.From = "test"
	}
	cfg = cfg.withDefaults()
	r := &rig{model: newModel(t.Context(), cfg), t: t}
	r.now = func() time.Time { return begun }
	if len(reports) > 0 {
		r.send(reportsMsg{reports: reports})
	}
	if cfg.Recorded {
		r.send(reportsMsg{ended: true})
	}
	return r
}

// send hands over a message, and keeps the command that follows from it.
func (r *rig) send(msg tea.Msg) {
	r.t.Helper()
	_, r.cmd = r.Update(msg)
	r.check()
}

// keys presses keys by bubbletea's names. Of the commands that follow, those
// that don't wait are run.
func (r *rig) keys(names ...string) *rig {
	r.t.Helper()
	for _, name := range names {
		playing := r.playing
		r.send(keyPress(name))
		if r.cmd == nil || !playing && r.playing {
			continue // what waits is a timer
		}
		switch msg := r.cmd().(type) {
		case tea.QuitMsg:
			r.quit = true
		case tuplesMsg:
			r.send(msg)
		default:
			if text := fmt.Sprint(msg); fmt.Sprintf("%T", msg) == "tea.setClipboardMsg" {
				r.clip = text
			}
		}
	}
	return r
}

// typed is text, key by key.
func (r *rig) typed(text string) *rig {
	r.t.Helper()
	for _, c := range text {
		r.keys(string(c))
	}
	return r
}

func keyPress(name string) tea.KeyPressMsg {
	if utf8.RuneCountInString(name) == 1 {
		c, _ := utf8.DecodeRuneInString(name)
		return tea.KeyPressMsg{Code: c, Text: name}
	}
	k := tea.KeyPressMsg{}
	for {
		if rest, ok := strings.CutPrefix(name, "ctrl+"); ok {
			k.Mod, name = k.Mod|tea.ModCtrl, rest
		} else if rest, ok := strings.CutPrefix(name, "shift+"); ok {
			k.Mod, name = k.Mod|tea.ModShift, rest
		} else {
			break
		}
	}
	named := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "backspace": tea.KeyBackspace, "space": tea.KeySpace,
		"up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft, "right": tea.KeyRight, "home": tea.KeyHome, "end": tea.KeyEnd,
		"pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "f1": tea.KeyF1, "f3": tea.KeyF3, "f4": tea.KeyF4, "f5": tea.KeyF5, "f6": tea.KeyF6, "f10": tea.KeyF10,
	}
	if c, ok := named[name]; ok {
		k.Code = c
	} else {
		k.Code, _ = utf8.DecodeRuneInString(name)
	}
	if name == "space" {
		k.Text = " "
	}
	return k
}

// size resizes the terminal.
func (r *rig) size(width, height int) *rig {
	r.t.Helper()
	r.send(tea.WindowSizeMsg{Width: width, Height: height})
	return r
}

var sgr = regexp.MustCompile(`\x1b\[(?:[0-9]+;)*[0-9]*m`)

// check holds every frame to what must always be true.
func (r *rig) check() {
	r.t.Helper()
	lines := strings.Split(r.View().Content, "\n")
	if len(lines) != r.height {
		r.t.Errorf("%d lines in a window of %d", len(lines), r.height)
	}
	for i, line := range lines {
		bare := sgr.ReplaceAllString(line, "")
		if n := draw.Width(bare); n > r.width {
			r.t.Errorf("line %d has %d columns of %d: %q", i, n, r.width, line)
		}
		if c := strings.IndexFunc(bare, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 || c >= 0x202a && c <= 0x202e }); c >= 0 {
			r.t.Errorf("line %d holds a control character: %q", i, bare[c:])
		}
		if r.style.ASCII && !isASCII(bare) {
			r.t.Errorf("line %d isn't ASCII: %q", i, bare)
		}
	}
	if l, n := r.list(); r.screen != statesScreen && n > 0 && (l.cur < 0 || l.cur >= n || l.off > l.cur) {
		r.t.Errorf("the cursor is at %d, and the window at %d, of %d rows", l.cur, l.off, n)
	}
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c > '~' }) < 0
}

// screenText is the frame without colours.
func (r *rig) screenText() string {
	return sgr.ReplaceAllString(r.View().Content, "") + "\n"
}

// shows fails unless the frame holds all of these.
func (r *rig) shows(parts ...string) *rig {
	r.t.Helper()
	text := r.screenText()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			r.t.Errorf("no %q in\n%s", part, text)
		}
	}
	return r
}

func (r *rig) hides(parts ...string) *rig {
	r.t.Helper()
	text := r.screenText()
	for _, part := range parts {
		if strings.Contains(text, part) {
			r.t.Errorf("%q in\n%s", part, text)
		}
	}
	return r
}

// first is the first column's text of the flows shown, in order.
func (r *rig) names() (names []string) {
	for i := range r.flows.rows {
		names = append(names, r.flows.rows[i].name())
	}
	return names
}

func (r *rig) named(want ...string) *rig {
	r.t.Helper()
	if got := r.names(); !slices.Equal(got, want) {
		r.t.Errorf("flows %q, want %q", got, want)
	}
	return r
}
