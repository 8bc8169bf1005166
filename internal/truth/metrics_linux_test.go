package truth

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/internal/exporter"
	"github.com/twwatch/twwatch/internal/lab"
)

// With 100,000 sockets to as many remotes, exported flows and what is omitted
// sum up to the namespace, state by state.
func TestSumsCloseWithManyRemotes(t *testing.T) {
	const rows = 100_000
	ns := lab.NewT(t)
	if filled, err := ns.FillTimeWait(t.Context(), lab.Fill{Rows: rows, Remotes: rows}); err != nil || filled.Rows != rows {
		t.Fatalf("%+v, %v", filled, err)
	}
	metrics := exporter.New(exporter.Config{})
	err := ns.Do(func() error {
		c, err := collector.New(collector.Config{})
		if err != nil {
			return err
		}
		defer c.Close()
		for range 2 { // a flow enters with its second pass
			r, err := c.Pass(t.Context())
			if err != nil {
				return err
			}
			metrics.Observe(r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	there := must[int](t)(ns.TimeWaits())

	registry := prometheus.NewRegistry()
	if err := registry.Register(metrics); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := map[string]map[string]float64{} // metric, state
	for _, family := range families {
		byState := map[string]float64{}
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "state" {
					byState[l.GetValue()] += m.GetGauge().GetValue()
				}
			}
		}
		sum[family.GetName()] = byState
	}
	all, flows, omitted := sum["twwatch_sockets"], sum["twwatch_flow_sockets"], sum["twwatch_flow_sockets_omitted"]
	for _, state := range []string{"time_wait", "close_wait", "established", "syn_sent"} {
		if flows[state]+omitted[state] != all[state] {
			t.Errorf("%s: %v in flows and %v omitted, of %v", state, flows[state], omitted[state], all[state])
		}
	}
	if all["time_wait"] != float64(there) || there < rows-rows/1000 || flows["time_wait"] == 0 {
		t.Errorf("%v TIME_WAIT in the metrics, %v of them in flows; the kernel has %d", all["time_wait"], flows["time_wait"], there)
	}
}
