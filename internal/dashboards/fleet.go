package dashboards

// among selects the hosts of the fleet's dashboard. It has only the labels that
// recording rules keep.
const among = `cluster=~"$cluster",job=~"$job"`

// Fleet is dashboards/twwatch-fleet.json: thousands of hosts, from recording
// rules only.
func Fleet() []byte {
	return board{
		uid: "twwatch-fleet", title: "twwatch / fleet", from: "now-6h",
		description: "All hosts that twwatch watches: the worst hosts, the worst services, and who would gain most from long connections. Reads the recording rules of deploy/prometheus/twwatch.rules.yml only.",
		explain:     explainOnline,
		step:        "1m", // as rules record
		variables: []variable{
			{"cluster", "Cluster", "label_values(instance:twwatch_finding:max, cluster)", true},
			{"job", "Job", `label_values(instance:twwatch_finding:max{cluster=~"$cluster"}, job)`, true},
			{"service", "Service", `label_values(protocol:twwatch_time_wait_opened:rate5m{` + among + `}, protocol)`, true},
		},
		annotations: []annotation{},
		sections:    []section{fleetVerdict(), fleetHosts(), fleetServices()},
	}.encode()
}

// toHost leads from a row that has an instance to its dashboard.
func toHost() []link {
	return []link{{"Dashboard of ${__value.text}", "/d/twwatch-host?var-job=${__data.fields.job}&var-instance=${__value.text}&${datasource:queryparam}&${__url_time_range}", false}}
}

func hostColumns(rest ...column) []column {
	return append([]column{
		{field: "instance", title: "host", link: toHost()},
		// Not renamed: the link reads it.
		{field: "job", title: "job"},
		{field: "cluster", title: "cluster"},
	}, rest...)
}

func fleetVerdict() section {
	return section{"Verdict", []panel{
		{
			title: "Hosts", kind: stat, unit: "short", about: "README.md", w: 4, h: 4,
			description: "Hosts that have been watched in the last minutes.",
			queries:     []query{{expr: `sum(cluster:twwatch_hosts:count{` + among + `})`}},
		},
		{
			title: "Hosts with a critical finding", kind: stat, unit: "short", explain: "ephemeral-ports-running-out", w: 4, h: 4, lines: []step{{"red", 1}},
			description: "Something fails there now, or within a minute.",
			queries:     []query{{expr: `sum(cluster:twwatch_hosts_critical:count{` + among + `})`}},
		},
		{
			title: "Hosts with a warning", kind: stat, unit: "short", explain: "short-connections-client", w: 4, h: 4, lines: []step{{"orange", 1}},
			description: "Something should be changed there, and nothing critical is found.",
			queries:     []query{{expr: `sum(cluster:twwatch_hosts_warning:count{` + among + `})`}},
		},
		{
			title: "Connections closed", kind: stat, unit: "ops", explain: "short-connections", w: 4, h: 4,
			description: "Connections that enter TIME_WAIT each second on all hosts.",
			queries:     []query{{expr: `sum(cluster:twwatch_time_wait_opened:rate5m{` + among + `})`}},
		},
		{
			title: "TIME_WAIT", kind: stat, unit: "short", explain: "time-wait", w: 4, h: 4,
			description: "TIME_WAIT sockets of all hosts.",
			queries:     []query{{expr: `sum(cluster_state:twwatch_sockets:sum{` + among + `,state="time_wait"})`}},
		},
		{
			title: "CLOSE_WAIT", kind: stat, unit: "short", explain: "close-wait", w: 4, h: 4,
			description: "CLOSE_WAIT sockets of all hosts.",
			queries:     []query{{expr: `sum(cluster_state:twwatch_sockets:sum{` + among + `,state="close_wait"})`}},
		},
		{
			title: "Findings over time", kind: timeseries, unit: "short", explain: "short-connections", w: 24, stack: true,
			description: "Hosts by what is found on them; warnings and critical findings.",
			queries:     []query{{expr: `sum by (id) (cluster:twwatch_finding:count{` + among + `})`, legend: "{{id}}"}},
		},
	}}
}

func fleetHosts() section {
	// Without its name, so that the answers' rows become one.
	worst := func(metric string) string {
		return `max by (cluster, job, instance) (` + metric + `{` + among + `} and on (cluster, job, instance) topk(25, instance:twwatch_urgency:sum{` + among + `}))`
	}
	ratio := func(i int, title string) column { return column{field: value(i, 7), title: title, share: true} }
	return section{"Worst hosts", []panel{
		{
			title: "Worst hosts", kind: table, unit: "percentunit", explain: "ephemeral-ports-slow", w: 24, h: 11,
			description: "The 25 hosts with the gravest findings; among equals, those nearest to one of their limits: that is their urgency, as in 3.2 for a critical finding and 80 % of a limit. The host leads to its dashboard.",
			lines:       shares(0.5, 0.8),
			queries: []query{
				{expr: worst("instance:twwatch_urgency:sum")},
				{expr: worst("instance:twwatch_finding:max")},
				{expr: worst("instance:twwatch_ephemeral_ports_used_ratio:max")},
				{expr: worst("instance:twwatch_ephemeral_port_demand_ratio:max")},
				{expr: worst("instance:twwatch_time_wait_buckets_used_ratio:max")},
				{expr: worst("instance:twwatch_close_wait_descriptors_used_ratio:max")},
				{expr: worst("instance:twwatch_time_wait_overflows:rate5m")},
			},
			columns: hostColumns(
				column{field: value(0, 7), title: "urgency", unit: "short", first: true},
				column{field: value(1, 7), title: "verdict", verdict: true},
				ratio(2, "ports taken"), ratio(3, "port demand"), ratio(4, "buckets used"), ratio(5, "descriptors used"),
				column{field: value(6, 7), title: "overflows/s", unit: "ops"}),
		},
		{
			title: "Ports taken", kind: timeseries, unit: "percentunit", explain: "ephemeral-ports", w: 12, lines: shares(0.5, 0.8), max: new(1.0),
			description: "The ten hosts whose tightest flow had the fewest ports left at any time shown.",
			queries:     []query{{expr: tenWorst("instance:twwatch_ephemeral_ports_used_ratio:max"), legend: "{{instance}}"}},
		},
		{
			title: "Bucket overflows", kind: timeseries, unit: "ops", explain: "time-wait-buckets-overflow", w: 12,
			description: "The ten hosts where most connections closed without TIME_WAIT at any time shown.",
			queries:     []query{{expr: tenWorst("instance:twwatch_time_wait_overflows:rate5m"), legend: "{{instance}}"}},
		},
	}}
}

// tenWorst are the same ten hosts all along: those with the greatest values in
// the time shown. topk alone would choose anew at every step.
func tenWorst(metric string) string {
	m := metric + `{` + among + `}`
	return m + ` and on (cluster, job, instance) topk(10, max_over_time(` + m + `[$__range] @ end()))`
}

func fleetServices() section {
	const (
		service = among + `,protocol=~"$service"`
		clients = service + `,side="client",protocol!=""`
		most    = `topk(25, sum by (cluster, job, instance, protocol) (instance_protocol:twwatch_time_wait_opened:rate5m{` + clients + `}))`
	)
	return section{"Services, and who would gain from long connections", []panel{
		{
			title: "Worst services", kind: table, unit: "short", explain: "short-connections-client", w: 12, h: 10,
			description: "Services by the connections that clients open and close to them each second; on how many hosts that is a finding; and the greatest port demand that one of these hosts has.",
			queries: []query{
				{expr: `sum by (protocol) (protocol:twwatch_time_wait_opened:rate5m{` + clients + `})`},
				{expr: `sum by (protocol) (protocol:twwatch_short_connections:count{` + service + `})`},
				{expr: `max by (protocol) (protocol:twwatch_flow_port_demand_ratio:max{` + service + `})`},
			},
			columns: []column{
				{field: "protocol", title: "service"},
				{field: value(0, 3), title: "closes/s", unit: "ops", first: true},
				{field: value(1, 3), title: "hosts with short connections"},
				{field: value(2, 3), title: "greatest port demand", unit: "percentunit"},
			},
		},
		{
			title: "Who would gain most from long connections", kind: table, unit: "short", explain: "short-connections", w: 12, h: 10,
			description: "The 25 clients that close most connections to one service. With connections that are kept, about that many handshakes a second are saved, and 60 times as many TIME_WAIT sockets and their ports are free.",
			queries: []query{
				{expr: most},
				{expr: `60 * ` + most},
				{expr: `max by (cluster, job, instance, protocol) (instance_protocol:twwatch_flow_port_demand_ratio:max{` + service + `}) and ` + most},
			},
			columns: hostColumns(
				column{field: "protocol", title: "service"},
				column{field: value(0, 3), title: "handshakes/s saved", unit: "ops", first: true},
				column{field: value(1, 3), title: "TIME_WAIT that go"},
				column{field: value(2, 3), title: "port demand now", unit: "percentunit"}),
		},
		{
			title: "Closes per second by service", kind: timeseries, unit: "ops", explain: "short-connections", w: 24, stack: true,
			description: "Connections that enter TIME_WAIT on all hosts, by service and the side that the hosts have in them.",
			queries:     []query{{expr: `sum by (protocol, side) (protocol:twwatch_time_wait_opened:rate5m{` + service + `})`, legend: "{{protocol}} {{side}}"}},
		},
	}}
}
