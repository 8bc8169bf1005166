package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about the table of TIME_WAIT sockets, and about TIME_WAIT as such.
const (
	BucketsNear     = "time-wait-buckets-near-limit"
	BucketsOverflow = "time-wait-buckets-overflow"
	Harmless        = "time-wait-harmless"
)

func timeWaitRules() []rule {
	return []rule{
		{ids: []string{BucketsNear}, judge: judgeBuckets, silent: func(s *scene) bool { return s.ns.TimeWait.BucketsLimit == nil }},
		{ids: []string{BucketsOverflow}, judge: judgeOverflow, silent: lacks("TCPTimeWaitOverflow")},
	}
}

func judgeBuckets(s *scene) []*found {
	w := &s.ns.TimeWait
	limit := *w.BucketsLimit
	if limit <= 0 || s.grown("TCPTimeWaitOverflow") > 0 { // which is told, and says more
		return nil
	}
	share := float64(w.BucketsUsed) / float64(limit)
	if share < s.threshold(bucketsNear, snapshot.Subject{}, BucketsNear) {
		return nil
	}
	f := &found{
		Finding:    snapshot.Finding{ID: BucketsNear, Severity: snapshot.Warning, Evidence: bucketEvidence(w)},
		situations: []advice.Situation{s.situation(advice.Buckets, nil)},
	}
	if w.BucketsUsed >= limit {
		f.Summary = fmt.Sprintf("All %s TIME_WAIT buckets (tcp_max_tw_buckets) are in use: connections that close now skip TIME_WAIT, and the kernel logs nothing.",
			draw.Count(int64(limit)))
	} else {
		f.Summary = fmt.Sprintf("%s of %s TIME_WAIT buckets (tcp_max_tw_buckets) are in use, %s; above the limit connections skip TIME_WAIT, and the kernel logs nothing.",
			draw.Count(int64(w.BucketsUsed)), draw.Count(int64(limit)), draw.Percent(share))
	}
	return []*found{f}
}

// judgeOverflow tells the overflow that today's kernels don't log.
func judgeOverflow(s *scene) []*found {
	lost, _ := s.growth("TCPTimeWaitOverflow")
	if lost == 0 {
		return nil
	}
	return []*found{{
		Finding: snapshot.Finding{
			ID: BucketsOverflow, Severity: snapshot.Warning,
			Summary: fmt.Sprintf("TIME_WAIT buckets overflow: %s connections in %s closed without TIME_WAIT, so that late segments can reach a new connection.",
				draw.Count(int64(lost)), draw.Duration(s.seconds)),
			Evidence: append(bucketEvidence(&s.ns.TimeWait), snapshot.Evidence{
				What: "connections closed without TIME_WAIT", Value: float64(lost), Unit: "connections", Source: "TcpExt TCPTimeWaitOverflow",
			}),
		},
		situations: []advice.Situation{s.situation(advice.Buckets, nil)},
	}}
}

func bucketEvidence(w *snapshot.TimeWait) []snapshot.Evidence {
	e := []snapshot.Evidence{{What: "buckets used", Value: float64(w.BucketsUsed), Unit: "sockets", Source: "/proc/net/sockstat: TCP tw"}}
	if w.BucketsLimit != nil {
		e = append(e, snapshot.Evidence{What: "buckets limit", Value: float64(*w.BucketsLimit), Unit: "sockets", Source: "tcp_max_tw_buckets"})
	}
	return e
}

// harmlessRules look at what the others found: they come last.
func harmlessRules() []rule {
	return []rule{{ids: []string{Harmless}, judge: judgeHarmless, silent: func(s *scene) bool {
		return s.ns.Ports == nil || s.ns.TimeWait.BucketsLimit == nil
	}}}
}

// speaksOfTimeWait tells whether nothing can be called harmless beside a
// finding. Where servers close first it can: their TIME_WAIT take no ports.
func speaksOfTimeWait(f *snapshot.Finding) bool {
	switch f.ID {
	case ShortClient:
		own, _ := evidence(f, evidenceRate)
		far, _ := evidence(f, evidenceFar)
		return own*10 >= far
	case PortsSlow, PortsRunningOut, PortsExhausted, BindFirst, ListenersInRange, BucketsNear, BucketsOverflow,
		ShortReset, ShortRemoteCloses, ShortCured, PAWSDrops, ConntrackNear, SNATExhaustion:
		return true
	}
	return false
}

// justGone tells whether such a finding was there within the last minute: what
// TIME_WAIT are left are of that.
func (s *scene) justGone() bool {
	here := func(f snapshot.Finding) bool { return f.Namespace == s.ns.Name && speaksOfTimeWait(&f) }
	return slices.ContainsFunc(s.previous, here) || slices.ContainsFunc(s.history, func(m moment) bool {
		return m.ago <= holdSeconds && slices.ContainsFunc(m.findings, here)
	})
}

// judgeHarmless says plainly of many TIME_WAIT that they are no trouble.
func judgeHarmless(s *scene) []*found {
	n := s.ns.States.TimeWait
	if float64(n) < s.threshold(timeWaitMany, snapshot.Subject{}, Harmless) {
		return nil
	}
	if slices.ContainsFunc(s.found, func(f *found) bool { return speaksOfTimeWait(&f.Finding) }) || s.justGone() {
		return nil
	}
	w := &s.ns.TimeWait
	var served uint64
	var tightest *snapshot.Flow
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		if f.Side == snapshot.Server {
			served += uint64(f.States.TimeWait)
		} else if usablePorts(f) > 0 && f.States.TimeWait > 0 && (tightest == nil || taken(f) > taken(tightest)) {
			tightest = f
		}
	}
	low, high := advice.TimeWaitMemory(int(n))
	f := &found{Finding: snapshot.Finding{ID: Harmless, Severity: snapshot.Info}}
	var why []string
	switch {
	case served >= uint64(n):
		why = append(why, "all are a server's, which take no ports")
	case served > 0:
		why = append(why, draw.Count(int64(served))+" are a server's, which take no ports")
	}
	if tightest != nil {
		left := draw.Count(int64(tightest.Ports.Free))
		if tightest.Ports.AtMost {
			left = "up to " + left
		}
		why = append(why, fmt.Sprintf("the tightest destination, %s, has %s of %s ports left",
			destination([]*snapshot.Flow{tightest}), left, draw.Count(int64(usablePorts(tightest)))))
		f.Evidence = append(f.Evidence, snapshot.Evidence{What: "free ports of the tightest flow", Value: float64(tightest.Ports.Free), Unit: "ports", Source: "inet_diag, ip_local_port_range"})
	}
	why = append(why, fmt.Sprintf("%s of %s buckets and at most %s MB of memory are used",
		draw.Count(int64(w.BucketsUsed)), draw.Count(int64(*w.BucketsLimit)), draw.Short(float64(high)/1e6)))
	f.Summary = fmt.Sprintf("%s TIME_WAIT are no reason to act: %s.", draw.Count(int64(n)), strings.Join(why, "; "))
	f.Evidence = append([]snapshot.Evidence{
		{What: "TIME_WAIT", Value: float64(n), Unit: "sockets", Source: "inet_diag (ss -tn state time-wait)"},
		{What: "of these a server's", Value: float64(served), Unit: "sockets", Source: "inet_diag: the local port is listened on"},
	}, append(f.Evidence, append(bucketEvidence(w),
		snapshot.Evidence{What: "kernel memory, at least", Value: float64(low), Unit: "bytes", Source: "400 bytes each, measured on Linux 6.18"},
		snapshot.Evidence{What: "kernel memory, at most", Value: float64(high), Unit: "bytes", Source: "660 bytes each, measured on Linux 6.18"})...)...)
	situation := s.situation(advice.Harmless, nil)
	situation.Numbers.TimeWait = new(int(n))
	f.situations = []advice.Situation{situation}
	return []*found{f}
}
