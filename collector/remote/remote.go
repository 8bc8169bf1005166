package remote

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Reports returns the source that asks another twwatch for its report, at once
// and then every Interval.
//
// A request that fails is yielded as an [*Error], one line that says what to
// do. With an Interval the next request follows all the same, unless the
// caller stops: a restart over there need not end a display here. A
// configuration that can't work, or an interval of 0, ends the sequence with
// the first element; the end of the context ends it with the context's error.
//
// A report that was yielded already, since the other side has made no new one,
// is not yielded again.
func Reports(cfg Config) func(context.Context) iter.Seq2[*snapshot.Report, error] {
	return func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			p, err := cfg.poller(reportPath, defaultTimeout)
			if err != nil {
				yield(nil, err)
				return
			}
			defer p.client.CloseIdleConnections()
			p.packed = true
			p.run(ctx, cfg.Interval, yield)
		}
	}
}

// A poller asks one address.
type poller struct {
	client   *http.Client
	endpoint *url.URL
	timeout  time.Duration
	packed   bool   // gzip is read
	accept   string // the kind of reply; "" is JSON
	last     *snapshot.Report
}

// poller makes the one that asks for what the other twwatch has under path.
func (c Config) poller(path string, timeout time.Duration) (*poller, error) {
	endpoint, err := c.endpoint(path)
	if err != nil {
		return nil, err
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	if c.Timeout > 0 {
		timeout = c.Timeout
	}
	return &poller{client: client, endpoint: endpoint, timeout: timeout}, nil
}

func (p *poller) run(ctx context.Context, interval time.Duration, yield func(*snapshot.Report, error) bool) {
	var tick <-chan time.Time
	if interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		report, err := p.ask(ctx)
		if ctx.Err() != nil {
			yield(nil, ctx.Err())
			return
		}
		if err != nil || !p.seen(report) {
			if !yield(report, err) {
				return
			}
		}
		if tick == nil {
			return
		}
		select {
		case <-ctx.Done():
			yield(nil, ctx.Err())
			return
		case <-tick:
		}
	}
}

// seen reports whether r is the last report again, and remembers it.
func (p *poller) seen(r *snapshot.Report) bool {
	again := p.last != nil && !r.Time.IsZero() && r.Time.Equal(p.last.Time) && r.BootID == p.last.BootID && r.Host == p.last.Host
	p.last = r
	return again
}

// ask makes one request for a report.
func (p *poller) ask(ctx context.Context) (*snapshot.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	reply, err := p.get(ctx, statusFix)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	// What is packed is bounded here, what it unpacks to by the reader.
	body := &io.LimitedReader{R: reply.Body, N: snapshot.MaxEncoded + 1}
	report, err := snapshot.NewReader(body).Read()
	switch {
	case err != nil && body.N <= 0:
		return nil, p.fail(snapshot.ErrTooLarge)
	case err != nil:
		return nil, p.failBody(err, reply)
	}
	// To its end, or the connection can't serve the next request.
	_, _ = io.Copy(io.Discard, body)
	return report, nil
}

// get makes one request. A reply that is returned has the status 200; of
// another, fix says what to do by its status and its body's beginning.
func (p *poller) get(ctx context.Context, fix func(status int, begin []byte) string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.endpoint.String(), nil)
	if err != nil {
		return nil, p.fail(err)
	}
	req.Header.Set("Accept", cmp.Or(p.accept, "application/json"))
	if p.packed {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	reply, err := p.client.Do(req)
	if err != nil {
		return nil, p.fail(err)
	}
	if reply.StatusCode == http.StatusOK {
		return reply, nil
	}
	defer reply.Body.Close()
	begin, _ := io.ReadAll(io.LimitReader(reply.Body, 4096)) // and so the connection can serve again
	return nil, &Error{URL: p.endpoint.String(), Status: reply.StatusCode, Fix: fix(reply.StatusCode, begin)}
}

// failBody is the error for a reply that is no report.
func (p *poller) failBody(err error, reply *http.Response) error {
	if _, ok := errors.AsType[*snapshot.NotReportError](err); ok {
		e := p.fail(err)
		e.Fix = "is it a twwatch's address? Its Content-Type is " + quote(reply.Header.Get("Content-Type"))
		return e
	}
	if _, ok := errors.AsType[*snapshot.CutError](err); ok {
		e := p.fail(errCut)
		e.Fix = cutFix
		return e
	}
	if place, ok := errors.AsType[*snapshot.ReportError](err); ok {
		err = place.Err // the number of the only report says nothing
	}
	return p.fail(err)
}

var errCut = errors.New("the reply ends in the middle of the report")

const cutFix = "the connection was closed early: look at the other side's log, and at proxies between"
