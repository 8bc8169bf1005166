package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Reports returns the source that reads the recording at path, which is opened
// when the source is ranged over; "-" is standard input. Packed and plain,
// lines and indented reports are told apart by what is in the file.
//
// The sequence yields the reports in their order. It ends after the last, or
// with one error: what [snapshot.Reader] says (a [*snapshot.CutError] if the
// recording is not whole), one of the file, or the context's.
func Reports(path string) func(context.Context) iter.Seq2[*snapshot.Report, error] {
	if path == "-" {
		return ReportsFrom(os.Stdin, "standard input")
	}
	return func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return read(ctx, quote(path), func() (io.ReadCloser, error) { return os.Open(path) })
	}
}

// ReportsFrom is Reports for a stream that is open already and goes by name in
// errors. It can be ranged over once, and is not closed. If the context ends
// during a read that can't be interrupted, as from a terminal, then a
// goroutine stays behind until that read returns.
func ReportsFrom(r io.Reader, name string) func(context.Context) iter.Seq2[*snapshot.Report, error] {
	return func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return read(ctx, name, func() (io.ReadCloser, error) { return io.NopCloser(r), nil })
	}
}

// A result is a report, or the error that ends the sequence.
type result struct {
	report *snapshot.Report
	err    error
}

// read yields what a goroutine of its own reads: a file can be a pipe, and
// reading or even opening one knows no context.
func read(ctx context.Context, name string, open func() (io.ReadCloser, error)) iter.Seq2[*snapshot.Report, error] {
	return func(yield func(*snapshot.Report, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		results := make(chan result)
		go func() {
			defer close(results)
			produce(ctx, open, results)
		}()
		for {
			if ctx.Err() != nil { // before a report that is ready as well
				yield(nil, fail(name, ctx.Err()))
				return
			}
			select {
			case <-ctx.Done():
			case next, ok := <-results:
				switch {
				case !ok:
					return
				case next.err != nil:
					yield(nil, fail(name, next.err))
					return
				case !yield(next.report, nil):
					return
				}
			}
		}
	}
}

// produce sends the reports until the end, an error, or nobody wants more.
func produce(ctx context.Context, open func() (io.ReadCloser, error), results chan<- result) {
	send := func(r result) bool {
		select {
		case results <- r:
			return true
		case <-ctx.Done():
			return false
		}
	}
	f, err := open()
	if err != nil {
		send(result{err: err})
		return
	}
	defer f.Close()
	reader := snapshot.NewReader(f)
	for {
		report, err := reader.Read()
		if err == io.EOF { //nolint:errorlint // as io.Reader asks
			return
		}
		if !send(result{report, err}) || err != nil {
			return
		}
	}
}

func fail(name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok { // which names the file again
		return &readError{message: fmt.Sprintf("record: %s: %s: %v", name, pe.Op, pe.Err), err: pe}
	}
	return fmt.Errorf("record: %s: %w", name, err)
}

// A readError names the file once.
type readError struct {
	message string
	err     error
}

func (e *readError) Error() string { return e.message }
func (e *readError) Unwrap() error { return e.err }
