package inetdiag

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
)

// bufferSize is the most that the kernel puts into one datagram of a dump. It
// never changes: the kernel fills as much as the largest buffer it has seen
// on the socket, so that a smaller one later would lose rows.
const bufferSize = 32 << 10

// origin is where Now counts from.
var origin = time.Now()

// Now is a monotonic clock in nanoseconds since an arbitrary origin: the
// clock of [Socket.FilledAt].
func Now() int64 { return int64(time.Since(origin)) }

// Config says what to look at. Its zero value is the caller's own network
// namespace, unrecorded.
type Config struct {
	// NetNS is a descriptor of the network namespace to look at; 0 is the
	// caller's. It is needed only during Dial, and entering another takes
	// CAP_SYS_ADMIN.
	NetNS int

	// Tape gets every datagram received, in the form that [Replay] reads.
	// One Conn to a tape.
	Tape io.Writer
}

// Query says which sockets to show. Its zero value is all of them but
// BOUND_INACTIVE.
type Query struct {
	States States // 0: AllStates
	Family Family // 0: both. IPv6 includes v4-mapped sockets, IPv4 does not
	Info   bool   // ask for tcp_info: some 280 bytes more for each full socket
	Filter Filter // zero: everything
}

// Conn is a netlink socket that asks the kernel of one network namespace, or
// a recording. It serves one request at a time: a second one meanwhile, from
// the loop's body too, is [ErrBusy]. A dump or lookup that didn't reach its
// end (the loop was left early, the context was cancelled, an error in the
// stream) leaves the Conn spent: from then on [ErrSpent].
type Conn struct {
	nl     *netlink.Conn // nil when replaying
	recv   func(buf []byte) (n int, from uint32, err error)
	replay *tapeReader // nil when live
	tape   *tapeWriter // nil: no recording

	busy     atomic.Bool
	spent    bool
	noLegacy bool // this kernel refuses TCPDIAG_GETSOCK

	buf    []byte
	filled int64 // when the datagram that comes next was filled

	dump dump
}

// Close closes the socket. A request under way fails.
func (c *Conn) Close() error {
	if c.nl == nil {
		return nil
	}
	if err := c.nl.Close(); err != nil {
		return &OpError{Op: "close", Err: err}
	}
	return nil
}

// Duplicates is how many rows of the last dump were dropped because the
// kernel had shown the same socket just before: the walk resumes by position,
// and sockets that were added meanwhile push others back. Read it after the
// loop.
func (c *Conn) Duplicates() int { return c.dump.duplicates }

// Sockets dumps the table: see the package's comment for the order, the
// lifetime of a row and what a dump guarantees. An error is the last thing
// yielded, with a nil Socket; rows before it are good. Nothing is asked until
// the loop begins, and every loop asks anew.
//
// A cancelled context ends the dump with the context's error.
func (c *Conn) Sockets(ctx context.Context, q Query) iter.Seq2[*Socket, error] {
	return func(yield func(*Socket, error) bool) {
		// The Conn is free again before the error is shown: the loop's body
		// may want to ask once more.
		if stopped, err := c.stream(ctx, q, yield); err != nil && !stopped {
			yield(nil, err)
		}
	}
}

// stream yields the rows of a dump, and returns its error or that the loop
// was left.
func (c *Conn) stream(ctx context.Context, q Query, yield func(*Socket, error) bool) (stopped bool, err error) {
	if err := c.begin("dump"); err != nil {
		return false, err
	}
	defer c.busy.Store(false)
	defer c.watch(ctx)()

	stopped, err = c.answer(q, func(r request) (bool, error) { return c.dumpOne(ctx, r, yield) })
	return stopped, c.opError("dump", err)
}

// Drain receives a whole dump and looks at nothing but its end: the least
// that any reader of it must spend. It is the yardstick of the benchmarks.
// bytes is the payload of all datagrams.
func (c *Conn) Drain(ctx context.Context, q Query) (datagrams, bytes int, err error) {
	if err := c.begin("drain"); err != nil {
		return 0, 0, err
	}
	defer c.busy.Store(false)
	defer c.watch(ctx)()

	_, err = c.answer(q, func(r request) (bool, error) {
		n, b, err := c.drain(ctx, r)
		datagrams, bytes = datagrams+n, bytes+b
		return false, err
	})
	return datagrams, bytes, c.opError("drain", err)
}

// Lookup asks for the tcp_info of one socket by its addresses, ports, device
// and cookie. It is [ErrNotFound] when that socket is gone, which includes
// that only a mini-socket (TIME_WAIT) is left of it: that has no tcp_info.
func (c *Conn) Lookup(ctx context.Context, id ID) (Info, error) {
	if err := c.begin("lookup"); err != nil {
		return Info{}, err
	}
	defer c.busy.Store(false)
	defer c.watch(ctx)()

	info, err := c.lookup(ctx, id)
	return info, c.opError("lookup", err)
}

// begin takes the Conn for one request.
func (c *Conn) begin(op string) error {
	if !c.busy.CompareAndSwap(false, true) {
		return c.opError(op, ErrBusy)
	}
	if c.spent {
		c.busy.Store(false)
		return c.opError(op, ErrSpent)
	}
	return nil
}

// opError is err, if it is one, as a request's own; if there is none, that of
// the recording.
func (c *Conn) opError(op string, err error) error {
	var own *OpError
	switch {
	case err == nil && c.tape != nil && c.tape.err != nil:
		return &OpError{Op: "record", Err: c.tape.err}
	case err == nil, errors.As(err, &own):
		return err
	case c.replay != nil:
		op = "replay"
	}
	return &OpError{Op: op, Err: err}
}

// watch makes a waiting receive end when ctx does. The function it returns
// undoes that.
func (c *Conn) watch(ctx context.Context) (stop func()) {
	if c.nl == nil || ctx.Done() == nil {
		return func() {}
	}
	fired := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = c.nl.SetReadDeadline(time.Unix(1, 0)) // fails only when closed: then nobody waits
	})
	return func() {
		if !cancel() {
			<-fired
			_ = c.nl.SetReadDeadline(time.Time{})
		}
	}
}

// ask sends a request and gets ready for its answers.
func (c *Conn) ask(r request) error {
	c.dump.expect(r.typ)
	if c.nl == nil {
		c.spent = true
		c.dump.learn = true
		return nil
	}
	c.filled = Now() // the kernel fills the first datagram before Send returns
	sent, err := c.nl.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(r.typ), Flags: netlink.HeaderFlags(r.flags)},
		Data:   r.payload,
	})
	if err != nil {
		return fmt.Errorf("sending the request: %w", err)
	}
	c.spent = true // until the end of the answer
	c.dump.seq, c.dump.port = sent.Header.Sequence, sent.Header.PID
	return nil
}

// receive gets the next datagram into the buffer.
func (c *Conn) receive(ctx context.Context) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// The kernel fills the next datagram as it hands this one over. The clock is
	// read before that: on a busy machine the way back from the call may take
	// tens of ms, and rows would seem that much younger.
	asked := Now()
	n, from, err := c.recv(c.buf)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	filled := c.filled
	c.filled = asked
	if c.replay != nil {
		filled = c.replay.filledAt
	}
	c.dump.sock.filledAt = filled
	c.tape.write(filled, c.buf[:min(n, len(c.buf))], n)
	if from != 0 {
		return nil, fmt.Errorf("%w: it came from port %d", ErrForeign, from)
	}
	if n > len(c.buf) {
		return nil, fmt.Errorf("%w: a datagram of %d bytes met a buffer of %d", ErrTruncated, n, len(c.buf))
	}
	return c.buf[:n], nil
}
