package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
)

const (
	// beatEvery is how often a stream shows that it lives.
	beatEvery = 10 * time.Second
	// takeWithin is how long a reader may take for one event: one that takes
	// nothing holds a frame, a goroutine and the kernel's buffers.
	takeWithin = 30 * time.Second
)

var errStopping = errors.New("this twwatch is stopping")

// stream sends the frames as they come, as server-sent events (HTML, 9.2). A
// reader that is slower than the frames gets the newest each time. One that takes
// longer for an event than the hub waits is told so and dropped; so is, by the
// log alone, one that takes nothing at all.
func (s *site) stream(w http.ResponseWriter, r *http.Request, _ string) {
	if err := eachParameter(r.URL.RawQuery, nil, nil); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	h := w.Header()
	if r.Method == http.MethodHead {
		h.Set("Content-Type", asSSE)
		return
	}
	frames, stop := s.cfg.Hub.Subscribe()
	defer func() { _ = stop() }() // its reason has been told by then
	select {
	case _, more := <-frames: // the newest frame, which is sent anyway, or none
		if !more && errors.Is(stop(), hub.ErrTooMany) {
			h.Set("Retry-After", "10")
			refuse(w, http.StatusServiceUnavailable, hub.ErrTooMany.Error())
			return
		}
	default:
	}
	h.Set("Content-Type", asSSE)
	h.Set("X-Accel-Buffering", "no") // nginx, on the way, would keep events back
	h.Set("Vary", "Accept-Encoding")
	out := newEventWriter(w, acceptsGzip(r.Header))
	err := s.follow(out, r, frames, stop)
	if errors.Is(err, os.ErrDeadlineExceeded) { // else it has gone by itself
		s.cfg.Logger.Warn("dropped a stream whose reader takes nothing", "remote", r.RemoteAddr, "within", takeWithin, "err", err)
	}
}

// follow sends events until the reader goes, or the last one has said why the
// stream ends. The error is that of a write.
func (s *site) follow(out *eventWriter, r *http.Request, frames <-chan *snapshot.Report, stop func() error) error {
	var sent *snapshot.Report
	next := func() error {
		frame := s.cfg.Hub.Latest()
		if frame == nil || frame == sent {
			return nil
		}
		e := s.frames.of(frame)
		if e.err != nil {
			return nil // it is logged
		}
		sent = frame
		return out.send(e.asEvent())
	}
	beat := func() error {
		age, stale := s.cfg.Hub.Stale(time.Now())
		return out.send(eventOf("beat", beatData{AgeSeconds: age.Seconds(), Stale: stale}))
	}
	if err := errors.Join(next(), beat()); err != nil {
		return err
	}
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-r.Context().Done():
			return nil
		case <-s.cfg.Done:
			return out.end(errStopping)
		case _, more := <-frames:
			more = more && drain(frames)
			err = next()
			if !more && err == nil {
				return out.end(stop())
			}
		case <-ticker.C:
			err = beat()
		}
		if err != nil {
			return err
		}
	}
}

// drain takes the frames that wait, since only the newest is sent, and reports
// whether there can be more.
func drain(frames <-chan *snapshot.Report) (more bool) {
	for {
		select {
		case _, more := <-frames:
			if !more {
				return false
			}
		default:
			return true
		}
	}
}

// beatData is what an event of the type beat holds.
type beatData struct {
	AgeSeconds float64 `json:"age_seconds"` // of the newest report; before the first, of the daemon
	Stale      bool    `json:"stale"`       // no pass has ended for three intervals
}

// endData is what the event of the type end holds.
type endData struct {
	Reason string `json:"reason"`
}

// eventOf is an event that one reader gets.
func eventOf(kind string, data any) *event {
	body, err := json.Marshal(data)
	if err != nil { // numbers and short texts always can be encoded
		body = []byte("{}")
	}
	return newEvent(kind, "", printable(body), false)
}
