package advice

// Findings are the ids of all judgements that have an explanation. A test
// above this package holds what internal/diagnose finds to them.
func Findings() []string {
	return []string{
		"ephemeral-ports-slow", "ephemeral-ports-running-out", "ephemeral-ports-exhausted", "bind-before-connect", "listeners-inside-port-range",
		"time-wait-buckets-near-limit", "time-wait-buckets-overflow", "time-wait-harmless",
		"short-connections-client", "short-connections-server", "short-connections-reset", "short-connections-remote-closes", "short-connections-cured",
		"close-wait-leak", "close-wait-stale-pool", "close-wait-stuck-reader", "close-wait-not-accepted", "close-wait-half-close",
		"half-open-flood", "accept-queue-overflow", "fin-wait-pileup", "last-ack-pileup", "orphans-near-limit",
		"tw-reuse-without-timestamps", "tw-buckets-lowered", "tw-recycle-on", "fin-timeout-myth", "port-range-parity",
		"paws-drops", "conntrack-near-limit", "snat-exhaustion",
		"pod-sysctl-drift",
	}
}
