package counters

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Names returns every key that a [Set] can hold, sorted.
func Names() []string {
	names := append(tcpExtNames(), tcpNames()...)
	slices.Sort(names)
	return names
}

// tcpExtNames are the counters taken from the TcpExt lines of net/netstat.
func tcpExtNames() []string {
	return []string{
		"TW", "TWRecycled", "TWKilled", "TCPTimeWaitOverflow",
		"PAWSActive", "PAWSEstab", "PAWSTimewait", "TCPACKSkippedTimeWait",
		"ListenOverflows", "ListenDrops", "TCPReqQFullDoCookies", "TCPReqQFullDrop",
		"SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed",
		"TCPAbortOnData", "TCPAbortOnClose", "TCPChallengeACK", "TCPSYNChallenge",
		"TCPSynRetrans", "TCPTimeouts",
	}
}

// tcpNames are the counters taken from the Tcp lines of net/snmp.
func tcpNames() []string {
	return []string{
		"ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets", "CurrEstab",
		"InSegs", "OutSegs", "OutRsts", "RetransSegs",
	}
}

// parse takes the named counters of one protocol from the text of net/netstat
// or net/snmp: pairs of lines, "Tcp: name …" and "Tcp: value …" below. A name
// that is not there is left out. Values of other names are not looked at: some
// are negative (MaxConn is -1). On error nothing has been stored.
func parse(into Set, text, protocol string, names []string) error {
	for {
		var head, row string
		head, text, _ = strings.Cut(text, "\n")
		if head == "" {
			return fmt.Errorf("no %s line", protocol)
		}
		row, text, _ = strings.Cut(text, "\n")
		keys, ok := strings.CutPrefix(head, protocol+":")
		if !ok {
			continue
		}
		values, ok := strings.CutPrefix(row, protocol+":")
		if !ok {
			return fmt.Errorf("the %s names have no line of values below", protocol)
		}
		return pair(into, keys, values, names)
	}
}

// pair stores the wanted keys with the values that stand at the same place.
func pair(into Set, keys, values string, names []string) error {
	k, v := strings.Fields(keys), strings.Fields(values)
	if len(k) != len(v) {
		return fmt.Errorf("%d names, but %d values", len(k), len(v))
	}
	found := make(Set, len(names))
	for i, key := range k {
		if !slices.Contains(names, key) {
			continue
		}
		n, err := strconv.ParseUint(v[i], 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %q: want a counter", key, clip(v[i]))
		}
		found[key] = n
	}
	maps.Copy(into, found)
	return nil
}

// clip shortens text that is to be quoted in an error.
func clip(s string) string {
	if len(s) <= 64 {
		return s
	}
	return s[:64] + "…"
}
