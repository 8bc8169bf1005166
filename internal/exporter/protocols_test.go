package exporter

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const protocolOpened = "twwatch_protocol_time_wait_opened_total"

func served(f snapshot.Flow, service string, births uint64) snapshot.Flow {
	f.Service, f.Births = service, births
	return f
}

// Flows that aren't exported count too, over all namespaces, and each birth
// once.
func TestProtocols(t *testing.T) {
	e := New(Config{Flows: -1})
	frame := func(n int) {
		e.Observe(at(
			n,
			namespace("host", "host", 1, snapshot.Omitted{Births: 5},
				served(client("10.0.0.9", 6379, 1, tw(1)), "redis", 60),
				served(client("10.0.0.10", 6379, 1, tw(1)), "redis", 40),
				served(server("10.0.0.5", "192.0.2.1", 6379, tw(1)), "redis", 10),
				served(client("10.0.0.10", 4242, 1, tw(1)), "", 7)),
			namespace("pod", "shop", 2, snapshot.Omitted{},
				served(client("10.0.0.9", 6379, 1, tw(1)), "redis", 300)),
		))
	}
	frame(0)
	want := "{protocol=\"\",side=\"\"} 122\n{protocol=\"redis\",side=\"client\"} 300\n"
	if diff := cmp.Diff(want, named(series(t, e), protocolOpened)); diff != "" {
		t.Errorf("the host's are of a protocol that had no series yet (-want +got):\n%s", diff)
	}
	frame(1)
	want = "{protocol=\"\",side=\"\"} 144\n{protocol=\"redis\",side=\"client\"} 700\n"
	if diff := cmp.Diff(want, named(series(t, e), protocolOpened)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Many protocols: the first that matter have series, and keep them.
func TestProtocolsAreBounded(t *testing.T) {
	e := New(Config{})
	var births uint64
	for n := range 400 {
		var flows []snapshot.Flow
		for i := range 40 { // others each time, and one that stays
			flows = append(flows, served(client("10.0.0.9", uint16(1+i), 1, tw(1)), fmt.Sprint("scan-", n, "-", i), 1))
		}
		flows = append(flows, served(client("10.0.0.9", 6379, 1, tw(1)), "redis", 30))
		if n >= 100 {
			for i := range 30 {
				flows = append(flows, served(client("10.0.0.8", uint16(1+i), 1, tw(1)), fmt.Sprint("real-", i), 200))
			}
		}
		for _, f := range flows {
			births += f.Births
		}
		e.Observe(at(n, namespace("host", "host", 1, snapshot.Omitted{}, flows...)))
		if len(e.known.shown) > maxProtocols || len(e.known.candidates) > maxCandidates {
			t.Fatalf("pass %d: %d protocols and %d candidates", n, len(e.known.shown), len(e.known.candidates))
		}
	}
	if got := e.known.shown[protocolKey{snapshot.Client, "redis"}]; got != 30*(400-4) {
		t.Errorf("redis: %d births, want those from the fifth pass on", got)
	}
	sum := e.known.others
	for _, n := range e.known.shown {
		sum += n
	}
	if sum != births {
		t.Errorf("%d births counted, of %d", sum, births)
	}
}
