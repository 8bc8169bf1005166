package web

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestNewEvent(t *testing.T) {
	for _, tt := range []struct {
		kind, id, data, want string
	}{
		{"beat", "", "{}", "event: beat\ndata: {}\n\n"},
		{"report", "1f", "{}\n", "id: 1f\nevent: report\ndata: {}\n\n"}, // data ends in a line feed, as encoded reports do
	} {
		if got := string(newEvent(tt.kind, tt.id, []byte(tt.data), false).text); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	// What is no JSON would leave the data's line.
	if got := string(eventOf("end", endData{Reason: "a\nevent: x\u202e"}).text); got != "event: end\ndata: {\"reason\":\"a\\nevent: x\\u202e\"}\n\n" {
		t.Errorf("got %q", got)
	}
	if got := string(eventOf("end", func() {}).text); got != "event: end\ndata: {}\n\n" {
		t.Errorf("what can't be encoded: %q", got)
	}
}

// Packed events can follow one another in any order, several times over, and are
// one gzip file with the sum and size that it must have.
func TestPackedEventsAreOneFile(t *testing.T) {
	large := newEvent("report", "", []byte(strings.Repeat("0123456789", 20_000)), true)
	raw := newEvent("beat", "", bytes.Repeat([]byte{'x'}, math.MaxUint16-len("event: beat\ndata: \n\n")), false)
	tooLongForOne := newEvent("beat", "", bytes.Repeat([]byte{'x'}, math.MaxUint16), false)
	if len(raw.text) != math.MaxUint16 || len(raw.packed()) < len(raw.text) || len(tooLongForOne.packed()) > len(raw.text)/2 || len(large.packed()) > len(large.text)/10 {
		t.Errorf("sizes %d: %d; %d: %d; %d: %d", len(raw.text), len(raw.packed()), len(tooLongForOne.text), len(tooLongForOne.packed()), len(large.text), len(large.packed()))
	}
	w := httptest.NewRecorder()
	out := newEventWriter(w, true)
	var want []byte
	for _, e := range []*event{large, raw, large, tooLongForOne, raw} {
		before := w.Body.Len()
		if err := out.send(e); err != nil {
			t.Fatal(err)
		}
		want = append(want, e.text...)
		// What was sent can be read without what follows.
		z, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(got, want) {
			t.Errorf("after %d bytes: %d of %d bytes can be read (%v)", before, len(got), len(want), err)
		}
	}
	if err := out.end(nil); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z) // checks sum and size
	want = append(want, "event: end\ndata: {\"reason\":\"the stream was stopped\"}\n\n"...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	if w.Header().Get("Content-Encoding") != "gzip" || !w.Flushed {
		t.Errorf("%v, flushed %v", w.Header(), w.Flushed)
	}
}

// A report is written and packed once for all its readers.
func TestReportsAreOneEvent(t *testing.T) {
	h, _ := start(t, 1)
	frames := &frameCache{}
	a, b := frames.of(h.Latest()).asEvent(), frames.of(h.Latest()).asEvent()
	if a != b || &a.packed()[0] != &b.packed()[0] {
		t.Error("two readers got two events")
	}
	if n := testing.AllocsPerRun(10, func() { frames.of(h.Latest()).asEvent().packed() }); n > 0 {
		t.Errorf("%v allocations for one more reader", n)
	}
}
