package top

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// evil is a name that would do something, were it not escaped.
const evil = "\x1b]0;owned\x07\x1b[2J\u202egnp.\u2066日本\u0301\xff\n\t\r<img>"

// hostileScene is the scene with an evil name wherever a name can be, and
// numbers that nobody measured.
func hostileScene() *snapshot.Report {
	r := scene(0)
	r.Host, r.Verdict = evil, evil
	for _, ns := range r.Namespaces {
		ns.Name = evil
		for i := range ns.Flows {
			f := &ns.Flows[i]
			f.Side, f.Device, f.Local, f.Remote, f.Service, f.ServiceBy = evil, evil, evil, evil, evil, evil
			f.CloseRate, f.MeanLifetimeSeconds, f.Attributed = new(math.NaN()), new(math.Inf(1)), new(-1.0)
			f.Ports = &snapshot.Ports{Range: -5, Reserved: 7, Used: 1 << 40, Free: -1 << 40, Blocked: 3, Bound: -3, SecondsToExhaustion: new(-1)}
			f.Processes = append(f.Processes, snapshot.Process{Comm: evil, Exe: evil, Cgroup: evil, Runtime: evil, By: evil, PID: -1})
		}
		for i := range ns.CloseWaits {
			w := &ns.CloseWaits[i]
			w.Local, w.Remote, w.Comm, w.Side, w.AgeSeconds = evil, evil, evil, evil, new(-1e300)
		}
		for i := range ns.Listeners {
			ns.Listeners[i].Local, ns.Listeners[i].Comm = evil, evil
		}
		for i := range ns.HalfOpen {
			ns.HalfOpen[i].Remote = evil
		}
		for i := range ns.Owners {
			ns.Owners[i].Exe, ns.Owners[i].Cgroup = evil, evil
		}
		ns.Sockets = []snapshot.Socket{{State: evil, Local: evil, Remote: evil, Comm: evil, Timer: evil}}
		ns.TimeWait.BucketsLimit, ns.TimeWait.BucketsUsed = new(-3), -1<<60
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		f.ID, f.Severity, f.Namespace, f.Summary, f.BecauseOf = evil, evil, evil, strings.Repeat(evil+" ", 300), evil
		f.Subject = snapshot.Subject{Side: evil, Device: evil, Local: evil, Remote: evil, Service: evil, Process: evil}
		f.Evidence = []snapshot.Evidence{{What: evil, Value: math.NaN(), Unit: evil, Source: evil}}
		f.Recommendations = []snapshot.Recommendation{{
			ID: evil, Title: evil, Do: strings.Repeat(evil, 500), Snippet: strings.Repeat(evil+"\n", 3000),
			Effect: evil, Caveats: []string{evil}, References: []string{evil},
		}}
	}
	return r
}

// tour looks at everything.
func tour(r *rig) {
	r.keys("1", "b", "enter", "enter", "end", "esc", "esc", "b", "b", "b", "b", "home", "enter", "pgdown", "end", "r", "esc", "/").typed("o").keys("esc",
		"2", "end", "enter", "end", "esc", ">", "<", "I", "f6", "end", "enter", "3", "enter", "n", "n", "p", "end", "c", "esc", "4", "end", "?", "end", "q",
		"space", "left", "right", "{", "}", "[", "]", "m")
}

// Whatever a report holds, nothing but text reaches the screen: rig.check looks
// at each frame on the way.
func TestHostileReports(t *testing.T) {
	for _, style := range []draw.Style{{}, {Color: true}, {ASCII: true}} {
		for _, recorded := range []bool{false, true} {
			cfg := Config{From: evil, Style: style, Recorded: recorded, Sockets: func(context.Context, snapshot.SocketQuery) (*snapshot.SocketList, error) {
				return nil, errors.New(evil)
			}}
			r := newRig(t, cfg, scene(0), hostileScene())
			r.send(reportsMsg{err: errors.New(evil)})
			tour(r)
			r.keys("1", "enter").shows(`\x1b]0;owned\x07`)
		}
	}
	for view := range Views() {
		var b strings.Builder
		if err := Once(&b, Config{View: view, Filter: "owned"}, hostileScene(), 80); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(b.String(), func(c rune) bool { return c < ' ' && c != '\n' || c == '\u202e' }); i >= 0 {
			t.Errorf("%s: a control character: %q", Views()[view], b.String()[i:min(len(b.String()), i+40)])
		}
	}
}

// Reports without anything in them, or with nothing but nothing.
func TestEmptyReports(t *testing.T) {
	for _, r := range []*snapshot.Report{
		{},
		{Namespaces: []*snapshot.Namespace{{}}, Verdict: snapshot.Healthy},
		{Namespaces: []*snapshot.Namespace{{Flows: make([]snapshot.Flow, 3), CloseWaits: make([]snapshot.CloseWait, 3)}}, Findings: make([]snapshot.Finding, 3)},
	} {
		tour(newRig(t, Config{}, r))
		tour(newRig(t, Config{Recorded: true}, r, r))
		for view := range Views() {
			if err := Once(new(strings.Builder), Config{View: view}, r, 80); err != nil {
				t.Error(err)
			}
		}
	}
	tour(newRig(t, Config{}))
}

func TestSizes(t *testing.T) {
	for _, size := range []tea.WindowSizeMsg{{Width: 1, Height: 1}, {Width: 0, Height: 0}, {Width: 3, Height: 200}, {Width: 500, Height: 2}, {Width: 20, Height: 6}, {Width: 79, Height: 13}, {Width: 4000, Height: 1500}} {
		r := newRig(t, Config{}, scene(0), hostileScene(), scene(1)).size(size.Width, size.Height)
		tour(r)
		r.size(80, 24).keys("1", "esc", "esc").size(size.Width, size.Height)
	}
}

// FuzzKeys drives the program with keys, the mouse, reports and sizes in any
// order. A byte below 160 is a key; what others are follows below.
func FuzzKeys(f *testing.F) {
	names := []string{"a", "e", "r", "o", "!", ".", "日", "space", "ctrl+u", "ctrl+w"}
	for _, s := range sections() {
		for _, b := range s.bindings {
			names = append(names, b.keys...)
		}
	}
	reports := []*snapshot.Report{scene(0), scene(1), hostileScene(), scene(2), {}}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 400 {
			return
		}
		next := func() int {
			if len(ops) == 0 {
				return 0
			}
			b := ops[0]
			ops = ops[1:]
			return int(b)
		}
		flags := next()
		r := newRig(t, Config{
			Recorded: flags&1 != 0, Style: draw.Style{Color: flags&2 != 0, ASCII: flags&4 != 0}, View: flags >> 3 & 3,
			Sockets: func(context.Context, snapshot.SocketQuery) (*snapshot.SocketList, error) {
				return &snapshot.SocketList{Sockets: reports[flags%3].Namespaces[0].Sockets}, nil
			},
		})
		for len(ops) > 0 {
			switch op := next(); {
			case op < 160:
				r.keys(names[op%len(names)])
			case op < 190:
				r.send(reportsMsg{reports: []*snapshot.Report{reports[op%len(reports)]}})
			case op < 200:
				r.size(next()*(1+op%3), next())
			case op < 210:
				r.send(tea.MouseClickMsg{X: next(), Y: next(), Button: tea.MouseLeft})
			case op < 220:
				r.send(tea.MouseWheelMsg{Button: tea.MouseWheelUp + tea.MouseButton(op%2)})
			case op < 230:
				r.send(playMsg(r.plays))
			case op < 240:
				r.send(watchMsg(r.watch))
			case op < 250:
				r.send(reportsMsg{err: errors.New(evil), ended: op%4 == 0})
			default:
				r.send(tea.PasteMsg{Content: evil})
			}
		}
	})
}
