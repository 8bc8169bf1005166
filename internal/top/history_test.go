package top

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// heavy is a report that counts for so many bytes.
func heavy(n, bytes int) *snapshot.Report {
	r := &snapshot.Report{Time: begun.Add(time.Duration(n) * time.Second)}
	r.Findings = make([]snapshot.Finding, (bytes-weight(r))/(2<<10))
	return r
}

func ages(reports []*snapshot.Report) (n []int) {
	for _, r := range reports {
		n = append(n, int(r.Time.Sub(begun).Seconds()))
	}
	return n
}

// A live history forgets the oldest, by number and by size.
func TestLiveHistory(t *testing.T) {
	h := newHistory(false)
	for n := range liveReports + 10 {
		h.add(heavy(n, 4<<10))
	}
	if len(h.reports) != liveReports || h.reports[0].Time != begun.Add(10*time.Second) {
		t.Errorf("%d reports from %v on", len(h.reports), h.reports[0].Time)
	}
	h = newHistory(false)
	for n := range 10 {
		h.add(heavy(n, liveBytes/4))
	}
	if got := ages(h.reports); !slices.Equal(got, []int{6, 7, 8, 9}) || h.bytes > liveBytes {
		t.Errorf("kept %v, %d bytes", got, h.bytes)
	}
	h.add(heavy(10, 2*liveBytes)) // the newest is kept whatever its size
	if got := ages(h.reports); !slices.Equal(got, []int{10}) {
		t.Errorf("kept %v", got)
	}
}

// A recording is thinned out evenly, and its last report is always there.
func TestRecordedHistory(t *testing.T) {
	h := newHistory(true)
	h.limit = 8 * 10 << 10
	for n := range 100 {
		h.add(heavy(n, 10<<10))
		got := ages(h.reports)
		if got[0] != 0 || got[len(got)-1] != n || h.bytes > h.limit {
			t.Fatalf("after %d: %v, %d bytes of %d", n, got, h.bytes, h.limit)
		}
		for i := 1; i < len(got)-1; i++ {
			if got[i]-got[i-1] != h.stride {
				t.Fatalf("after %d: %v isn't even: every %d", n, got, h.stride)
			}
		}
	}
	if h.stride != 16 {
		t.Errorf("every %dth of 100 is kept, want the 16th", h.stride)
	}
	r := newRig(t, Config{Recorded: true})
	r.history.limit = 8 * 10 << 10
	for n := range 100 {
		r.send(reportsMsg{reports: []*snapshot.Report{heavy(n, 10<<10)}})
	}
	r.shows(", every 16th kept 12:41:39")
}

// A report that is looked at and forgotten gives way to the oldest that is kept.
func TestForgottenWhileLookedAt(t *testing.T) {
	r := newRig(t, Config{}, heavy(0, liveBytes/2), heavy(1, liveBytes/2-8<<10))
	r.keys("{").shows("1/2 12:40:00 paused")
	r.send(reportsMsg{reports: []*snapshot.Report{heavy(2, liveBytes/2)}})
	r.shows("1/2 12:40:01 paused")
}

// The pump hands on what has come meanwhile together, and the end at the end. A
// report that comes after an error takes it back.
func TestPump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trouble := errors.New("trouble")
		source := func(context.Context) iter.Seq2[*snapshot.Report, error] {
			return func(yield func(*snapshot.Report, error) bool) {
				for n := range 10 {
					yield(heavy(n, 8<<10), nil)
				}
				time.Sleep(50 * time.Millisecond) // while the first is drawn
				yield(nil, trouble)
				yield(heavy(10, 8<<10), nil)
				time.Sleep(time.Second)
				yield(heavy(11, 8<<10), trouble)
				time.Sleep(time.Second)
				yield(nil, trouble)
			}
		}
		var got []int
		var errs, ends int
		pump(t.Context(), source, func(msg reportsMsg) {
			got = append(got, ages(msg.reports)...)
			if msg.err != nil {
				errs++
			}
			if msg.ended {
				ends++
			}
			time.Sleep(100 * time.Millisecond) // drawing it
		})
		if !slices.Equal(got, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}) || errs != 2 || ends != 1 {
			t.Errorf("reports %v, %d errors, %d ends", got, errs, ends)
		}
	})
}

// Run ends with q and with its context, and lets go of the source.
func TestRun(t *testing.T) {
	for _, byKey := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in, keys := io.Pipe()
		yielded := make(chan struct{})
		released := false
		cfg := Config{From: "web-17", Source: func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
			return func(yield func(*snapshot.Report, error) bool) {
				defer func() { released = true }()
				if yield(scene(0), nil) {
					close(yielded)
					<-ctx.Done()
				}
			}
		}}
		ended := make(chan error)
		go func() {
			ended <- Run(ctx, cfg, Terminal{In: in, Out: io.Discard, Environ: []string{"TERM=xterm-256color"}})
		}()
		<-yielded
		if byKey {
			_, _ = keys.Write([]byte("q"))
		} else {
			cancel()
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if !released {
			t.Error("the source goes on after Run")
		}
		_ = keys.Close()
	}
}
