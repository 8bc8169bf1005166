package web

import (
	"net/http"
	"sync/atomic"
	"time"
)

// limit lets so many requests through at once and so many wait so long: a
// storm of scrapes is served in turn, and costs neither memory nor the host.
func limit(next http.Handler, slots, queue int, wait time.Duration) http.Handler {
	free := make(chan struct{}, slots)
	var waiting atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy := func() {
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, "too many requests at once: try again later")
		}
		if waiting.Add(1) > int64(slots+queue) {
			waiting.Add(-1)
			busy()
			return
		}
		defer waiting.Add(-1)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
			next.ServeHTTP(w, r)
		case <-timer.C:
			busy()
		case <-r.Context().Done():
		}
	})
}
