package advice

import (
	"fmt"
	"math"

	"github.com/twwatch/twwatch/internal/draw"
)

// The sums behind sized advice. All are pure; each is shown by explain, with
// an example that is computed here.
const (
	// TimeWaitSeconds is how long a TIME_WAIT lasts in Linux: compiled in.
	TimeWaitSeconds = 60
	// Margin is what a pool gets beyond the mean, for bursts. It is a choice,
	// not a fact.
	Margin = 2
	// MaxLifetimeSeconds is the life that advice gives a pooled connection
	// where nothing else is known: below the 5 minutes after which common
	// middleboxes forget an idle one.
	MaxLifetimeSeconds = 180
	// TimeWaitBytesLow is what a TIME_WAIT takes at least, in bytes, measured
	// on Linux 6.18.
	TimeWaitBytesLow = 400
	// TimeWaitBytesHigh is what it takes where each has a bind bucket of its own.
	TimeWaitBytesHigh = 660

	initialRTO = 1.0   // seconds, before anything is known of the peer
	maxRTO     = 120.0 // seconds: where doubling ends
)

// PoolSize is how many idle connections one process should keep: those in use
// at the peak, by Little's law, with a margin; at least 1. rate is connections
// per second of all processes at the peak, lifetime the seconds that each is in
// use. Processes below 1 count as 1.
func PoolSize(rate, lifetime float64, processes int, margin float64) int {
	n := math.Ceil(rate / float64(max(processes, 1)) * lifetime * margin)
	if !(n > 1) { // NaN too
		return 1
	}
	return int(math.Min(n, 1e6))
}

// TimeWaitAfter is how many TIME_WAIT remain when so many pooled connections
// are each renewed once a lifetime (seconds).
func TimeWaitAfter(connections int, lifetime float64) int {
	if lifetime <= 0 {
		return 0
	}
	return int(math.Ceil(float64(connections) / lifetime * TimeWaitSeconds))
}

// RateCeiling is the most new connections per second that so many ports carry
// to one destination, each held so many seconds after its close.
func RateCeiling(ports int, hold float64) int {
	if hold <= 0 {
		return 0
	}
	return int(float64(ports) / hold)
}

// PortsFreed is how many ports a change gives back: what TIME_WAIT holds now,
// less what pool and TIME_WAIT hold afterwards.
func PortsFreed(timeWaitNow, connections, timeWaitAfter int) int {
	return max(0, timeWaitNow-connections-timeWaitAfter)
}

// TimeWaitMemory is what so many TIME_WAIT take, in bytes, at least and at most.
func TimeWaitMemory(n int) (low, high int) { return n * TimeWaitBytesLow, n * TimeWaitBytesHigh }

// ConntrackEntries is how many entries closed connections hold at a steady
// rate, each kept so many seconds.
func ConntrackEntries(rate, timeout float64) int { return int(math.Ceil(rate * timeout)) }

// HandshakeLife is the seconds after which a handshake without an answer is
// given up: the first timeout is 1 s, each further one twice the one before, at
// most 120 s. retries is tcp_synack_retries or tcp_syn_retries. A kernel that
// has tcp_syn_linear_timeouts adds that many seconds to a client's.
func HandshakeLife(retries int) float64 {
	life, rto := 0.0, initialRTO
	for range min(max(retries, 0), 255) + 1 {
		life += rto
		rto = math.Min(2*rto, maxRTO)
	}
	return life
}

// A Formula is a sum as explain shows it.
type Formula struct {
	Says    string // in words and signs
	Example string // with numbers
}

// formula is the one of that name.
func formula(name string) (Formula, bool) {
	switch name {
	case "pool-size":
		return Formula{
			"idle connections per process = ceil(rate / processes * lifetime * margin), at least 1; the margin is 2, a choice for bursts",
			fmt.Sprintf("470/s of 4 processes, 50 ms each: %d per process", PoolSize(470, 0.05, 4, Margin)),
		}, true
	case "time-wait-count":
		return Formula{"TIME_WAIT = closes per second * 60 s", fmt.Sprintf("470/s leave %s", draw.Count(470*TimeWaitSeconds))}, true
	case "time-wait-after":
		return Formula{
			"TIME_WAIT after the change = ceil(connections / maximum lifetime * 60 s)",
			fmt.Sprintf("32 connections, each renewed after %d s: %d", MaxLifetimeSeconds, TimeWaitAfter(32, MaxLifetimeSeconds)),
		}, true
	case "ports-freed":
		return Formula{
			"ports freed = TIME_WAIT now - pooled connections - TIME_WAIT after",
			fmt.Sprintf("28,000 now, 32 pooled, %d after: %s", TimeWaitAfter(32, MaxLifetimeSeconds), draw.Count(int64(PortsFreed(28000, 32, TimeWaitAfter(32, MaxLifetimeSeconds))))),
		}, true
	case "rate-ceiling":
		return Formula{
			"new connections per second to one destination = ports / 60 s; with tcp_tw_reuse: ports / tcp_tw_reuse_delay",
			fmt.Sprintf("28,232 ports: %d/s, and %s/s with reuse after 1 s", RateCeiling(28232, TimeWaitSeconds), draw.Count(int64(RateCeiling(28232, 1)))),
		}, true
	case "time-wait-memory":
		low, high := TimeWaitMemory(28000)
		return Formula{
			"memory = TIME_WAIT * 400 to 660 bytes (measured on Linux 6.18)",
			fmt.Sprintf("28,000: %s to %s", bytesText(low), bytesText(high)),
		}, true
	case "conntrack-entries":
		return Formula{
			"entries of closed connections = rate * nf_conntrack_tcp_timeout_time_wait",
			fmt.Sprintf("470/s * 120 s: %s", draw.Count(int64(ConntrackEntries(470, 120)))),
		}, true
	case "handshake-life":
		return Formula{
			"life = 1 s + 2 s + 4 s + ..., retries + 1 terms, each at most 120 s",
			fmt.Sprintf("5 retries: %s; 6 retries: %s", draw.Duration(HandshakeLife(5)), draw.Duration(HandshakeLife(6))),
		}, true
	}
	return Formula{}, false
}

// bytesText is a number of bytes in the unit that suits it.
func bytesText(n int) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
