package exporter

import "github.com/prometheus/client_golang/prometheus"

// A family is one metric's name, meaning and labels.
type family struct {
	name, help string
	kind       prometheus.ValueType
	labels     []string
	desc       *prometheus.Desc
}

// families are all metrics of an Exporter but twwatch_build_info.
type families struct {
	sockets, buckets, bucketsLimit, opened, overflows *family
	ephemeralPorts, portsUsedMax                      *family
	portDemandMax                                     *family
	closeWait, closeWaitOldest                        *family
	closeWaitEOFOldest, closeWaitDescriptors          *family
	closeWaitProcess, closeWaitProcessOldest          *family
	listenOverflows, listenDrops, syncookies          *family
	conntrackEntries, conntrackLimit                  *family

	flowSockets, flowOpened, flowPortsFree, flowPortsUsed, flowDemand *family
	flowsOmitted, flowSocketsOmitted, flowOpenedOmitted               *family
	protocolOpened                                                    *family

	finding, netnsInfo, dumpAge                              *family
	duration, interval, errors, timestamp, feature, droppedN *family

	all []*family // in the order of the document
}

func newFamilies() *families {
	f := &families{}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	add := func(to **family, kind prometheus.ValueType, name, help string, labels ...string) {
		*to = &family{"twwatch_" + name, help, kind, labels, prometheus.NewDesc("twwatch_"+name, help, labels, nil)}
		f.all = append(f.all, *to)
	}

	add(&f.sockets, gauge, "sockets",
		"TCP sockets by state, IPv4 and IPv6 (sock_diag dump). state=\"close\", bound and not connected, is absent where a pass did not look for it: above 10,000 sockets that is once a minute at most. Of namespaces other than the first only time_wait and close_wait, and the states of flow sockets while a flow of theirs is exported.",
		"netns", "state")
	add(&f.buckets, gauge, "time_wait_buckets",
		"Sockets that count against tcp_max_tw_buckets: TIME_WAIT and orphaned FIN_WAIT2 (sock_diag dump, as tw of /proc/net/sockstat).", "netns")
	add(&f.bucketsLimit, gauge, "time_wait_buckets_limit",
		"Above this number of buckets a closing socket gets no TIME_WAIT (net.ipv4.tcp_max_tw_buckets).", "netns")
	add(&f.opened, counter, "time_wait_opened_total",
		"Sockets that entered TIME_WAIT or an orphaned FIN_WAIT2 (TW of /proc/net/netstat).", "netns")
	add(&f.overflows, counter, "time_wait_overflows_total",
		"Closing sockets that got no TIME_WAIT because tcp_max_tw_buckets was reached (TCPTimeWaitOverflow of /proc/net/netstat).", "netns")
	add(&f.ephemeralPorts, gauge, "ephemeral_ports",
		"Ports that connect() can choose from (net.ipv4.ip_local_port_range without ip_local_reserved_ports).", "netns")
	add(&f.portsUsedMax, gauge, "ephemeral_ports_used_ratio_max",
		"Share of the ephemeral ports that are not free for the tightest client flow, 0 to 1: used by its sockets or blocked by binds, without those that tcp_tw_reuse would take over. At 1 connect() fails; 0 with no client flow (sock_diag dump, net.ipv4.ip_local_port_range).", "netns")
	add(&f.portDemandMax, gauge, "ephemeral_port_demand_ratio_max",
		"The greatest twwatch_flow_port_demand_ratio of all client flows, exported or not: from 1 on ports run out within a minute; 0 with no client flow. Of namespaces other than the first only from 0.5 on (timers of the sock_diag dump).", "netns")
	add(&f.closeWait, gauge, "close_wait_sockets",
		"CLOSE_WAIT sockets: eof_read (the program has read the end and holds the socket: Recv-Q is 0), unread (accepted, data wait in Recv-Q; beyond 256 sockets at least so many), unaccepted (no accept() has taken them), other (accepted, nothing but the end waits to be read, as in an idle pool; or not known) (sock_diag dump).", "netns", "kind")
	add(&f.closeWaitOldest, gauge, "close_wait_oldest_seconds",
		"Time since the peer's FIN of the oldest CLOSE_WAIT socket known, at least: exact for a socket that got no ACK since, as one that sends nothing and has no keepalive; absent with none (tcp_info: last_ack_recv of the first look).", "netns")
	add(&f.closeWaitEOFOldest, gauge, "close_wait_eof_read_oldest_seconds",
		"twwatch_close_wait_oldest_seconds of kind eof_read alone, of the 256 sockets looked at one by one; absent with none.", "netns")
	add(&f.closeWaitDescriptors, gauge, "close_wait_descriptors_used_ratio_max",
		"Open file descriptors over their limit, of the process nearest to it among those that hold CLOSE_WAIT sockets; 0 with no CLOSE_WAIT socket, absent where no such process is known. Of namespaces other than the first only from 0.5 on (/proc/PID/fd, /proc/PID/limits).", "netns")
	add(&f.closeWaitProcess, gauge, "close_wait_process_sockets",
		"CLOSE_WAIT sockets by the name (comm) of the processes that hold them, all namespaces together; process=\"\" for all others, and where none is known (sock_diag dump, /proc/PID/fd).", "process")
	add(&f.closeWaitProcessOldest, gauge, "close_wait_process_oldest_seconds",
		"Time since the peer's FIN of the oldest CLOSE_WAIT socket of the processes of this name, at least, of the 256 of each namespace that are looked at one by one; absent if none of these is theirs (tcp_info: last_ack_recv of the first look).", "process")
	add(&f.listenOverflows, counter, "listen_overflows_total",
		"Connections that found a full accept queue (ListenOverflows of /proc/net/netstat).", "netns")
	add(&f.listenDrops, counter, "listen_drops_total",
		"Connection attempts dropped at a listener for any reason (ListenDrops of /proc/net/netstat).", "netns")
	add(&f.syncookies, counter, "syncookies_sent_total",
		"SYN cookies sent because a SYN queue was full (SyncookiesSent of /proc/net/netstat).", "netns")
	add(&f.conntrackEntries, gauge, "conntrack_entries",
		"Entries of the connection tracking table (/proc/net/stat/nf_conntrack).", "netns")
	add(&f.conntrackLimit, gauge, "conntrack_limit",
		"Entries that the connection tracking table can hold, of the whole kernel (net.netfilter.nf_conntrack_max).")

	flow := []string{"netns", "side", "local", "remote", "port", "protocol"}
	add(&f.flowSockets, gauge, "flow_sockets",
		"Sockets of an exported flow by state. A server flow has no remote unless asked for, and then counts the remotes that the report lists one by one (sock_diag dump).", append(flow, "state")...)
	add(&f.flowOpened, counter, "flow_time_wait_opened_total",
		"Sockets of an exported flow seen to enter TIME_WAIT, from 0 when it is first exported. A floor where tcp_tw_reuse recycles sockets (timers of the sock_diag dump).", flow...)
	add(&f.flowPortsFree, gauge, "flow_ports_free",
		"Connections that connect() would grant to this client flow now; where binds can't be seen an upper bound (sock_diag dump, net.ipv4.ip_local_port_range).", flow...)
	add(&f.flowPortsUsed, gauge, "flow_ports_used",
		"Ephemeral ports that this client flow's sockets hold (sock_diag dump).", flow...)
	add(&f.flowDemand, gauge, "flow_port_demand_ratio",
		"Ports that this client flow's present close rate would hold, over the ports it can have; from 1 on they run out. Rate times 60 s, or times net.ipv4.tcp_tw_reuse_delay where sockets are recycled (timers of the sock_diag dump).", flow...)
	add(&f.flowsOmitted, gauge, "flows_omitted",
		"Flows without series of their own, at least so many (sock_diag dump).", "netns")
	add(&f.flowSocketsOmitted, gauge, "flow_sockets_omitted",
		"Sockets of no exported flow: with twwatch_flow_sockets they add up to twwatch_sockets, in these states (sock_diag dump).", "netns", "state")
	add(&f.flowOpenedOmitted, counter, "flow_time_wait_opened_omitted_total",
		"Sockets seen to enter TIME_WAIT that no exported flow has counted (timers of the sock_diag dump).", "netns")

	add(&f.protocolOpened, counter, "protocol_time_wait_opened_total",
		"Sockets seen to enter TIME_WAIT by the service that the flow is known by, all flows and namespaces together; side=\"\" and protocol=\"\" for all others. Where sockets are recycled a floor: twwatch_time_wait_opened_total is the kernel's own count (timers of the sock_diag dump).", "side", "protocol")

	add(&f.finding, gauge, "finding",
		"Findings that hold: 1 info (exported only if asked for), 2 warning, 3 critical; the highest where several share the labels.", "netns", "id", "side", "port", "protocol")
	add(&f.netnsInfo, gauge, "netns_info",
		"Always 1; what a network namespace belongs to, to join by netns. What isn't known is empty, and so is container for a pod with several.", "netns", "kind", "namespace", "pod", "pod_uid", "container")
	add(&f.dumpAge, gauge, "netns_dump_age_seconds",
		"Time at the scrape since the sockets of this namespace were last read, or seen not to have moved since they were. Of namespaces other than the first only from 60 s on, and of the ten with the greatest.", "netns")
	add(&f.duration, gauge, "collect_duration_seconds",
		"Time that the last pass took.")
	add(&f.interval, gauge, "collect_interval_seconds",
		"Time between the starts of two passes, as stretched by the CPU budget.")
	add(&f.errors, counter, "collect_errors_total",
		"Errors of passes, and parts of a pass that could not be seen, by stage.", "stage")
	add(&f.timestamp, gauge, "last_collect_timestamp_seconds",
		"When the last pass started, in seconds since 1970.")
	add(&f.feature, gauge, "feature_available",
		"Whether the last pass had this ability: 1 yes, 0 no. namespaces is absent where no other is looked at, cri unless it fails.", "feature")
	add(&f.droppedN, gauge, "series_dropped",
		"Series of the last pass that were left out because their values were not usable or the limit of series was reached.")
	return f
}
