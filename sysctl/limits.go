package sysctl

// Limits are the settings of one network namespace. A nil field is a setting
// that this kernel, or this namespace, does not have. The JSON keys are the
// names of the settings.
//
// The settings are those of net.ipv4, except somaxconn (net.core) and the
// nf_conntrack_* ones (net.netfilter, there only while conntrack is loaded).
type Limits struct {
	// TCPMaxTWBuckets bounds TIME_WAIT plus FIN_WAIT2 mini-sockets of the
	// namespace (sockstat "tw"). Above it a closing socket is destroyed at
	// once and TCPTimeWaitOverflow counts it.
	TCPMaxTWBuckets *int `json:"tcp_max_tw_buckets,omitempty"`
	// TCPEhashEntries is the number of hash buckets of TCP's sockets (Linux 6.1
	// or so), negative where the namespace shares those of the initial one. Half
	// as many is the kernel's default of TCPMaxTWBuckets in either case.
	TCPEhashEntries *int `json:"tcp_ehash_entries,omitempty"`
	// IPLocalPortRange holds the ports that connect() and bind(port 0) pick from.
	IPLocalPortRange *PortRange `json:"ip_local_port_range,omitempty"`
	// IPLocalReservedPorts are never picked automatically. Present but empty
	// is the usual case, and is "" in JSON.
	IPLocalReservedPorts *PortSet `json:"ip_local_reserved_ports,omitempty"`
	// IPUnprivilegedPortStart is the lowest port that needs no privilege.
	IPUnprivilegedPortStart *int `json:"ip_unprivileged_port_start,omitempty"`

	// TCPTWReuse lets connect() reuse a TIME_WAIT: 0 never, 1 always, 2 on loopback only.
	TCPTWReuse *int `json:"tcp_tw_reuse,omitempty"`
	// TCPTWReuseDelay is the age in milliseconds from which a TIME_WAIT may be
	// reused (Linux 6.14 or so; a fixed second before that).
	TCPTWReuseDelay *int `json:"tcp_tw_reuse_delay,omitempty"`
	// TCPTWRecycle dropped clients behind NAT, and was removed in Linux 4.12.
	TCPTWRecycle *int `json:"tcp_tw_recycle,omitempty"`
	// TCPTWTimeout is the length of TIME_WAIT in seconds, a setting that only
	// Alibaba's kernels have; others hold it at 60 s.
	TCPTWTimeout *int `json:"tcp_tw_timeout,omitempty"`
	// TCPTimestamps is 0 off, 1 on with random offsets, 2 on without. Reuse of
	// TIME_WAIT needs it on.
	TCPTimestamps *int `json:"tcp_timestamps,omitempty"`
	// TCPFinTimeout bounds an orphaned FIN_WAIT2 in seconds. It does not
	// change the length of TIME_WAIT.
	TCPFinTimeout *int `json:"tcp_fin_timeout,omitempty"`
	// TCPRFC1337 set to 1 lets no RST end a TIME_WAIT early.
	TCPRFC1337 *int `json:"tcp_rfc1337,omitempty"`

	// TCPMaxSynBacklog bounds half-open connections per listener.
	TCPMaxSynBacklog *int `json:"tcp_max_syn_backlog,omitempty"`
	// Somaxconn caps the backlog given to listen().
	Somaxconn *int `json:"somaxconn,omitempty"`
	// TCPSyncookies is 0 off, 1 when the SYN queue is full, 2 always.
	TCPSyncookies *int `json:"tcp_syncookies,omitempty"`
	// TCPAbortOnOverflow set to 1 answers a full accept queue with RST.
	TCPAbortOnOverflow *int `json:"tcp_abort_on_overflow,omitempty"`
	// TCPFastopen is a bit mask: 1 client, 2 server, and further options.
	TCPFastopen *int `json:"tcp_fastopen,omitempty"`

	// TCPKeepaliveTime is the idle time in seconds before the first probe.
	TCPKeepaliveTime *int `json:"tcp_keepalive_time,omitempty"`
	// TCPKeepaliveIntvl is the time between probes in seconds.
	TCPKeepaliveIntvl *int `json:"tcp_keepalive_intvl,omitempty"`
	// TCPKeepaliveProbes is the number of unanswered probes that end a connection.
	TCPKeepaliveProbes *int `json:"tcp_keepalive_probes,omitempty"`

	// TCPSynRetries is the number of times a SYN is repeated.
	TCPSynRetries *int `json:"tcp_syn_retries,omitempty"`
	// TCPSynackRetries is the number of times a SYN-ACK is repeated: how long
	// a half-open handshake lives.
	TCPSynackRetries *int `json:"tcp_synack_retries,omitempty"`
	// TCPRetries2 is the number of retransmissions before a connection is given up.
	TCPRetries2 *int `json:"tcp_retries2,omitempty"`
	// TCPOrphanRetries is the same for a socket that its process has closed; 0 means 8.
	TCPOrphanRetries *int `json:"tcp_orphan_retries,omitempty"`

	// How long conntrack keeps an entry in each TCP state, in seconds.
	NFConntrackTCPTimeoutSynSent        *int `json:"nf_conntrack_tcp_timeout_syn_sent,omitempty"`
	NFConntrackTCPTimeoutSynRecv        *int `json:"nf_conntrack_tcp_timeout_syn_recv,omitempty"`
	NFConntrackTCPTimeoutEstablished    *int `json:"nf_conntrack_tcp_timeout_established,omitempty"`
	NFConntrackTCPTimeoutFinWait        *int `json:"nf_conntrack_tcp_timeout_fin_wait,omitempty"`
	NFConntrackTCPTimeoutCloseWait      *int `json:"nf_conntrack_tcp_timeout_close_wait,omitempty"`
	NFConntrackTCPTimeoutLastAck        *int `json:"nf_conntrack_tcp_timeout_last_ack,omitempty"`
	NFConntrackTCPTimeoutTimeWait       *int `json:"nf_conntrack_tcp_timeout_time_wait,omitempty"`
	NFConntrackTCPTimeoutClose          *int `json:"nf_conntrack_tcp_timeout_close,omitempty"`
	NFConntrackTCPTimeoutMaxRetrans     *int `json:"nf_conntrack_tcp_timeout_max_retrans,omitempty"`
	NFConntrackTCPTimeoutUnacknowledged *int `json:"nf_conntrack_tcp_timeout_unacknowledged,omitempty"`
}

// A setting is one file of Limits. Exactly one of the field functions is set.
type setting struct {
	name   string // below /proc/sys, slashes as parts
	module bool   // can vanish with a kernel module while its namespace lives
	number func(*Limits) **int
	ports  func(*Limits) **PortRange
	set    func(*Limits) **PortSet
}

// settings returns the table of every file of Limits. It is a function so that
// nobody can change it.
func settings() []setting {
	ipv4 := func(name string, f func(*Limits) **int) setting {
		return setting{name: "net/ipv4/" + name, number: f}
	}
	timeout := func(state string, f func(*Limits) **int) setting {
		return setting{name: "net/netfilter/nf_conntrack_tcp_timeout_" + state, module: true, number: f}
	}
	return []setting{
		ipv4("tcp_max_tw_buckets", func(l *Limits) **int { return &l.TCPMaxTWBuckets }),
		ipv4("tcp_ehash_entries", func(l *Limits) **int { return &l.TCPEhashEntries }),
		{name: "net/ipv4/ip_local_port_range", ports: func(l *Limits) **PortRange { return &l.IPLocalPortRange }},
		{name: "net/ipv4/ip_local_reserved_ports", set: func(l *Limits) **PortSet { return &l.IPLocalReservedPorts }},
		ipv4("ip_unprivileged_port_start", func(l *Limits) **int { return &l.IPUnprivilegedPortStart }),
		ipv4("tcp_tw_reuse", func(l *Limits) **int { return &l.TCPTWReuse }),
		ipv4("tcp_tw_reuse_delay", func(l *Limits) **int { return &l.TCPTWReuseDelay }),
		ipv4("tcp_tw_recycle", func(l *Limits) **int { return &l.TCPTWRecycle }),
		ipv4("tcp_tw_timeout", func(l *Limits) **int { return &l.TCPTWTimeout }),
		ipv4("tcp_timestamps", func(l *Limits) **int { return &l.TCPTimestamps }),
		ipv4("tcp_fin_timeout", func(l *Limits) **int { return &l.TCPFinTimeout }),
		ipv4("tcp_rfc1337", func(l *Limits) **int { return &l.TCPRFC1337 }),
		ipv4("tcp_max_syn_backlog", func(l *Limits) **int { return &l.TCPMaxSynBacklog }),
		{name: "net/core/somaxconn", number: func(l *Limits) **int { return &l.Somaxconn }},
		ipv4("tcp_syncookies", func(l *Limits) **int { return &l.TCPSyncookies }),
		ipv4("tcp_abort_on_overflow", func(l *Limits) **int { return &l.TCPAbortOnOverflow }),
		ipv4("tcp_fastopen", func(l *Limits) **int { return &l.TCPFastopen }),
		ipv4("tcp_keepalive_time", func(l *Limits) **int { return &l.TCPKeepaliveTime }),
		ipv4("tcp_keepalive_intvl", func(l *Limits) **int { return &l.TCPKeepaliveIntvl }),
		ipv4("tcp_keepalive_probes", func(l *Limits) **int { return &l.TCPKeepaliveProbes }),
		ipv4("tcp_syn_retries", func(l *Limits) **int { return &l.TCPSynRetries }),
		ipv4("tcp_synack_retries", func(l *Limits) **int { return &l.TCPSynackRetries }),
		ipv4("tcp_retries2", func(l *Limits) **int { return &l.TCPRetries2 }),
		ipv4("tcp_orphan_retries", func(l *Limits) **int { return &l.TCPOrphanRetries }),
		timeout("syn_sent", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutSynSent }),
		timeout("syn_recv", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutSynRecv }),
		timeout("established", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutEstablished }),
		timeout("fin_wait", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutFinWait }),
		timeout("close_wait", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutCloseWait }),
		timeout("last_ack", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutLastAck }),
		timeout("time_wait", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutTimeWait }),
		timeout("close", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutClose }),
		timeout("max_retrans", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutMaxRetrans }),
		timeout("unacknowledged", func(l *Limits) **int { return &l.NFConntrackTCPTimeoutUnacknowledged }),
	}
}

// HostLimits are the settings that exist once per kernel. They are visible only
// in the initial network namespace: elsewhere the fields are nil, except
// NFConntrackBuckets, which newer kernels show everywhere.
type HostLimits struct {
	// TCPMaxOrphans bounds sockets that no process holds any more (not TIME_WAIT).
	TCPMaxOrphans *int `json:"tcp_max_orphans,omitempty"`
	// TCPMem is the memory of all TCP buffers in pages: below the first value no
	// restraint, above the second pressure, above the third refusal.
	TCPMem *[3]int `json:"tcp_mem,omitempty"`
	// NFConntrackMax bounds the entries of the connection tracking table.
	NFConntrackMax *int `json:"nf_conntrack_max,omitempty"`
	// NFConntrackBuckets is the size of that table's hash.
	NFConntrackBuckets *int `json:"nf_conntrack_buckets,omitempty"`
}
