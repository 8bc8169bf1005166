package sysctl

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPortRange(t *testing.T) {
	tests := []struct {
		r        PortRange
		size     int
		in, out  uint16
		str, jsn string
	}{
		{PortRange{32768, 60999}, 28232, 60999, 61000, "32768-60999", "[32768,60999]"},
		{PortRange{0, 65535}, 65536, 65535, 1, "0-65535", "[0,65535]"},
		{PortRange{5, 5}, 1, 5, 6, "5", "[5,5]"},
	}
	for _, tt := range tests {
		if got := tt.r.Size(); got != tt.size {
			t.Errorf("%v.Size() = %d, want %d", tt.r, got, tt.size)
		}
		if !tt.r.Contains(tt.in) || !tt.r.Contains(tt.r.Low) {
			t.Errorf("%v does not contain its bounds", tt.r)
		}
		if tt.size < 65536 && tt.r.Contains(tt.out) {
			t.Errorf("%v contains %d", tt.r, tt.out)
		}
		if got := tt.r.String(); got != tt.str {
			t.Errorf("String() = %q, want %q", got, tt.str)
		}
		b, err := json.Marshal(tt.r)
		if err != nil || string(b) != tt.jsn {
			t.Errorf("JSON = %s, %v, want %s", b, err, tt.jsn)
		}
		var back PortRange
		if err := json.Unmarshal(b, &back); err != nil || back != tt.r {
			t.Errorf("JSON came back as %v, %v", back, err)
		}
	}
	if got := (PortRange{6, 5}).Size(); got != 0 {
		t.Errorf("size of an upside-down range: %d, want 0", got)
	}
	for _, bad := range []string{`[1]`, `[1,2,3]`, `[2,1]`, `[-1,2]`, `[1,65536]`, `"1-2"`, `{}`} {
		if err := json.Unmarshal([]byte(bad), new(PortRange)); err == nil {
			t.Errorf("JSON %s was accepted", bad)
		}
	}
}

func TestParsePortSet(t *testing.T) {
	tests := []struct {
		in, want string
		count    int
	}{
		{"", "", 0},
		{"\n", "", 0},
		{"8080,9148-9150\n", "8080,9148-9150", 4},
		{"9148-9150,8080", "8080,9148-9150", 4},
		{"1-2,5,6,100-200,0", "0-2,5-6,100-200", 106}, // the kernel prints just this
		{"10-20,12-13,20-25", "10-25", 16},
		{"7,7,7", "7", 1},
		{"65535,65534", "65534-65535", 2},
		{"0-65535", "0-65535", 65536},
		{"0-65535,0-65535,65535", "0-65535", 65536},
	}
	for _, tt := range tests {
		s, err := ParsePortSet(tt.in)
		if err != nil {
			t.Errorf("ParsePortSet(%q): %v", tt.in, err)
			continue
		}
		if got := s.String(); got != tt.want {
			t.Errorf("ParsePortSet(%q) = %q, want %q", tt.in, got, tt.want)
		}
		if got := s.Count(); got != tt.count {
			t.Errorf("ParsePortSet(%q).Count() = %d, want %d", tt.in, got, tt.count)
		}
	}
	bad := []string{
		"x", "65536", "-1", "+1", "1-", "-", "5-3", "1-2-3", "1,,2", ",", "1,", "7 , 8", "0x50",
		"99999999999999999999", "8080\x1b[31m", strings.Repeat("1,", maxText) + "1",
	}
	for _, in := range bad {
		s, err := ParsePortSet(in)
		if err == nil {
			t.Errorf("ParsePortSet(%.20q) = %v, want an error", in, s)
			continue
		}
		if s.Count() != 0 || strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 200 {
			t.Errorf("ParsePortSet(%.20q): set %v, error %q: want empty, and one short clean line", in, s, err)
		}
	}
}

func TestPortSet(t *testing.T) {
	s, err := ParsePortSet("8080,9148-9150,40000-40010")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []uint16{8080, 9148, 9149, 9150, 40000, 40010} {
		if !s.Contains(p) {
			t.Errorf("%d is missing", p)
		}
	}
	for _, p := range []uint16{0, 8079, 8081, 9147, 9151, 39999, 40011, 65535} {
		if s.Contains(p) {
			t.Errorf("%d is there", p)
		}
	}
	for _, tt := range []struct {
		r    PortRange
		want int
	}{
		{PortRange{32768, 60999}, 11},
		{PortRange{9149, 40004}, 7},
		{PortRange{9150, 9150}, 1},
		{PortRange{1, 8079}, 0},
		{PortRange{0, 65535}, 15},
	} {
		if got := s.CountIn(tt.r); got != tt.want {
			t.Errorf("CountIn(%v) = %d, want %d", tt.r, got, tt.want)
		}
	}
	want := []PortRange{{8080, 8080}, {9148, 9150}, {40000, 40010}}
	if diff := cmp.Diff(want, slices.Collect(s.All())); diff != "" {
		t.Errorf("All (-want +got):\n%s", diff)
	}
	if (PortSet{}).Contains(0) || (PortSet{}).Count() != 0 || s.Equal(PortSet{}) {
		t.Error("the zero value is not the empty set")
	}
}

// FuzzParsePortSet compares with a bitmap, and checks that the text form
// is a fixed point.
func FuzzParsePortSet(f *testing.F) {
	for _, s := range []string{"", "8080,9148-9150\n", "1-2,5,6,0", "0-65535", "5-3", "1,,2", "65536", "7 , 8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParsePortSet(in)
		if err != nil {
			if s.Count() != 0 {
				t.Fatalf("an error and ports: %v", s)
			}
			return
		}
		last := -2
		n := 0
		for r := range s.All() {
			if r.Low > r.High || int(r.Low) <= last+1 {
				t.Fatalf("%q: ranges not sorted and merged: %v", in, s)
			}
			last = int(r.High)
			n += r.Size()
		}
		if n != s.Count() {
			t.Fatalf("%q: Count %d, the ranges hold %d", in, s.Count(), n)
		}
		var bitmap [65536]bool
		for item := range strings.SplitSeq(strings.TrimSpace(in), ",") {
			if item == "" {
				continue
			}
			r, err := parseRange(item)
			if err != nil {
				t.Fatalf("%q was accepted with %q", in, item)
			}
			for p := int(r.Low); p <= int(r.High); p++ {
				bitmap[p] = true
			}
		}
		for p, want := range bitmap {
			if s.Contains(uint16(p)) != want {
				t.Fatalf("%q: Contains(%d) = %v", in, p, !want)
			}
		}
		again, err := ParsePortSet(s.String())
		if err != nil || !again.Equal(s) {
			t.Fatalf("%q: text form %q came back as %v, %v", in, s, again, err)
		}
	})
}
