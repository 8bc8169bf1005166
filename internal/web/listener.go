package web

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Listener has connections say as JSON, too, what net/http refuses before a
// handler sees it: headers that are too large, and what is no HTTP at all.
// Under TLS that stays plain text, since only the server sees its bytes.
func Listener(l net.Listener) net.Listener { return &jsonListener{l} }

type jsonListener struct{ net.Listener }

func (l *jsonListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		return &jsonConn{TCPConn: tcp}, nil
	}
	return c, err
}

// A jsonConn watches for net/http's own refusals, each of which it writes at
// once.
type jsonConn struct{ *net.TCPConn }

func (c *jsonConn) Write(b []byte) (int, error) {
	if translated := translate(b); translated != nil {
		if _, err := c.TCPConn.Write(translated); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return c.TCPConn.Write(b)
}

// translate returns the JSON form of a refusal by net/http itself, nil for
// anything else. This package answers errors as JSON and never so.
func translate(b []byte) []byte {
	const most = 512
	if len(b) > most || !bytes.HasPrefix(b, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(b, []byte("HTTP/1.1 5")) {
		return nil
	}
	head, body, ok := strings.Cut(string(b), "\r\n\r\n")
	before := strings.Contains(head, "\r\nContent-Type: text/plain") && !strings.Contains(head, "\r\nDate: ") // a handler was called
	expectation := strings.HasPrefix(head, fmt.Sprint("HTTP/1.1 ", http.StatusExpectationFailed))             // which no handler says
	if !ok || !strings.Contains(head, "\r\nConnection: close") || !before && !expectation {
		return nil
	}
	line, _, _ := strings.Cut(head, "\r\n")
	status, why := strings.TrimPrefix(line, "HTTP/1.1 "), strings.TrimSpace(body)
	if strings.HasPrefix(status, fmt.Sprint(http.StatusRequestHeaderFieldsTooLarge)) {
		why = fmt.Sprintf("the request's line and headers are larger than %d bytes", maxHeader)
	}
	if why == "" {
		why = status
	}
	return fmt.Appendf(nil, "%s\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n%s", line, errorBody(why))
}
