package sysctl

import (
	"fmt"
	"testing"
)

func TestParseInt(t *testing.T) {
	for in, want := range map[string]int{"0\n": 0, "131072\n": 131072, "-1\n": -1, " 7 ": 7, "4294967295\n": 4294967295} {
		if got, err := parseInt([]byte(in)); err != nil || got != want {
			t.Errorf("parseInt(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "\n", "1 2", "1.5", "x", "99999999999999999999", "0x10", "1\x00"} {
		if got, err := parseInt([]byte(in)); err == nil {
			t.Errorf("parseInt(%q) = %d, want an error", in, got)
		}
	}
}

func TestParsePortRange(t *testing.T) {
	if got, err := parsePortRange([]byte("32768\t60999\n")); err != nil || got != (PortRange{32768, 60999}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, in := range []string{"", "1", "1 2 3", "2 1", "1 65536", "-1 5", "a b", "1-2"} {
		if got, err := parsePortRange([]byte(in)); err == nil || got != (PortRange{}) {
			t.Errorf("parsePortRange(%q) = %v, %v, want an error", in, got, err)
		}
	}
}

func TestParseTriple(t *testing.T) {
	if got, err := parseTriple([]byte("287898\t383867\t575796\n")); err != nil || got != [3]int{287898, 383867, 575796} {
		t.Errorf("got %v, %v", got, err)
	}
	for _, in := range []string{"", "1 2", "1 2 3 4", "1 2 x"} {
		if got, err := parseTriple([]byte(in)); err == nil || got != [3]int{} {
			t.Errorf("parseTriple(%q) = %v, %v, want an error", in, got, err)
		}
	}
}

func FuzzParseInt(f *testing.F) {
	f.Add([]byte("131072\n"))
	f.Add([]byte("-1"))
	f.Add([]byte("1 2"))
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := parseInt(in)
		if err != nil {
			return
		}
		if again, err := parseInt(fmt.Append(nil, n)); err != nil || again != n {
			t.Fatalf("%q: %d came back as %d, %v", in, n, again, err)
		}
	})
}

func FuzzParsePortRange(f *testing.F) {
	f.Add([]byte("32768\t60999\n"))
	f.Add([]byte("2 1"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := parsePortRange(in)
		if err != nil {
			return
		}
		if r.Size() < 1 {
			t.Fatalf("%q: an empty range %v", in, r)
		}
		again, err := parsePortRange(fmt.Appendf(nil, "%d\t%d\n", r.Low, r.High))
		if err != nil || again != r {
			t.Fatalf("%q: %v came back as %v, %v", in, r, again, err)
		}
	})
}

func FuzzParseTriple(f *testing.F) {
	f.Add([]byte("287898\t383867\t575796\n"))
	f.Add([]byte("1 2"))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := parseTriple(in)
		if err != nil {
			if v != [3]int{} {
				t.Fatalf("%q: an error and values %v", in, v)
			}
			return
		}
		again, err := parseTriple(fmt.Appendf(nil, "%d %d %d", v[0], v[1], v[2]))
		if err != nil || again != v {
			t.Fatalf("%q: %v came back as %v, %v", in, v, again, err)
		}
	})
}
