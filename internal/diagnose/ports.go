package diagnose

import (
	"fmt"
	"net"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about ephemeral ports.
const (
	PortsSlow       = "ephemeral-ports-slow"
	PortsRunningOut = "ephemeral-ports-running-out"
	PortsExhausted  = "ephemeral-ports-exhausted"
)

// judgePorts looks at each client flow's own ports: the kernel counts them
// for each source address, destination address and destination port.
func judgePorts(s *scene) []snapshot.Finding {
	var found []snapshot.Finding
	for i := range s.ns.Flows {
		if f := &s.ns.Flows[i]; f.Ports != nil && f.Ports.Range > f.Ports.Reserved {
			if finding, ok := judgeFlowPorts(s, f); ok {
				found = append(found, finding)
			}
		}
	}
	return found
}

func judgeFlowPorts(s *scene, f *snapshot.Flow) (snapshot.Finding, bool) {
	p, to := f.Ports, destination(f)
	subject := snapshot.Subject{Side: f.Side, Device: f.Device, Local: f.Local, Remote: f.Remote, Port: f.Port, Service: f.Service}
	all := p.Range - p.Reserved
	used := 1 - float64(p.Free)/float64(all)
	finding := snapshot.Finding{
		Namespace: s.ns.Name, Subject: subject, Evidence: portEvidence(f), Recommendations: []snapshot.Recommendation{},
	}
	soon := p.SecondsToExhaustion != nil && float64(*p.SecondsToExhaustion) < s.thresholds.of(portsSeconds, false)
	switch {
	case p.Free == 0:
		finding.ID, finding.Severity = PortsExhausted, snapshot.Critical
		finding.Summary = fmt.Sprintf("No port left from %s to %s: all %s are taken%s, and connect() fails with EADDRNOTAVAIL.",
			f.Local, to, draw.Count(int64(all)), byTimeWait(f))
	case used >= s.thresholds.of(portsRunningOut, s.held(subject, PortsRunningOut, PortsExhausted)), soon:
		finding.ID, finding.Severity = PortsRunningOut, snapshot.Critical
		finding.Summary = fmt.Sprintf("Ports from %s to %s run out: %s of %s left%s%s.",
			f.Local, to, draw.Count(int64(p.Free)), draw.Count(int64(all)), byTimeWait(f), when(p))
	case used > s.thresholds.of(portsSlow, s.held(subject, PortsSlow, PortsRunningOut, PortsExhausted)):
		finding.ID, finding.Severity = PortsSlow, snapshot.Warning
		finding.Summary = fmt.Sprintf("connect() from %s to %s is in its slow half: %s of %s ports are taken%s%s.",
			f.Local, to, draw.Count(int64(all-p.Free)), draw.Count(int64(all)), byTimeWait(f), when(p))
	default:
		return finding, false
	}
	finding.Recommendations = append(finding.Recommendations, reuseConnections(f))
	return finding, true
}

func destination(f *snapshot.Flow) string {
	to := net.JoinHostPort(f.Remote, strconv.Itoa(int(f.Port)))
	if f.Service != "" {
		to += " (usually " + f.Service + ")"
	}
	return to
}

// byTimeWait names TIME_WAIT if it is what takes the ports.
func byTimeWait(f *snapshot.Flow) string {
	used, waiting := f.Ports.Used, int(f.States.TimeWait)
	switch {
	case waiting > 0 && waiting >= used && f.Ports.Blocked == 0:
		return ", all by closed connections in TIME_WAIT"
	case waiting > 0 && waiting >= used/2:
		return fmt.Sprintf(", %s of them by closed connections in TIME_WAIT", draw.Count(int64(f.States.TimeWait)))
	}
	return ""
}

func when(p *snapshot.Ports) string {
	if p.SecondsToExhaustion == nil {
		return ""
	}
	return fmt.Sprintf("; at the present rate none is left in %s", draw.Duration(float64(*p.SecondsToExhaustion)))
}

func portEvidence(f *snapshot.Flow) []snapshot.Evidence {
	const source = "inet_diag, ip_local_port_range, ip_local_reserved_ports"
	p := f.Ports
	e := []snapshot.Evidence{
		{What: "free ports", Value: float64(p.Free), Unit: "ports", Source: source},
		{What: "usable range", Value: float64(p.Range - p.Reserved), Unit: "ports", Source: "ip_local_port_range, ip_local_reserved_ports"},
		{What: "ports used by this flow", Value: float64(p.Used), Unit: "ports", Source: "inet_diag"},
		{What: "TIME_WAIT of this flow", Value: float64(f.States.TimeWait), Unit: "sockets", Source: "inet_diag"},
	}
	if p.Blocked > 0 {
		e = append(e, snapshot.Evidence{What: "ports blocked by binds", Value: float64(p.Blocked), Unit: "ports", Source: "inet_diag"})
	}
	if f.CloseRate != nil {
		e = append(e, snapshot.Evidence{What: "connections closed", Value: *f.CloseRate, Unit: "1/s", Source: "TIME_WAIT timers of inet_diag"})
	}
	return e
}

// reuseConnections is the first advice for every flow that runs out of ports:
// fewer connections, not more ports.
func reuseConnections(f *snapshot.Flow) snapshot.Recommendation {
	return snapshot.Recommendation{
		ID: "reuse-connections", Title: "Keep connections open and reuse them",
		Do: "In the client of " + destination(f) +
			", use a connection pool or HTTP keep-alive, so that requests share a few connections that stay open.",
		Effect: "A connection that is not closed leaves no TIME_WAIT and gives no port away.",
		Caveats: []string{
			"All idle connections together (processes × pool size) must stay below what the server accepts.",
			"The pool must drop idle connections sooner than the server, or a proxy on the way, does.",
		},
		References: []string{
			"https://vincent.bernat.ch/en/blog/2014-tcp-time-wait-state-linux",
			"https://blog.cloudflare.com/how-to-stop-running-out-of-ephemeral-ports-and-start-to-love-long-lived-connections/",
		},
	}
}
