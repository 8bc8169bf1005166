package dashboards

// Selectors of the host's dashboard: by target, by namespace too, by service
// too.
const (
	target   = `job="$job",instance="$instance"`
	inNetns  = target + `,netns=~"$netns"`
	ofFlows  = inNetns + `,protocol=~"$service"`
	flowName = "{{local}} → {{remote}}:{{port}} {{protocol}} ({{netns}})"
)

// Host is dashboards/twwatch-host.json: one host, from the verdict down to what
// twwatch itself costs.
func Host() []byte {
	return board{
		uid: "twwatch-host", title: "twwatch / host", from: "now-1h",
		description: "One host's connections: what twwatch finds, ports, TIME_WAIT, CLOSE_WAIT and handshakes. Every panel links to what explains it.",
		explain:     explainOnHost,
		variables: []variable{
			{"job", "Job", "label_values(twwatch_build_info, job)", false},
			{"instance", "Host", `label_values(twwatch_build_info{job="$job"}, instance)`, false},
			{"netns", "Network namespace", `label_values(twwatch_sockets{` + target + `}, netns)`, true},
			{"service", "Service", `label_values({__name__=~"twwatch_flow_sockets|twwatch_protocol_time_wait_opened_total",` + target + `}, protocol)`, true},
		},
		links: []link{
			{"twwatch on this host", "http://${instance}/", true},
			{"All hosts", "/d/twwatch-fleet", false},
		},
		annotations: []annotation{{"Alerts", `ALERTS{alertname=~"Twwatch.+",alertstate="firing",` + target + `}`, "{{alertname}} {{netns}}"}},
		sections:    []section{hostVerdict(), hostPorts(), hostTimeWait(), hostCloseWait(), hostHandshakes(), hostCollector()},
	}.encode()
}

func shares(limits ...float64) []step {
	colors := []string{"orange", "red"}
	var lines []step
	for i, l := range limits {
		lines = append(lines, step{colors[min(i, len(colors)-1)], l})
	}
	return lines
}

func hostVerdict() section {
	verdict := `max(twwatch_finding{` + inNetns + `}) or 0 * max(twwatch_last_collect_timestamp_seconds{` + target + `})`
	return section{"Verdict", []panel{
		{
			title: "Verdict", kind: stat, unit: "short", explain: "short-connections", w: 4, h: 4, mappings: severities(), lines: []step{{"blue", 1}, {"orange", 2}, {"red", 3}},
			description: "The gravest finding that holds now. Healthy: twwatch looks, and finds nothing worth a change.",
			queries:     []query{{expr: verdict}},
		},
		{
			title: "Tightest flow: ports taken", kind: stat, unit: "percentunit", explain: "ephemeral-ports", w: 4, h: 4, lines: shares(0.5, 0.8), max: new(1.0),
			description: "Share of the ephemeral ports that connect() can't get any more to the destination that is worst off. Over 50 % connect() becomes slow, at 100 % it fails.",
			queries:     []query{{expr: `max(twwatch_ephemeral_ports_used_ratio_max{` + inNetns + `})`}},
		},
		{
			title: "Port demand", kind: stat, unit: "percentunit", explain: "ephemeral-ports-running-out", w: 4, h: 4, lines: shares(0.7, 1),
			description: "Share of the ports that the present rate will hold within a minute, for the destination that is worst off. From 100 % on they run out.",
			queries:     []query{{expr: `max(twwatch_ephemeral_port_demand_ratio_max{` + inNetns + `})`}},
		},
		{
			title: "TIME_WAIT buckets used", kind: stat, unit: "percentunit", explain: "buckets", w: 4, h: 4, lines: shares(0.8, 1), max: new(1.0),
			description: "TIME_WAIT sockets against net.ipv4.tcp_max_tw_buckets. At the limit connections close without TIME_WAIT, silently.",
			queries:     []query{{expr: `max(twwatch_time_wait_buckets{` + inNetns + `} / twwatch_time_wait_buckets_limit{` + inNetns + `})`}},
		},
		{
			title: "Connections closed here", kind: stat, unit: "ops", explain: "short-connections", w: 4, h: 4,
			description: "Connections that enter TIME_WAIT here each second: this end closed first. The kernel's own count, of namespaces that show it.",
			queries:     []query{{expr: `sum(rate(twwatch_time_wait_opened_total{` + inNetns + `}[$__rate_interval]))`}},
		},
		{
			title: "CLOSE_WAIT", kind: stat, unit: "short", explain: "close-wait", w: 4, h: 4,
			description: "Connections that the other end has closed and this one has not. A few come and go; a number that only grows is a leak.",
			queries:     []query{{expr: `sum(twwatch_sockets{` + inNetns + `,state="close_wait"})`}},
		},
		{
			title: "Findings", kind: table, unit: "short", explain: "short-connections-client", w: 24, h: 6,
			description: "What twwatch finds now, the gravest first; the id leads to its explanation. Empty when nothing is found. `twwatch check` on the host shows evidence and advice.",
			queries:     []query{{expr: `max by (netns, id, side, port, protocol) (twwatch_finding{` + inNetns + `})`}},
			columns: []column{
				{field: "Value", title: "severity", verdict: true, first: true},
				{field: "id", title: "finding", link: explainOnHost("${__value.text}")},
				{field: "netns", title: "network namespace"},
				{field: "side", title: "side"},
				{field: "port", title: "port"},
				{field: "protocol", title: "service"},
			},
		},
	}}
}

func hostPorts() section {
	ports := `max(twwatch_ephemeral_ports{` + target + `})`
	return section{"Ephemeral ports", []panel{
		{
			title: "Ports free by flow", kind: timeseries, unit: "short", explain: "ephemeral-ports-slow", w: 12, h: 9,
			description: "Connections that connect() would still grant from here to each destination. Under the first line more than 50 % are taken and connect() is slow; under the second more than 80 %. Of the flows that twwatch exports, the ones that are worst off.",
			queries: []query{
				{expr: `twwatch_flow_ports_free{` + ofFlows + `}`, legend: flowName},
				{expr: `0.2 * ` + ports, legend: "80 % taken: running out", line: "red"},
				{expr: `0.5 * ` + ports, legend: "50 % taken: connect() gets slow", line: "orange"},
			},
		},
		{
			title: "Port demand by flow", kind: timeseries, unit: "percentunit", explain: "ephemeral-ports-running-out", w: 12, h: 9, lines: shares(0.7, 1),
			description: "Ports that the present rate of closes will hold, over those there are: it tells within one look where the number of free ports will end. From 100 % on they run out.",
			queries:     []query{{expr: `twwatch_flow_port_demand_ratio{` + ofFlows + `}`, legend: flowName}},
		},
		{
			title: "Ports taken, tightest flow of each namespace", kind: timeseries, unit: "percentunit", explain: "ephemeral-ports", w: 12, lines: shares(0.5, 0.8), max: new(1.0),
			description: "This number is always there, whatever flows are exported: alerts read it.",
			queries:     []query{{expr: `twwatch_ephemeral_ports_used_ratio_max{` + inNetns + `}`, legend: "{{netns}}"}},
		},
		{
			title: "Ports used by flow", kind: timeseries, unit: "short", explain: "ephemeral-ports", w: 12,
			description: "Ephemeral ports that the sockets of each flow hold, in any state.",
			queries:     []query{{expr: `twwatch_flow_ports_used{` + ofFlows + `}`, legend: flowName}},
		},
	}}
}

func hostTimeWait() section {
	return section{"TIME_WAIT and short connections", []panel{
		{
			title: "Closes per second by service", kind: timeseries, unit: "ops", explain: "short-connections", w: 12, stack: true,
			description: "Connections that enter TIME_WAIT here, by the service they are of and the side that this host has in them, all flows and namespaces together. Client: this host opens and closes them, and could keep them. Without a name: services that are not known.",
			queries:     []query{{expr: `sum by (side, protocol) (rate(twwatch_protocol_time_wait_opened_total{` + target + `,protocol=~"$service"}[$__rate_interval]))`, legend: "{{protocol}} {{side}}"}},
		},
		{
			title: "Closes per second by flow", kind: timeseries, unit: "ops", explain: "who-closed", w: 12,
			description: "The same of the flows that twwatch exports, and of all others together. Where sockets are recycled (tcp_tw_reuse) a floor; the dashed line is the kernel's own count.",
			queries: []query{
				{expr: `rate(twwatch_flow_time_wait_opened_total{` + ofFlows + `}[$__rate_interval])`, legend: flowName},
				{expr: `sum(rate(twwatch_flow_time_wait_opened_omitted_total{` + inNetns + `}[$__rate_interval]))`, legend: "all other flows"},
				{expr: `sum(rate(twwatch_time_wait_opened_total{` + inNetns + `}[$__rate_interval]))`, legend: "kernel's count", line: "blue"},
			},
		},
		{
			title: "TIME_WAIT by flow", kind: timeseries, unit: "short", explain: "time-wait", w: 8, stack: true,
			description: "Sockets that keep the memory of a closed connection for 60 s. Many are harmless as long as ports and buckets last.",
			queries: []query{
				{expr: `twwatch_flow_sockets{` + ofFlows + `,state="time_wait"}`, legend: flowName},
				{expr: `sum(twwatch_flow_sockets_omitted{` + inNetns + `,state="time_wait"})`, legend: "all other flows"},
			},
		},
		{
			title: "Buckets against the limit", kind: timeseries, unit: "short", explain: "buckets", w: 8,
			description: "TIME_WAIT and orphaned FIN_WAIT2 sockets against net.ipv4.tcp_max_tw_buckets.",
			queries: []query{
				{expr: `twwatch_time_wait_buckets{` + inNetns + `}`, legend: "used ({{netns}})"},
				{expr: `twwatch_time_wait_buckets_limit{` + inNetns + `}`, legend: "limit ({{netns}})", line: "red"},
			},
		},
		{
			title: "Bucket overflows", kind: timeseries, unit: "ops", explain: "time-wait-buckets-overflow", w: 8,
			description: "Connections that closed without TIME_WAIT because the buckets were full. The kernel logs nothing.",
			queries:     []query{{expr: `rate(twwatch_time_wait_overflows_total{` + inNetns + `}[$__rate_interval])`, legend: "{{netns}}"}},
		},
	}}
}

func hostCloseWait() section {
	return section{"CLOSE_WAIT", []panel{
		{
			title: "CLOSE_WAIT by process", kind: timeseries, unit: "short", explain: "close-wait-leak", w: 12, stack: true,
			description: "Connections that the other end has closed, by the name of the program that has to close them, all namespaces together. Only that program can. Without a name: programs with few, and those that twwatch can't see.",
			queries:     []query{{expr: `sum by (process) (twwatch_close_wait_process_sockets{` + target + `})`, legend: "{{process}}"}},
		},
		{
			title: "Age of the oldest CLOSE_WAIT by process", kind: timeseries, unit: "s", explain: "close-wait-leak", w: 12,
			description: "How long ago the other end closed, at least, of the oldest connection that each of these programs still holds. Where a program leaks its line climbs without a break.",
			queries:     []query{{expr: `max by (process) (twwatch_close_wait_process_oldest_seconds{` + target + `})`, legend: "{{process}}"}},
		},
		{
			title: "CLOSE_WAIT by kind", kind: timeseries, unit: "short", explain: "close-wait", stack: true,
			description: "eof_read: the program has read the end and doesn't close, the mark of a leak. unread: data wait, a stuck reader. unaccepted: nobody has called accept(). other: only the end waits, as in an idle pool.",
			queries:     []query{{expr: `twwatch_close_wait_sockets{` + inNetns + `}`, legend: "{{kind}} ({{netns}})"}},
		},
		{
			title: "Age of the oldest CLOSE_WAIT", kind: timeseries, unit: "s", explain: "close-wait-leak",
			description: "The same by namespace, and of the sockets whose end was read alone: these are the leaked ones.",
			queries: []query{
				{expr: `twwatch_close_wait_oldest_seconds{` + inNetns + `}`, legend: "any ({{netns}})"},
				{expr: `twwatch_close_wait_eof_read_oldest_seconds{` + inNetns + `}`, legend: "end was read ({{netns}})"},
			},
		},
		{
			title: "File descriptors of who holds CLOSE_WAIT", kind: timeseries, unit: "percentunit", explain: "close-wait-leak", lines: shares(0.8), max: new(1.0),
			description: "Open descriptors over their limit, of the process nearest to it among those with CLOSE_WAIT sockets. At 100 % it can neither accept nor connect.",
			queries:     []query{{expr: `twwatch_close_wait_descriptors_used_ratio_max{` + inNetns + `}`, legend: "{{netns}}"}},
		},
	}}
}

func hostHandshakes() section {
	return section{"Handshakes and states", []panel{
		{
			title: "Listen queues", kind: timeseries, unit: "ops", explain: "accept-queue-overflow",
			description: "Connections that met a full accept queue, and attempts dropped at a listener for any reason.",
			queries: []query{
				{expr: `rate(twwatch_listen_overflows_total{` + inNetns + `}[$__rate_interval])`, legend: "overflows ({{netns}})"},
				{expr: `rate(twwatch_listen_drops_total{` + inNetns + `}[$__rate_interval])`, legend: "drops ({{netns}})"},
			},
		},
		{
			title: "SYN cookies", kind: timeseries, unit: "ops", explain: "syn-cookies",
			description: "SYN cookies sent: the queue of half-open handshakes was full, by a flood or by a backlog that is too small.",
			queries:     []query{{expr: `rate(twwatch_syncookies_sent_total{` + inNetns + `}[$__rate_interval])`, legend: "{{netns}}"}},
		},
		{
			title: "Sockets by state", kind: timeseries, unit: "short", explain: "established",
			description: "All TCP sockets, IPv4 and IPv6.",
			queries:     []query{{expr: `sum by (state) (twwatch_sockets{` + inNetns + `})`, legend: "{{state}}"}},
		},
		{
			title: "Connection tracking", kind: timeseries, unit: "short", explain: "conntrack", w: 24, h: 6,
			description: "Entries of the connection tracking table against the kernel's limit. Empty where the host tracks no connections.",
			queries: []query{
				{expr: `twwatch_conntrack_entries{` + inNetns + `}`, legend: "entries ({{netns}})"},
				{expr: `twwatch_conntrack_limit{` + target + `}`, legend: "limit", line: "red"},
			},
		},
	}}
}

func hostCollector() section {
	const about = "docs/metrics.md"
	return section{"twwatch itself", []panel{
		{
			title: "CPU", kind: timeseries, unit: "percentunit", about: about, w: 6,
			description: "Share of one core that the daemon uses, scrapes included.",
			queries:     []query{{expr: `rate(process_cpu_seconds_total{` + target + `}[$__rate_interval])`, legend: "twwatch"}},
		},
		{
			title: "Memory", kind: timeseries, unit: "bytes", about: about, w: 6,
			description: "Resident memory of the daemon.",
			queries:     []query{{expr: `process_resident_memory_bytes{` + target + `}`, legend: "twwatch"}},
		},
		{
			title: "Passes", kind: timeseries, unit: "s", about: about, w: 6,
			description: "How long a pass takes, how often there is one (the CPU budget may stretch it), and how old the numbers are.",
			queries: []query{
				{expr: `twwatch_collect_duration_seconds{` + target + `}`, legend: "duration"},
				{expr: `twwatch_collect_interval_seconds{` + target + `}`, legend: "interval"},
				{expr: `max(twwatch_netns_dump_age_seconds{` + target + `})`, legend: "age"},
			},
		},
		{
			title: "What can't be seen", kind: timeseries, unit: "short", about: about, w: 6,
			description: "Errors of passes in five minutes by stage, series left out for lack of room, and abilities that are missing.",
			queries: []query{
				{expr: `increase(twwatch_collect_errors_total{` + target + `}[5m])`, legend: "errors: {{stage}}"},
				{expr: `twwatch_series_dropped{` + target + `}`, legend: "series left out"},
				{expr: `1 - twwatch_feature_available{` + target + `}`, legend: "missing: {{feature}}"},
			},
		},
	}}
}
