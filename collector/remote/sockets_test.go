package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const oneSocket = `{"sockets":[{"state":"time_wait","local":"10.0.0.5:40000","remote":"10.0.0.9:80"}],"truncated":true,"lost":"devices"}`

func TestSockets(t *testing.T) {
	var path, query string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path, query = r.URL.Path, r.URL.RawQuery
		fmt.Fprint(w, oneSocket)
	})
	want := &snapshot.SocketList{
		Sockets:   []snapshot.Socket{{State: "time_wait", Local: "10.0.0.5:40000", Remote: "10.0.0.9:80"}},
		Truncated: true, Lost: "devices",
	}
	for base, asked := range map[string]string{
		"": socketsPath, "/": socketsPath, "/api/v1/report": socketsPath, "/api/v1/sockets/": socketsPath, "/behind/proxy": "/behind/proxy" + socketsPath,
	} {
		got, err := Sockets(t.Context(), Config{URL: s.URL + base}, snapshot.SocketQuery{})
		if err != nil || path != asked || query != "" {
			t.Errorf("%q asked for %q, %q: %v", base, path, query, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", base, diff)
		}
	}
	_, err := Sockets(t.Context(), Config{URL: s.URL}, snapshot.SocketQuery{
		States: []string{"time_wait", "close_wait"}, Remote: netip.MustParsePrefix("10.0.0.0/8"), Port: 80, Older: 90 * time.Second, Limit: 5,
	})
	if want := "limit=5&older=1m30s&port=80&remote=10.0.0.0%2F8&state=time_wait%2Cclose_wait"; err != nil || query != want {
		t.Errorf("asked %q, want %q: %v", query, want, err)
	}
}

// A question without an answer isn't even asked.
func TestSocketsQuery(t *testing.T) {
	asked := false
	s := serve(t, func(http.ResponseWriter, *http.Request) { asked = true })
	_, err := Sockets(t.Context(), Config{URL: s.URL}, snapshot.SocketQuery{States: []string{"established"}, Older: time.Second})
	if _, ok := errors.AsType[*snapshot.QueryError](err); !ok || asked {
		t.Errorf("asked %v, %v", asked, err)
	}
	if _, err := Sockets(t.Context(), Config{URL: "localhost:10060"}, snapshot.SocketQuery{}); err == nil || !strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v", err)
	}
}

// More rows than were asked for are cut, and it is said.
func TestSocketsTooMany(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"sockets":[{},{},{}],"truncated":false}`)
	})
	for limit, want := range map[int]int{0: 3, 2: 2, 3: 3, 4: 3} {
		list, err := Sockets(t.Context(), Config{URL: s.URL}, snapshot.SocketQuery{Limit: limit})
		if err != nil || len(list.Sockets) != want || list.Truncated != (want < 3) {
			t.Errorf("at most %d: %+v, %v", limit, list, err)
		}
	}
}

func TestSocketsStatus(t *testing.T) {
	status, body := 0, ""
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
	for _, tt := range []struct {
		status int
		body   string
		want   string
	}{
		{400, `{"error":"limit=\"5000\": want a number"}`, `answered 400 Bad Request: it says: limit="5000": want a number`},
		{404, `{"error":"there are no live sockets"}`, "answered 404 Not Found: it says: there are no live sockets"},
		{404, "404 page not found", "answered 404 Not Found: it is no twwatch, or its API is off"},
		{429, `{"error":"another request is under way"}`, "it says: another request is under way"},
		{500, `{"error":"\u001b[2J\n\u202e"}`, `it says: "\x1b[2J\x0a\u202e"`},
		{500, `{"error":"x` + strings.Repeat("ö", 200) + `"}`, `ö"…`}, // not cut within one
		{500, `{"error":"blank: ` + "\u3164" + `"}`, `it says: "blank: \u3164"`},
		{504, `{"error":"` + strings.Repeat("x", 1000) + `"}`, "answered 504 Gateway Timeout: it says: "},
		{500, `{"error":"` + strings.Repeat("x", 9000) + `"}`, "answered 500 Internal Server Error: look at its log"},
		{500, `{"error":7}`, "look at its log"},
		{503, `{}`, "answered 503"},
		{401, `{"error":"who?"}`, "it wants credentials: give them in --source.config.file"},
		{204, "", "answered 204 No Content"},
	} {
		status, body = tt.status, tt.body
		_, err := Sockets(t.Context(), Config{URL: s.URL}, snapshot.SocketQuery{})
		var e *Error
		if !errors.As(err, &e) || e.Status != tt.status || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
		checkLine(t, err)
	}
}

func TestSocketsHostile(t *testing.T) {
	for _, tt := range []struct {
		name   string
		reply  []byte
		length string
		want   string
	}{
		{"HTML", []byte("<html>\x1b]0;owned\x07"), "", `it starts with "<html>\u001b]0;owned\u0007": is it a twwatch's address? Its Content-Type is "text/x; \u202e"`},
		{"a report", line(t, 0), "", "no list of sockets: it starts with"},
		{"nothing", nil, "", "no list of sockets: it is empty"},
		{"cut", []byte(oneSocket[:40]), "200", "the reply ends in the middle of the list: the connection was closed early"},
		{"cut, and it seems whole", []byte(oneSocket[:40]), "", "the list is damaged: unexpected end"},
		{"too many", []byte(`{"sockets":[` + strings.Repeat("{},", 10_000) + `{}]}`), "", "the list is damaged: sockets: more than 10000 elements"},
		{"endless", append([]byte(`{"sockets":[`), bytes.Repeat([]byte(" "), 17<<20)...), "", "the list is damaged: it is larger than 16 MiB"},
		{"gzip unasked", packed(t, []byte(oneSocket)), "", "no list of sockets"},
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/x; \u202e")
			if tt.length != "" {
				w.Header().Set("Content-Length", tt.length)
			}
			_, _ = w.Write(tt.reply)
		})
		list, err := Sockets(t.Context(), Config{URL: s.URL}, snapshot.SocketQuery{})
		var e *Error
		if list != nil || !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
		checkLine(t, err)
	}
}

// A body without an end is left after the bound, not after the timeout.
func TestSocketsEndlessBody(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte(" "), 1<<16)
		for { // until the client has gone
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	_, err := Sockets(t.Context(), Config{URL: s.URL, Timeout: 5 * time.Second}, snapshot.SocketQuery{})
	if err == nil || !strings.Contains(err.Error(), "it is larger than 16 MiB") {
		t.Errorf("got %v", err)
	}
}

func TestSocketsTimeout(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	_, err := Sockets(t.Context(), Config{URL: s.URL, Timeout: 20 * time.Millisecond}, snapshot.SocketQuery{})
	if err == nil || !strings.Contains(err.Error(), "no whole reply within 20ms") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Sockets(ctx, Config{URL: s.URL}, snapshot.SocketQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
