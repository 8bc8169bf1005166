package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// States counts the namespace's TCP sockets by the kernel's number of their
// state (1 ESTABLISHED … 6 TIME_WAIT … 8 CLOSE_WAIT, 10 LISTEN), from
// /proc/net/tcp and tcp6. SYN_RECV is 3; FIN_WAIT2 minis are 5. It is an oracle
// that shares nothing with inet_diag, and slow above 100,000 sockets.
func (ns *Namespace) States() (map[int]int, error) {
	states := map[int]int{}
	err := ns.Do(func() error {
		for _, file := range []string{"tcp", "tcp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if errors.Is(err, os.ErrNotExist) && file == "tcp6" {
				continue // IPv6 is off
			}
			if err != nil {
				return &Error{"read /proc/net/" + file, bare(err), ""}
			}
			for line := range bytes.Lines(b) {
				f := bytes.Fields(line)
				if len(f) < 4 || !bytes.HasSuffix(f[0], []byte(":")) {
					continue // the heading
				}
				state, err := strconv.ParseUint(string(f[3]), 16, 8)
				if err != nil {
					return fmt.Errorf("lab: read /proc/net/%s: %w", file, err)
				}
				states[int(state)]++
			}
		}
		return nil
	})
	return states, err
}

// TimeWaits is sockstat's tw: TIME_WAITs and FIN_WAIT2 minis of the namespace.
func (ns *Namespace) TimeWaits() (n int, err error) {
	err = ns.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/sockstat")
		if err != nil {
			return &Error{"read /proc/net/sockstat", bare(err), ""}
		}
		_, rest, _ := strings.Cut(string(b), "\nTCP:")
		_, rest, ok := strings.Cut(rest, " tw ")
		if !ok {
			return errors.New("lab: /proc/net/sockstat has no tw")
		}
		n, err = strconv.Atoi(strings.Fields(rest)[0])
		return err
	})
	return n, err
}

// Counter is one of the namespace's counters, as in Counter("TcpExt", "TW") or
// Counter("Tcp", "ActiveOpens"), from /proc/net/netstat and snmp.
func (ns *Namespace) Counter(group, name string) (v int64, err error) {
	err = ns.Do(func() error {
		for _, file := range []string{"netstat", "snmp"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return &Error{"read /proc/net/" + file, bare(err), ""}
			}
			var names []string
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) == 0 || f[0] != group+":" {
					continue
				}
				if names == nil {
					names = f
					continue
				}
				for i, n := range names {
					if n == name && i < len(f) {
						v, err = strconv.ParseInt(f[i], 10, 64)
						return err
					}
				}
			}
		}
		return fmt.Errorf("lab: no counter %s %s", group, name)
	})
	return v, err
}
