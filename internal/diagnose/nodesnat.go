package diagnose

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// A podFlow is what the pods of a node open to one destination.
type podFlow struct {
	remote string
	port   uint16
	flow   *snapshot.Flow // the one with most handshakes that hang
	hang   int            // sockets in SYN_SENT
	pods   int
}

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
	hanging := 0
	for _, j := range all {
		if !isPod(j.ns) {
			continue
		}
		if j.has(SNATExhaustion) {
			return nil
		}
		n, _ := j.growth("TCPSynRetrans")
		rate, _ := j.rate("TCPSynRetrans")
		repeated, retrans, hanging = repeated+n, retrans+rate, hanging+int(j.ns.States.SynSent)
	}
	to := mostHanging(all)
	if to == nil || to.pods < 2 || to.hang < snatHanging || float64(to.hang) < snatShare*float64(hanging) {
		return nil
	}
	subject := snapshot.Subject{Side: snapshot.Client, Remote: to.remote, Port: to.port, Service: to.flow.Service}
	if repeated == 0 || float64(failed) < snatShare*float64(repeated) || retrans < host.threshold(snatRetransRate, subject, SNATExhaustion) {
		return nil
	}
	return &found{
		Finding: snapshot.Finding{
			ID: SNATExhaustion, Severity: snapshot.Critical, Subject: subject,
			Summary: fmt.Sprintf("The node's source NAT finds no free port towards %s: %s connections of %d pods hang in SYN_SENT, SYNs are repeated at %s, and conntrack failed to make an entry %s in %s.",
				destination([]*snapshot.Flow{to.flow}), draw.Count(int64(to.hang)), to.pods, draw.Rate(retrans), times(failed), draw.Duration(host.seconds)),
			Evidence: []snapshot.Evidence{
				{What: "entries that couldn't be made", Value: float64(failed), Unit: "connections", Source: "/proc/net/stat/nf_conntrack of the host's namespace: insert_failed, over all CPUs"},
				{What: "SYNs and SYN-ACKs repeated, all pods", Value: retrans, Unit: "1/s", Source: "TcpExt TCPSynRetrans in each pod's namespace"},
				{What: "SYN_SENT to this destination, all pods", Value: float64(to.hang), Unit: "sockets", Source: "ss -tn state syn-sent in each pod's namespace"},
				{What: "pods that wait for it", Value: float64(to.pods), Unit: "pods", Source: "inet_diag"},
			},
		},
		situations: []advice.Situation{host.situation(advice.SNAT, to.flow)},
	}
}

func isPod(ns *snapshot.Namespace) bool { return ns.Kind == "pod" || ns.Kind == "container" }

// mostHanging is the destination to which the pods have most handshakes without
// an answer, nil if there is none.
func mostHanging(all []*judged) *podFlow {
	type place struct {
		remote string
		port   uint16
	}
	to := map[place]*podFlow{}
	var most *podFlow
	for _, j := range all {
		if !isPod(j.ns) {
			continue
		}
		seen := map[place]bool{}
		for i := range j.ns.Flows {
			f := &j.ns.Flows[i]
			if _, err := netip.ParseAddr(f.Remote); err != nil || f.States.SynSent == 0 {
				continue
			}
			p := place{f.Remote, f.Port}
			t := to[p]
			if t == nil {
				t = &podFlow{remote: f.Remote, port: f.Port, flow: f}
				to[p] = t
			}
			if f.States.SynSent > t.flow.States.SynSent {
				t.flow = f
			}
			if t.hang += int(f.States.SynSent); !seen[p] {
				seen[p] = true
				t.pods++
			}
		}
	}
	for _, t := range to {
		if most == nil || cmp.Or(cmp.Compare(t.hang, most.hang), cmp.Compare(most.remote, t.remote), cmp.Compare(most.port, t.port)) > 0 {
			most = t
		}
	}
	return most
}
