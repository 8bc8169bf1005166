package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// event is the n-th report as an event.
func event(t *testing.T, n int) string {
	t.Helper()
	return "id: \"x\"\nevent: report\ndata: " + strings.TrimSpace(string(line(t, n))) + "\n\n"
}

// streams serves one text after the other, each as a whole stream, and the
// last one again and again. An empty one is never answered; one that ends in
// "…" goes on in silence.
func streams(t *testing.T, texts ...string) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := min(int(requests.Add(1))-1, len(texts)-1)
		if r.URL.Path != "/api/v1/stream" || r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("asked for %s, %s", r.URL, r.Header.Get("Accept"))
		}
		text, silent := strings.CutSuffix(texts[n], "…")
		if text != "" {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
		}
		if silent || text == "" {
			<-r.Context().Done()
		}
	})
	return s.URL, requests
}

// heard is what a stream yields, at most so many elements: seconds of reports,
// and errors.
func heard(t *testing.T, cfg Config, most int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if cfg.Interval == 0 {
		cfg.Interval = time.Millisecond
	}
	var got []string
	for r, err := range Stream(cfg)(ctx) {
		checkLine(t, err)
		if err != nil {
			got = append(got, err.Error())
		} else {
			got = append(got, fmt.Sprint(r.Time.Unix()-1e9))
		}
		if len(got) == most {
			break
		}
	}
	return got
}

// Every report comes once, over the ends of streams, and each end is told.
func TestStream(t *testing.T) {
	beat := "event: beat\ndata: {\"age_seconds\":1}\n\n"
	url, _ := streams(t,
		": a comment\n\n"+event(t, 0)+beat+event(t, 1)+"event: end\ndata: {\"reason\":\"this twwatch is stopping\"}\n\n",
		"data: nothing\n\n"+strings.ReplaceAll(event(t, 1)+event(t, 2), "\n", "\r\n")+"event: report\ndata: {\"sch",
		"retry: 1\nevent: report\ndata:"+strings.TrimSpace(string(line(t, 3)))+"\nunknown\n\nevent: end\n\n",
		"",
	)
	at := "remote: " + url + "/api/v1/stream: "
	want := []string{
		"0", "1", at + "it ended the stream: this twwatch is stopping",
		"2", at + "the stream breaks off: the connection was closed early: look at the other side's log, and at proxies between",
		"3", at + "it ended the stream",
	}
	got := heard(t, Config{URL: url}, len(want))
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Who says nothing is left: before the stream begins, and in it.
func TestSilentStream(t *testing.T) {
	url, _ := streams(t, event(t, 0)+"…", "", event(t, 1)+": more and more comments\n…", event(t, 2)+"…")
	got := heard(t, Config{URL: url, Timeout: 50 * time.Millisecond}, 5)
	at := "remote: " + url + "/api/v1/stream: no word within "
	fix := ": is the host up, and the port open on the way?"
	want := []string{"0", at + "150ms" + fix, at + "50ms" + fix, "1", at + "150ms" + fix}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Replies of somebody who means harm, or is no twwatch.
func TestHostileStream(t *testing.T) {
	endless := "event: report\ndata: " + strings.Repeat("[", 17<<20)
	many := "event: report\n" + strings.Repeat("data: "+strings.Repeat("[", 1<<20)+"\n", 17)
	for _, tt := range []struct{ name, text, want string }{
		{"no report", "event: report\ndata: {\"a\":\"\\u001b\"}\n\n", `it starts with "{\"a\":\"\\u001b\"}": is it a twwatch's address?`},
		{"newer", "event: report\ndata: {\"schema\":\"twwatch.report/v3\"}\n\n", "written by a newer twwatch"},
		{"control characters", "event: end\ndata: {\"reason\":\"\\u001b]0;owned\\u0007\"}\n\n", `it ended the stream: "\x1b]0;owned\x07"`},
		{"no JSON", "event: end\ndata: oops\n\n", "it ended the stream"},
		{"endless line", endless, "the report is larger than 16 MiB"},
		{"endless lines", many, "the report is larger than 16 MiB"},
	} {
		url, _ := streams(t, tt.text)
		if got := heard(t, Config{URL: url}, 1); !strings.Contains(got[0], tt.want) {
			t.Errorf("%s: got %s, want %s", tt.name, got[0], tt.want)
		}
	}
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	want := "the reply is no stream of events: is it a twwatch's address? Its Content-Type is text/html; charset=utf-8"
	if got := heard(t, Config{URL: s.URL}, 1); !strings.Contains(got[0], want) {
		t.Errorf("got %s, want %s", got[0], want)
	}
	s = serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	if got := heard(t, Config{URL: s.URL}, 2); len(got) != 2 || !strings.Contains(got[1], "answered 404 Not Found: it is no twwatch, or its API is off") {
		t.Errorf("got %q", got)
	}
	if got := heard(t, Config{URL: "localhost"}, 2); len(got) != 1 || !strings.Contains(got[0], "begins with http://") {
		t.Errorf("got %q", got)
	}
}

// A packed stream is read as it comes, not at its end; a packed bomb is left.
func TestPackedStream(t *testing.T) {
	second := make(chan struct{})
	bomb := new(bytes.Buffer)
	z := gzip.NewWriter(bomb)
	fmt.Fprint(z, "event: report\ndata: ")
	_, _ = z.Write(make([]byte, 40<<20))
	_ = z.Close()
	requests := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", r.Header.Get("Accept-Encoding"))
		if requests++; requests > 1 {
			_, _ = w.Write(bomb.Bytes())
			return
		}
		z := gzip.NewWriter(w)
		for n := range 2 {
			_, _ = io.WriteString(z, event(t, n))
			_ = z.Flush()
			_ = http.NewResponseController(w).Flush()
			select {
			case <-second:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(z, "event: end\n\n")
		_ = z.Close()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := 0
	for r, err := range Stream(Config{URL: s.URL, Interval: time.Millisecond})(ctx) {
		switch n++; {
		case n == 1 && err == nil:
			close(second) // it has come before the stream's end
		case n == 2 && err == nil && r.Time.Unix() == 1e9+1:
		case n == 3 && err != nil && strings.Contains(err.Error(), "it ended the stream"):
		case n == 4 && errors.Is(err, snapshot.ErrTooLarge):
			return
		default:
			t.Fatalf("element %d: %v, %v", n, r, err)
		}
	}
}

// Leaving the loop and ending the context both end the stream.
func TestStopStream(t *testing.T) {
	url, requests := streams(t, event(t, 0)+"…")
	source := Stream(Config{URL: url})
	for _, err := range source(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for r, err := range source(ctx) {
		if n++; r != nil {
			cancel()
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if n != 2 || requests.Load() != 2 {
		t.Errorf("%d elements of the second of %d streams, want a report and the context's error", n, requests.Load())
	}
}
