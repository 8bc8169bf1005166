package diagnose

import (
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/sysctl"
)

// pod is a namespace of a pod on the node, on the kernel's defaults.
func pod(name string, change func(*snapshot.Namespace)) *snapshot.Namespace {
	ns := host(0, change).Namespaces[0]
	ns.Name, ns.Kind, ns.Inode = name, "pod", uint64(len(name))+7
	return ns
}

// node is a report of a tuned host and of pods.
func nodeReport(tune func(*sysctl.Limits), pods ...*snapshot.Namespace) *snapshot.Report {
	r := host(15, nil)
	r.Namespaces[0].Name, r.Namespaces[0].Kind = "host", "host"
	tune(&r.Namespaces[0].Limits)
	r.Namespaces = append(r.Namespaces, pods...)
	return r
}

// A pod that is near a limit which the node has raised is told, with how to
// raise it there; the others are not.
func TestSysctlDrift(t *testing.T) {
	tune := func(l *sysctl.Limits) {
		l.IPLocalPortRange = &sysctl.PortRange{Low: 10240, High: 65535}
		l.TCPTWReuse, l.TCPMaxTWBuckets, l.Somaxconn = new(1), new(262144), new(65535)
	}
	defaults := func(ns *snapshot.Namespace) {
		ns.Limits.TCPTWReuse, ns.Limits.TCPMaxTWBuckets, ns.Limits.Somaxconn = new(2), new(131072), new(4096)
	}
	near := func(ns *snapshot.Namespace) { defaults(ns); client(10000, nil)(ns) }
	full := func(ns *snapshot.Namespace) { defaults(ns); buckets(120000)(ns) }
	r := nodeReport(tune, pod("default/idle", defaults), pod("default/web-1", near), pod("default/web-22", near), pod("batch/full", full))
	res := judgeTwice(t, []*snapshot.Report{r}, nil, Settings{Advice: library(t)})
	var drifts []snapshot.Finding
	for _, f := range res.Findings {
		if f.ID != SysctlDrift {
			continue
		}
		if f.Namespace != "host" {
			t.Errorf("it is of %q, want the host", f.Namespace)
		}
		drifts = append(drifts, f)
	}
	golden(t, "pod-sysctl-drift", fullText(drifts))

	for name, r := range map[string]*snapshot.Report{
		"a host that isn't tuned":    nodeReport(defaultsOf, pod("default/web-1", near)),
		"no pod near a limit":        nodeReport(tune, pod("default/idle", defaults)),
		"no setting of the pod read": nodeReport(tune, pod("default/web-1", client(10000, nil))),
	} {
		if name == "no setting of the pod read" {
			r.Namespaces[1].Limits = sysctl.Limits{}
		}
		for _, f := range Judge([]*snapshot.Report{r}, nil, Settings{}).Findings {
			if f.ID == SysctlDrift {
				t.Errorf("%s: %s", name, f.Summary)
			}
		}
	}
}

func defaultsOf(*sysctl.Limits) {}
