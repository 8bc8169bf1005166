package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/sysctl"
)

// SysctlDrift is that the node was tuned and its pods were not.
const SysctlDrift = "pod-sysctl-drift"

// nodeIDs are the findings of several namespaces at once.
func nodeIDs() []string { return []string{SysctlDrift} }

// A judged is a namespace with what was found in it.
type judged struct {
	*scene
	found []*found
}

func (j *judged) has(ids ...string) bool {
	return slices.ContainsFunc(j.found, func(f *found) bool { return slices.Contains(ids, f.ID) })
}

// drift is a setting that the node has, and a pod doesn't get from it.
type drift struct {
	setting string                      // its name, without "net."
	pattern string                      // of the remedy
	near    []string                    // findings of a pod that is near its limit
	of      func(*sysctl.Limits) *setTo // nil where it isn't known
	unit    string                      // of its value
}

// setTo is what a setting is set to.
type setTo struct {
	text   string
	value  float64 // as evidence
	allows float64 // grows with what it allows
}

func drifts() []drift {
	number := func(field func(*sysctl.Limits) *int) func(*sysctl.Limits) *setTo {
		return func(l *sysctl.Limits) *setTo {
			v := field(l)
			if v == nil {
				return nil
			}
			return &setTo{draw.Count(int64(*v)), float64(*v), float64(*v)}
		}
	}
	portRange := func(l *sysctl.Limits) *setTo {
		r := l.IPLocalPortRange
		if r == nil {
			return nil
		}
		return &setTo{fmt.Sprintf("%d-%d", r.Low, r.High), float64(r.Size()), float64(r.Size())}
	}
	reuse := func(l *sysctl.Limits) *setTo {
		v := l.TCPTWReuse
		if v == nil {
			return nil
		}
		// 1 reuses everywhere, 2 on loopback, 0 nowhere.
		return &setTo{fmt.Sprint(*v), float64(*v), map[int]float64{0: 0, 2: 1, 1: 2}[*v]}
	}
	ports := []string{PortsSlow, PortsRunningOut, PortsExhausted}
	return []drift{
		{"ipv4.ip_local_port_range", advice.DriftPortRange, ports, portRange, "ports"},
		{"ipv4.tcp_tw_reuse", advice.DriftTWReuse, ports, reuse, "setting"},
		{"ipv4.tcp_max_tw_buckets", advice.DriftBuckets, []string{BucketsNear, BucketsOverflow}, number(func(l *sysctl.Limits) *int { return l.TCPMaxTWBuckets }), "sockets"},
		{"core.somaxconn", advice.DriftSomaxconn, []string{AcceptOverflow}, number(func(l *sysctl.Limits) *int { return l.Somaxconn }), "connections"},
		{"ipv4.tcp_max_syn_backlog", advice.DriftSynBacklog, []string{HalfOpenFlood}, number(func(l *sysctl.Limits) *int { return l.TCPMaxSynBacklog }), "sockets"},
	}
}

// judgeNode judges what only several namespaces together show. What it finds is
// the host's.
func judgeNode(all []*judged) {
	i := slices.IndexFunc(all, func(j *judged) bool { return j.ns.Kind == "host" })
	if i < 0 {
		return
	}
	host := all[i]
	for _, d := range drifts() {
		if f := d.judge(host, all); f != nil {
			host.found = append(host.found, f)
		}
	}
	if f := judgePodSNAT(host, all); f != nil {
		host.found = append(host.found, f)
	}
}

func (d *drift) judge(host *judged, all []*judged) *found {
	tuned := d.of(&host.ns.Limits)
	if tuned == nil {
		return nil
	}
	var names, values []string
	var least *setTo
	for _, j := range all {
		if !isPod(j.ns) || !j.has(d.near...) {
			continue
		}
		has := d.of(&j.ns.Limits)
		if has == nil || has.allows >= tuned.allows {
			continue
		}
		if least == nil || has.allows < least.allows {
			least = has
		}
		names = append(names, foreign(j.ns.Name))
		if !slices.Contains(values, has.text) {
			values = append(values, has.text)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	slices.Sort(values)
	evidence := func(what string, v *setTo, of string) snapshot.Evidence {
		return snapshot.Evidence{What: what, Value: v.value, Unit: d.unit, Source: "sysctl net." + d.setting + " in " + of}
	}
	short := d.setting[strings.LastIndexByte(d.setting, '.')+1:]
	return &found{
		Finding: snapshot.Finding{
			ID: SysctlDrift, Severity: snapshot.Warning, Subject: snapshot.Subject{Setting: "net." + d.setting},
			Summary: fmt.Sprintf("The node has %s %s, but %s %s on %s and %s near that limit: a pod doesn't get the node's settings.",
				short, tuned.text, listed(names), plural(len(names), "runs", "run"), listed(values), plural(len(names), "is", "are")),
			Evidence: []snapshot.Evidence{evidence(short+" of the node", tuned, "the host's namespace"), evidence(short+" of a pod near it, the lowest", least, "the pod's namespace")},
		},
		situations: []advice.Situation{host.situation(d.pattern, nil)},
	}
}

// listed names the first of several.
func listed(names []string) string {
	const most = 3
	last := names[len(names)-1]
	if more := len(names) - most; more > 0 {
		names, last = names[:most+1], fmt.Sprintf("%d more", more)
	}
	if len(names) == 1 {
		return last
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + last
}
