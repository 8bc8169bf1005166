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
)

// A frameCache encodes the newest frame once for all who read it.
type frameCache struct {
	logger *slog.Logger

	mu  sync.Mutex // held while encoding, so that the others wait for the one
	now *encoded
}

// encoded is a frame's bytes; immutable but for the packed forms, made on
// demand.
type encoded struct {
	frame *snapshot.Report
	err   error
	body  []byte
	tag   string // an ETag without its quotes
	once  sync.Once
	gz    []byte

	onceEvent sync.Once
	event     *event
}

// report answers with the newest frame.
func (s *site) report(w http.ResponseWriter, r *http.Request, _ string) {
	if err := eachParameter(r.URL.RawQuery, nil, nil); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	frame := s.cfg.Hub.Latest()
	if frame == nil {
		notYet(w)
		return
	}
	e := s.frames.of(frame)
	if e.err != nil {
		refuse(w, http.StatusInternalServerError, "the report can't be encoded: see the log")
		return
	}
	send(w, r, asJSON, e.body, e.tag, e.gzip)
}

func notYet(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, noFrame)
}

// send answers with a body whose content the tag stands for; gzip gives its
// packed form.
func send(w http.ResponseWriter, r *http.Request, kind string, body []byte, tag string, gzip func() []byte) {
	header := w.Header()
	header.Add("Vary", "Accept-Encoding")
	zipped := acceptsGzip(r.Header)
	if zipped {
		body, tag = gzip(), tag+"-gzip"
	}
	header.Set("ETag", `"`+tag+`"`)
	if matches(r.Header, tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", kind)
	if zipped {
		header.Set("Content-Encoding", "gzip")
	}
	write(w, r, body)
}

// of returns the bytes of a frame; whoever asks for the newest never encodes it
// twice.
func (c *frameCache) of(frame *snapshot.Report) *encoded {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != nil && c.now.frame == frame {
		return c.now
	}
	e := &encoded{frame: frame}
	var b bytes.Buffer
	if e.err = snapshot.Encode(&b, frame); e.err == nil {
		e.body = b.Bytes()
		e.tag = tagOf(e.body)
	} else {
		c.logger.Error("the report can't be encoded", "err", e.err)
	}
	c.now = e
	return e
}

// tagOf is an ETag, without its quotes, for a body.
func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

func (e *encoded) gzip() []byte {
	e.once.Do(func() { e.gz = pack(e.body) })
	return e.gz
}

func pack(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(body) // a bytes.Buffer takes everything
	_ = z.Close()
	return b.Bytes()
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
