package workload

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// A call of gRPC with one request and one reply, over the HTTP/2 of the standard
// library (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

const (
	service    = "/runtime.v1.RuntimeService/"
	maxReply   = 16 << 20 // bytes; the kubelet's own limit
	maxHeaders = 64 << 10
	maxWords   = 200 // bytes of a runtime's error message that are passed on
	notFound   = "5" // NOT_FOUND
)

// A CallError says which question to a container runtime failed.
type CallError struct {
	Socket, Call string
	Err          error
}

// Error returns one line with the socket quoted.
func (e *CallError) Error() string {
	return fmt.Sprintf("container runtime at %q: %s: %v", e.Socket, e.Call, e.Err)
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// A statusError is a runtime's refusal.
type statusError struct{ code, message string }

func (e *statusError) Error() string {
	return fmt.Sprintf("it answers %q (gRPC status %q)", e.message, e.code)
}

// A caller is one connection to a runtime. Whatever it does fails after its
// deadline.
type caller struct {
	socket    string
	deadline  time.Duration
	conn      net.Conn
	transport *http.Transport
}

func dial(ctx context.Context, socket string, deadline time.Duration) (*caller, error) {
	d := net.Dialer{Timeout: deadline}
	conn, err := d.DialContext(ctx, "unix", socket)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // it names the socket, too
	}
	if err != nil {
		return nil, &CallError{socket, "dial", err}
	}
	c := &caller{socket: socket, deadline: deadline, conn: conn}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	used := false
	c.transport = &http.Transport{
		Protocols: &protocols, DisableCompression: true, MaxResponseHeaderBytes: maxHeaders,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: maxPart, MaxReceiveBufferPerConnection: maxPart},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, net.ErrClosed
			}
			used = true
			return conn, nil
		},
	}
	return c, nil
}

func (c *caller) close() {
	c.transport.CloseIdleConnections()
	c.conn.Close()
}

// call asks, and lets read have the reply. What was read is right only if call
// returns nil.
func (c *caller) call(ctx context.Context, method string, request []byte, read func(*bufio.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.deadline)
	defer cancel()
	if err := c.try(ctx, method, request, read); err != nil {
		return &CallError{c.socket, method, err}
	}
	return nil
}

func (c *caller) try(ctx context.Context, method string, request []byte, read func(*bufio.Reader) error) error {
	frame := make([]byte, 5, 5+len(request)) // not compressed; the length
	binary.BigEndian.PutUint32(frame[1:], uint32(len(request)))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+service+method, bytes.NewReader(append(frame, request...)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	r.Header.Set("User-Agent", "twwatch")
	response, err := c.transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/grpc") {
		return fmt.Errorf("HTTP status %d with no gRPC in it", response.StatusCode)
	}
	if response.Header.Get("Grpc-Status") != "" { // of a reply without a message
		return cmp.Or(status(response.Header), errMessage)
	}
	err = readMessage(response.Body, read)
	if len(response.Trailer) > 0 { // the body was read to its end
		err = cmp.Or(status(response.Trailer), err)
	}
	return err
}

// readMessage reads the one message of a reply up to the end of the body, which
// is when its trailers are there.
func readMessage(body io.Reader, read func(*bufio.Reader) error) error {
	var frame [5]byte
	switch _, err := io.ReadFull(body, frame[:]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errMessage
	case err != nil:
		return err
	}
	size := binary.BigEndian.Uint32(frame[1:])
	switch {
	case frame[0] != 0:
		return errors.New("a compressed reply, which wasn't asked for")
	case size > maxReply:
		return fmt.Errorf("a reply of %d bytes: more than %d are not read", size, maxReply)
	}
	message := &io.LimitedReader{R: body, N: int64(size)}
	if err := read(bufio.NewReader(message)); err != nil {
		return err
	}
	if message.N != 0 {
		return errMessage
	}
	switch _, err := io.ReadFull(body, frame[:1]); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return errMessage
}

// status is what gRPC's status says; nil is "OK".
func status(h http.Header) error {
	code, message := h.Get("Grpc-Status"), h.Get("Grpc-Message")
	switch code {
	case "0":
		return nil
	case "":
		return errors.New("a reply without a gRPC status")
	}
	return &statusError{code[:min(len(code), maxWords)], message[:min(len(message), maxWords)]}
}
