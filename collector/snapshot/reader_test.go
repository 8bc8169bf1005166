package snapshot

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll reads until an error.
func readAll(src io.Reader) ([]*Report, error) {
	var reports []*Report
	for r := NewReader(src); ; {
		report, err := r.Read()
		if err != nil {
			if _, again := r.Read(); again.Error() != err.Error() {
				return reports, errors.New("the error didn't stay: " + again.Error())
			}
			return reports, err
		}
		reports = append(reports, report)
	}
}

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReader(t *testing.T) {
	line, pretty := encoded(t, full(t)), indented(t, full(t))
	tests := []struct {
		name string
		data []byte
		want int
	}{
		{"one", line, 1},
		{"three", bytes.Repeat(line, 3), 3},
		{"no last line feed", bytes.TrimSuffix(bytes.Repeat(line, 2), []byte("\n")), 2},
		{"indented", bytes.Repeat(pretty, 2), 2},
		{"mixed, empty lines", slicesConcat([]byte("\r\n\n"), line, []byte("\n \t\n"), pretty, line), 3},
		{"brackets in strings", slicesConcat([]byte(minimal(`,"x":"\\\"}{[\\\\"`)), line), 2},
		{"packed", packed(t, bytes.Repeat(line, 3)), 3},
		{"packed twice, in a row", slicesConcat(packed(t, line), packed(t, line)), 2},
	}
	for _, tt := range tests {
		for name, src := range map[string]io.Reader{"whole": bytes.NewReader(tt.data), "bytewise": iotest.OneByteReader(bytes.NewReader(tt.data))} {
			got, err := readAll(src)
			if err != io.EOF || len(got) != tt.want { //nolint:errorlint // the contract is io.EOF itself
				t.Fatalf("%s, %s: %d reports and %v, want %d and EOF", tt.name, name, len(got), err, tt.want)
			}
			if diff := cmp.Diff(full(t), got[len(got)-1]); diff != "" {
				t.Errorf("%s, %s (-want +got)\n%s", tt.name, name, diff)
			}
		}
	}
}

func slicesConcat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Cut anywhere, the whole reports are read and the rest is named.
func TestReaderCut(t *testing.T) {
	line := encoded(t, full(t))
	two := bytes.Repeat(line, 2)
	for cut := len(line) + 1; cut < len(two)-1; cut += 97 {
		got, err := readAll(bytes.NewReader(two[:cut]))
		want := &CutError{Report: 2, Offset: int64(len(line))}
		var have *CutError
		if len(got) != 1 || !errors.As(err, &have) || *have != *want {
			t.Fatalf("cut at %d: %d reports and %v, want 1 and %v", cut, len(got), err, want)
		}
	}
	_, err := readAll(bytes.NewReader(two[:len(line)+5]))
	if want := "ends in the middle of report 2 (offset 6719): 1 report read"; strings.ReplaceAll(want, "6719", itoa(len(line))) != err.Error() {
		t.Errorf("got %q", err)
	}
	gz := packed(t, two)
	for cut := 2; cut < len(gz); cut += 13 {
		got, err := readAll(bytes.NewReader(gz[:cut]))
		var have *CutError
		if !errors.As(err, &have) || have.Report != len(got)+1 {
			t.Fatalf("packed, cut at %d of %d: %d reports and %v", cut, len(gz), len(got), err)
		}
	}
	_, err = readAll(bytes.NewReader(gz[:len(gz)-4]))
	if !strings.Contains(err.Error(), "without the end of its gzip data, later ones may be missing: 2 reports read") {
		t.Errorf("got %q", err)
	}
}

func TestReaderErrors(t *testing.T) {
	line := encoded(t, full(t))
	damaged := packed(t, bytes.Repeat(line, 2))
	damaged[len(damaged)-6] ^= 1 // its checksum
	tests := []struct {
		name  string
		data  []byte
		count int
		want  string
	}{
		{"nothing", nil, 0, "not a twwatch report: it is empty"},
		{"only space", []byte("\n\n"), 0, "it is empty"},
		{"text", []byte("hello \x1b"), 0, `not a twwatch report: it starts with "hello \u001b"`},
		{"other JSON", []byte("{\"a\":1}\n"), 0, `not a twwatch report: it starts with "{\"a\":1}"`},
		{"packed text", packed(t, []byte("hello")), 0, `not a twwatch report: it starts with "hello"`},
		{"packed nothing", packed(t, nil), 0, "it is empty"},
		{"newer", []byte(`{"schema":"twwatch.report/v2","version":"9.0"}`), 0, `report 1 (offset 0): written by a newer twwatch (version "9.0"`},
		{"then text", append(bytes.Clone(line), "oops"...), 1, `report 2 (offset ` + itoa(len(line)) + `): not a twwatch report: it starts with "oops"`},
		{"then damage", append(bytes.Clone(line), minimal(`,"verdict":"x"`)...), 1, `report 2 (offset ` + itoa(len(line)) + `): the report is damaged: verdict`},
		{"checksum", damaged, 2, "its gzip data are damaged"},
		{"not gzip after all", []byte("\x1f\x8bxxxxxxxxxxxxxx"), 0, "its gzip data are damaged"},
		{"endless", []byte(minimal(`,"host":"` + strings.Repeat("x", MaxEncoded))), 0, "report 1 (offset 0): the report is damaged: the report is larger than 16 MiB"},
		{"endless other", []byte("{" + strings.Repeat("[", MaxEncoded)), 0, `not a twwatch report: it starts with "{[[[`},
		{"packed zeros", packed(t, make([]byte, 20<<20)), 0, `not a twwatch report: it starts with "\u0000`},
		{"packed spaces", packed(t, bytes.Repeat([]byte(" "), 20<<20)), 0, `not a twwatch report: it starts with "   `},
	}
	for _, tt := range tests {
		got, err := readAll(bytes.NewReader(tt.data))
		if len(got) != tt.count || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d reports and %v, want %d and %s", tt.name, len(got), err, tt.count, tt.want)
		}
		checkLine(t, err)
	}
}

// An error of the disk is passed on, and not taken for an end.
func TestReaderPassesErrors(t *testing.T) {
	broken := errors.New("input/output error")
	line := encoded(t, full(t))
	for _, cut := range []int{0, 10, len(line)} {
		_, err := readAll(io.MultiReader(bytes.NewReader(line[:cut]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", cut, err)
		}
	}
}

func itoa(n int) string {
	return string(appendFloat(nil, float64(n)))
}

// A stream ends after boundedly many reports, each of which Decode accepts.
func FuzzReader(f *testing.F) {
	f.Add([]byte(minimal("") + "\n" + minimal("")))
	f.Add(packed(f, []byte(minimal(""))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		reports, err := readAll(bytes.NewReader(data))
		if err == nil {
			t.Fatal("no end")
		}
		checkLine(t, err)
		for _, r := range reports {
			if r.Schema != Schema {
				t.Errorf("a report of the schema %q", r.Schema)
			}
		}
	})
}
