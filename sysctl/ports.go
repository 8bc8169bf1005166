package sysctl

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// A PortRange is a range of ports, both bounds inclusive. Its JSON form is the
// array [low, high].
type PortRange struct{ Low, High uint16 }

// Size returns the number of ports in the range, 0 if Low is above High.
func (r PortRange) Size() int { return max(0, int(r.High)-int(r.Low)+1) }

// Contains reports whether the port p lies in the range.
func (r PortRange) Contains(p uint16) bool { return r.Low <= p && p <= r.High }

// String returns "low-high", or the port alone if the bounds are equal: the
// form that ip_local_reserved_ports has for a range.
func (r PortRange) String() string {
	if r.Low == r.High {
		return strconv.Itoa(int(r.Low))
	}
	return strconv.Itoa(int(r.Low)) + "-" + strconv.Itoa(int(r.High))
}

// MarshalJSON returns [low,high].
func (r PortRange) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d]", r.Low, r.High), nil
}

// UnmarshalJSON accepts an array of exactly two ports, the lower one first.
func (r *PortRange) UnmarshalJSON(b []byte) error {
	var bounds []uint16
	if err := json.Unmarshal(b, &bounds); err != nil {
		return fmt.Errorf("sysctl: port range: %w", err)
	}
	if bounds == nil { // null leaves the value alone, as encoding/json asks
		return nil
	}
	if len(bounds) != 2 || bounds[0] > bounds[1] {
		return fmt.Errorf("sysctl: port range: want [low, high], got %v", bounds)
	}
	r.Low, r.High = bounds[0], bounds[1]
	return nil
}

// maxText bounds the text of a setting. The longest that the kernel can print
// is a reserved-ports list of pairs with one free port between them:
// 21,845 × len("65533-65534,") = 256 KiB.
const maxText = 512 << 10

// A PortSet is a set of ports, as ip_local_reserved_ports holds one. The zero
// value is the empty set. A PortSet is immutable and may be shared.
//
// Its text and JSON form is the kernel's own: "8080,9148-9150", and "" for the
// empty set.
type PortSet struct {
	ranges []PortRange // sorted, disjoint, with a gap between neighbours
}

// ParsePortSet parses the kernel's list format: ports and inclusive ranges
// parted by commas, in any order, also overlapping. Space around the whole,
// such as the newline at the end of the file, is ignored. Port 0 is allowed,
// since the kernel allows it.
func ParsePortSet(s string) (PortSet, error) {
	set, err := parsePortSet(s)
	if err != nil {
		return PortSet{}, fmt.Errorf("sysctl: ports: %w", err)
	}
	return set, nil
}

func parsePortSet(s string) (PortSet, error) {
	if len(s) > maxText {
		return PortSet{}, fmt.Errorf("a list of %d bytes: at most %d are allowed", len(s), maxText)
	}
	s = strings.TrimSpace(s)
	if s == "" {
		return PortSet{}, nil
	}
	ranges := make([]PortRange, 0, strings.Count(s, ",")+1)
	for item := range strings.SplitSeq(s, ",") {
		r, err := parseRange(item)
		if err != nil {
			return PortSet{}, fmt.Errorf("%q: %w", clip(item), err)
		}
		ranges = append(ranges, r)
	}
	return PortSet{ranges: merge(ranges)}, nil
}

// parseRange parses "port" or "low-high".
func parseRange(s string) (PortRange, error) {
	low, high, isRange := strings.Cut(s, "-")
	l, err := parsePort(low)
	if err != nil {
		return PortRange{}, err
	}
	if !isRange {
		return PortRange{l, l}, nil
	}
	h, err := parsePort(high)
	if err != nil {
		return PortRange{}, err
	}
	if l > h {
		return PortRange{}, errors.New("the range is upside down: write the lower port first")
	}
	return PortRange{l, h}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16) // takes no sign
	if err != nil {
		return 0, errors.New("want a port from 0 to 65535, or a range like 8000-8010")
	}
	return uint16(n), nil
}

// merge sorts the ranges and joins those that overlap or touch, in place.
func merge(ranges []PortRange) []PortRange {
	slices.SortFunc(ranges, func(a, b PortRange) int { return cmp.Compare(a.Low, b.Low) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && int(r.Low) <= int(out[n-1].High)+1 {
			out[n-1].High = max(out[n-1].High, r.High)
			continue
		}
		out = append(out, r)
	}
	return slices.Clip(out)
}

// All yields the ranges of the set in ascending order; no two touch.
func (s PortSet) All() iter.Seq[PortRange] { return slices.Values(s.ranges) }

// Contains reports whether the port p is in the set.
func (s PortSet) Contains(p uint16) bool {
	_, found := slices.BinarySearchFunc(s.ranges, p, func(r PortRange, p uint16) int {
		switch {
		case r.High < p:
			return -1
		case r.Low > p:
			return 1
		}
		return 0
	})
	return found
}

// Count returns the number of ports in the set.
func (s PortSet) Count() int { return s.CountIn(PortRange{0, 65535}) }

// CountIn returns how many ports of the range within are in the set.
func (s PortSet) CountIn(within PortRange) int {
	n := 0
	for _, r := range s.ranges {
		n += PortRange{max(r.Low, within.Low), min(r.High, within.High)}.Size()
	}
	return n
}

// Equal reports whether both sets hold the same ports.
func (s PortSet) Equal(t PortSet) bool { return slices.Equal(s.ranges, t.ranges) }

// String returns the kernel's form: "8080,9148-9150", or "".
func (s PortSet) String() string {
	var b strings.Builder
	for i, r := range s.ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// MarshalText implements [encoding.TextMarshaler], and so the JSON form.
func (s PortSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] by [ParsePortSet].
func (s *PortSet) UnmarshalText(text []byte) error {
	p, err := ParsePortSet(string(text))
	if err != nil {
		return err
	}
	*s = p
	return nil
}
