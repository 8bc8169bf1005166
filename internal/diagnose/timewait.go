package diagnose

import (
	"fmt"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about the table of TIME_WAIT sockets.
const (
	BucketsNear     = "time-wait-buckets-near-limit"
	BucketsOverflow = "time-wait-buckets-overflow"
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
	if limit <= 0 {
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
