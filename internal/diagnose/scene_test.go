package diagnose

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A namespace that isn't read in every pass is compared with its own earlier
// samples, over the time between them, and a sample that is shown twice is one.
func TestLooksAreSamples(t *testing.T) {
	// look is a pass at so many seconds that shows a sample of another second.
	look := func(at, sampled float64, repeated bool, total uint64) *snapshot.Report {
		r := host(at, overflow(total))
		ns := r.Namespaces[0]
		ns.SampledAt, ns.Repeated = r.Time.Add(time.Duration((sampled-at)*float64(time.Second))), repeated
		return r
	}
	type history struct {
		Agos    []float64
		Seconds float64
		Rate    float64
		Known   bool
	}
	for name, c := range map[string]struct {
		window []*snapshot.Report
		want   history
	}{
		"a sample each": {
			[]*snapshot.Report{look(0, 0, false, 5), look(15, 15, false, 20)},
			history{[]float64{15}, 15, 1, true},
		},
		"the sample before is shown until the new one": {
			[]*snapshot.Report{look(0, 0.5, false, 5), look(15, 0.5, true, 5), look(30, 0.5, true, 5), look(45, 45.5, false, 50)},
			history{[]float64{45}, 45, 1, true},
		},
		"the new one is shown again": {
			[]*snapshot.Report{look(0, 0.5, false, 5), look(45, 45.5, false, 50), look(60, 45.5, true, 50)},
			history{[]float64{45}, 45, 1, true},
		},
		"one sample, shown twice": {
			[]*snapshot.Report{look(0, 0.5, false, 5), look(15, 0.5, true, 5)},
			history{nil, 0, 0, false},
		},
		"nothing moved, and that was seen": {
			[]*snapshot.Report{look(0, 0.5, false, 5), look(15, 15.5, true, 5), look(30, 30.5, true, 5)},
			history{[]float64{30, 15}, 30, 0, true},
		},
	} {
		s := newScene(c.window, c.window[len(c.window)-1].Namespaces[0], nil, Settings{})
		got := history{Seconds: s.seconds}
		for _, m := range s.history {
			got.Agos = append(got.Agos, m.ago)
		}
		got.Rate, got.Known = s.rate("TCPTimeWaitOverflow")
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
