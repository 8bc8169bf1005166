package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Limits of /api/v1/sockets.
const (
	DefaultSockets = 100
	MaxSockets     = 1000
	socketsTimeout = 10 * time.Second
)

// A SocketsError is a reason for which sockets can't be listed that is not this
// program's fault.
type SocketsError struct {
	Status int // of HTTP
	Err    error
}

// Error is the cause's.
func (e *SocketsError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SocketsError) Unwrap() error { return e.Err }

// socketsHandler lists sockets for one request at a time.
type socketsHandler struct {
	list   func(context.Context, snapshot.SocketQuery) (any, error)
	logger *slog.Logger
	busy   atomic.Bool
}

func (h *socketsHandler) serve(w http.ResponseWriter, r *http.Request) {
	if h.list == nil {
		refuse(w, http.StatusNotFound, "there are no live sockets: the source has none")
		return
	}
	q, err := parseSocketQuery(r.URL.RawQuery)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if !h.busy.CompareAndSwap(false, true) {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "another request for sockets is under way: one at a time is answered")
		return
	}
	body, err := h.ask(r.Context(), q)
	expected, ok := errors.AsType[*SocketsError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusGatewayTimeout, fmt.Sprintf("listing the sockets took more than %v", socketsTimeout))
	case err != nil && r.Context().Err() != nil: // the client has gone
	case ok:
		refuse(w, expected.Status, expected.Error())
	case err != nil:
		h.logger.Warn("listing sockets failed", "err", err)
		refuse(w, http.StatusInternalServerError, "listing the sockets failed: "+err.Error())
	default:
		w.Header().Set("Content-Type", asJSON)
		write(w, r, append(body, '\n'))
	}
}

// ask lists and encodes; the next request may come when both are done.
func (h *socketsHandler) ask(ctx context.Context, q snapshot.SocketQuery) ([]byte, error) {
	defer h.busy.Store(false)
	ctx, cancel := context.WithTimeout(ctx, socketsTimeout)
	defer cancel()
	rows, err := h.list(ctx, q)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(rows)
	return printable(body), err
}

// printable writes the characters of a JSON text that are not printable (bidi
// and the like: json.Marshal leaves them) as \uXXXX. They can stand only
// within strings, where that means the same.
func printable(body []byte) []byte {
	if bytes.IndexFunc(body, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return body
	}
	var b bytes.Buffer
	for _, r := range string(body) {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default: // a surrogate pair
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.Bytes()
}

func socketParameters() []parameter {
	return []parameter{
		{name: "state", about: "States to list, separated by commas or given several times; all where it is missing.", many: true, schema: oneOf(states()...)},
		{name: "remote", about: "An address or a prefix that the remote end is in, such as 10.0.0.9 or 10.0.0.0/8.", schema: text()},
		{name: "port", about: "The local or the remote port.", schema: number(1, 65535)},
		{name: "process", about: "The name or the pid of the process that holds the sockets.", schema: text()},
		{name: "older", about: "Only sockets that may have been in TIME_WAIT or CLOSE_WAIT for so long, such as 30s.", schema: text()},
		{name: "limit", about: fmt.Sprintf("Sockets at most; %d where it is missing.", DefaultSockets), schema: number(1, MaxSockets)},
	}
}

// parseSocketQuery reads the parameters; an error names the one that is wrong
// and what is allowed.
func parseSocketQuery(raw string) (snapshot.SocketQuery, error) {
	q := snapshot.SocketQuery{Limit: DefaultSockets}
	err := eachParameter(raw, socketParameters(), func(name, value string) string { return setSockets(&q, name, value) })
	if err != nil {
		return q, err
	}
	return q, q.Check() // what each of them allows may make no sense together
}

// setSockets sets what a parameter asks for, or returns what is wanted instead.
func setSockets(q *snapshot.SocketQuery, name, value string) (want string) {
	switch name {
	case "state":
		for state := range strings.SplitSeq(value, ",") {
			if !slices.Contains(states(), state) {
				return "want one or more of " + strings.Join(states(), ", ")
			}
			if !slices.Contains(q.States, state) {
				q.States = append(q.States, state)
			}
		}
	case "remote":
		q.Remote, want = prefixOf(value)
	case "port":
		q.Port, want = portOf(value)
	case "process":
		q.Process, want = nameOf(value)
	case "older":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return "want a duration with its unit, such as 30s or 2h"
		}
		q.Older = d
	case "limit":
		q.Limit, want = numberOf(value, 1, MaxSockets)
	}
	return want
}

// states are the names of TCP states, as in a report.
func states() []string {
	var names []string
	for name := range new(snapshot.States).Named {
		names = append(names, name)
	}
	return names
}
