package web

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
)

// pipes is a listener whose connections are pipes, which keep nothing in between
// and go by the simulated clock.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// An output may be read while it is written.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// streamSite is a site under the simulated clock.
type streamSite struct {
	t        *testing.T
	feed     *feed
	hub      *hub.Hub
	listener *pipes
	done     chan struct{} // ends the streams
	log      *output
	end      func() // ends the source
}

func newStreamSite(t *testing.T) *streamSite {
	t.Helper()
	s := &streamSite{
		t: t, feed: &feed{reports: make(chan *snapshot.Report)}, done: make(chan struct{}), log: new(output),
		listener: &pipes{conns: make(chan net.Conn), done: make(chan struct{})},
	}
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	s.hub = hub.New(hub.Config{Source: s.feed.source, Logger: logger})
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	cfg := config(s.hub)
	cfg.EnableAPI, cfg.Done, cfg.Logger = true, s.done, logger
	srv := Server(Handler(cfg), logger)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.hub.Run(ctx) })
	wg.Go(func() { _ = srv.Serve(s.listener) })
	t.Cleanup(func() {
		end()
		_ = srv.Close()
		wg.Wait()
	})
	return s
}

// publish makes the n-th frame, a second after the one before.
func (s *streamSite) publish(n int) {
	r := report(n)
	r.IntervalSeconds = 1
	s.feed.reports <- r
	synctest.Wait()
}

// open asks for the stream and returns the connection, at which nothing has been
// read yet.
func (s *streamSite) open(headers ...string) net.Conn {
	s.t.Helper()
	client, server := net.Pipe()
	s.listener.conns <- server
	lines := append([]string{"GET /api/v1/stream HTTP/1.1", "Host: localhost"}, headers...)
	if _, err := io.WriteString(client, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { client.Close() })
	return client
}

// read reads the reply's head; its body is read by readEvent.
func (s *streamSite) read(c net.Conn) (*http.Response, *bufio.Reader) {
	s.t.Helper()
	reply, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodGet})
	if err != nil {
		s.t.Fatal(err)
	}
	return reply, bufio.NewReader(reply.Body)
}

// readEvent returns an event's type and data.
func readEvent(r *bufio.Reader) (kind, data string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return kind, data, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			return kind, data, nil
		case "event":
			kind = value
		case "data":
			data = value
		}
	}
}

// short writes an event as "report 3", "beat 10 false", "end reason".
func short(t *testing.T, kind, data string) string {
	t.Helper()
	if kind == "report" {
		r, err := snapshot.Decode([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("report %v", r.TookSeconds)
	}
	var v struct {
		AgeSeconds float64 `json:"age_seconds"`
		Stale      bool    `json:"stale"`
		Reason     string  `json:"reason"`
	}
	if err := json.Unmarshal([]byte(data), &v); err != nil {
		t.Fatalf("%s %q: %v", kind, data, err)
	}
	if kind == "beat" {
		return fmt.Sprintf("beat %v %v", v.AgeSeconds, v.Stale)
	}
	return strings.TrimSpace(kind + " " + v.Reason)
}

// events reads events until the stream ends, or after so many.
func events(t *testing.T, r *bufio.Reader, most int) (got []string) {
	t.Helper()
	for range most {
		kind, data, err := readEvent(r)
		if errors.Is(err, io.EOF) {
			return append(got, "EOF")
		}
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		got = append(got, short(t, kind, data))
	}
	return got
}

func wantEvents(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestStream(t *testing.T) {
	for _, coding := range []string{"identity", "gzip"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStreamSite(t)
			c := s.open("Accept-Encoding: " + coding)
			reply, body := s.read(c)
			if got := reply.Header.Get("Content-Type"); reply.StatusCode != 200 || got != asSSE || reply.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v", reply.StatusCode, reply.Header)
			}
			if coding == "gzip" {
				z, err := gzip.NewReader(body)
				if err != nil {
					t.Fatal(err)
				}
				body = bufio.NewReader(z)
			}
			wantEvents(t, events(t, body, 1), "beat 0 false") // there is no report yet
			s.publish(1)
			wantEvents(t, events(t, body, 1), "report 1")
			s.publish(2)
			wantEvents(t, events(t, body, 1), "report 2")
			wantEvents(t, events(t, body, 1), "beat 10 true") // of a report every second
			close(s.done)
			wantEvents(t, events(t, body, 2), "end this twwatch is stopping", "EOF")
		})
	}
}

func TestStreamBeginsWithTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreamSite(t)
		s.publish(1)
		s.publish(2)
		time.Sleep(3 * time.Second)
		_, body := s.read(s.open("Last-Event-ID: x"))
		wantEvents(t, events(t, body, 2), "report 2", "beat 3 false")
		s.end()
		wantEvents(t, events(t, body, 2), "end "+hub.ErrEnded.Error(), "EOF")
	})
}

// A source that has ended leaves its last report, and the reason why there is no
// other.
func TestStreamOfWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreamSite(t)
		s.publish(1)
		s.end()
		synctest.Wait()
		_, body := s.read(s.open())
		wantEvents(t, events(t, body, 4), "report 1", "beat 0 false", "end "+hub.ErrEnded.Error(), "EOF")
	})
}

// A reader that is slower than the frames gets the newest each time.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreamSite(t)
		s.publish(1)
		_, body := s.read(s.open())
		wantEvents(t, events(t, body, 2), "report 1", "beat 0 false")
		var got []string
		for n := 2; n < 32; n += 3 { // three frames for each that is taken
			for i := range 3 {
				s.publish(n + i)
			}
			got = append(got, events(t, body, 1)...)
		}
		// The first was under way when the next came; from then on the writer is
		// always one behind.
		wantEvents(t, got, "report 2", "report 4", "report 7", "report 10", "report 13", "report 16", "report 19", "report 22", "report 25", "report 28")
		if s.log.String() != "" {
			t.Errorf("log: %s", s.log)
		}
	})
}

// One that doesn't take an event for longer than the hub keeps frames for it is
// told so, and dropped.
func TestReaderThatLagsIsDroppedWithAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreamSite(t)
		s.publish(1)
		_, body := s.read(s.open())
		wantEvents(t, events(t, body, 2), "report 1", "beat 0 false")
		for n := range 8 {
			s.publish(2 + n)
		}
		wantEvents(t, events(t, body, 4), "report 2", "report 9", "end "+hub.ErrSlow.Error(), "EOF")
		if !strings.Contains(s.log.String(), "dropped a reader that is too slow") {
			t.Errorf("log: %s", s.log)
		}
	})
}

// One that takes nothing at all is cut off, and the log names it.
func TestReaderThatTakesNothingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreamSite(t)
		s.publish(1)
		c := s.open()
		time.Sleep(takeWithin - time.Second)
		synctest.Wait()
		if s.log.String() != "" {
			t.Errorf("dropped too early: %s", s.log)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if log := s.log.String(); !strings.Contains(log, "dropped a stream whose reader takes nothing") || !strings.Contains(log, "remote=pipe") || !strings.Contains(log, "within=30s") {
			t.Fatalf("log: %s", log)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the connection is still open: %v", err)
		}
		before := s.log.String()
		for n := range 8 { // nobody is left who could be too slow
			s.publish(2 + n)
		}
		if s.log.String() != before {
			t.Errorf("log: %s", s.log)
		}
	})
}

func TestTooManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreamSite(t)
		for range hub.MaxSubscribers {
			_, stop := s.hub.Subscribe()
			defer func() { _ = stop() }()
		}
		reply, _ := s.read(s.open())
		if reply.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		wantError(t, reply, 503, "too many")
	})
}

func TestStreamRequests(t *testing.T) {
	h, _ := start(t, 1)
	site := Handler(config(h))
	wantError(t, ask(site, loopback, "GET", "/api/v1/stream?since=1"), 400, "no parameters")
	r := ask(site, loopback, "HEAD", "/api/v1/stream")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != asSSE || body(t, r) != "" {
		t.Errorf("HEAD: %d %v", r.StatusCode, r.Header)
	}
}
