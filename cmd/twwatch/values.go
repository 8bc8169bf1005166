package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The types of flag values. Each Set tells what is allowed in an error that
// names neither the flag nor the file: whoever read the value knows that.

// A durationValue is a duration within bounds, both included.
type durationValue struct {
	value    *time.Duration
	min, max time.Duration
}

func (v durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < v.min || d > v.max {
		return fmt.Errorf("%q: want a duration from %s to %s, such as %s", s, short(v.min), short(v.max), short(max(v.min, min(v.max, 15*time.Second))))
	}
	*v.value = d
	return nil
}

func (v durationValue) String() string { return short(*v.value) }

// short writes a duration without the zero parts that Duration.String has.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// An intValue is a whole number within bounds, both included.
type intValue struct {
	value    *int
	min, max int
}

func (v intValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.min || n > v.max {
		return fmt.Errorf("%q: want a whole number from %d to %d", s, v.min, v.max)
	}
	*v.value = n
	return nil
}

func (v intValue) String() string { return strconv.Itoa(*v.value) }

// A ratioValue is a number above 0 and at most 1.
type ratioValue struct{ value *float64 }

func (v ratioValue) Set(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0 && f <= 1) { // NaN fails every comparison
		return fmt.Errorf("%q: want a number above 0 and at most 1, such as 0.02 for 2 %%", s)
	}
	*v.value = f
	return nil
}

func (v ratioValue) String() string { return strconv.FormatFloat(*v.value, 'g', -1, 64) }

// A choiceValue is one of a few words.
type choiceValue struct {
	value   *string
	allowed []string
}

func (v choiceValue) Set(s string) error {
	if !slices.Contains(v.allowed, s) {
		return fmt.Errorf("%q: want %s", s, either(v.allowed))
	}
	*v.value = s
	return nil
}

func (v choiceValue) String() string  { return *v.value }
func (v choiceValue) hints() []string { return v.allowed }

// either joins words as in "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// A hostsValue collects host names.
type hostsValue struct{ names *[]string }

func (v *hostsValue) Set(s string) error {
	odd := func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}
	if s == "" || strings.ContainsFunc(s, odd) {
		return fmt.Errorf("%q: want a name such as web-1.example.com, without a port", s)
	}
	*v.names = append(*v.names, s)
	return nil
}

func (v *hostsValue) String() string     { return strings.Join(*v.names, ",") }
func (v *hostsValue) IsCumulative() bool { return true }

// A prefixValue is an address, or a network in CIDR form.
type prefixValue struct{ value *netip.Prefix }

func (v prefixValue) Set(s string) error {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		*v.value = netip.PrefixFrom(addr, addr.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q: want an address or a network, such as 10.0.0.9 or 10.1.2.0/24", s)
	}
	*v.value = p.Masked()
	return nil
}

func (v prefixValue) String() string {
	if !v.value.IsValid() {
		return ""
	}
	return v.value.String()
}
