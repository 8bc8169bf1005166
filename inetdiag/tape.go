package inetdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A tape is tapeMagic and then records, one a datagram: when it was filled
// (int64, nanoseconds on the recorder's Now), its length (uint32) and its
// bytes; all numbers little endian. The datagrams themselves are in the byte
// order of the machine that recorded them.
const (
	tapeMagic  = "twwatch-tape/1\n"
	tapeHeader = 12

	// maxRecord bounds what a reader must skip: a datagram longer than the
	// buffer is recorded too, and replays as the loss that it was.
	maxRecord = 1 << 20
)

// tapeWriter records. The first error ends the recording and is told at the
// end of every request from then on; the rows are shown all the same.
type tapeWriter struct {
	w       io.Writer
	started bool
	header  [tapeHeader]byte
	err     error
}

// write appends a datagram that was n bytes long, of which b was received.
func (t *tapeWriter) write(filled int64, b []byte, n int) {
	if t == nil || t.err != nil {
		return
	}
	if !t.started {
		t.started = true
		if _, t.err = io.WriteString(t.w, tapeMagic); t.err != nil {
			return
		}
	}
	n = min(n, maxRecord)
	binary.LittleEndian.PutUint64(t.header[:], uint64(filled))
	binary.LittleEndian.PutUint32(t.header[8:], uint32(n))
	if _, t.err = t.w.Write(t.header[:]); t.err != nil {
		return
	}
	if _, t.err = t.w.Write(b); t.err != nil {
		return
	}
	if n > len(b) {
		_, t.err = t.w.Write(make([]byte, n-len(b)))
	}
}

// tapeReader plays a tape, a record at a time.
type tapeReader struct {
	r        io.Reader
	started  bool
	header   [len(tapeMagic)]byte // holds a record's header too
	filledAt int64                // of the record read last
	err      error
}

// Replay answers requests from a recording instead of a kernel. Put the same
// requests in the same order as when it was made: the answers come as they
// were recorded, whatever the query says. A damaged recording gives
// [ErrMalformed], and one whose dumps have all been shown wraps [io.EOF] in
// that.
//
// It reads tape with small reads and works on every operating system, for
// recordings made on a machine of the same byte order.
func Replay(tape io.Reader) *Conn {
	t := &tapeReader{r: tape}
	return &Conn{recv: t.recv, replay: t, buf: make([]byte, bufferSize)}
}

// recv is the seam's other side: the next record instead of a datagram.
func (t *tapeReader) recv(buf []byte) (n int, from uint32, err error) {
	if t.err == nil {
		n, t.err = t.read(buf)
	}
	return n, 0, t.err
}

func (t *tapeReader) read(buf []byte) (int, error) {
	if !t.started {
		if _, err := io.ReadFull(t.r, t.header[:]); err != nil {
			return 0, fmt.Errorf("%w: not a tape: %w", ErrMalformed, err)
		}
		if string(t.header[:]) != tapeMagic {
			return 0, fmt.Errorf("%w: not a tape: it begins with %q", ErrMalformed, t.header[:])
		}
		t.started = true
	}
	h := t.header[:tapeHeader]
	if _, err := io.ReadFull(t.r, h); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("%w: the tape is at its end: %w", ErrMalformed, err)
		}
		return 0, fmt.Errorf("%w: a record's header: %w", ErrMalformed, err)
	}
	t.filledAt = int64(binary.LittleEndian.Uint64(h))
	size := binary.LittleEndian.Uint32(h[8:])
	if size > maxRecord {
		return 0, fmt.Errorf("%w: a record of %d bytes", ErrMalformed, size)
	}
	n := int(size)
	if _, err := io.ReadFull(t.r, buf[:min(n, len(buf))]); err != nil {
		return 0, fmt.Errorf("%w: a record is cut off: %w", ErrMalformed, noEOF(err))
	}
	if n > len(buf) {
		if _, err := io.CopyN(io.Discard, t.r, int64(n-len(buf))); err != nil {
			return 0, fmt.Errorf("%w: a record is cut off: %w", ErrMalformed, noEOF(err))
		}
	}
	return n, nil
}

// noEOF keeps io.EOF for the end between records.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
