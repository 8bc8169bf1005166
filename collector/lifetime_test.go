package collector

import (
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Connections whose both ends are here live as long as either end says, however
// many each of them closes first.
func TestLifetimeOfBothEnds(t *testing.T) {
	flow := func(side snapshot.Side, remote string, live uint32, rate float64, atLeast bool) snapshot.Flow {
		return snapshot.Flow{
			Side: side, Local: "127.0.0.1", Remote: remote, Port: 80, CloseRate: &rate, CloseRateAtLeast: atLeast,
			States: snapshot.States{Established: live}, MeanLifetimeSeconds: new(float64(live) / rate),
		}
	}
	for _, tt := range []struct {
		name  string
		flows []snapshot.Flow
		want  []float64 // 0: not known
	}{
		{"either closes", []snapshot.Flow{flow(snapshot.Client, "127.0.0.1", 4, 10, false), flow(snapshot.Server, "127.0.0.1", 4, 70, false)}, []float64{0.05, 0.05}},
		{"the server's rate is a floor", []snapshot.Flow{flow(snapshot.Client, "127.0.0.1", 4, 10, false), flow(snapshot.Server, "127.0.0.1", 4, 70, true)}, []float64{0, 0}},
		{"another's server", []snapshot.Flow{flow(snapshot.Client, "127.0.0.2", 4, 10, false), flow(snapshot.Server, "127.0.0.1", 4, 80, false)}, []float64{0.4, 0.05}},
	} {
		n := snapshot.Namespace{Flows: tt.flows}
		bothEnds(&n)
		for i, want := range tt.want {
			switch got := n.Flows[i].MeanLifetimeSeconds; {
			case got == nil && want != 0, got != nil && *got != want:
				t.Errorf("%s: flow %d: %v, want %v", tt.name, i, got, want)
			}
		}
	}
}
