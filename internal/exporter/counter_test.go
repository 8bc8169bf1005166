package exporter

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A flow's counter begins at 0, outlives its export by ten minutes, and every
// birth is either its or omitted.
func TestCounterThroughLeaveAndReturn(t *testing.T) {
	e := New(Config{Flows: 1})
	var births float64
	n := 0
	pass := func(flows ...snapshot.Flow) map[string]float64 {
		ns := namespace("host", "host", 1, snapshot.Omitted{Births: 1}, flows...)
		births += float64(ns.TimeWait.Births)
		e.Observe(at(n, ns))
		n++
		return series(t, e)
	}
	flow := func(remote string, used int) snapshot.Flow {
		f := client(remote, 80, used, tw(uint32(used)))
		f.Births = 10
		return f
	}
	check := func(what string, all map[string]float64, remote string, opened string, omitted float64) {
		t.Helper()
		want := ""
		if remote != "" {
			want = `{local="10.0.0.5",netns="host",port="80",protocol="",remote="` + remote + `",side="client"} ` + opened + "\n"
		}
		if diff := cmp.Diff(want, named(all, "twwatch_flow_time_wait_opened_total")); diff != "" {
			t.Errorf("pass %d, %s: opened (-want +got):\n%s", n, what, diff)
		}
		if got := all[`twwatch_flow_time_wait_opened_omitted_total{netns="host"}`]; got != omitted {
			t.Errorf("pass %d, %s: omitted %v, want %v", n, what, got, omitted)
		}
	}
	check("first sight", pass(flow("10.0.0.1", 100)), "", "", 11)
	check("enters at 0", pass(flow("10.0.0.1", 100)), "10.0.0.1", "0", 22)
	check("counts", pass(flow("10.0.0.1", 100)), "10.0.0.1", "10", 23)

	// A heavier flow has to wait until the first has stayed ten minutes.
	for range 37 { // entered at pass 1: pass 40 is within the stay
		pass(flow("10.0.0.1", 100), flow("10.0.0.2", 900))
	}
	check("still staying", pass(flow("10.0.0.1", 100), flow("10.0.0.2", 900)), "10.0.0.1", "390", 23+38*11)
	check("replaced", pass(flow("10.0.0.1", 100), flow("10.0.0.2", 900)), "10.0.0.2", "0", 23+38*11+21)

	// The new one stays its ten minutes; the first returns just before it is
	// forgotten, so it goes on from where it was.
	for range 39 {
		pass(flow("10.0.0.1", 999), flow("10.0.0.2", 900))
	}
	all := pass(flow("10.0.0.1", 999), flow("10.0.0.2", 900))
	if got := named(all, "twwatch_flow_time_wait_opened_total"); !strings.Contains(got, `remote="10.0.0.1",side="client"} 0`) {
		t.Errorf("after ten minutes outside the counter is forgotten, and restarts at 0; got\n%s", got)
	}

	// Nothing is counted twice, and what is not forgotten is all there.
	var now float64
	for k, v := range all {
		if strings.HasPrefix(k, "twwatch_flow_time_wait_opened") {
			now += v
		}
	}
	if gone := e.clients.gone; len(gone) != 1 {
		t.Errorf("%d flows are remembered, want the one that left", len(gone))
	}
	for _, tr := range e.clients.gone {
		now += float64(tr.opened)
	}
	const forgottenBirths = 390 // of the first stay
	if now+forgottenBirths != births {
		t.Errorf("%v births are in counters, and %d were forgotten, of %v", now, forgottenBirths, births)
	}
}

// Returning within the ten minutes goes on from the old value.
func TestCounterReturns(t *testing.T) {
	e := New(Config{Flows: 1, Stay: 1}) // leaves as soon as it may
	flow := client("10.0.0.1", 80, 5, tw(5))
	flow.Births = 10
	n := 0
	pass := func(flows ...snapshot.Flow) string {
		e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, flows...)))
		n++
		_, value, _ := strings.Cut(named(series(t, e), "twwatch_flow_time_wait_opened_total"), "} ")
		return value
	}
	pass(flow)
	pass(flow)
	if got := pass(flow); got != "10\n" {
		t.Fatalf("counter %q, want 10", got)
	}
	for range 35 {
		if got := pass(); got != "" {
			t.Fatalf("counter %q after the flow has gone", got)
		}
	}
	pass(flow)
	if got := pass(flow); got != "10\n" {
		t.Errorf("returned with %q, want 10", got)
	}
	if got := pass(flow); got != "20\n" {
		t.Errorf("then %q, want 20", got)
	}
	if made := len(e.admit.made); made != 1 {
		t.Errorf("%d label sets were made, want 1: the same one returned", made)
	}
}

// A flow without sockets stays with zeros; one that the report may have left
// out has only its counter.
func TestAbsentFlow(t *testing.T) {
	for name, c := range map[string]struct {
		omitted snapshot.Omitted
		others  []snapshot.Flow
		gap     string
		series  int
	}{
		"all are listed": {series: nStates},
		"some omitted":   {omitted: snapshot.Omitted{Flows: 1}},
		"another gap":    {gap: "limits", series: nStates},
		"a cut dump":     {gap: "dump"},
		"a prefix":       {others: []snapshot.Flow{{Side: snapshot.Client, Remote: "10.0.0.0/24", Port: 80, States: tw(3)}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := New(Config{})
			for n := range 2 {
				e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, client("10.0.0.1", 80, 5, tw(5)))))
			}
			r := at(2, namespace("host", "host", 1, c.omitted, c.others...))
			r.Incomplete = []snapshot.Gap{{Stage: c.gap, Namespace: "host"}}
			e.Observe(r)
			all := series(t, e)
			checkSums(t, all)
			if got := strings.Count(named(all, "twwatch_flow_sockets"), "\n"); got != c.series {
				t.Errorf("%d series of sockets, want %d", got, c.series)
			}
			if named(all, "twwatch_flow_time_wait_opened_total") == "" {
				t.Error("the counter is gone")
			}
		})
	}
}
