package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Another twwatch lists its sockets, and its refusals are heard.
func TestSocketsOfAnother(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, _, stderr := testEnv(t)
	if run(t.Context(), e, []string{"sockets", "--limit=1"}) == statusFailed && strings.Contains(stderr.String(), "not supported") {
		t.Skip("this kernel or system shows no sockets: " + stderr.String())
	}
	d := startServe(t)
	for _, tt := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{fmt.Sprintf("--port=%d", l.Addr().(*net.TCPAddr).Port), "--state=listen"}, 0, "LISTEN 127.0.0.1:", ""},
		{[]string{"--state=bound_inactive", "--remote=192.0.2.1"}, 0, "No socket matches.", ""},
		{[]string{"--limit=1001"}, 3, "", `answered 400 Bad Request: it says: limit="1001": want a number from 1 to 1000`},
	} {
		e, stdout, stderr := testEnv(t)
		status := run(t.Context(), e, append([]string{"sockets", "--source=" + d.url}, tt.args...))
		if status != tt.status || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) ||
			(stdout.Len() > 0) == (stderr.Len() > 0) {
			t.Errorf("%q: status %d, stdout %s, stderr %s", tt.args, status, stdout, stderr)
		}
	}
	// The other side answers a question without an answer by 400, too.
	if status, body := d.get("/api/v1/sockets?older=1s&state=established"); status != http.StatusBadRequest ||
		body != `{"error":"older: only time_wait and close_wait sockets have an age that can be known"}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
	d.end()

	d = startServe(t, "--source="+writeRecording(t, recorded(0, 100)))
	e, stdout, stderr := testEnv(t)
	if status := run(t.Context(), e, []string{"sockets", "--source=" + d.url}); status != statusFailed || stdout.Len() > 0 ||
		!strings.Contains(stderr.String(), "answered 404 Not Found: it says: the recording holds no single sockets") {
		t.Errorf("status %d, stdout %s, stderr %s", status, stdout, stderr)
	}
	d.end()
}

// What another twwatch could not see is said, and its names do no harm; the
// configuration file is used.
func TestSocketsLost(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"sockets":[{"state":"listen","local":"10.0.0.5:80","device":"\u001b[2J\u202e"}],"truncated":false,"lost":"devices\u001b[2J\n\u202e"}`)
	}))
	defer s.Close()
	config := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(config, []byte("authorization: {credentials: token}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, stdout, stderr := testEnv(t)
	status := run(t.Context(), e, []string{"sockets", "--source=" + s.URL, "--source.config.file=" + config})
	if want := `twwatch: not in this list: devices\x1b[2J; \u202e` + "\n"; status != statusHealthy || stderr.String() != want {
		t.Errorf("status %d, stderr %q, want %q", status, stderr, want)
	}
	if !strings.Contains(stdout.String(), `10.0.0.5:80%\x1b[2J\u202e`) || strings.Contains(stdout.String(), "\x1b") {
		t.Errorf("stdout %q", stdout)
	}
	e, stdout, _ = testEnv(t)
	run(t.Context(), e, []string{"sockets", "--source=" + s.URL, "--source.config.file=" + config, "--output=json"})
	list, err := snapshot.DecodeSockets([]byte(stdout.String()))
	if err != nil || list.Lost != "devices\x1b[2J\n\u202e" || strings.ContainsAny(stdout.String(), "\x1b\u202e") {
		t.Errorf("%+v, %v", list, err)
	}
	e, _, stderr = testEnv(t)
	if status := run(t.Context(), e, []string{"sockets", "--source=" + s.URL}); status != statusFailed || !strings.Contains(stderr.String(), "answered 401 Unauthorized: it wants credentials") {
		t.Errorf("status %d, stderr %s", status, stderr)
	}
}

// A recording with a sample, made of this host, is listed with the sample's
// size; redacted, it says so.
func TestRecordSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	path := filepath.Join(t.TempDir(), "r.jsonl.gz")
	e, _, stderr := testEnv(t)
	if status := run(t.Context(), e, []string{"record", "--count=1", "--redact", "--sockets=2", path}); status != statusHealthy {
		if strings.Contains(stderr.String(), "not supported") {
			t.Skip("this kernel or system shows no sockets: " + stderr.String())
		}
		t.Fatalf("status %d, stderr %s", status, stderr)
	}
	e, stdout, stderr := testEnv(t)
	status := run(t.Context(), e, []string{"sockets", "--source=" + path})
	if status != statusHealthy || !strings.Contains(stdout.String(), " UTC, redacted:\na random sample, 2 of the ") {
		t.Errorf("status %d, stdout %s, stderr %s", status, stdout, stderr)
	}
}
