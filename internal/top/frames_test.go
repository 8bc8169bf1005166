package top

import (
	"strconv"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// views are what a person may see of the incident, when no port is left.
func views() map[string]func(*rig) {
	return map[string]func(*rig){
		"flows":       func(*rig) {},
		"flow":        func(r *rig) { r.keys("enter") },
		"groups":      func(r *rig) { r.keys("b", "b", "T") },
		"filter":      func(r *rig) { r.keys("/").typed("redis !server") },
		"sort":        func(r *rig) { r.keys("f6", "down") },
		"close-waits": func(r *rig) { r.keys("2") },
		"close-wait":  func(r *rig) { r.keys("2", "end", "enter") },
		"findings":    func(r *rig) { r.keys("3") },
		"finding":     func(r *rig) { r.keys("3", "enter", "n", "n", "n", "n") },
		"handshakes":  func(r *rig) { r.keys("4") },
		"help":        func(r *rig) { r.keys("?") },
	}
}

// atWorst shows the recording's thirtieth report.
func atWorst(t testing.TB, reports []*snapshot.Report, style draw.Style) *rig {
	t.Helper()
	r := newRig(t, Config{Recorded: true, From: "incident.jsonl.gz", Style: style}, reports...)
	return r.keys("[", "[")
}

func TestFrames(t *testing.T) {
	reports := incident(t)
	for name, open := range views() {
		for _, size := range []tea.WindowSizeMsg{{Width: 80, Height: 24}, {Width: 200, Height: 60}} {
			at := strconv.Itoa(size.Width) + "x" + strconv.Itoa(size.Height)
			t.Run(at+"/"+name, func(t *testing.T) {
				t.Parallel()
				r := atWorst(t, reports, draw.Style{}).size(size.Width, size.Height)
				open(r)
				golden(t, at+"/"+name, r.screenText())
			})
		}
	}
}

// Colours say nothing that the text doesn't, are of the sixteen that every
// terminal has, and NO_COLOR has none; a terminal without UTF-8 gets ASCII.
func TestStyles(t *testing.T) {
	reports := incident(t)
	for name, open := range views() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, coloured, ascii := atWorst(t, reports, draw.Style{}), atWorst(t, reports, draw.Style{Color: true}), atWorst(t, reports, draw.Style{ASCII: true})
			for _, r := range []*rig{plain, coloured, ascii} {
				open(r)
			}
			if text := ascii.View().Content; strings.Contains(text, `\u`) {
				t.Errorf("a sign that has no likeness in ASCII:\n%s", text)
			}
			if strings.ContainsRune(plain.View().Content, '\x1b') {
				t.Errorf("colour without Color: %q", plain.View().Content)
			}
			frame := coloured.View().Content
			if !strings.ContainsRune(frame, '\x1b') {
				t.Error("no colour with Color")
			}
			for _, code := range sgr.FindAllString(frame, -1) {
				switch code {
				case "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[7m", "\x1b[31m", "\x1b[32m", "\x1b[33m":
				default:
					t.Errorf("%q is no style of a 16-colour terminal", code)
				}
			}
			a, b := strings.Split(plain.screenText(), "\n"), strings.Split(coloured.screenText(), "\n")
			for i := range a {
				// Of the position bar's letters one gives way to a stroke without colour.
				if i != plain.layout().bar && a[i] != strings.TrimRight(b[i], " ") {
					t.Errorf("coloured %q, plain %q", b[i], a[i])
				}
			}
		})
	}
}

func TestOnce(t *testing.T) {
	reports := incident(t)
	for i, name := range Views() {
		var b strings.Builder
		cfg := Config{View: i, From: "incident.jsonl.gz", Recorded: true}
		if err := Once(&b, cfg, reports[29], 80); err != nil {
			t.Fatal(err)
		}
		golden(t, "once/"+name, b.String())
	}
	var b strings.Builder
	if err := Once(&b, Config{Filter: "http", Sort: int(byTimeWait), Group: int(byService)}, reports[29], 80); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, " http (1 flow)") || strings.Contains(text, "redis (") || !strings.HasSuffix(text, "\n/http (1) by service\n") {
		t.Error(text)
	}
}
