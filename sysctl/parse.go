package sysctl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parseInt parses a file that holds one decimal integer, possibly negative.
func parseInt(b []byte) (int, error) {
	n, err := strconv.Atoi(string(trim(b)))
	if err != nil {
		return 0, errors.New("want one integer")
	}
	return n, nil
}

// parsePortRange parses "low<tab>high" of ip_local_port_range.
func parsePortRange(b []byte) (PortRange, error) {
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return PortRange{}, errors.New("want two ports, lowest and highest")
	}
	low, err := parsePort(f[0])
	if err != nil {
		return PortRange{}, err
	}
	high, err := parsePort(f[1])
	if err != nil {
		return PortRange{}, err
	}
	if low > high {
		return PortRange{}, errors.New("the lowest port is above the highest")
	}
	return PortRange{low, high}, nil
}

// parseTriple parses the three integers of tcp_mem.
func parseTriple(b []byte) ([3]int, error) {
	var out [3]int
	f := strings.Fields(string(b))
	if len(f) != len(out) {
		return out, fmt.Errorf("want %d integers", len(out))
	}
	for i := range out {
		n, err := parseInt([]byte(f[i]))
		if err != nil {
			return [3]int{}, err
		}
		out[i] = n
	}
	return out, nil
}

// trim cuts ASCII space from both ends.
func trim(b []byte) []byte {
	isSpace := func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// clip shortens text that is to be quoted in an error.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
