package web

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// busy is the n-th report of a host with two namespaces and flows of all kinds.
func busy(n int) *snapshot.Report {
	client := func(remote string, port uint16, service string, free int, change func(*snapshot.Flow)) snapshot.Flow {
		f := snapshot.Flow{
			Side: snapshot.Client, Local: "10.0.0.5", Remote: remote, Port: port, Service: service,
			Ports: &snapshot.Ports{Range: 1000, Free: free, Used: 1000 - free}, States: snapshot.States{TimeWait: uint32(1000 - free)},
		}
		change(&f)
		return f
	}
	plain := func(*snapshot.Flow) {}
	r := report(n)
	r.Verdict = snapshot.Critical
	r.NotJudged = []string{"syn-cookies"}
	r.Incomplete = []snapshot.Gap{{Stage: "limits"}}
	r.Namespaces = []*snapshot.Namespace{{
		Name: "host", Inode: 1, Omitted: snapshot.Omitted{Flows: 3}, States: snapshot.States{TimeWait: 900 + uint32(n), CloseWait: 4},
		TimeWait: snapshot.TimeWait{BucketsUsed: 900, BucketsLimit: new(1000), CloseRate: new(15.0)},
		Flows: []snapshot.Flow{
			client("10.0.0.9", 6379, "redis", 100+n, func(f *snapshot.Flow) {
				f.CloseRate, f.MeanLifetimeSeconds = new(15.0), new(0.004)
				f.Processes = []snapshot.Process{{PID: 7, PIDs: []int{7, 8}, Comm: "php-fpm"}, {PID: 9, Comm: "cron"}}
			}),
			client("10.0.0.8", 5432, "postgresql", 990, func(f *snapshot.Flow) {
				f.States.Established, f.MeanLifetimeSeconds, f.CloseRate = 40, new(60.0), new(1.0)
				f.Processes = []snapshot.Process{{PID: 9, Comm: "app"}}
			}),
			client("10.1.2.0/24", 443, "", 999, plain),
			client("::ffff:10.9.9.9", 80, "", 1000, plain),
			{Side: snapshot.Server, Local: "10.0.0.5", Remote: "10.8.0.1", Port: 443, Service: "https", States: snapshot.States{CloseWait: 4, TimeWait: 2}},
			{Side: snapshot.Unknown, Local: "fe80::1", Device: "eth0", Remote: "fe80::2%eth0", Port: 9},
		},
	}, {
		Name: "pod", Inode: 2, Omitted: snapshot.Omitted{Flows: 4}, States: snapshot.States{TimeWait: 5},
		TimeWait: snapshot.TimeWait{BucketsUsed: 5, BucketsLimit: new(10)},
		Flows: []snapshot.Flow{client("10.0.0.9", 6379, "redis", 995, func(f *snapshot.Flow) {
			f.Ports.Reserved = 1
		})},
	}}
	r.Findings = []snapshot.Finding{
		{ID: "time-wait-harmless", Severity: snapshot.Info, Namespace: "pod"},
		{ID: "close-wait-leak", Severity: snapshot.Warning, Namespace: "host", Subject: snapshot.Subject{Side: snapshot.Server, Local: "10.0.0.5", Port: 443}},
		{ID: "ephemeral-ports-running-out", Severity: snapshot.Critical, Namespace: "host", Subject: snapshot.Subject{Side: snapshot.Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379}},
		{ID: "time-wait-buckets-near-limit", Severity: snapshot.Critical, Namespace: "host"},
	}
	return r
}

// busySite has published that many reports of [busy].
func busySite(t *testing.T, reports int) http.Handler {
	t.Helper()
	all := make([]*snapshot.Report, reports)
	for i := range all {
		all[i] = busy(i)
	}
	h, _ := publish(t, all...)
	return Handler(config(h))
}

// get answers a request by its decoded JSON.
func get(t *testing.T, site http.Handler, target string) any {
	t.Helper()
	r := ask(site, loopback, "GET", target)
	b := body(t, r)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != asJSON {
		t.Fatalf("%s: %d %s", target, r.StatusCode, b)
	}
	return decodeAny(t, b)
}

// pluck gives what stands under keys, separated by dots, in each element of a
// list, as text.
func pluck(t *testing.T, v any, list string, keys ...string) []string {
	t.Helper()
	found := []string{}
	for _, e := range at(t, v, list).([]any) {
		var words []string
		for _, key := range keys {
			value := e
			for part := range strings.SplitSeq(key, ".") {
				o, _ := value.(object)
				value = o[part]
			}
			words = append(words, fmt.Sprint(value))
		}
		found = append(found, strings.Join(words, " "))
	}
	return found
}

func TestFlowsAreFiltered(t *testing.T) {
	site := busySite(t, 1)
	all := []string{
		"host 10.0.0.9 6379", "host 10.0.0.8 5432", "host 10.1.2.0/24 443", "host ::ffff:10.9.9.9 80",
		"host 10.8.0.1 443", "host fe80::2%eth0 9", "pod 10.0.0.9 6379",
	}
	for query, want := range map[string][]int{
		"":                         {0, 1, 6, 2, 3, 4, 5},
		"namespace=host":           {0, 1, 2, 3, 4, 5},
		"namespace=pod":            {6},
		"namespace=none":           {},
		"side=server":              {4},
		"side=unknown":             {5},
		"port=443":                 {2, 4},
		"service=redis":            {0, 6},
		"process=php-fpm":          {0},
		"process=8":                {0},
		"process=9":                {0, 1}, // cron, and app
		"process=cron":             {0},
		"remote=10.0.0.9":          {0, 6},
		"remote=10.0.0.0/8":        {0, 1, 6, 2, 3, 4},
		"remote=10.1.0.0/16":       {2},
		"remote=10.1.2.3":          {}, // what is folded may or may not be there
		"remote=::ffff:10.0.0.9":   {0, 6},
		"remote=fe80::/10":         {5},
		"remote=10.9.9.9":          {3},
		"side=client&service=http": {},
		"namespace=host&port=6379": {0},
		"sort=time_wait":           {0, 1, 6, 4, 2, 3, 5},
		"sort=close_wait&limit=1":  {4},
		"sort=established&limit=1": {1},
		"sort=closes&limit=2":      {0, 1},
		"sort=lifetime&limit=2":    {0, 1},
		"sort=service":             {4, 1, 0, 6, 2, 3, 5},
		"sort=process&limit=2":     {1, 0},
		"sort=remote&limit=3":      {1, 0, 6},
		"sort=ports&limit=1":       {0},
	} {
		v := get(t, site, "/api/v1/flows?"+query)
		wanted := []string{}
		for _, i := range want {
			wanted = append(wanted, all[i])
		}
		if diff := cmp.Diff(wanted, pluck(t, v, "flows", "namespace", "flow.remote", "flow.port")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
		truncated := strings.Contains(query, "limit")
		if got := at(t, v, "truncated"); got != truncated {
			t.Errorf("%s: truncated is %v", query, got)
		}
	}
	for query, want := range map[string]string{"limit=2": "7 7", "namespace=pod": "1 4", "port=443": "2 7", "namespace=none": "0 0"} {
		v := get(t, site, "/api/v1/flows?"+query)
		if got := fmt.Sprint(at(t, v, "matched"), " ", at(t, v, "omitted")); got != want {
			t.Errorf("%s: matched and omitted are %s, want %s", query, got, want)
		}
	}
}

// Every sort that is offered is one, and what isn't known comes last.
func TestFlowSorts(t *testing.T) {
	known := snapshot.Flow{
		States: snapshot.States{Established: 1, TimeWait: 1, CloseWait: 1}, CloseRate: new(1.0), MeanLifetimeSeconds: new(9.0), Service: "z", Remote: "a",
		Ports: &snapshot.Ports{Range: 2, Free: 1}, Processes: []snapshot.Process{{Comm: "z"}},
	}
	for _, sort := range flowSorts() {
		q := flowQuery{sort: sort}
		other := snapshot.Flow{Remote: "b"}
		if q.compare(&known, &other) >= 0 || q.compare(&other, &known) <= 0 || q.compare(&known, &known) != 0 {
			t.Errorf("%s: %d, %d", sort, q.compare(&known, &other), q.compare(&other, &known))
		}
	}
	if share, ok := takenShare(&snapshot.Ports{Range: 5, Reserved: 5}); ok {
		t.Errorf("no port at all: %v taken", share)
	}
}

func TestOneFlow(t *testing.T) {
	site := busySite(t, 3)
	flows := get(t, site, "/api/v1/flows")
	ids := pluck(t, flows, "flows", "id")
	v := get(t, site, "/api/v1/flows/"+ids[0])
	if at(t, v, "flow", "service") != "redis" || at(t, v, "namespace") != "host" || at(t, v, "id") != ids[0] {
		t.Errorf("got %v", v)
	}
	if diff := cmp.Diff([]string{"ephemeral-ports-running-out"}, pluck(t, v, "findings", "id")); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	want := []string{"2026-03-01T12:00:00Z 900 15 100", "2026-03-01T12:00:01Z 899 15 101", "2026-03-01T12:00:02Z 898 15 102"}
	if diff := cmp.Diff(want, pluck(t, v, "history", "time", "states.time_wait", "close_rate", "free")); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	// A finding about every client of a port is about each of its flows; what has
	// no ports has null of them.
	server := ids[slices.Index(pluck(t, flows, "flows", "flow.side"), "server")]
	v = get(t, site, "/api/v1/flows/"+server)
	if got := pluck(t, v, "findings", "id"); !slices.Equal(got, []string{"close-wait-leak"}) {
		t.Errorf("findings %v", got)
	}
	if got := pluck(t, v, "history", "free", "close_rate"); got[0] != "<nil> <nil>" {
		t.Errorf("history %v", got)
	}
	for id, status := range map[string]int{
		"0123456789abcdef": 404, "0123456789abcde": 400, "0123456789abcdef0": 400, "0123456789ABCDEF": 400, "0123456789abcdeg": 400,
		"..": 400, "%2e%2e%2fsecret": 404, "%00%1b%5b2J": 400, strings.Repeat("a", 4000): 400, "ünïcödé": 400,
	} {
		wantError(t, ask(site, loopback, "GET", "/api/v1/flows/"+id), status, "")
	}
	wantError(t, ask(site, loopback, "GET", "/api/v1/flows/"), 404, "no such path")
	wantError(t, ask(site, loopback, "GET", "/api/v1/flows/"+ids[0]+"/"), 404, "no such path")
	wantError(t, ask(site, loopback, "GET", "/api/v1/flows/"+ids[0]+"?limit=1"), 400, "no parameters")
}

func TestFindingsAreFiltered(t *testing.T) {
	site := busySite(t, 1)
	for query, want := range map[string][]string{
		"":                                {"ephemeral-ports-running-out", "time-wait-buckets-near-limit", "close-wait-leak", "time-wait-harmless"},
		"severity=info":                   {"ephemeral-ports-running-out", "time-wait-buckets-near-limit", "close-wait-leak", "time-wait-harmless"},
		"severity=warning":                {"ephemeral-ports-running-out", "time-wait-buckets-near-limit", "close-wait-leak"},
		"severity=critical":               {"ephemeral-ports-running-out", "time-wait-buckets-near-limit"},
		"id=close-wait-leak":              {"close-wait-leak"},
		"id=nothing":                      {},
		"namespace=pod":                   {"time-wait-harmless"},
		"namespace=pod&severity=critical": {},
		"limit=1":                         {"ephemeral-ports-running-out"},
	} {
		v := get(t, site, "/api/v1/findings?"+query)
		if diff := cmp.Diff(want, pluck(t, v, "findings", "id")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
		if at(t, v, "verdict") != "critical" || at(t, v, "truncated") != (query == "limit=1") || !reflect.DeepEqual(at(t, v, "not_judged"), []any{"syn-cookies"}) {
			t.Errorf("%s: %v", query, v)
		}
	}
	wantError(t, ask(site, loopback, "GET", "/api/v1/findings?severity=healthy"), 400, "info, warning, critical")
}

func TestHistory(t *testing.T) {
	site := busySite(t, 4)
	keys := []string{"time", "verdict", "critical", "warning", "info", "incomplete", "states.time_wait", "states.close_wait", "close_rate", "buckets_used", "buckets_ratio", "tightest.free", "tightest.ports", "tightest.taken_ratio"}
	want := []string{
		"2026-03-01T12:00:00Z critical 2 1 1 1 905 4 15 905 0.9 100 1000 0.9",
		"2026-03-01T12:00:01Z critical 2 1 1 1 906 4 15 905 0.9 101 1000 0.899",
		"2026-03-01T12:00:02Z critical 2 1 1 1 907 4 15 905 0.9 102 1000 0.898",
		"2026-03-01T12:00:03Z critical 2 1 1 1 908 4 15 905 0.9 103 1000 0.897",
	}
	if diff := cmp.Diff(want, pluck(t, get(t, site, "/api/v1/history"), "moments", keys...)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[2:], pluck(t, get(t, site, "/api/v1/history?limit=2"), "moments", keys...)); diff != "" {
		t.Errorf("limit=2 (-want +got):\n%s", diff)
	}
	// Of one namespace: its own numbers, the host's verdict; its rate isn't known.
	if diff := cmp.Diff([]string{"2026-03-01T12:00:03Z critical 2 1 1 1 5 0 <nil> 5 0.5 995 999"},
		pluck(t, get(t, site, "/api/v1/history?namespace=pod&limit=1"), "moments", keys[:len(keys)-1]...)); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
	none := pluck(t, get(t, site, "/api/v1/history?namespace=none&limit=1"), "moments", keys...)
	if none[0] != "2026-03-01T12:00:03Z critical 2 1 1 1 0 0 <nil> 0 <nil> <nil> <nil> <nil>" {
		t.Errorf("a namespace that there isn't: %v", none)
	}
}

// Nothing is answered before there is a report, and what is asked is checked all
// the same.
func TestAnswersBeforeTheFirstReport(t *testing.T) {
	h, _ := start(t, 0)
	site := Handler(config(h))
	for _, path := range []string{"flows", "flows/0123456789abcdef", "findings", "history"} {
		r := ask(site, loopback, "GET", "/api/v1/"+path)
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
		wantError(t, r, 503, "first pass")
		wantError(t, ask(site, loopback, "GET", "/api/v1/"+path+"?x=1"), 400, "")
	}
	// An explanation needs none.
	v := get(t, site, "/api/v1/explain/time-wait").(object)
	if texts := v["texts"].([]any); !strings.Contains(texts[0].(object)["now_missing"].(string), "first pass") {
		t.Errorf("got %v", texts[0])
	}
}

// A thousand flows and more are as many as were asked for.
func TestAnswersAreBounded(t *testing.T) {
	r := report(1)
	for range 3 {
		r.Namespaces = append(r.Namespaces, &snapshot.Namespace{Flows: make([]snapshot.Flow, 900)})
	}
	r.Findings = make([]snapshot.Finding, 3000)
	for i := range r.Findings {
		r.Findings[i].Severity = snapshot.Warning
	}
	h, _ := publish(t, r)
	site := Handler(config(h))
	for path, want := range map[string]int{"flows": DefaultFlows, "flows?limit=1000": MaxFlows, "findings": DefaultFindings, "findings?limit=1000": MaxFindings} {
		list, _, _ := strings.Cut(path, "?")
		v := get(t, site, "/api/v1/"+path)
		if got := at(t, v, list).([]any); len(got) != want || at(t, v, "truncated") != true {
			t.Errorf("%s: %d, truncated %v; want %d", path, len(got), at(t, v, "truncated"), want)
		}
	}
}
