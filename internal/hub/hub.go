// Package hub turns a source of reports and a judge into frames that any
// number of readers share.
//
// A Hub owns the loop over the source, the latest frame, a short window of
// earlier ones and the list of subscribers. A frame is a report that has been
// judged; from its publication on nobody writes to it, and it lives as long as
// a reader holds it. Readers start no pass and can't hold one up: who reads too
// slowly is dropped. The hub makes no reports, knows no rules and has no view
// on what a report says.
package hub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Defaults and bounds.
const (
	DefaultKeep     = 40               // frames: 10 minutes of 15 s
	DefaultInterval = 15 * time.Second // where a report names none
	// MaxSubscribers share the frames: what one costs is a place in a queue, so
	// that a wall of screens and a few tens of terminals have room.
	MaxSubscribers = 256

	queued  = 4 // frames that a subscriber may lag behind
	patient = 3 // intervals after which the latest frame is stale
)

// Reasons for the end of a subscription.
var (
	ErrSlow    = errors.New("hub: dropped: the reader lags behind by more frames than are kept for it")
	ErrTooMany = fmt.Errorf("hub: too many subscribers: at most %d are served", MaxSubscribers)
	ErrEnded   = errors.New("hub: the source has ended")
)

// A Source yields reports until it ends or its context does. A report may
// come with an error (what could be seen, and what went wrong), and an error
// without a report.
type Source = func(context.Context) iter.Seq2[*snapshot.Report, error]

// A Judge fills a report's Findings, Verdict and NotJudged. It is called by
// one goroutine, once for each report, before anybody else sees it; the
// window that it may want to look at holds the earlier frames only.
type Judge = func(*snapshot.Report)

// Config says what to run. Only Source is required.
type Config struct {
	Source Source
	Judge  Judge // nil leaves the reports as they are
	// Keep is the number of frames in the window, the latest included; 0 is
	// DefaultKeep. Frames but the two newest are kept trimmed (see Window).
	Keep int
	// OnFrame is called with every judged frame before it is published, in
	// order, by the goroutine of Run: whoever sees a frame published can rely
	// on it. It must not write to the frame.
	OnFrame func(*snapshot.Report)
	// Interval is the time between frames where these name none; 0 is
	// DefaultInterval.
	Interval time.Duration
	// Stages are the stages of errors to count from 0 on, so that their first
	// error is a growth that can be seen.
	Stages []string
	Logger *slog.Logger // nil logs nothing
}

// A Hub publishes frames. All methods are safe for concurrent use.
type Hub struct {
	cfg    Config
	latest atomic.Pointer[published]
	born   time.Time
	troubles

	mu          sync.Mutex
	window      []*snapshot.Report // oldest first
	subscribers map[*subscriber]struct{}
	ended       bool
}

// published is a frame and when this hub got it, by its own monotonic clock:
// the frame's own time may come from another host.
type published struct {
	frame *snapshot.Report
	at    time.Time
}

// New makes a hub. It does nothing until Run.
func New(cfg Config) *Hub {
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Hub{cfg: cfg, born: time.Now(), subscribers: make(map[*subscriber]struct{})}
	h.troubles.logger = cfg.Logger
	h.troubles.counts = make(map[string]uint64)
	for _, stage := range append(slices.Clone(cfg.Stages), SourceStage) {
		h.troubles.add(stage, 0)
	}
	return h
}

// Run reads the source until it ends or ctx does, and publishes what it
// yields. Errors of the source are counted and logged, and don't stop it. It
// returns the context's error, or nil if the source came to its end by itself.
// It is to be called once.
func (h *Hub) Run(ctx context.Context) error {
	defer h.end()
	for r, err := range h.cfg.Source(ctx) {
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			h.trouble(err)
		}
		if r != nil {
			h.publish(r)
		}
	}
	return ctx.Err()
}

func (h *Hub) publish(r *snapshot.Report) {
	if h.cfg.Judge != nil {
		h.cfg.Judge(r)
	}
	for i := range r.Incomplete {
		h.gap(&r.Incomplete[i])
	}
	for i := range r.Limited {
		h.limit(&r.Limited[i])
	}
	if h.cfg.OnFrame != nil {
		h.cfg.OnFrame(r)
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(r)
	h.latest.Store(&published{r, time.Now()})
	for s := range h.subscribers {
		select {
		case s.frames <- r:
		default:
			h.drop(s, ErrSlow)
			h.cfg.Logger.Warn("dropped a reader that is too slow", "frames_behind", queued)
		}
	}
}

// Latest returns the newest frame, nil before the first.
func (h *Hub) Latest() *snapshot.Report {
	if p := h.latest.Load(); p != nil {
		return p.frame
	}
	return nil
}

// Ready reports whether there is a frame.
func (h *Hub) Ready() bool { return h.latest.Load() != nil }

// Stale returns the age of the newest frame (before the first: of the hub),
// and whether it is more than three intervals old, so that something must be
// wrong with the source.
func (h *Hub) Stale(now time.Time) (age time.Duration, stale bool) {
	since, interval := h.born, h.cfg.Interval
	if p := h.latest.Load(); p != nil {
		since = p.at
		if s := p.frame.IntervalSeconds; s > 0 && s < 3600 {
			interval = time.Duration(s * float64(time.Second))
		}
	}
	age = max(0, now.Sub(since))
	return age, age > patient*interval
}

type subscriber struct {
	frames chan *snapshot.Report
	reason error // once frames is closed
}

// Subscribe returns a channel of every frame from now on, the newest first if
// there is one. The channel is closed when the reader lags too far behind,
// when the source ends, or by stop, which also tells why it had been closed
// before: ErrSlow, ErrEnded, ErrTooMany, or nil. stop may be called more than
// once, and must be called at least once.
func (h *Hub) Subscribe() (frames <-chan *snapshot.Report, stop func() error) {
	s := &subscriber{frames: make(chan *snapshot.Report, queued)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.latest.Load(); p != nil && len(h.subscribers) < MaxSubscribers {
		s.frames <- p.frame
	}
	h.subscribers[s] = struct{}{}
	switch {
	case h.ended:
		h.drop(s, ErrEnded)
	case len(h.subscribers) > MaxSubscribers:
		h.drop(s, ErrTooMany)
	}
	return s.frames, func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.subscribers[s]; ok {
			h.drop(s, nil)
		}
		return s.reason
	}
}

// drop ends a subscription; h.mu is held.
func (h *Hub) drop(s *subscriber, reason error) {
	delete(h.subscribers, s)
	s.reason = reason
	close(s.frames)
}

func (h *Hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for s := range h.subscribers {
		h.drop(s, ErrEnded)
	}
}
