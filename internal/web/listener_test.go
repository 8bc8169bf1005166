package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// overTCP serves a site as the program does, and returns its address.
func overTCP(t *testing.T) string {
	t.Helper()
	h, _ := start(t, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(Handler(config(h)), nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(Listener(l))
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return l.Addr().String()
}

// say writes bytes to a server and reads its one answer.
func say(t *testing.T, address, text string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The server may refuse, and close, before it has read everything.
	go func() { _, _ = io.WriteString(c, text) }()
	method, _, _ := strings.Cut(text, " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.40q: %v", text, err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%.40q: %v", text, err)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return r
}

// Whatever is sent is answered with the right status and a JSON error, also by
// net/http itself.
func TestBadRequests(t *testing.T) {
	address := overTCP(t)
	const host = "Host: localhost\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		text    string
	}{
		"1 MB in a header":          {"GET /api/v1/report HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431, "larger than 16384 bytes"},
		"1 MB of headers":           {"GET /metrics HTTP/1.1\r\n" + host + strings.Repeat("X-Y: 0123456789\r\n", 1<<16) + "\r\n", 431, "larger than"},
		"1 MB of path":              {"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n" + host + "\r\n", 431, "larger than"},
		"a long path":               {"GET /" + strings.Repeat("a", 5000) + " HTTP/1.1\r\n" + host + "\r\n", 414, "longer than 4096"},
		"a long query":              {"GET /api/v1/flows?remote=" + strings.Repeat("a", 5000) + " HTTP/1.1\r\n" + host + "\r\n", 414, "longer than"},
		"no HTTP":                   {"\x16\x03\x01\x02\x00\r\n\r\n", 400, "Bad Request"},
		"no host":                   {"GET / HTTP/1.1\r\n\r\n", 400, "missing required Host header"},
		"two hosts":                 {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400, "Bad Request"},
		"a malformed host":          {"GET / HTTP/1.1\r\nHost: a b\x01\r\n\r\n", 400, "Bad Request"},
		"a malformed header":        {"GET / HTTP/1.1\r\n" + host + "X Y: z\r\n\r\n", 400, ""},
		"a malformed path":          {"GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400, ""},
		"another protocol":          {"GET / HTTP/3.7\r\n" + host + "\r\n", 505, "unsupported protocol version"},
		"a coding":                  {"GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: rot13\r\n\r\n", 501, "Unsupported transfer encoding"},
		"an expectation":            {"GET / HTTP/1.1\r\n" + host + "Expect: tea\r\n\r\n", 417, "Expectation Failed"},
		"another method":            {"DELETE /api/v1/report HTTP/1.1\r\n" + host + "\r\n", 405, "only GET and HEAD"},
		"a method that there's not": {"BREW /metrics HTTP/1.1\r\n" + host + "\r\n", 405, "only GET and HEAD"},
		"CONNECT":                   {"CONNECT localhost:1 HTTP/1.1\r\n" + host + "\r\n", 404, "no such path"},
		"OPTIONS":                   {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 404, "no such path"},
		"an absolute address":       {"GET http://evil.example/api/v1/report HTTP/1.1\r\n" + host + "\r\n", 403, "Host header"},
		"a path upwards":            {"GET /../../etc/passwd HTTP/1.1\r\n" + host + "\r\n", 404, "no such path"},
		"a double slash":            {"GET //api/v1/report HTTP/1.1\r\n" + host + "\r\n", 404, "no such path"},
		"an absurd limit":           {"GET /api/v1/flows?limit=999999999999999999999 HTTP/1.1\r\n" + host + "\r\n", 400, "1 to 1000"},
		"a negative limit":          {"GET /api/v1/sockets?limit=-1 HTTP/1.1\r\n" + host + "\r\n", 404, "no live sockets"},
		"a malformed id":            {"GET /api/v1/flows/%00 HTTP/1.1\r\n" + host + "\r\n", 400, "no id of a flow"},
		"a body":                    {"POST /api/v1/report HTTP/1.1\r\n" + host + "Content-Length: 1000000\r\n\r\n", 405, "only GET and HEAD"},
	} {
		r := say(t, address, c.request)
		b, _ := io.ReadAll(r.Body) // it is in memory
		var e map[string]string
		if err := json.Unmarshal(b, &e); err != nil || len(e) != 1 || e["error"] == "" || !strings.Contains(e["error"], c.text) ||
			r.StatusCode != c.status || r.Header.Get("Content-Type") != asJSON {
			t.Errorf("%s: got %d %s %q, want %d and a JSON error with %q", name, r.StatusCode, r.Header.Get("Content-Type"), b, c.status, c.text)
		}
	}
}

// Only net/http's own refusals are written anew.
func TestTranslate(t *testing.T) {
	const refusal = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
	for _, other := range []string{
		"", "HTTP/1.1 400", refusal[:20], strings.Replace(refusal, "400", "200", 1), strings.Replace(refusal, "text/plain", "application/json", 1),
		strings.Replace(refusal, "Connection: close", "Connection: keep-alive", 1), strings.Replace(refusal, "\r\n\r\n", "\r\nDate: x\r\n\r\n", 1),
		refusal + strings.Repeat(" ", 500), "x" + refusal,
	} {
		if got := translate([]byte(other)); got != nil {
			t.Errorf("%q became %q", other, got)
		}
	}
	if got := string(translate([]byte(refusal))); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") || !strings.HasSuffix(got, "\r\n\r\n{\"error\":\"400 Bad Request\"}\n") {
		t.Errorf("got %q", got)
	}
}

// Over anything but TCP connections stay as they are.
func TestListenerOfSockets(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	l := &pipes{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conns <- a
	c, err := Listener(l).Accept()
	if err != nil || c != a {
		t.Errorf("%T, %v", c, err)
	}
	_ = c.Close()
	close(l.done)
	if _, err := Listener(l).Accept(); err == nil {
		t.Error("no error of a closed listener")
	}
}
