package collector

import "github.com/twwatch/twwatch/collector/snapshot"

// ends are the addresses of a flow, seen from its client.
type ends struct {
	client, server string
	port           uint16
}

// bothEnds corrects the mean lifetime where a flow's other end is in the same
// namespace: each end counts only what it closes first itself, and the
// connections that are open are those that either will close.
func bothEnds(n *snapshot.Namespace) {
	servers := make(map[ends]*snapshot.Flow)
	for i := range n.Flows {
		if f := &n.Flows[i]; f.Side == snapshot.Server && f.CloseRate != nil && *f.CloseRate > 0 {
			servers[ends{f.Remote, f.Local, f.Port}] = f
		}
	}
	for i := range n.Flows {
		f := &n.Flows[i]
		s := servers[ends{f.Local, f.Remote, f.Port}]
		if f.Side != snapshot.Client || s == nil {
			continue
		}
		rate := *s.CloseRate
		if f.CloseRate != nil {
			rate += *f.CloseRate
		}
		f.MeanLifetimeSeconds, s.MeanLifetimeSeconds = nil, nil
		if live := f.States.Established; live > 0 && !f.CloseRateAtLeast && !s.CloseRateAtLeast {
			mean := float64(live) / rate // Little's law
			f.MeanLifetimeSeconds, s.MeanLifetimeSeconds = &mean, &mean
		}
	}
}
