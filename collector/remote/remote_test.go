package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// line is the n-th report of a twwatch, as its API answers.
func line(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	r := &snapshot.Report{Schema: snapshot.Schema, Host: "web-17", Time: time.Unix(int64(1e9+n), 0).UTC(), Verdict: snapshot.Healthy}
	if err := snapshot.Encode(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// serve starts a server that says nothing on stderr.
func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// once asks one time.
func once(t *testing.T, cfg Config) (*snapshot.Report, error) {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	var report *snapshot.Report
	var err error
	n := 0
	for report, err = range Reports(cfg)(t.Context()) {
		n++
	}
	if n != 1 || (report == nil) == (err == nil) {
		t.Errorf("%d elements, %v, %v: want one, a report or an error", n, report, err)
	}
	checkLine(t, err)
	return report, err
}

func checkLine(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if message := err.Error(); !strings.HasPrefix(message, "remote: ") || len(message) > 900 ||
		strings.ContainsFunc(message, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not a short printable line: %q", message)
	}
}

func TestOnce(t *testing.T) {
	var path, agent, encoding string
	reply := line(t, 0)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path, agent, encoding = r.URL.Path, r.UserAgent(), r.Header.Get("Accept-Encoding")
		_, _ = w.Write(reply)
	})
	for _, base := range []string{"", "/", "/api/v1/report", "/api/v1/report/"} {
		r, err := once(t, Config{URL: s.URL + base})
		if err != nil || r.Host != "web-17" {
			t.Fatalf("%v, %v", r, err)
		}
		if path != "/api/v1/report" || agent != "twwatch" || encoding != "gzip" {
			t.Errorf("%q asked for %q as %q, %q", base, path, agent, encoding)
		}
	}
	if _, err := once(t, Config{URL: s.URL + "/behind/proxy"}); err != nil || path != "/behind/proxy/api/v1/report" {
		t.Errorf("asked for %q, %v", path, err)
	}
	reply = packed(t, reply)
	if r, err := once(t, Config{URL: s.URL}); err != nil || r.Host != "web-17" {
		t.Errorf("packed: %v, %v", r, err)
	}
}

func TestBadAddress(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "want an address that begins with http:// or https://"},
		{"localhost:10060", "begins with http:// or https://"},
		{"10.0.0.5:10060", "can't be read"},
		{"file:///etc/passwd", "begins with http:// or https://"},
		{"http://", "it names no host"},
		{"http://:10060", "it names no host"},
		{"http://host:port", "can't be read"},
		{"http://host/?a=b", "without ? and #"},
		{"http://host/#a", "without ? and #"},
		{"http://ho\x1bst", "can't be read"},
		{"ftp\u202e://host", "can't be read"},
		{"http://user:geheim@host:10060", "put credentials into --source.config.file"},
		{"http://user:geheim@host:x", "can't be read"},
	}
	for _, tt := range tests {
		_, err := once(t, Config{URL: tt.in})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: got %v, want %s", tt.in, err, tt.want)
		}
		if check := (Config{URL: tt.in}).Check(); check == nil || check.Error() != err.Error() {
			t.Errorf("%q: Check says %v", tt.in, check)
		}
	}
}

func TestStatus(t *testing.T) {
	status := 0
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, "\x1b[2Jbe afraid")
	})
	for _, tt := range []struct {
		status int
		want   string
	}{
		{401, "answered 401 Unauthorized: it wants credentials: give them in --source.config.file"},
		{403, "answered 403 Forbidden: the credentials"},
		{404, "answered 404 Not Found: it is no twwatch, or its API is off (there: --web.enable-api)"},
		{429, "answered 429 Too Many Requests: it is asked too often"},
		{500, "answered 500 Internal Server Error: look at its log"},
		{503, "answered 503 Service Unavailable: it has no report yet"},
		{304, "answered 304 Not Modified"},
		{599, "answered 599: look"},
	} {
		status = tt.status
		_, err := once(t, Config{URL: s.URL})
		var e *Error
		if !errors.As(err, &e) || e.Status != tt.status || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// Replies of somebody who means harm, or is no twwatch.
func TestHostileReplies(t *testing.T) {
	report := line(t, 0)
	start := func(more string) []byte { return []byte(`{"schema":"twwatch.report/v1"` + more) }
	bomb := packed(t, append(start(`,"host":"`), bytes.Repeat([]byte("x"), 20<<20)...))
	tests := []struct {
		name  string
		reply []byte
		kind  string
		want  string
	}{
		{"HTML", []byte("<html>\x1b]0;owned\x07"), "text/html; \u202e", `it starts with "<html>\u001b]0;owned\u0007": is it a twwatch's address? Its Content-Type is`},
		{"nothing", nil, "", "not a twwatch report: it is empty"},
		{"other JSON", []byte(`{"status":"ok"}`), "application/json", `it starts with "{\"status\":\"ok\"}"`},
		{"newer", []byte(`{"schema":"twwatch.report/v3","version":"9\u001b"}`), "application/json", `written by a newer twwatch (version "9\u001b", schema "twwatch.report/v3"): update`},
		{"other schema", []byte(`{"schema":"\u001b[31m"}`), "application/json", "not a twwatch report"},
		{"cut", report[:len(report)/2], "application/json", "the reply ends in the middle of the report: the connection was closed early"},
		{"cut gzip", packed(t, report)[:60], "application/json", "ends in the middle of the report"},
		{"damage", start(`,"verdict":"\u001b"}`), "application/json", `the report is damaged: verdict: unknown severity "\u001b"`},
		{"endless", append(start(`,"host":"`), bytes.Repeat([]byte("x"), 17<<20)...), "application/json", "the report is larger than 16 MiB"},
		{"endless space", bytes.Repeat([]byte(" "), 17<<20), "application/json", "not a twwatch report"},
		{"bomb", bomb, "application/json", "the report is larger than 16 MiB"},
		{"gzip without content", append(packed(t, nil)[:10], bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 4<<20)...), "", "the report is larger than 16 MiB"},
		{"bomb of zeros", packed(t, make([]byte, 20<<20)), "application/json", "not a twwatch report"},
	}
	for _, tt := range tests {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.kind)
			_, _ = w.Write(tt.reply)
		})
		_, err := once(t, Config{URL: s.URL})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain") // a proxy's invention
		_, _ = w.Write(report)
	})
	if r, err := once(t, Config{URL: s.URL}); err != nil || r.Host != "web-17" {
		t.Errorf("another Content-Type: %v, %v", r, err)
	}
}

// A body without an end is left after the bound, not after the timeout.
func TestEndlessBody(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("["), 1<<16)
		_, _ = w.Write([]byte(`{"schema":"twwatch.report/v1","x":`))
		for { // until the client has gone
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	_, err := once(t, Config{URL: s.URL, Timeout: time.Minute})
	if !errors.Is(err, snapshot.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, err = once(t, Config{URL: "http://" + address})
	want := "remote: http://" + address + "/api/v1/report: connection refused: does twwatch serve run there, and listen on this address (there: --web.listen-address)?"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begin := time.Now()
	_, err = once(t, Config{URL: "http://" + silent.Addr().String(), Timeout: 50 * time.Millisecond})
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	if err == nil || !strings.Contains(err.Error(), "no whole reply within 50ms") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestTLS(t *testing.T) {
	reply := line(t, 0)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ops" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write(reply)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	file("password", "secret\n")
	good := file("good.yml", "tls_config:\n  ca_file: ca.pem\nbasic_auth:\n  username: ops\n  password_file: password\n")
	if r, err := once(t, Config{URL: s.URL, HTTPConfigFile: good}); err != nil || r.Host != "web-17" {
		t.Errorf("%v, %v", r, err)
	}
	tests := []struct{ url, config, want string }{
		{s.URL, "", "name its authority in --source.config.file (tls_config: ca_file)"},
		{s.URL, file("anonymous.yml", "tls_config: {ca_file: ca.pem}\n"), "answered 401 Unauthorized"},
		{s.URL, file("wrong.yml", "tls_config: {ca_file: ca.pem}\nbasic_auth: {username: ops, password: guess}\n"), "answered 401"},
		{s.URL, file("name.yml", "tls_config: {ca_file: ca.pem, server_name: other.invalid}\n"), "(tls_config: server_name)"},
		{"http" + strings.TrimPrefix(s.URL, "https"), "", "answered 400 Bad Request: it speaks HTTPS: write https://"},
		{s.URL, file("typo.yml", "basic_auht: {}\n"), "typo.yml: "},
		{s.URL, file("hostile.yml", "\"a\\e\\u202eb\": 1\n"), `a\x1b\u202eb`},
		{s.URL, file("both.yml", "basic_auth: {username: a}\nauthorization: {credentials: b}\n"), "at most one of"},
		{s.URL, filepath.Join(dir, "none.yml"), "no such file"},
		{s.URL, file("noca.yml", "tls_config: {ca_file: none.pem}\n"), "none.pem"},
	}
	for _, tt := range tests {
		_, err := once(t, Config{URL: tt.url, HTTPConfigFile: tt.config})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "guess") {
			t.Errorf("%s: got %v, want %s", tt.config, err, tt.want)
		}
	}
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := once(t, Config{URL: "https" + strings.TrimPrefix(plain.URL, "http")}); err == nil || !strings.Contains(err.Error(), "it doesn't speak TLS: write http://") {
		t.Errorf("got %v", err)
	}
}

func TestBearer(t *testing.T) {
	reply := line(t, 0)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write(reply)
	})
	config := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(config, []byte("authorization: {credentials: token}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := once(t, Config{URL: s.URL, HTTPConfigFile: config}); err != nil {
		t.Error(err)
	}
}

// Polling goes on after an error, shows a report once, and uses one
// connection for all of it.
func TestPoll(t *testing.T) {
	var requests, connections atomic.Int32
	reports := [][]byte{line(t, 0), line(t, 0), line(t, 1), nil, line(t, 2)}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := min(int(requests.Add(1))-1, len(reports)-1)
		if reports[n] == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, "not yet")
			return
		}
		_, _ = w.Write(reports[n])
		_, _ = w.Write(bytes.Repeat([]byte{'\n'}, 66000)) // more than is read with the report
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []string
	for r, err := range Reports(Config{URL: s.URL, Interval: 5 * time.Millisecond})(ctx) {
		var e *Error
		switch {
		case errors.As(err, &e):
			got = append(got, fmt.Sprint(e.Status))
		case err != nil:
			got = append(got, err.Error())
		default:
			if got = append(got, fmt.Sprint(r.Time.Unix()-1e9)); r.Time.Unix() == 1e9+2 {
				cancel()
			}
		}
	}
	if want := "0 1 503 2 context canceled"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for %d requests", n, requests.Load())
	}
}

// Leaving the loop and ending the context both end the polling.
func TestStop(t *testing.T) {
	reply := line(t, 0)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(reply) })
	source := Reports(Config{URL: s.URL, Interval: time.Hour})
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
	if n != 2 {
		t.Errorf("%d elements, want a report and the context's error", n)
	}
	for r, err := range source(ctx) { // cancelled before
		if r != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", r, err)
		}
	}
}
