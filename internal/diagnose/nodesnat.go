package diagnose

import (
	"fmt"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// judgePodSNAT is judgeSNAT for connections that pods open and that the node
// translates: the handshakes hang in the pods, and conntrack fails in the host's
// namespace. It needs the same signs, summed over the pods; what a single
// namespace shows by itself is told there.
func judgePodSNAT(host *judged, all []*judged) *found {
	failed, _ := host.conntrackGrowth(insertFailed)
	if share, ok := host.conntrackShare(); failed == 0 || ok && share >= host.settings.Thresholds.of(conntrackFull, true) {
		return nil
	}
	var repeated uint64
	var retrans float64
	var pods []*snapshot.Namespace
	for _, j := range all {
		if !isPod(j.ns) {
			continue
		}
		if j.has(SNATExhaustion) {
			return nil
		}
		n, _ := j.growth("TCPSynRetrans")
		rate, _ := j.rate("TCPSynRetrans")
		repeated, retrans, pods = repeated+n, retrans+rate, append(pods, j.ns)
	}
	to := mostHanging(pods...)
	if to == nil || to.namespaces < 2 {
		return nil
	}
	subject := snapshot.Subject{Side: snapshot.Client, Remote: to.flow.Remote, Port: to.flow.Port, Service: to.flow.Service}
	if repeated == 0 || float64(failed) < snatShare*float64(repeated) || retrans < host.threshold(snatRetransRate, subject, SNATExhaustion) {
		return nil
	}
	return &found{
		Finding: snapshot.Finding{
			ID: SNATExhaustion, Severity: snapshot.Critical, Subject: subject,
			Summary: fmt.Sprintf("The node's source NAT finds no free port towards %s: %s connections of %d pods hang in SYN_SENT, SYNs are repeated at %s, and conntrack failed to make an entry %s in %s.",
				destination([]*snapshot.Flow{to.flow}), draw.Count(int64(to.sockets)), to.namespaces, draw.Rate(retrans), times(failed), draw.Duration(host.seconds)),
			Evidence: []snapshot.Evidence{
				{What: "entries that couldn't be made", Value: float64(failed), Unit: "connections", Source: "/proc/net/stat/nf_conntrack of the host's namespace: insert_failed, over all CPUs"},
				{What: "SYNs and SYN-ACKs repeated, all pods", Value: retrans, Unit: "1/s", Source: "TcpExt TCPSynRetrans in each pod's namespace"},
				{What: "SYN_SENT to this destination, all pods", Value: float64(to.sockets), Unit: "sockets", Source: "ss -tn state syn-sent in each pod's namespace"},
				{What: "pods that wait for it", Value: float64(to.namespaces), Unit: "pods", Source: "inet_diag"},
			},
		},
		situations: []advice.Situation{host.situation(advice.SNAT, to.flow)},
	}
}

func isPod(ns *snapshot.Namespace) bool { return ns.Kind == "pod" || ns.Kind == "container" }
