package remote

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// socketsTimeout bounds a request for sockets where the Config doesn't: the
// other side allows itself 10 s, and is then heard to say so.
const socketsTimeout = 15 * time.Second

// Sockets asks another twwatch once for its live sockets. cfg.Interval means
// nothing here.
//
// The list has at most q.Limit rows, or as many as the other side gives
// unasked if that is 0; rows that it sends beyond are dropped, and Truncated
// says so. The error is a [*snapshot.QueryError] for a question without an
// answer, an [*Error] for a request that failed, or says what is wrong with
// the configuration; each is one line that may be printed.
func Sockets(ctx context.Context, cfg Config, q snapshot.SocketQuery) (*snapshot.SocketList, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	p, err := cfg.poller(socketsPath, socketsTimeout)
	if err != nil {
		return nil, err
	}
	defer p.client.CloseIdleConnections()
	p.endpoint.RawQuery = parameters(q).Encode()
	list, err := p.askSockets(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if q.Limit > 0 && len(list.Sockets) > q.Limit {
		list.Sockets, list.Truncated = list.Sockets[:q.Limit], true
	}
	return list, nil
}

// parameters writes a query as /api/v1/sockets reads it.
func parameters(q snapshot.SocketQuery) url.Values {
	v := url.Values{}
	if len(q.States) > 0 {
		v.Set("state", strings.Join(q.States, ","))
	}
	if q.Remote.IsValid() {
		v.Set("remote", q.Remote.String())
	}
	if q.Port != 0 {
		v.Set("port", strconv.Itoa(int(q.Port)))
	}
	if q.Older > 0 {
		v.Set("older", q.Older.String())
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// askSockets makes one request for a list.
func (p *poller) askSockets(ctx context.Context) (*snapshot.SocketList, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	reply, err := p.get(ctx, socketsFix)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(io.LimitReader(reply.Body, snapshot.MaxEncoded+1))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		e := p.fail(errCutList)
		e.Fix = cutFix
		return nil, e
	}
	if err != nil {
		return nil, p.fail(err)
	}
	list, err := snapshot.DecodeSockets(data)
	if err == nil {
		return list, nil
	}
	e := p.fail(err)
	if _, ok := errors.AsType[*snapshot.NotSocketsError](err); ok {
		e.Fix = "is it a twwatch's address? Its Content-Type is " + quote(reply.Header.Get("Content-Type"))
	}
	return nil, e
}

var errCutList = errors.New("the reply ends in the middle of the list")

// socketsFix is statusFix, with the other side's own words where it has any:
// it alone knows which parameter it won't take, or that it has no live
// sockets.
func socketsFix(status int, begin []byte) string {
	var refusal struct {
		Error string `json:"error"`
	}
	if status == http.StatusUnauthorized || json.Unmarshal(begin, &refusal) != nil || refusal.Error == "" {
		return statusFix(status, begin)
	}
	return "it says: " + quote(refusal.Error)
}
