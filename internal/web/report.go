package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
)

// reportHandler serves the newest frame, encoded once.
type reportHandler struct {
	hub    *hub.Hub
	logger *slog.Logger

	mu  sync.Mutex // held while encoding, so that the others wait for the one
	now *encoded
}

// encoded is a frame's bytes; immutable but for the gzip form, made on demand.
type encoded struct {
	frame *snapshot.Report
	err   error
	body  []byte
	tag   string // an ETag without its quotes
	once  sync.Once
	gz    []byte
}

func (h *reportHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.RawQuery) > 0 {
		refuse(w, http.StatusBadRequest, "/api/v1/report takes no parameters")
		return
	}
	frame := h.hub.Latest()
	if frame == nil {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, noFrame)
		return
	}
	e := h.encoded(frame)
	if e.err != nil {
		h.logger.Error("the report can't be encoded", "err", e.err)
		refuse(w, http.StatusInternalServerError, "the report can't be encoded: see the log")
		return
	}
	body, tag := e.body, e.tag
	header := w.Header()
	header.Set("Vary", "Accept-Encoding")
	zipped := acceptsGzip(r.Header)
	if zipped {
		body, tag = e.gzip(), tag+"-gzip"
	}
	header.Set("ETag", `"`+tag+`"`)
	if matches(r.Header, tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", "application/json")
	if zipped {
		header.Set("Content-Encoding", "gzip")
	}
	write(w, r, body)
}

func (h *reportHandler) encoded(frame *snapshot.Report) *encoded {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now != nil && h.now.frame == frame {
		return h.now
	}
	e := &encoded{frame: frame}
	var b bytes.Buffer
	if e.err = snapshot.Encode(&b, frame); e.err == nil {
		e.body = b.Bytes()
		sum := sha256.Sum256(e.body)
		e.tag = hex.EncodeToString(sum[:8])
	}
	h.now = e
	return e
}

func (e *encoded) gzip() []byte {
	e.once.Do(func() {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(e.body) // a bytes.Buffer takes everything
		_ = z.Close()
		e.gz = b.Bytes()
	})
	return e.gz
}

// matches implements If-None-Match (RFC 9110, 13.1.2): weak comparison.
func matches(h http.Header, tag string) bool {
	for _, line := range h.Values("If-None-Match") {
		for candidate := range strings.SplitSeq(line, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == "*" || candidate == `"`+tag+`"` {
				return true
			}
		}
	}
	return false
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3): gzip or *, unless
// with q=0.
func acceptsGzip(h http.Header) bool {
	anything := false
	for _, line := range h.Values("Accept-Encoding") {
		for item := range strings.SplitSeq(line, ",") {
			coding, params, _ := strings.Cut(item, ";")
			refused := false
			if q, ok := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(params), " ", ""), "q="); ok {
				v, err := strconv.ParseFloat(q, 64)
				refused = err != nil || v <= 0
			}
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip", "x-gzip":
				return !refused
			case "*":
				anything = !refused
			}
		}
	}
	return anything
}
