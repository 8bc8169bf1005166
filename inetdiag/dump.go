package inetdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

const headerSize = 16 // struct nlmsghdr

// edgeRows is how many rows on either side of a datagram's edge are compared:
// the kernel's step is 16 sockets.
const edgeRows = 16

// dump is the state of the dump under way, or of the last one.
type dump struct {
	seq, port  uint32
	typ        uint16
	learn      bool // replaying: the first message tells seq, port and typ
	rows       int  // of this request
	duplicates int
	flags      uint16 // of all messages, or-ed

	// The last rows of the datagram before, in no order, and their cookies.
	edge    [edgeRows]ID
	cookies [edgeRows]uint64
	edges   int

	sock Socket
}

// reset forgets the dump before.
func (d *dump) reset() { d.duplicates, d.flags = 0, 0 }

// expect begins a request of a dump.
func (d *dump) expect(typ uint16) {
	d.typ, d.learn, d.rows, d.edges = typ, false, 0, 0
}

// answer runs every request of a query. stopped: the loop was left.
func (c *Conn) answer(q Query, run func(request) (stopped bool, err error)) (stopped bool, err error) {
	if q.Filter.err != nil {
		return false, &OpError{Op: "filter", Err: q.Filter.err}
	}
	c.dump.reset()
	requests := c.requests(q)
	for i := 0; i < len(requests); i++ {
		stopped, err = run(requests[i])
		if c.legacyRefused(requests[i], err) {
			c.noLegacy = true
			requests, i, err = c.requests(q), -1, nil
		}
		if stopped || err != nil {
			return stopped, err
		}
	}
	if c.dump.flags&flagDumpIntr != 0 {
		return false, ErrInterrupted
	}
	return false, nil
}

// legacyRefused tells whether the two-family walk was refused for what it is,
// so that it is worth asking in the newer way.
func (c *Conn) legacyRefused(r request, err error) bool {
	var no *refusal
	return r.typ == typeLegacy && !c.noLegacy && c.dump.rows == 0 && errors.As(err, &no) &&
		no.errno != errnoBUSY && no.errno != errnoPERM
}

func (c *Conn) dumpOne(ctx context.Context, r request, yield func(*Socket, error) bool) (stopped bool, err error) {
	if err := c.ask(r); err != nil {
		return false, err
	}
	for {
		b, err := c.receive(ctx)
		if err != nil {
			return false, err
		}
		switch end, err := c.dump.datagram(b, yield); end {
		case endNone:
		case endStopped:
			return true, nil
		case endDone:
			c.spent = false
			return false, err
		default:
			return false, err
		}
	}
}

// ending is how a datagram left the dump.
type ending int

const (
	endNone    ending = iota // more to come
	endDone                  // the request is answered, perhaps with an error
	endStopped               // the loop was left
	endBroken                // the stream can't be trusted any more
)

// rowMessage is the least size of a message that carries a row.
const rowMessage = headerSize + rowSize

// datagram yields the rows of one datagram. This is the hot loop: a message
// that is in every respect a row of this dump costs the few comparisons
// below; whatever else it may be is sorted out by other.
func (d *dump) datagram(b []byte, yield func(*Socket, error) bool) (ending, error) {
	if len(b) < headerSize {
		return endBroken, fmt.Errorf("%w: a datagram of %d bytes", ErrMalformed, len(b))
	}
	if d.learn {
		d.learnFrom(b)
	}
	var (
		s    = &d.sock
		typ  = d.typ
		mine = d.mark()
		last [edgeRows]int32 // where the last rows lie, a ring
		rows uint
		rest = b
	)
	for len(rest) >= rowMessage {
		m := (*[rowMessage]byte)(rest)
		n := uint(binary.NativeEndian.Uint32(m[0:]))
		if n < rowMessage || n > uint(len(rest)) ||
			binary.NativeEndian.Uint64(m[8:]) != mine || binary.NativeEndian.Uint16(m[4:]) != typ ||
			m[headerSize+rowFamily] != byte(FamilyIPv4) && m[headerSize+rowFamily] != byte(FamilyIPv6) {
			size, end, err := d.other(rest)
			if end != endNone || err != nil {
				return end, err
			}
			rest = rest[size:]
			continue
		}
		d.flags |= binary.NativeEndian.Uint16(m[6:])
		s.row = (*[rowSize]byte)(m[headerSize:])
		s.attrs = rest[rowMessage:n]
		last[rows%edgeRows] = int32(len(b) - len(rest))
		if rows < edgeRows && d.seen(s) {
			d.duplicates++
		} else if !yield(s, nil) {
			return endStopped, nil
		}
		rows++
		d.rows++
		rest = rest[min((n+3)&^3, uint(len(rest))):]
	}
	for len(rest) > 0 {
		size, end, err := d.other(rest)
		if end != endNone || err != nil {
			return end, err
		}
		rest = rest[size:]
	}
	d.remember(b, last[:min(rows, edgeRows)])
	return endNone, nil
}

// mark is sequence and port id of this dump's messages as they lie in memory.
func (d *dump) mark() uint64 {
	var b [8]byte
	binary.NativeEndian.PutUint32(b[0:], d.seq)
	binary.NativeEndian.PutUint32(b[4:], d.port)
	return binary.NativeEndian.Uint64(b[:])
}

// other looks at a message that is not a good row: what it is, or what is
// wrong with it. size is what it takes of b.
func (d *dump) other(b []byte) (size int, end ending, err error) {
	if len(b) < headerSize {
		return 0, endBroken, fmt.Errorf("%w: %d stray bytes at a datagram's end", ErrMalformed, len(b))
	}
	n := binary.NativeEndian.Uint32(b)
	if n < headerSize || uint64(n) > uint64(len(b)) {
		return 0, endBroken, fmt.Errorf("%w: a message of %d bytes where %d are left", ErrMalformed, n, len(b))
	}
	if port := binary.NativeEndian.Uint32(b[12:]); port != d.port {
		return 0, endBroken, fmt.Errorf("%w: it is for port %d, ours is %d", ErrForeign, port, d.port)
	}
	if seq := binary.NativeEndian.Uint32(b[8:]); seq != d.seq {
		return 0, endBroken, fmt.Errorf("%w: %d, ours is %d", ErrSequence, seq, d.seq)
	}
	d.flags |= binary.NativeEndian.Uint16(b[6:])
	end, err = d.control(b[:n])
	return min(align4(int(n)), len(b)), end, err
}

// control handles every message that is not a row of the dump.
func (d *dump) control(m []byte) (ending, error) {
	switch typ := binary.NativeEndian.Uint16(m[4:]); {
	case typ == msgNoop:
		return endNone, nil
	case typ == msgOverrun:
		return endBroken, fmt.Errorf("%w: the kernel says that it lost messages", ErrTruncated)
	case typ == msgDone:
		// Old kernels send no error number along.
		if len(m) < headerSize+4 {
			return endDone, nil
		}
		errno := int32(binary.NativeEndian.Uint32(m[headerSize:]))
		if errno >= 0 {
			return endDone, nil
		}
		return endDone, refused(errno)
	case typ == msgError:
		if len(m) < headerSize+4 {
			return endBroken, fmt.Errorf("%w: an error message of %d bytes", ErrMalformed, len(m))
		}
		err := refused(int32(binary.NativeEndian.Uint32(m[headerSize:])))
		if d.rows > 0 || errors.Is(err, ErrBusy) || errors.Is(err, ErrMalformed) {
			return endBroken, err // there is a dump under way, whose rows are still to come
		}
		return endDone, err
	case typ == d.typ && len(m) < rowMessage:
		return endBroken, fmt.Errorf("%w: a row of %d bytes, at least %d expected", ErrMalformed, len(m)-headerSize, rowSize)
	case typ == d.typ:
		return endBroken, fmt.Errorf("%w: a row of address family %d", ErrMalformed, m[headerSize+rowFamily])
	default:
		return endBroken, fmt.Errorf("%w: a message of type %d", ErrMalformed, typ)
	}
}

// refused makes an error of the number in an NLMSG_ERROR or NLMSG_DONE.
func refused(errno int32) error {
	if errno >= 0 || errno < -maxErrno {
		return fmt.Errorf("%w: an error message with number %d", ErrMalformed, errno)
	}
	return &refusal{-errno}
}

// learnFrom takes from the first message of a recorded answer what a live
// request would have known.
func (d *dump) learnFrom(b []byte) {
	d.learn = false
	d.seq, d.port = binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
	if typ := binary.NativeEndian.Uint16(b[4:]); typ == typeLegacy || typ == typeFamily {
		d.typ = typ
	}
}

// seen tells whether s was among the last rows of the datagram before: same
// cookie, same tuple.
func (d *dump) seen(s *Socket) bool {
	cookie := s.Cookie()
	if cookie == 0 {
		return false
	}
	for i, c := range d.cookies[:d.edges] {
		if c == cookie && d.edge[i] == s.ID() {
			return true
		}
	}
	return false
}

// remember keeps the last rows of a datagram, which lie at those offsets.
func (d *dump) remember(b []byte, last []int32) {
	d.edges = len(last)
	for i, at := range last {
		row := (*[rowSize]byte)(b[int(at)+headerSize:])
		d.edge[i] = idOf(row)
		d.cookies[i] = cookieOf(row)
	}
}

// drain receives the answer to r without looking at its rows.
func (c *Conn) drain(ctx context.Context, r request) (datagrams, bytes int, err error) {
	if err := c.ask(r); err != nil {
		return 0, 0, err
	}
	for {
		b, err := c.receive(ctx)
		if err != nil {
			return datagrams, bytes, err
		}
		datagrams, bytes = datagrams+1, bytes+len(b)
		if len(b) < headerSize {
			return datagrams, bytes, fmt.Errorf("%w: a datagram of %d bytes", ErrMalformed, len(b))
		}
		if c.dump.learn {
			c.dump.learnFrom(b)
		}
		if !c.dump.answered(b) {
			continue
		}
		// The end stands alone, or last in the datagram of the last rows.
		if typ := binary.NativeEndian.Uint16(b[4:]); typ == msgDone || typ == msgError {
			end, err := c.dump.control(b)
			c.spent = end != endDone
			return datagrams, bytes, err
		}
		c.spent = false
		return datagrams, bytes, nil
	}
}

// answered tells whether a datagram ends a dump, by its first and by its last
// message, which is 20 bytes long if it is an NLMSG_DONE.
func (d *dump) answered(b []byte) bool {
	switch binary.NativeEndian.Uint16(b[4:]) {
	case msgDone, msgError:
		return true
	}
	const doneSize = headerSize + 4
	if len(b) < doneSize {
		return false
	}
	m := b[len(b)-doneSize:]
	return binary.NativeEndian.Uint32(m) == doneSize && binary.NativeEndian.Uint16(m[4:]) == msgDone &&
		binary.NativeEndian.Uint32(m[8:]) == d.seq && binary.NativeEndian.Uint32(m[12:]) == d.port
}

// lookup asks for one socket: a single message answers it.
func (c *Conn) lookup(ctx context.Context, id ID) (Info, error) {
	if err := c.ask(exact(id)); err != nil {
		return Info{}, err
	}
	b, err := c.receive(ctx)
	if err != nil {
		return Info{}, err
	}
	var (
		info Info
		has  bool
		rows int

		other bool
	)
	end, err := c.dump.datagram(b, func(s *Socket, _ error) bool {
		rows++
		other = !id.names(s)
		info, has = s.Info()
		return true
	})
	if end != endBroken {
		c.spent = false
	}
	var no *refusal
	switch {
	case errors.As(err, &no) && no.errno == errnoNOENT:
		return Info{}, fmt.Errorf("%w: %s", ErrNotFound, err.Error()) // not %w: to a dump, ENOENT means something else
	case err != nil:
		return Info{}, err
	case rows != 1:
		return Info{}, fmt.Errorf("%w: %d rows answer a request for one", ErrMalformed, rows)
	case other:
		return Info{}, fmt.Errorf("%w: the answer is about another socket", ErrMalformed)
	case !has:
		return Info{}, fmt.Errorf("%w: only a row without tcp_info is left of it", ErrNotFound)
	}
	return info, nil
}
