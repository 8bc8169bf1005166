package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// report is the n-th report of a recording.
func report(n int) *snapshot.Report {
	return &snapshot.Report{
		Schema: snapshot.Schema, Host: "web-17", Time: time.Unix(int64(1e9+n), 0).UTC(), Verdict: snapshot.Healthy,
		Incomplete: []snapshot.Gap{}, NotJudged: []string{}, Namespaces: []*snapshot.Namespace{}, Findings: []snapshot.Finding{},
	}
}

// collect ranges over a source to its end; a deadline stops one that hangs.
func collect(t *testing.T, source func(context.Context) func(func(*snapshot.Report, error) bool)) (hosts []int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for r, rerr := range source(ctx) {
		if err != nil {
			t.Fatalf("an element after the error %v", err)
		}
		if err = rerr; err == nil {
			hosts = append(hosts, int(r.Time.Unix()-1e9))
		}
	}
	return hosts, err
}

func source(path string) func(context.Context) func(func(*snapshot.Report, error) bool) {
	return func(ctx context.Context) func(func(*snapshot.Report, error) bool) { return Reports(path)(ctx) }
}

func checkLine(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not one printable line: %q", err)
	}
}

func write(t *testing.T, path string, options Options, count int) {
	t.Helper()
	w, err := Create(path, options)
	if err != nil {
		t.Fatal(err)
	}
	for n := range count {
		if err := w.Write(report(n)); err != nil {
			t.Fatal(err)
		}
	}
	if w.Reports() != count {
		t.Errorf("%d reports, want %d", w.Reports(), count)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWriteRead(t *testing.T) {
	for _, name := range []string{"a.jsonl", "a.jsonl.gz"} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, Options{}, 3)
		got, err := collect(t, source(path))
		if diff := cmp.Diff([]int{0, 1, 2}, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if packed := bytes.HasPrefix(data, []byte("\x1f\x8b")); packed != strings.HasSuffix(name, ".gz") {
			t.Errorf("%s: packed %v", name, packed)
		}
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	taken, link := filepath.Join(dir, "taken"), filepath.Join(dir, "link")
	if err := os.WriteFile(taken, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{taken, link} {
		_, err := Create(path, Options{})
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, fs.ErrExist) || !strings.HasSuffix(err.Error(), "name another file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if data, _ := os.ReadFile(taken); string(data) != "precious" {
		t.Errorf("overwritten: %q", data)
	}
	_, err := Create(filepath.Join(dir, "none", "x\x1b"), Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make its directory first") {
		t.Errorf("no directory: %v", err)
	}
	checkLine(t, err)
}

// Each report can be read as soon as Write has returned: a crash then loses
// nothing of it.
func TestEachReportIsFlushed(t *testing.T) {
	for _, name := range []string{"a", "a.gz"} {
		path := filepath.Join(t.TempDir(), name)
		w, err := Create(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for n := range 3 {
			if err := w.Write(report(n)); err != nil {
				t.Fatal(err)
			}
			got, err := collect(t, source(path))
			var cut *snapshot.CutError
			if len(got) != n+1 || err != nil && !(errors.As(err, &cut) && cut.Between) {
				t.Errorf("%s, after %d: %v, %v", name, n+1, got, err)
			}
		}
	}
}

func TestCutInHalf(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "a.gz"} {
		path := filepath.Join(dir, name)
		write(t, path, Options{}, 40)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := filepath.Join(dir, "cut-"+name)
		if err := os.WriteFile(cut, data[:len(data)*5/8+9], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := collect(t, source(cut))
		var have *snapshot.CutError
		if !errors.As(err, &have) || have.Report != len(got)+1 || len(got) == 0 || len(got) == 40 {
			t.Fatalf("%s: %v, %v", name, got, err)
		}
		want := fmt.Sprintf("record: %s: ends in the middle of report %d (offset %d): %d reports read", cut, len(got)+1, have.Offset, len(got))
		if have.Between && name == "a.gz" { // nothing of the next one can be unpacked
			want = fmt.Sprintf("record: %s: ends after report %d (offset %d) without the end", cut, len(got), have.Offset)
		}
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %q, want %q", err, want)
		}
		if name == "a" && have.Offset != int64(len(data)/40*25) {
			t.Errorf("the offset is %d of %d", have.Offset, len(data))
		}
	}
}

func TestReadErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct{ path, want string }{
		{filepath.Join(dir, "none"), "none: open: no such file or directory"},
		{dir, "read: is a directory"},
		{file("empty", ""), "not a twwatch report: it is empty"},
		{file("text", "#!/bin/sh\n"), `not a twwatch report: it starts with "#!/bin/sh\n"`},
		{file("newer", `{"schema":"twwatch.report/v2","version":"7.0"}`), `written by a newer twwatch (version "7.0"`},
		{file("odd\x1b\nname", "x"), `odd\x1b\x0aname": not a twwatch report`},
	}
	for _, tt := range tests {
		got, err := collect(t, source(tt.path))
		if len(got) != 0 || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "record: ") {
			t.Errorf("%q: %v, %v; want %s", tt.path, got, err, tt.want)
		}
		checkLine(t, err)
	}
}

func TestRedactedRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gz")
	write(t, path, Options{Redactor: snapshot.NewRedactor(nil)}, 2)
	for r, err := range Reports(path)(t.Context()) {
		if err != nil || r.Host != "host-1" {
			t.Errorf("%v, %v", r, err)
		}
	}
}

// A report that can't be encoded spoils nothing.
func TestWriteBadReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.gz")
	w, err := Create(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	bad := report(1)
	bad.Findings = []snapshot.Finding{{Severity: "bad"}}
	if err := w.Write(report(0)); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(bad); err == nil || !strings.Contains(err.Error(), "findings[0].severity") || !strings.Contains(err.Error(), "1 report is safe in it") {
		t.Errorf("got %v", err)
	}
	if err := w.Write(report(2)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := collect(t, source(path)); !cmp.Equal(got, []int{0, 2}) || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if err := w.Write(report(3)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("Close again: %v", err)
	}
}

// A disk has room for so many bytes.
type disk struct {
	data   []byte
	room   int
	closed int
}

func (d *disk) Write(b []byte) (int, error) {
	n := min(len(b), d.room-len(d.data))
	d.data = append(d.data, b[:n]...)
	if n < len(b) {
		return n, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	return n, nil
}
func (d *disk) Truncate(size int64) error { d.data = d.data[:size]; return nil }
func (d *disk) Sync() error               { return nil }
func (d *disk) Close() error              { d.closed++; return nil }

// The disk fills in the middle of any report, or between two: what was safe
// can be read, and the error counts it.
func TestFullDisk(t *testing.T) {
	for _, name := range []string{"a", "a.gz"} {
		for room := 1; room < 1200; room += 37 {
			d := &disk{room: room}
			w := newWriter(name, d, Options{})
			var err error
			wrote := 0
			for ; err == nil; wrote++ {
				err = w.Write(report(wrote))
			}
			wrote--
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, syscall.ENOSPC) || e.Safe != wrote || w.Reports() != wrote {
				t.Fatalf("%s, %d bytes: %v after %d reports", name, room, err, wrote)
			}
			if again := w.Write(report(9)); again != err { //nolint:errorlint // the very same
				t.Errorf("the next Write says %v", again)
			}
			if cerr := w.Close(); cerr != err || d.closed != 1 { //nolint:errorlint // the very same
				t.Errorf("Close says %v, the file was closed %d times", cerr, d.closed)
			}
			if wrote == 0 {
				continue
			}
			got, rerr := collect(t, func(ctx context.Context) func(func(*snapshot.Report, error) bool) {
				return ReportsFrom(bytes.NewReader(d.data), name)(ctx)
			})
			var cut *snapshot.CutError
			if len(got) != wrote || (rerr != nil) != (name == "a.gz") || rerr != nil && !(errors.As(rerr, &cut) && cut.Between) {
				t.Errorf("%s, %d bytes: %v can be read of %d, %v", name, room, got, wrote, rerr)
			}
		}
	}
	w := newWriter("dir/a", &disk{room: 500}, Options{})
	var err error
	for n := 0; err == nil; n++ {
		err = w.Write(report(n))
	}
	if want := "record: write dir/a: no space left on device; 2 reports are safe in it; make room, and record to a new file"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

// The context ends a read that never would, and a caller can leave.
func TestStop(t *testing.T) {
	in, out := io.Pipe()
	defer in.Close()
	go func() {
		var b bytes.Buffer
		_ = snapshot.Encode(&b, report(0))
		_, _ = out.Write(b.Bytes()) // and no more
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []error
	for r, err := range ReportsFrom(in, "standard input")(ctx) {
		got = append(got, err)
		if r != nil {
			cancel()
		}
	}
	if len(got) != 2 || got[0] != nil || !errors.Is(got[1], context.Canceled) || got[1].Error() != "record: standard input: context canceled" {
		t.Errorf("got %v", got)
	}

	soon, cancelSoon := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelSoon()
	for r, err := range ReportsFrom(in, "standard input")(soon) { // ends while it waits
		if r != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, %v", r, err)
		}
	}

	path := filepath.Join(t.TempDir(), "a")
	write(t, path, Options{}, 3)
	for _, err := range Reports(path)(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	for r, err := range Reports(path)(ctx) { // cancelled before
		if r != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", r, err)
		}
	}
}

// A source can be ranged over again.
func TestAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	write(t, path, Options{}, 2)
	s := source(path)
	for range 2 {
		if got, err := collect(t, s); len(got) != 2 || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	}
}
