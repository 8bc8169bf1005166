package record

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Options say how to record; the zero value records reports as they are.
type Options struct {
	// Redactor takes the identity out of every report that is written.
	Redactor *snapshot.Redactor
}

// Error is every failure of writing a recording.
type Error struct {
	Op   string // "create", "write" or "close"
	Path string
	Safe int // reports that are whole in the file
	Err  error
	fix  string
}

// Error is one line, safe to print: what failed, what is safe, what to do.
func (e *Error) Error() string {
	s := "record: " + e.Op + " " + quote(e.Path) + ": " + reason(e.Err)
	if e.Op != "create" {
		s += fmt.Sprintf("; %s safe in it", plural(e.Safe))
	}
	if e.fix != "" {
		s += "; " + e.fix
	}
	return s
}

// Unwrap returns the cause: fs.ErrExist, syscall.ENOSPC, …
func (e *Error) Unwrap() error { return e.Err }

// ErrClosed says that the Writer was closed before.
var ErrClosed = errors.New("the recording is closed")

// output is the part of *os.File that a Writer needs.
type output interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// A Writer writes one recording. It is not for concurrent use.
type Writer struct {
	path    string
	options Options
	file    output
	pack    *gzip.Writer // nil: not packed
	line    bytes.Buffer // the report being written, encoded
	size    int64        // bytes of the file
	reports int          // of them, whole
	err     error        // once given, for ever
}

// Create makes a new file, readable by its owner only, and packed with gzip if
// path ends in ".gz". It never overwrites: a path that is taken, also by a
// dangling link, is an error that matches [fs.ErrExist].
func Create(path string, options Options) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, &Error{Op: "create", Path: path, Err: err, fix: createFix(err)}
	}
	return newWriter(path, f, options), nil
}

func createFix(err error) string {
	switch {
	case errors.Is(err, fs.ErrExist):
		return "a recording is never overwritten: name another file"
	case errors.Is(err, fs.ErrNotExist):
		return "make its directory first"
	case errors.Is(err, fs.ErrPermission):
		return "name a file in a directory that you may write to"
	}
	return ""
}

func newWriter(path string, f output, options Options) *Writer {
	w := &Writer{path: path, options: options, file: f}
	if strings.HasSuffix(path, ".gz") {
		w.pack = gzip.NewWriter((*counted)(w))
	}
	return w
}

// counted writes to a Writer's file and counts the bytes.
type counted Writer

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	c.size += int64(n)
	return n, err
}

// Write adds a report. Once it returns, the report is with the kernel: a crash
// of the process loses nothing that was written. A report that can't be
// encoded leaves the recording as it was, and others can follow. After an
// error of the file, as of a full disk, the recording ends with the last whole
// report, and every further Write returns the same error.
func (w *Writer) Write(r *snapshot.Report) error {
	if w.err != nil {
		return w.err
	}
	if w.options.Redactor != nil {
		r = w.options.Redactor.Redact(r)
	}
	w.line.Reset()
	if err := snapshot.Encode(&w.line, r); err != nil {
		return w.fail("write", err)
	}
	good := w.size
	if err := w.put(); err != nil {
		w.err = w.fail("write", err)
		_ = w.file.Truncate(good) // else a reader finds a report cut short
		return w.err
	}
	w.reports++
	return nil
}

// put writes the line, and flushes it.
func (w *Writer) put() error {
	if w.pack == nil {
		_, err := (*counted)(w).Write(w.line.Bytes())
		return err
	}
	if _, err := w.pack.Write(w.line.Bytes()); err != nil {
		return err
	}
	return w.pack.Flush()
}

// Reports returns how many reports are in the file, whole.
func (w *Writer) Reports() int { return w.reports }

// Close ends the recording and brings it to the disk. It returns the error of
// an earlier Write, if there was one of the file.
func (w *Writer) Close() error {
	if errors.Is(w.err, ErrClosed) {
		return w.err
	}
	err := w.err
	if err == nil && w.pack != nil {
		if cerr := w.pack.Close(); cerr != nil {
			err = w.fail("close", cerr)
		}
	}
	// A pipe or a terminal can't be synced, and needn't be.
	if serr := w.file.Sync(); err == nil && serr != nil && !errors.Is(serr, syscall.EINVAL) && !errors.Is(serr, syscall.ENOTSUP) {
		err = w.fail("close", serr)
	}
	if cerr := w.file.Close(); err == nil && cerr != nil {
		err = w.fail("close", cerr)
	}
	w.err = &Error{Op: "write", Path: w.path, Safe: w.reports, Err: ErrClosed}
	return err
}

func (w *Writer) fail(op string, err error) *Error {
	fix := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		fix = "make room, and record to a new file"
	}
	return &Error{Op: op, Path: w.path, Safe: w.reports, Err: err, fix: fix}
}

// reason is the cause without the path, which the message has already.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}

// quote shows a path: as it is if it is harmless, else escaped and in quotes.
func quote(path string) string {
	if text := draw.Escape(path); text != path || path == "" {
		return `"` + text + `"`
	}
	return path
}

func plural(n int) string {
	if n == 1 {
		return "1 report is"
	}
	return strconv.Itoa(n) + " reports are"
}
