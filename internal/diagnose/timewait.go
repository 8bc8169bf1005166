package diagnose

import (
	"fmt"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about the table of TIME_WAIT sockets.
const (
	BucketsNear     = "time-wait-buckets-near-limit"
	BucketsOverflow = "time-wait-buckets-overflow"
)

func judgeBuckets(s *scene) []snapshot.Finding {
	w := &s.ns.TimeWait
	limit := *w.BucketsLimit
	if limit <= 0 {
		return nil
	}
	share := float64(w.BucketsUsed) / float64(limit)
	if share < s.thresholds.of(bucketsNear, s.held(snapshot.Subject{}, BucketsNear)) {
		return nil
	}
	f := snapshot.Finding{
		ID: BucketsNear, Severity: snapshot.Warning, Namespace: s.ns.Name,
		Evidence: bucketEvidence(w), Recommendations: []snapshot.Recommendation{raiseBuckets(limit)},
	}
	if w.BucketsUsed >= limit {
		f.Summary = fmt.Sprintf("All %s TIME_WAIT buckets (tcp_max_tw_buckets) are in use: connections that close now skip TIME_WAIT, and the kernel logs nothing.",
			draw.Count(int64(limit)))
	} else {
		f.Summary = fmt.Sprintf("%s of %s TIME_WAIT buckets (tcp_max_tw_buckets) are in use, %s; above the limit connections skip TIME_WAIT, and the kernel logs nothing.",
			draw.Count(int64(w.BucketsUsed)), draw.Count(int64(limit)), draw.Percent(share))
	}
	return []snapshot.Finding{f}
}

// judgeOverflow tells the overflow that today's kernels don't log.
func judgeOverflow(s *scene) []snapshot.Finding {
	lost, _ := s.growth("TCPTimeWaitOverflow")
	if lost == 0 {
		return nil
	}
	f := snapshot.Finding{
		ID: BucketsOverflow, Severity: snapshot.Warning, Namespace: s.ns.Name,
		Summary: fmt.Sprintf("TIME_WAIT buckets overflow: %s connections in %s closed without TIME_WAIT, so that late segments can reach a new connection.",
			draw.Count(int64(lost)), draw.Duration(s.seconds)),
		Evidence: append(bucketEvidence(&s.ns.TimeWait), snapshot.Evidence{
			What: "connections closed without TIME_WAIT", Value: float64(lost), Unit: "connections", Source: "TcpExt TCPTimeWaitOverflow",
		}),
		Recommendations: []snapshot.Recommendation{},
	}
	if l := s.ns.TimeWait.BucketsLimit; l != nil {
		f.Recommendations = append(f.Recommendations, raiseBuckets(*l))
	}
	return []snapshot.Finding{f}
}

func bucketEvidence(w *snapshot.TimeWait) []snapshot.Evidence {
	e := []snapshot.Evidence{{What: "buckets used", Value: float64(w.BucketsUsed), Unit: "sockets", Source: "/proc/net/sockstat: TCP tw"}}
	if w.BucketsLimit != nil {
		e = append(e, snapshot.Evidence{What: "buckets limit", Value: float64(*w.BucketsLimit), Unit: "sockets", Source: "tcp_max_tw_buckets"})
	}
	return e
}

func raiseBuckets(limit int) snapshot.Recommendation {
	return snapshot.Recommendation{
		ID: "raise-tw-buckets", Title: "Close fewer connections; until then raise tcp_max_tw_buckets",
		Do: "Find the flows below with most TIME_WAIT and let them reuse connections. Raising the limit, in the namespace of this finding, " +
			"keeps TIME_WAIT's protection meanwhile. Never lower it.",
		Snippet: fmt.Sprintf("# now %d; to undo, set it back\nsysctl -w net.ipv4.tcp_max_tw_buckets=%d", limit, 2*limit),
		Caveats: []string{"A TIME_WAIT takes 400 to 660 bytes of kernel memory (measured on Linux 6.18)."},
		References: []string{
			"https://docs.kernel.org/networking/ip-sysctl.html",
		},
	}
}
