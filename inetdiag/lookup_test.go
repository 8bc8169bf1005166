package inetdiag

import (
	"encoding/binary"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplayedLookup(t *testing.T) {
	info := make([]byte, attrHeader+infoSize)
	binary.NativeEndian.PutUint16(info, uint16(len(info)))
	binary.NativeEndian.PutUint16(info[2:], attrInfo)
	info[attrHeader] = byte(CloseWait)
	full := rowC
	full.attrs = info
	family := func() *synth { return with(newSynth(), func(s *synth) { s.typ, s.flags = typeFamily, 0 }) }
	tests := []struct {
		name string
		tape *synth
		want error
	}{
		{"found", family().row(full).cut(), nil},
		{"gone", family().refuse(-errnoNOENT).cut(), ErrNotFound},
		{"replaced", family().refuse(-errnoSTALE).cut(), ErrNotFound},
		{"only a TIME_WAIT is left", family().row(rowB).cut(), ErrNotFound},
		{"two answers", family().row(full).row(full).cut(), ErrMalformed},
		{"another socket's answer", family().row(withCookie(full, 9)).cut(), ErrMalformed},
		{"no answer", family().message(msgNoop).cut(), ErrMalformed},
		{"forbidden", family().refuse(-errnoPERM).cut(), os.ErrPermission},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := newSynthID(rowC)
			if tt.name == "only a TIME_WAIT is left" {
				id = newSynthID(rowB)
			}
			got, err := tt.tape.replay().Lookup(t.Context(), id)
			checkError(t, err, tt.want)
			if err == nil && (got.State != CloseWait || got.HasBytes) {
				t.Errorf("the info is %+v", got)
			}
		})
	}
}

func TestInfoOfEveryAge(t *testing.T) {
	b := make([]byte, 300)
	for i := range b {
		b[i] = byte(i)
	}
	for n := range b {
		info, ok := parseInfo(b[:n])
		got := []bool{ok, info.HasBytes, info.HasSegments, info.HasMinRTT, info.HasBytesSent}
		want := []bool{n >= 104, n >= 136, n >= 144, n >= 160, n >= 216}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d bytes (-want +got):\n%s", n, diff)
		}
		if !info.HasBytes && (info.BytesAcked != 0 || info.BytesReceived != 0) {
			t.Errorf("%d bytes: absent fields are filled", n)
		}
	}
}

func TestNewID(t *testing.T) {
	n := 0
	long := withCookie(rowB, 0xfedc_ba98_7654_3210) // cookies are counters: 64 bits take a while
	for s, err := range newSynth().row(rowB).row(rowC).row(long).done(0).cut().replay().Sockets(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		id := s.ID()
		if want := []uint64{rowB.cookie, rowC.cookie, long.cookie}; s.Cookie() != want[n] {
			t.Errorf("cookie %x, want %x", s.Cookie(), want[n])
		}
		n++
		if id.Src() != s.Src() || id.Dst() != s.Dst() || id.Cookie() != s.Cookie() || id.Family() != s.Family() || id.Interface() != s.Interface() {
			t.Errorf("the copy is %+v of %v", id, s.Src())
		}
		if s.Family() == FamilyIPv4 && id != NewID(s.Src(), s.Dst(), 0, s.Cookie()) {
			t.Errorf("%v made of its parts differs", id)
		}
	}
}

func newSynthID(r synthRow) ID {
	var id ID
	b := r.bytes()
	id.family = Family(b[rowFamily])
	copy(id.sock[:], b[rowSockID:])
	return id
}

func withCookie(r synthRow, cookie uint64) synthRow {
	r.cookie = cookie
	return r
}

// TestAttributes: a list of attributes ends where one would reach past it,
// and what lies behind the row's end is never looked at.
func TestAttributes(t *testing.T) {
	cgroup := []byte{12, 0, attrCgroupID, 0, 1, 0, 0, 0, 0, 0, 0, 0}
	tests := []struct {
		name  string
		attrs []byte
		want  bool
	}{
		{"none", nil, false},
		{"the only one", cgroup, true},
		{"behind another", append([]byte{8, 0, 15, 0, 9, 9, 9, 9}, cgroup...), true},
		{"behind an unaligned one", append([]byte{5, 0, 15, 0, 9, 0, 0, 0}, cgroup...), true},
		{"flagged", append([]byte{12, 0, attrCgroupID, 0x80}, cgroup[4:]...), true},
		{"cut off", cgroup[:8], false},
		{"too short", []byte{8, 0, attrCgroupID, 0, 1, 0, 0, 0}, false},
		{"behind one of length 0", append([]byte{0, 0, 15, 0}, cgroup...), false},
		{"behind one that reaches too far", append([]byte{255, 0, 15, 0}, cgroup...), false},
		{"an unaligned end", []byte{5, 0, 15, 0, 9}, false},
	}
	for _, tt := range tests {
		row := rowC
		row.attrs = tt.attrs
		// The row behind it would be taken for the rest of a cut one.
		next := rowC
		next.attrs = cgroup
		first := true
		for s, err := range newSynth().row(row).cut().row(next).done(0).cut().replay().Sockets(t.Context(), Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if id, ok := s.CgroupID(); first && (ok != tt.want || ok && id != 1) {
				t.Errorf("%s: %d, %t, want %t", tt.name, id, ok, tt.want)
			}
			first = false
		}
	}
}
