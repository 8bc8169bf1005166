package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Thresholds are the numbers that rules compare with, by name. The zero value
// has the defaults. Each name and its reason is in docs/rules.md.
type Thresholds struct{ set map[string]float64 }

// threshold names, as in the config file.
const (
	portsSlow       = "ports_slow_ratio"
	portsRunningOut = "ports_running_out_ratio"
	portsSeconds    = "ports_running_out_seconds"
	bucketsNear     = "time_wait_buckets_near_ratio"

	bindBlocked        = "bind_blocked_ratio"
	listenersUsed      = "listeners_range_ratio"
	timeWaitMany       = "time_wait_many"
	shortRate          = "short_connections_rate"
	shortWarningRate   = "short_connections_warning_rate"
	shortLifetime      = "short_connections_lifetime_seconds"
	shortDemand        = "short_connections_demand"
	healthCheckSockets = "health_check_sockets"
	shortServerRate    = "short_connections_server_rate"
	resetRate          = "reset_rate"
	remoteClosesRate   = "remote_closes_rate"

	closeWaitSeconds      = "close_wait_seconds"
	closeWaitUnaccepted   = "close_wait_unaccepted_seconds"
	closeWaitLimitSeconds = "close_wait_limit_seconds"
	descriptorsRatio      = "descriptors_ratio"
	halfOpenRatio         = "half_open_ratio"
	finWait1Sockets       = "fin_wait1_sockets"
	finWait2Sockets       = "fin_wait2_sockets"
	lastAckSockets        = "last_ack_sockets"
	orphansNear           = "orphans_near_ratio"
	orphansFull           = "orphans_full_ratio"
	pawsDropsRate         = "paws_drops_rate"
	conntrackNear         = "conntrack_near_ratio"
	conntrackFull         = "conntrack_full_ratio"
	snatRetransRate       = "snat_syn_retrans_rate"
)

func defaults() map[string]float64 {
	return map[string]float64{
		portsSlow:       0.5, // connect() has used up the half of the range that it tries first
		portsRunningOut: 0.8,
		portsSeconds:    15, // the default interval: at the next look none may be left
		bucketsNear:     0.8,

		bindBlocked:        0.05, // what every destination loses at once
		listenersUsed:      0.25, // of the range by one flow: a restart then likely loses its port
		timeWaitMany:       1000, // from there on people ask
		shortRate:          10,   // 600 TIME_WAIT: below, nothing is gained by a pool
		shortWarningRate:   50,   // handshakes that cost CPU and latency, whatever the ports
		shortLifetime:      1,    // one request; a connection that lives longer carries several
		shortDemand:        0.1,  // of the ports to one destination: a load of ten times fills them
		healthCheckSockets: 60,   // a probe a second
		shortServerRate:    50,   // below, it is noise to a server
		resetRate:          10,
		remoteClosesRate:   10,

		closeWaitSeconds:      60,   // the peer's FIN_WAIT2, if no process holds it, is over by then
		closeWaitUnaccepted:   10,   // who waits for accept() so long has been failed already
		closeWaitLimitSeconds: 600,  // time enough for somebody to come and restart it
		descriptorsRatio:      0.8,  // a fifth is left, for files too
		halfOpenRatio:         0.8,  // of the room that a listener has for half-open handshakes
		finWait1Sockets:       500,  // each lasts a round trip: 500 need 5,000 closes/s at 100 ms
		finWait2Sockets:       1000, // and more than the rate of closes explains
		lastAckSockets:        500,  // as for FIN_WAIT1
		orphansNear:           0.5,  // the kernel counts up to fourfold against a silent one
		orphansFull:           0.95, // it hovers there while the kernel resets the excess
		pawsDropsRate:         0.1,  // one in 10 s: a stray duplicate now and then is no sign
		conntrackNear:         0.8,
		conntrackFull:         0.95, // what is left goes in a burst
		snatRetransRate:       1,    // repeated SYNs a second: more than single lost ones
	}
}

// leaves is how far below its threshold a finding has to fall to go, as a
// share of the threshold: a load that hovers about it doesn't flap.
const leaves = 0.9

// Set gives a threshold another value; the error names what is allowed.
func (t *Thresholds) Set(name string, value float64) error {
	if _, ok := defaults()[name]; !ok {
		return fmt.Errorf("no threshold %q: give one of %s", name, strings.Join(slices.Sorted(maps.Keys(defaults())), ", "))
	}
	top := 1.0 // a ratio
	switch {
	case strings.HasSuffix(name, "_seconds"):
		top = 3600
	case strings.HasSuffix(name, "_rate"):
		top = 1e6
	case strings.HasSuffix(name, "_sockets"), name == timeWaitMany:
		top = 1e9
	}
	if !(value > 0 && value <= top) {
		return fmt.Errorf("threshold %s: %v: give more than 0 and at most %v", name, value, top)
	}
	if t.set == nil {
		t.set = make(map[string]float64)
	}
	t.set[name] = value
	return nil
}

// Check tells whether the thresholds in force contradict each other. Each may be
// fine alone, so Set can't tell.
func (t Thresholds) Check() error {
	all := t.All()
	show := func(name string) string {
		text := fmt.Sprintf("%s %v", name, all[name])
		if _, given := t.set[name]; !given {
			text += " (the default)"
		}
		return text
	}
	if all[shortRate] > all[shortWarningRate] {
		return fmt.Errorf("%s must not be above %s: else every finding is a warning at once; change one of them", show(shortRate), show(shortWarningRate))
	}
	for _, p := range [][2]string{{portsSlow, portsRunningOut}, {orphansNear, orphansFull}, {conntrackNear, conntrackFull}} {
		if all[p[0]] >= all[p[1]] {
			return fmt.Errorf("%s must be below %s: else it is critical before it is a warning; change one of them", show(p[0]), show(p[1]))
		}
	}
	return nil
}

// All are the thresholds in force, by name.
func (t Thresholds) All() map[string]float64 {
	all := defaults()
	maps.Copy(all, t.set)
	return all
}

// of is the threshold in force: lower while the finding is there already.
func (t Thresholds) of(name string, held bool) float64 {
	v, ok := t.set[name]
	if !ok {
		v = defaults()[name]
	}
	if held {
		v *= leaves
	}
	return v
}
