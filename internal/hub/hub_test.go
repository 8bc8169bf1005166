package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// step is what a source yields, after a pause.
type step struct {
	after time.Duration
	r     *snapshot.Report
	err   error
}

func steps(all ...step) Source {
	return func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			for _, s := range all {
				select {
				case <-ctx.Done():
					return
				case <-time.After(s.after):
				}
				if !yield(s.r, s.err) {
					return
				}
			}
		}
	}
}

// every yields n reports, 15 s apart; the first at once. Their TookSeconds
// number them from 1.
func every(n int) Source {
	var all []step
	for i := range n {
		all = append(all, step{time.Duration(min(i, 1)) * 15 * time.Second, &snapshot.Report{TookSeconds: float64(i + 1), IntervalSeconds: 15}, nil})
	}
	return steps(all...)
}

func numbers(frames []*snapshot.Report) (n []int) {
	for _, f := range frames {
		n = append(n, int(f.TookSeconds))
	}
	return n
}

func TestFramesAreJudgedThenObservedThenPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *Hub
		var order []string
		h = New(Config{
			Source: every(2),
			Judge: func(r *snapshot.Report) {
				r.Verdict = snapshot.Warning
				order = append(order, fmt.Sprintf("judge %v, window %v", r.TookSeconds, numbers(h.Window())))
			},
			OnFrame: func(r *snapshot.Report) {
				order = append(order, fmt.Sprintf("observe %v %s, published %v", r.TookSeconds, r.Verdict, h.Latest() == r))
			},
		})
		if h.Latest() != nil || h.Ready() || len(h.Window()) != 0 {
			t.Error("there is a frame before the first")
		}
		frames, stop := h.Subscribe()
		if err := h.Run(t.Context()); err != nil {
			t.Error(err)
		}
		want := []string{
			"judge 1, window []", "observe 1 warning, published false",
			"judge 2, window [1]", "observe 2 warning, published false",
		}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		var got []*snapshot.Report
		for r := range frames { // closed by the end of the source
			got = append(got, r)
		}
		if diff := cmp.Diff([]int{1, 2}, numbers(got)); diff != "" {
			t.Errorf("subscription (-want +got):\n%s", diff)
		}
		if err := stop(); !errors.Is(err, ErrEnded) {
			t.Errorf("the subscription ended by %v, want ErrEnded", err)
		}
		if !h.Ready() || h.Latest() != got[1] {
			t.Error("the last frame is not the latest")
		}
	})
}

func TestWindowIsBoundedAndTrimmed(t *testing.T) {
	report := func(n int) *snapshot.Report {
		ns := &snapshot.Namespace{
			States:     snapshot.States{TimeWait: 1000, CloseWait: 7},
			Flows:      make([]snapshot.Flow, 150),
			Omitted:    snapshot.Omitted{Flows: 2, Births: 5, States: snapshot.States{TimeWait: 400, CloseWait: 7}},
			CloseWaits: make([]snapshot.CloseWait, 7),
		}
		for i := range ns.Flows {
			ns.Flows[i] = snapshot.Flow{Births: 1, OpenedPerSecond: make([]uint32, 60), States: snapshot.States{TimeWait: 4}}
		}
		return &snapshot.Report{TookSeconds: float64(n), Namespaces: []*snapshot.Namespace{ns, nil}}
	}
	var all []step
	var originals []*snapshot.Report
	for n := range 6 {
		originals = append(originals, report(n))
		all = append(all, step{0, originals[n], nil})
	}
	h := New(Config{Source: steps(all...), Keep: 4})
	if err := h.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := h.Window()
	if diff := cmp.Diff([]int{2, 3, 4, 5}, numbers(w)); diff != "" {
		t.Fatalf("window (-want +got):\n%s", diff)
	}
	if w[2] != originals[4] || w[3] != originals[5] {
		t.Error("the newest two are not whole")
	}
	for i, r := range w[:2] {
		ns := r.Namespaces[0]
		if len(ns.Flows) != trimmedTo || ns.Flows[0].OpenedPerSecond != nil || ns.CloseWaits != nil {
			t.Errorf("frame %d is not trimmed: %d flows", i, len(ns.Flows))
		}
		want := snapshot.Omitted{Flows: 52, Births: 55, States: snapshot.States{TimeWait: 600, CloseWait: 7}}
		if diff := cmp.Diff(want, ns.Omitted); diff != "" {
			t.Errorf("omitted (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff(report(2), originals[2]); diff != "" {
		t.Errorf("a shared frame was written to (-want +got):\n%s", diff)
	}
}

func TestSlowReadersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := New(Config{Source: every(20), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		slow, stopSlow := h.Subscribe()
		quick, stopQuick := h.Subscribe()
		var seen []*snapshot.Report
		var wg sync.WaitGroup
		wg.Go(func() {
			for r := range quick {
				seen = append(seen, r)
			}
		})
		if err := h.Run(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if len(seen) != 20 {
			t.Errorf("the quick reader got %d frames, want all 20", len(seen))
		}
		if err := stopQuick(); !errors.Is(err, ErrEnded) {
			t.Errorf("quick reader: %v, want ErrEnded", err)
		}
		left := 0
		for range slow {
			left++
		}
		if left != queued {
			t.Errorf("%d frames were kept for the slow reader, want %d", left, queued)
		}
		if err := stopSlow(); !errors.Is(err, ErrSlow) {
			t.Errorf("slow reader: %v, want ErrSlow", err)
		}
		if n := strings.Count(log.String(), "too slow"); n != 1 {
			t.Errorf("the drop was logged %d times, want once", n)
		}
	})
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := New(Config{Source: every(3)})
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		time.Sleep(time.Second)

		frames, stop := h.Subscribe()
		if r := <-frames; r != h.Latest() {
			t.Error("the newest frame doesn't come first")
		}
		for range 2 {
			if err := stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if _, open := <-frames; open {
			t.Error("the channel is open after stop")
		}

		for range MaxSubscribers {
			_, stop := h.Subscribe()
			defer func() { _ = stop() }()
		}
		frames, stop = h.Subscribe()
		if _, open := <-frames; open {
			t.Error("one subscriber too many is served")
		}
		if err := stop(); !errors.Is(err, ErrTooMany) {
			t.Errorf("one too many: %v, want ErrTooMany", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want Canceled", err)
		}
		if _, stop := h.Subscribe(); !errors.Is(stop(), ErrEnded) {
			t.Error("a subscription after the end doesn't say ErrEnded")
		}
	})
}

func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Source: steps(
			step{40 * time.Second, &snapshot.Report{}, nil},
			step{time.Hour, &snapshot.Report{IntervalSeconds: 50}, nil},
			step{time.Hour, nil, nil},
		), Interval: 10 * time.Second})
		go func() { _ = h.Run(t.Context()) }()
		for _, c := range []struct {
			wait, age time.Duration
			stale     bool
		}{
			{30 * time.Second, 30 * time.Second, false},
			{time.Second, 31 * time.Second, true}, // no first frame after three intervals
			{10 * time.Second, time.Second, false},
			{30 * time.Second, 31 * time.Second, true},
			{time.Hour + 100*time.Second, 131 * time.Second, false}, // the frame names its interval
			{20 * time.Second, 151 * time.Second, true},
		} {
			time.Sleep(c.wait)
			synctest.Wait()
			if age, stale := h.Stale(time.Now()); age != c.age || stale != c.stale {
				t.Errorf("got %v, %v; want %v, %v", age, stale, c.age, c.stale)
			}
		}
	})
}

type stagedError struct{ stage string }

func (e stagedError) Error() string { return "can't " + e.stage }
func (e stagedError) Stage() string { return e.stage }

func TestErrorsAreCountedAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gap := snapshot.Gap{Stage: "limits", Namespace: "host", Error: "evil\x1b[2J\u202e"}
		var all []step
		for range 50 { // 15 s apart: 12.25 minutes
			all = append(all, step{15 * time.Second, &snapshot.Report{Incomplete: []snapshot.Gap{gap}}, fmt.Errorf("pass: %w", stagedError{"dump"})})
		}
		all = append(all, step{0, nil, errors.New("broken")})
		var log bytes.Buffer
		h := New(Config{Source: steps(all...), Stages: []string{"dump", "bound"}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := h.Run(t.Context()); err != nil {
			t.Error(err)
		}
		want := map[string]uint64{"dump": 50, "limits": 50, "bound": 0, "source": 1}
		if diff := cmp.Diff(want, h.Errors()); diff != "" {
			t.Errorf("errors (-want +got):\n%s", diff)
		}
		if len(h.Window()) != DefaultKeep {
			t.Errorf("%d frames kept: a report that comes with an error is a frame too", len(h.Window()))
		}
		for text, n := range map[string]int{"can't dump": 2, "stage=limits": 2, "broken": 1, "repeated=39": 2, "\x1b": 0, "\u202e": 0} {
			if got := strings.Count(log.String(), text); got != n {
				t.Errorf("%q stands %d times in the log, want %d:\n%s", text, got, n, log.String())
			}
		}
	})
}

func TestErrorsAreBounded(t *testing.T) {
	var all []step
	for i := range 1000 {
		all = append(all, step{0, nil, stagedError{fmt.Sprint("stage ", i)}})
	}
	var log bytes.Buffer
	h := New(Config{Source: steps(all...), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := h.Run(t.Context()); err != nil {
		t.Error(err)
	}
	counts := h.Errors()
	if len(counts) > maxStages {
		t.Errorf("%d stages are counted, want at most %d", len(counts), maxStages)
	}
	if counts[OtherStage] != 1000-maxStages+2 { // but for "source" and "other" itself
		t.Errorf("%d errors of other stages, want %d", counts[OtherStage], 1000-maxStages+2)
	}
	if n := strings.Count(log.String(), "\n"); n != maxDistinct {
		t.Errorf("%d lines logged, want %d", n, maxDistinct)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		h := New(Config{Source: every(1000)})
		if err := h.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v, want DeadlineExceeded", err)
		}
		if n := len(h.Window()); n != 4 && n != 5 {
			t.Errorf("%d frames in a minute, want 4 or 5", n)
		}
	})
}

// Forty frames of a thousand flows must not hold forty times a frame.
func TestWindowMemory(t *testing.T) {
	frame := func() *snapshot.Report {
		ns := &snapshot.Namespace{Flows: make([]snapshot.Flow, snapshot.MaxFlows)}
		for i := range ns.Flows {
			ns.Flows[i].OpenedPerSecond = make([]uint32, 60)
			ns.Flows[i].Remote = fmt.Sprintf("2001:db8:1:2:3:4:5:%x", i)
		}
		return &snapshot.Report{Namespaces: []*snapshot.Namespace{ns}}
	}
	var all []step
	for range DefaultKeep {
		all = append(all, step{0, nil, nil})
	}
	source := func(context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			for range all {
				if !yield(frame(), nil) {
					return
				}
			}
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h := New(Config{Source: source})
	if err := h.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	const most = 6 << 20
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > most {
		t.Errorf("the window holds %d KiB, want at most %d", grown>>10, most>>10)
	} else {
		t.Logf("%d frames hold %d KiB", len(h.Window()), grown>>10)
	}
	runtime.KeepAlive(h)
}

// What is not looked at is logged when that begins, however its numbers change,
// and is no error.
func TestLacksAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	lack := func(stage string, n int) snapshot.Gap {
		return snapshot.Gap{Stage: stage, Error: fmt.Sprint(n, " processes"), Lost: "some owners", Fix: "run as root"}
	}
	var all []step
	for n := range 3 {
		all = append(all, step{r: &snapshot.Report{Limited: []snapshot.Gap{lack("owner", n), lack("namespaces", n)}}})
	}
	h := New(Config{Source: steps(all...), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := h.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("%d lines, want 2:\n%s", got, log.String())
	}
	for stage, n := range h.Errors() {
		if n != 0 {
			t.Errorf("%d errors of %s", n, stage)
		}
	}
}
