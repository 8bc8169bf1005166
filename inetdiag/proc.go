package inetdiag

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

const (
	// procLine is the longest line read: the kernel pads them to 150 bytes.
	procLine = 512

	// procStep is how many lines pass between two looks at the context.
	procStep = 256

	// userHZ is the unit of the timers in /proc (USER_HZ), on every
	// architecture that Linux now runs on.
	userHZ = 100
)

// ProcSockets reads netDir/tcp and netDir/tcp6 (say "/proc/thread-self/net")
// and shows them as [Conn.Sockets] would, listeners of both first. It is for
// hosts where sock_diag can't be had, and poorer:
//
//   - Cookie and Interface are 0, CgroupID and Info absent, and the ID is of
//     no use to [Conn.Lookup];
//   - Expires is in steps of 10 ms;
//   - BOUND_INACTIVE sockets are not shown;
//   - WQueue of a LISTEN is 0 instead of its backlog;
//   - it costs several times as much, and neither filters nor picks states.
//
// FilledAt is when the file's next part was read. A missing tcp6 is a host
// without IPv6. The rows are borrowed, and an error comes last, as there.
func ProcSockets(ctx context.Context, netDir string) iter.Seq2[*Socket, error] {
	return func(yield func(*Socket, error) bool) {
		if err := procSockets(ctx, netDir, yield); err != nil {
			yield(nil, &OpError{Op: "proc", Err: err})
		}
	}
}

// procSockets returns nil when the loop was left, too.
func procSockets(ctx context.Context, netDir string, yield func(*Socket, error) bool) error {
	v4, err := os.Open(filepath.Join(netDir, "tcp"))
	if err != nil {
		return err
	}
	defer v4.Close()
	tables := []*procTable{newProcTable(v4, FamilyIPv4)}

	v6, err := os.Open(filepath.Join(netDir, "tcp6"))
	switch {
	case err == nil:
		defer v6.Close()
		tables = append(tables, newProcTable(v6, FamilyIPv6))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}

	// Each file begins with its listeners, so that stopping behind them and
	// going on later gives both families' listeners first.
	for _, listeners := range []bool{true, false} {
		for _, t := range tables {
			if more, err := t.show(ctx, listeners, yield); !more || err != nil {
				return err
			}
		}
	}
	return nil
}

// procTable reads one of the two files.
type procTable struct {
	r      *bufio.Reader
	family Family
	lines  int
	held   bool // sock holds a row not shown yet
	sock   Socket
	row    [rowSize]byte
}

func newProcTable(r io.Reader, family Family) *procTable {
	t := &procTable{family: family}
	t.r = bufio.NewReaderSize(&clockedReader{r: r, at: &t.sock.filledAt}, bufferSize)
	t.sock.row = &t.row
	return t
}

// clockedReader notes when each part of the file was read.
type clockedReader struct {
	r  io.Reader
	at *int64
}

func (c *clockedReader) Read(p []byte) (int, error) {
	*c.at = Now()
	return c.r.Read(p)
}

// show yields rows: the listeners at the file's beginning, or all the rest.
// more is false when the loop was left.
func (t *procTable) show(ctx context.Context, listeners bool, yield func(*Socket, error) bool) (more bool, err error) {
	for {
		if !t.held {
			if t.lines%procStep == 0 && ctx.Err() != nil {
				return true, context.Cause(ctx)
			}
			if ok, err := t.next(); !ok {
				return true, err
			}
		}
		if listeners && t.sock.State() != Listen {
			t.held = true
			return true, nil
		}
		t.held = false
		if !yield(&t.sock, nil) {
			return false, nil
		}
	}
}

// next parses the next row; false at the file's end.
func (t *procTable) next() (bool, error) {
	for {
		line, err := t.r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return false, nil
		case errors.Is(err, io.EOF), errors.Is(err, bufio.ErrBufferFull):
			return false, fmt.Errorf("%w: the %s table's line %d has no end", ErrMalformed, t.family, t.lines+1)
		case err != nil:
			return false, err
		}
		t.lines++
		if t.lines == 1 {
			continue // the heading
		}
		if err := parseProcLine(&t.row, line, t.family); err != nil {
			return false, fmt.Errorf("%w: the %s table's line %d: %w", ErrMalformed, t.family, t.lines, err)
		}
		return true, nil
	}
}

// parseProcLine makes a row of a line of /proc/net/tcp or tcp6 (get_tcp4_sock
// and its kin in net/ipv4/tcp_ipv4.c):
//
//	sl: local:port remote:port st tx:rx tr:when retrnsmt uid timeout inode …
func parseProcLine(row *[rowSize]byte, line []byte, family Family) error {
	if len(line) > procLine {
		return fmt.Errorf("%d bytes long", len(line))
	}
	*row = [rowSize]byte{rowFamily: byte(family)}
	f := fields{rest: line}
	f.token(':') // the row's number
	f.address(row[rowAddrs:rowAddrs+16], family)
	binary.BigEndian.PutUint16(row[rowSrcPort:], uint16(f.number(16, 16, ' ')))
	f.address(row[rowAddrs+16:rowAddrs+32], family)
	binary.BigEndian.PutUint16(row[rowDstPort:], uint16(f.number(16, 16, ' ')))
	row[rowState] = byte(f.number(16, 8, ' '))
	binary.NativeEndian.PutUint32(row[rowWQueue:], uint32(f.number(16, 32, ':')))
	binary.NativeEndian.PutUint32(row[rowRQueue:], uint32(f.number(16, 32, ' ')))
	row[rowTimer] = byte(f.number(16, 8, ':'))
	when := f.number(16, 64, ' ')
	row[rowRetrans] = byte(f.number(16, 32, ' '))
	binary.NativeEndian.PutUint32(row[rowUID:], uint32(f.number(10, 32, ' ')))
	f.token(' ') // timeout
	binary.NativeEndian.PutUint32(row[rowInode:], uint32(f.number(10, 64, ' ')))
	if row[rowTimer] != 0 {
		const ms = 1000 / userHZ
		binary.NativeEndian.PutUint32(row[rowExpires:], uint32(min(when, math.MaxUint32/ms)*ms))
	}
	return f.err
}

// fields cuts a line into its fields. After an error it yields zeros.
type fields struct {
	rest []byte
	err  error
}

// token is what stands before the next end, a colon or a space (or a
// newline); spaces before it don't count.
func (f *fields) token(end byte) []byte {
	if f.err != nil {
		return nil
	}
	b := bytes.TrimLeft(f.rest, " ")
	n := bytes.IndexAny(b, ": \n")
	if n <= 0 || b[n] != end && !(end == ' ' && b[n] == '\n') {
		f.err = fmt.Errorf("%.40q is not a field that ends in %q", b, end)
		return nil
	}
	f.rest = b[n+1:]
	return b[:n]
}

// number reads a number of at most that many bits.
func (f *fields) number(base, bits int, end byte) uint64 {
	return f.parse(f.token(end), base, bits)
}

func (f *fields) parse(b []byte, base, bits int) uint64 {
	if f.err != nil {
		return 0
	}
	// The conversion doesn't allocate: the string does not outlive the call,
	// unless it is wrong.
	n, err := strconv.ParseUint(string(b), base, bits)
	if err != nil {
		f.err = fmt.Errorf("%.40q is not a number of %d bits in base %d", b, bits, base)
	}
	return n
}

// address reads an address, which stands in words of 4 bytes, each as a
// number in the machine's byte order.
func (f *fields) address(to []byte, family Family) {
	b := f.token(':')
	words := 4
	if family == FamilyIPv4 {
		words = 1
	}
	if f.err == nil && len(b) != 8*words {
		f.err = fmt.Errorf("%.40q is not an %s address", b, family)
	}
	if f.err != nil {
		return
	}
	for i := range words {
		binary.NativeEndian.PutUint32(to[4*i:], uint32(f.parse(b[8*i:8*i+8], 16, 32)))
	}
}
