package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/twwatch/twwatch/internal/draw"
)

// Error is a request that brought no report, or no list.
type Error struct {
	URL    string // that was asked for
	Status int    // of the reply if it was not 200, else 0
	Err    error  // the cause, nil with a Status
	Fix    string // what to do; may be empty
}

// Error is one line, safe to print: what failed and what to do about it.
func (e *Error) Error() string {
	what := ""
	switch {
	case e.Status != 0:
		// Not the reply's own words for it.
		what = strings.TrimSpace("answered " + strconv.Itoa(e.Status) + " " + http.StatusText(e.Status))
	case e.Err != nil:
		what = oneLine(e.Err.Error())
	}
	if e.Fix != "" {
		what += ": " + e.Fix
	}
	return "remote: " + quote(e.URL) + ": " + what
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// statusFix says what to do about a status that is not 200; begin is the
// beginning of the reply.
func statusFix(status int, begin []byte) string {
	switch {
	case status == http.StatusUnauthorized:
		return "it wants credentials: give them in --source.config.file (basic_auth or authorization)"
	case status == http.StatusForbidden:
		if bytes.Contains(begin, []byte("--web.allowed-host")) {
			return "it doesn't know this name for itself: use its IP address, or allow the name (there: --web.allowed-host)"
		}
		return "the credentials of --source.config.file don't suffice, or its API is off (there: --web.enable-api)"
	case status == http.StatusNotFound:
		return "it is no twwatch, or its API is off (there: --web.enable-api)"
	case status == http.StatusServiceUnavailable:
		return "it has no report yet: try again in a moment"
	case status == http.StatusTooManyRequests:
		return "it is asked too often: choose a longer interval"
	case status >= 300 && status < 400:
		return "it points elsewhere: give that address as --source"
	case status == http.StatusBadRequest && bytes.Contains(begin, []byte("HTTP request to an HTTPS server")):
		return "it speaks HTTPS: write https://"
	case status >= 500:
		return "look at its log"
	}
	return ""
}

// fail turns an error of the HTTP client into one line with advice.
func (p *poller) fail(err error) *Error {
	out := &Error{URL: p.endpoint.String(), Err: err}
	if wrapped, ok := errors.AsType[*url.Error](err); ok { // repeats method and address
		out.Err = wrapped.Err
	}
	var (
		dns        *net.DNSError
		authority  x509.UnknownAuthorityError
		hostname   x509.HostnameError
		invalid    x509.CertificateInvalidError
		record     tls.RecordHeaderError
		alert      tls.AlertError
		netTimeout net.Error
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		out.Err = reworded{"connection refused", err}
		out.Fix = "does twwatch serve run there, and listen on this address (there: --web.listen-address)?"
	case errors.As(err, &dns):
		out.Err = reworded{fmt.Sprintf("no address for the host %s", quote(dns.Name)), err}
		out.Fix = "check its name"
	case errors.As(err, &authority):
		out.Fix = "name its authority in --source.config.file (tls_config: ca_file)"
	case errors.As(err, &hostname):
		out.Fix = "use a name of its certificate, or give one in --source.config.file (tls_config: server_name)"
	case errors.As(err, &invalid):
		out.Fix = "renew its certificate, or check both clocks"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		out.Err = reworded{"it doesn't speak TLS", err}
		out.Fix = "write http://, or configure TLS there (--web.config.file)"
	case errors.As(err, &alert):
		out.Fix = "it may want a client certificate: --source.config.file (tls_config: cert_file, key_file)"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netTimeout) && netTimeout.Timeout():
		out.Err = reworded{fmt.Sprintf("no whole reply within %v", p.timeout), err}
		out.Fix = "is the host up, and the port open on the way?"
	}
	return out
}

// reworded says an error in other words.
type reworded struct {
	message string
	err     error
}

func (r reworded) Error() string { return r.message }
func (r reworded) Unwrap() error { return r.err }

// quote shows text from elsewhere: as it is if it is short and harmless, else
// cut short and in quotes.
func quote(s string) string {
	text, cut := draw.EscapeShort(s, 200)
	switch {
	case cut:
		return `"` + text + `"…`
	case text != s || s == "":
		return `"` + text + `"`
	}
	return s
}

// oneLine escapes what is not printable, and bounds the length.
func oneLine(s string) string {
	text, cut := draw.EscapeShort(strings.ReplaceAll(s, "\n", " "), 400)
	if cut {
		text += "…"
	}
	return text
}
