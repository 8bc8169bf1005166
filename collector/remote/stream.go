package remote

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const (
	// reopenAfter is how soon a stream that has ended is opened again, where the
	// Config doesn't say.
	reopenAfter = 2 * time.Second
	// silences: the other side says every ten seconds that it lives, so that by
	// default three such beats may be missing.
	silences = 3
)

// Stream returns the source that reads another twwatch's stream of reports
// (server-sent events): each report comes when it is made, and once.
//
// A stream that can't be opened, breaks off, falls silent or is ended by the
// other side is yielded as an [*Error], and opened again until the caller
// stops. A configuration that can't work ends the sequence with the first
// element; the end of the context ends it with the context's error.
func Stream(cfg Config) func(context.Context) iter.Seq2[*snapshot.Report, error] {
	if cfg.Interval <= 0 {
		cfg.Interval = reopenAfter
	}
	return func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			p, err := cfg.poller(streamPath, defaultTimeout)
			if err != nil {
				yield(nil, err)
				return
			}
			defer p.client.CloseIdleConnections()
			p.packed, p.accept = true, eventStream
			for {
				err := p.follow(ctx, yield)
				switch {
				case errors.Is(err, errStopped):
					return
				case ctx.Err() != nil:
					yield(nil, ctx.Err())
					return
				case !yield(nil, err):
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(cfg.Interval):
				}
			}
		}
	}
}

const eventStream = "text/event-stream"

var (
	errStopped = errors.New("the caller has stopped")
	errSilent  = errors.New("silence")
)

// follow yields the reports of one stream until it ends, and returns why.
func (p *poller) follow(ctx context.Context, yield func(*snapshot.Report, error) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(p.timeout, func() { cancel(errSilent) })
	defer watchdog.Stop()
	why := func(err error, patience time.Duration) error {
		if errors.Is(context.Cause(ctx), errSilent) {
			return &Error{
				URL: p.endpoint.String(), Err: fmt.Errorf("no word within %v", patience),
				Fix: "is the host up, and the port open on the way?",
			}
		}
		return err
	}
	reply, err := p.get(ctx, statusFix)
	if err != nil {
		return why(err, p.timeout)
	}
	defer reply.Body.Close()
	events := eventReader{body: reply.Body}
	if err := events.open(reply); err != nil {
		return why(p.failStream(err, reply), p.timeout)
	}
	for {
		watchdog.Reset(silences * p.timeout)
		kind, data, err := events.next()
		watchdog.Stop() // the caller may take its time
		if err != nil {
			return why(p.failStream(err, reply), silences*p.timeout)
		}
		switch kind {
		case "report":
			r, err := snapshot.Decode(data)
			if err != nil {
				err = p.failBody(err, reply)
			}
			if (err != nil || !p.seen(r)) && !yield(r, err) {
				return errStopped
			}
		case "end":
			return p.fail(ended(data))
		}
	}
}

// ended says why the other side ended the stream, in its words.
func ended(data []byte) error {
	var end struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(data, &end) != nil || end.Reason == "" {
		return errors.New("it ended the stream")
	}
	return errors.New("it ended the stream: " + quote(end.Reason))
}

// errForeign is a reply that is no stream.
var errForeign = errors.New("the reply is no stream of events")

func (p *poller) failStream(err error, reply *http.Response) error {
	e := p.fail(err)
	switch {
	case errors.Is(err, errForeign):
		e.Fix = "is it a twwatch's address? Its Content-Type is " + quote(reply.Header.Get("Content-Type"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Err, e.Fix = errors.New("the stream breaks off"), cutFix
	}
	return e
}

// longestLine has room for the largest report, and for the field's name.
const longestLine = snapshot.MaxEncoded + 64

// An eventReader reads server-sent events (HTML, 9.2.6). Its memory is twice
// the largest event so far, of at most longestLine bytes.
type eventReader struct {
	body io.Reader
	src  *bufio.Reader
	line []byte // without its end
	data []byte
}

// open looks at what the reply says of itself.
func (r *eventReader) open(reply *http.Response) error {
	if kind, _, err := mime.ParseMediaType(reply.Header.Get("Content-Type")); err != nil || kind != eventStream {
		return errForeign
	}
	if reply.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(r.body)
		if err != nil {
			return err
		}
		r.body = unpacked
	}
	r.src = bufio.NewReaderSize(r.body, 64<<10)
	return nil
}

// next returns the next event with its data, valid until the next call.
func (r *eventReader) next() (kind string, data []byte, err error) {
	r.data = r.data[:0]
	for {
		if err := r.readLine(); err != nil {
			return "", nil, err
		}
		if len(r.line) == 0 {
			if kind != "" {
				return kind, r.data, nil
			}
			r.data = r.data[:0] // of a message without a kind
			continue
		}
		field, value, _ := bytes.Cut(r.line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			kind = string(value)
		case "data":
			if len(r.data)+len(value) > longestLine {
				return "", nil, snapshot.ErrTooLarge
			}
			if len(r.data) > 0 {
				r.data = append(r.data, '\n')
			}
			r.data = append(r.data, value...)
		}
	}
}

func (r *eventReader) readLine() error {
	r.line = r.line[:0]
	for {
		part, err := r.src.ReadSlice('\n')
		if len(r.line)+len(part) > longestLine {
			return snapshot.ErrTooLarge
		}
		r.line = append(r.line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		r.line = bytes.TrimRight(r.line, "\r\n")
		return err
	}
}
