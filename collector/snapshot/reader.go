package snapshot

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// A CutError means that the data end where a report, or their gzip wrapping, goes on.
// Everything before is whole and has been read.
type CutError struct {
	Report int   // the number of the report that is not whole, from 1
	Offset int64 // where it begins, in bytes of the unpacked data
	// Between is set where the data end after a report, but the wrapping
	// doesn't: reports may be missing.
	Between bool
}

// Error is one line.
func (e *CutError) Error() string {
	if e.Between {
		return fmt.Sprintf("ends after report %d (offset %d) without the end of its gzip data, later ones may be missing: %s read",
			e.Report-1, e.Offset, reports(e.Report-1))
	}
	return fmt.Sprintf("ends in the middle of report %d (offset %d): %s read", e.Report, e.Offset, reports(e.Report-1))
}

func reports(n int) string {
	if n == 1 {
		return "1 report"
	}
	return strconv.Itoa(n) + " reports"
}

// A ReportError says which report of a stream could not be read.
type ReportError struct {
	Report int   // its number, from 1
	Offset int64 // where it begins, in bytes of the unpacked data
	Err    error
}

// Error is one line, safe to print.
func (e *ReportError) Error() string {
	return fmt.Sprintf("report %d (offset %d): %v", e.Report, e.Offset, e.Err)
}

// Unwrap returns what [Decode] or the stream said.
func (e *ReportError) Unwrap() error { return e.Err }

var errPacked = errors.New("its gzip data are damaged")

// maxGap bounds the space between two reports.
const maxGap = 1 << 20

// A Reader reads a stream of reports: lines, or indented objects, in gzip or
// not. It owns one buffer of the size of the largest report so far, at most
// [MaxEncoded]. It doesn't close what it reads from.
type Reader struct {
	src    *bufio.Reader
	buf    []byte // the report being read
	offset int64  // of src, unpacked
	count  int    // reports read
	opened bool   // gzip was looked for
	err    error  // once given, for ever
}

// NewReader returns a Reader of src, which is first read by Read.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: bufio.NewReaderSize(src, 64<<10)}
}

// Read returns the next report, which is the caller's.
//
// At the end it returns [io.EOF]. Data that end too early are a [*CutError],
// data that are no recording at all a [*NotReportError], and a report that
// can't be read is a [*ReportError]; no Read succeeds after an error.
func (r *Reader) Read() (*Report, error) {
	if r.err != nil {
		return nil, r.err
	}
	report, err := r.read()
	r.err = err
	return report, err
}

func (r *Reader) read() (*Report, error) {
	if err := r.open(); err != nil {
		return nil, err
	}
	if err := r.skipSpace(); err != nil {
		return nil, err
	}
	begin := r.offset
	if err := r.object(); err != nil {
		return nil, err
	}
	report, err := Decode(r.buf)
	if err != nil {
		return nil, r.fail(begin, err)
	}
	r.count++
	return report, nil
}

// fail puts the report's place before err, unless nothing here is a report.
func (r *Reader) fail(begin int64, err error) error {
	var foreign *NotReportError
	if r.count == 0 && errors.As(err, &foreign) {
		return err
	}
	return &ReportError{Report: r.count + 1, Offset: begin, Err: err}
}

// open looks for gzip's magic bytes.
func (r *Reader) open() error {
	if r.opened {
		return nil
	}
	r.opened = true
	if magic, _ := r.src.Peek(2); string(magic) != "\x1f\x8b" {
		return nil
	}
	unpacked, err := gzip.NewReader(r.src)
	if err != nil {
		return r.broken(0, err, false)
	}
	r.src = bufio.NewReaderSize(unpacked, 64<<10)
	return nil
}

// broken turns an error of the stream into one of this package. whole says
// that it came between two reports.
func (r *Reader) broken(begin int64, err error, whole bool) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &CutError{Report: r.count + 1, Offset: begin, Between: whole && r.count > 0}
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, &corrupt):
		err = errPacked
	}
	return &ReportError{Report: r.count + 1, Offset: begin, Err: err}
}

// skipSpace goes to the next report's bracket, or returns io.EOF.
func (r *Reader) skipSpace() error {
	for gap := 0; ; gap++ {
		b, err := r.src.ReadByte()
		switch {
		case err == io.EOF && r.count > 0: //nolint:errorlint // bufio passes it bare
			return io.EOF
		case err == io.EOF:
			return &NotReportError{}
		case err != nil:
			return r.broken(r.offset, err, true)
		case b == '{':
			return r.src.UnreadByte()
		case b != ' ' && b != '\n' && b != '\r' && b != '\t', gap > maxGap:
			_ = r.src.UnreadByte() // can't fail after ReadByte
			first, _ := r.src.Peek(65)
			return r.fail(r.offset, &NotReportError{Start: string(first)})
		}
		r.offset++
	}
}

// object reads one report into buf: from its bracket to the matching one.
func (r *Reader) object() error {
	r.buf = r.buf[:0]
	begin := r.offset
	var s span
	for {
		if _, err := r.src.Peek(1); err != nil { // fills the buffer
			return r.broken(begin, err, false)
		}
		chunk, _ := r.src.Peek(r.src.Buffered())
		n, done := s.end(chunk)
		if len(r.buf)+n > MaxEncoded {
			return r.fail(begin, r.endless(chunk))
		}
		r.buf = append(r.buf, chunk[:n]...)
		r.offset += int64(n)
		_, _ = r.src.Discard(n) // n bytes are buffered
		if done {
			return nil
		}
	}
}

// endless is the error for an object without an end in sight.
func (r *Reader) endless(chunk []byte) error {
	first := r.buf
	if len(first) == 0 {
		first = chunk
	}
	if !looksOurs(first) {
		return &NotReportError{Start: start(first)}
	}
	return &InvalidError{Err: ErrTooLarge}
}

// A span finds the end of a JSON object that is given in pieces.
type span struct {
	depth            int
	inString, escape bool
}

// end returns how many bytes of b belong to the object, and whether it is
// complete with them.
func (s *span) end(b []byte) (n int, done bool) {
	for i, c := range b {
		switch {
		case s.escape:
			s.escape = false
		case s.inString:
			s.escape = c == '\\'
			s.inString = c != '"'
		case c == '"':
			s.inString = true
		case c == '{' || c == '[':
			s.depth++
		case c == '}' || c == ']':
			if s.depth--; s.depth == 0 {
				return i + 1, true
			}
		}
	}
	return len(b), false
}
