package diagnose

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// Connections of pods that the node's source NAT finds no port for: the
// handshakes hang in the pods, conntrack fails in the host's namespace.
func TestPodsBehindSNAT(t *testing.T) {
	at := func(at float64, failed uint64, hang, repeated map[string]uint32) *snapshot.Report {
		r := looked(at, defaultLimits, counting, func(n *snapshot.Namespace) {
			n.Name, n.Kind, n.Conntrack.InsertFailed = "host", "host", &failed
		})
		r.HostLimits = &sysctl.HostLimits{NFConntrackMax: new(262144)}
		for i, name := range []string{"default/a", "default/b"} {
			ns := looked(at, defaultLimits, counting).Namespaces[0]
			ns.Name, ns.Kind, ns.Inode = name, "pod", uint64(i+100)
			ns.Counters["TCPSynRetrans"] = uint64(repeated[name])
			if n := hang[name]; n > 0 {
				ns.States.SynSent = n
				ns.Flows = append(ns.Flows, snapshot.Flow{Side: snapshot.Client, Local: "10.42.0." + name[len(name)-1:], Remote: "192.0.2.9", Port: 443, States: snapshot.States{SynSent: n}})
			}
			r.Namespaces = append(r.Namespaces, ns)
		}
		return r
	}
	both := map[string]uint32{"default/a": 15, "default/b": 14}
	growing := map[string]uint32{"default/a": 700, "default/b": 600}
	for _, c := range []struct {
		name   string
		failed uint64
		hang   map[string]uint32
		want   bool
	}{
		{"both hang", 1500, both, true},
		{"conntrack makes its entries", 0, both, false},
		{"fewer failures than repeated SYNs", 400, both, false},
		{"only one pod", 1500, map[string]uint32{"default/a": 15}, false},
		{"few hang", 1500, map[string]uint32{"default/a": 2, "default/b": 1}, false},
	} {
		window := []*snapshot.Report{at(0, 0, nil, nil), at(60, c.failed, c.hang, growing)}
		res := judgeTwice(t, window, nil, Settings{Advice: library(t)})
		var there []snapshot.Finding
		for _, f := range res.Findings {
			if f.ID == SNATExhaustion && f.Namespace == "host" {
				there = append(there, f)
			}
		}
		if got := len(there) == 1; got != c.want {
			t.Errorf("%s: %+v", c.name, res.Findings)
		}
		if c.want && len(there) == 1 {
			golden(t, "snat-of-pods", fullText(there))
		}
	}
}

// A sidecar's short connections are those of the pod's program.
func TestSidecarIsJudgedOnce(t *testing.T) {
	judge := func(kind string, proxy uint32) []string {
		app := by(closing("10.96.0.9", 8080, 60, 100), "shop", "", 0.9)
		side := by(closing("10.42.1.7", 8080, 60, proxy), "envoy", "envoy", 0.9)
		side.Local = "10.42.0.5"
		r := host(0, flows(app, side))
		r.Namespaces[0].Kind, r.Namespaces[0].Name = kind, "default/shop"
		var got []string
		for _, f := range judgeTwice(t, []*snapshot.Report{r}, nil, Settings{}).Findings {
			got = append(got, f.ID+" of "+f.Subject.Process+" <- "+f.BecauseOf)
		}
		return got
	}
	want := []string{"short-connections-client of shop <- ", "short-connections-client of envoy <- short-connections-client"}
	if diff := cmp.Diff(want, judge("pod", 100)); diff != "" {
		t.Errorf("in a pod (-want +got):\n%s", diff)
	}
	for name, got := range map[string][]string{"on a host": judge("host", 100), "of its own load": judge("pod", 300)} {
		if !slices.Contains(got, "short-connections-client of envoy <- ") {
			t.Errorf("a proxy %s: %v", name, got)
		}
	}
}
