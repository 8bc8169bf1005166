package diagnose

import (
	"fmt"
	"net"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about ephemeral ports.
const (
	PortsSlow       = "ephemeral-ports-slow"
	PortsRunningOut = "ephemeral-ports-running-out"
	PortsExhausted  = "ephemeral-ports-exhausted"
)

func portRules() []rule {
	return []rule{{
		ids:    []string{PortsSlow, PortsRunningOut, PortsExhausted},
		judge:  judgePorts,
		silent: func(s *scene) bool { return s.ns.Ports == nil },
	}}
}

// judgePorts looks at each client flow's own ports: the kernel counts them
// for each source address, destination address and destination port.
func judgePorts(s *scene) []*found {
	var all []*found
	for i := range s.ns.Flows {
		if f := &s.ns.Flows[i]; f.Ports != nil && f.Ports.Range > f.Ports.Reserved {
			if finding := judgeFlowPorts(s, f); finding != nil {
				all = append(all, finding)
			}
		}
	}
	return all
}

func judgeFlowPorts(s *scene, f *snapshot.Flow) *found {
	p, to := f.Ports, destination(f)
	all := p.Range - p.Reserved
	used := 1 - float64(p.Free)/float64(all)
	finding := &found{
		Finding: snapshot.Finding{Subject: subject(f), Evidence: portEvidence(f)},
		flow:    f, situations: []advice.Situation{s.situation(advice.Ports, f)},
	}
	soon := p.SecondsToExhaustion != nil && float64(*p.SecondsToExhaustion) < s.settings.Thresholds.of(portsSeconds, false)
	switch {
	case p.Free == 0:
		finding.ID, finding.Severity = PortsExhausted, snapshot.Critical
		finding.Summary = fmt.Sprintf("No port left from %s to %s: all %s are taken%s, and connect() fails with EADDRNOTAVAIL.",
			f.Local, to, draw.Count(int64(all)), byTimeWait(f))
	case used >= s.threshold(portsRunningOut, finding.Subject, PortsRunningOut, PortsExhausted), soon:
		finding.ID, finding.Severity = PortsRunningOut, snapshot.Critical
		finding.Summary = fmt.Sprintf("Ports from %s to %s run out: %s of %s left%s%s.",
			f.Local, to, draw.Count(int64(p.Free)), draw.Count(int64(all)), byTimeWait(f), when(p))
	case used > s.threshold(portsSlow, finding.Subject, PortsSlow, PortsRunningOut, PortsExhausted):
		finding.ID, finding.Severity = PortsSlow, snapshot.Warning
		finding.Summary = fmt.Sprintf("connect() from %s to %s is in its slow half: %s of %s ports are taken%s%s.",
			f.Local, to, draw.Count(int64(all-p.Free)), draw.Count(int64(all)), byTimeWait(f), when(p))
	default:
		return nil
	}
	return finding
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
