package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/netns"
	"github.com/twwatch/twwatch/internal/workload"
)

const (
	// runtimeEvery is how often a container runtime is asked when nothing is new,
	// and youngFor how many passes a namespace counts as new.
	runtimeEvery = time.Minute
	youngFor     = 4
	// commLooks is how many passes a program's name is read in: a new process is
	// still its parent's program. After that it stays, lest a program that calls
	// itself something else all the time makes ever new series.
	commLooks = 2
	shortID   = 12 // of a container's id, as its runtime's commands show it
)

// The kinds of namespaces that internal/netns can't tell.
const (
	kindContainer = "container"
	kindPod       = "pod"
)

// A namer tells what namespaces are called: by the cgroup of a process in them,
// by the kubelet's logs and, if asked to, by what a container runtime tells.
type namer struct {
	list    func() []*netns.Namespace
	mounted func(path string) *netns.Namespace
	proc    string
	logs    *workload.Logs    // nil: not looked at
	runtime *workload.Runtime // nil: not asked
	labels  bool              // it is asked for labels
	asked   time.Time
	known   map[uint64]*naming // by serial
	bearers map[string]uint64  // which serial bears a name
}

// A naming is what is known of one namespace.
type naming struct {
	named
	passes int
	here   bool   // in this pass
	comm   string // of a process in it
	// nameless is a pod of which the name or the labels aren't known, pathless a
	// mounted namespace of which nothing is.
	nameless, pathless bool
}

func newNamer(cfg *Config, watcher *netns.Watcher) namer {
	n := namer{list: watcher.List, mounted: watcher.Mounted, proc: cfg.Proc, known: map[uint64]*naming{}, bearers: map[string]uint64{}}
	if cfg.PodLogs != NoPodLogs {
		n.logs = workload.NewLogs(cmp.Or(cfg.PodLogs, DefaultPodLogs))
	}
	if cfg.CRI != "" {
		n.labels = len(cfg.Labels) > 0
		n.runtime = workload.NewRuntime(workload.RuntimeConfig{Socket: cfg.CRI, Labels: cfg.Labels})
		select { // so that a first pass has names
		case <-n.runtime.First():
		case <-time.After(workload.Deadline):
		}
		n.asked = time.Now()
	}
	return n
}

func (n *namer) close() error {
	if n.runtime == nil {
		return nil
	}
	return n.runtime.Close()
}

// refresh brings the names of all namespaces listed up to date. It waits for
// nobody: what a runtime answers to a question is there in the next pass.
func (n *namer) refresh(_ context.Context, r *snapshot.Report) {
	var logsErr error
	if n.logs != nil {
		logsErr = n.logs.Refresh()
	}
	p := podsNow{Pods: &workload.Pods{}, mounted: n.mounted}
	if n.runtime != nil {
		p.Pods = n.runtime.Pods()
	}
	for _, k := range n.known {
		k.here = false
	}
	nameless, pathless, fresh := false, false, false
	for _, ns := range n.list() {
		k := n.known[ns.Serial]
		if k == nil {
			k = &naming{}
			n.known[ns.Serial] = k
		}
		k.here = true
		k.passes++
		n.identify(ns, k, &p)
		nameless = nameless || k.nameless
		pathless = pathless || k.pathless
		fresh = fresh || (k.nameless || k.pathless) && k.passes <= youngFor
	}
	for serial, k := range n.known {
		if !k.here {
			n.release(k.name, serial)
			delete(n.known, serial)
		}
	}
	n.tell(r, logsErr, nameless)
	if n.runtime != nil && (fresh || time.Since(n.asked) >= runtimeEvery) {
		n.asked = time.Now()
		n.runtime.Ask(pathless)
	}
}

// tell says what names can't be learnt.
func (n *namer) tell(r *snapshot.Report, logsErr error, nameless bool) {
	if n.runtime != nil {
		if err := n.runtime.Err(); err != nil {
			r.Limited = append(r.Limited, snapshot.Gap{
				Stage: stageCRI, Error: strings.ReplaceAll(err.Error(), "\n", "; "), Lost: "names and labels of pods that came since it last answered",
				Fix: "check that the container runtime runs, and that --kubernetes.cri is its socket and may be used: it is root's",
			})
		}
	}
	if logsErr != nil && nameless {
		r.Limited = append(r.Limited, snapshot.Gap{
			Stage: stageNamespaces, Error: "names of pods: " + logsErr.Error(), Lost: "the names of pods, which stand by their UIDs",
			Fix: "check that --kubernetes.pod-logs is the kubelet's directory of logs, mounted and readable",
		})
	}
}

// name gives a namespace the name that refresh found for it.
func (n *namer) name(o *other) {
	if k := n.known[o.Serial]; k != nil {
		o.named = k.named
	}
}

// identify finds out what a namespace is called.
func (n *namer) identify(ns *netns.Namespace, k *naming, pods *podsNow) {
	found := named{name: ns.Name, kind: ns.Kind}
	k.nameless, k.pathless = false, false
	if ns.Kind != netns.KindHost && ns.Kind != netns.KindSelf {
		w := workload.Of(ns.Cgroup)
		if pod := n.podOf(ns, &w, pods); pod != nil {
			found.kind, found.name = kindPod, pod.Namespace+"/"+pod.Name
			k.nameless = pod.Name == "" || n.labels && pods.ByUID[pod.UID] == nil
			if pod.Name == "" {
				found.name = "pod@" + pod.UID
			}
			found.workload = &snapshot.Workload{
				Namespace: pod.Namespace, Pod: pod.Name, PodUID: pod.UID, Container: pod.Container, Runtime: w.Runtime, Labels: pod.Labels,
			}
		} else {
			k.pathless = w.Kind != workload.KindContainer && len(ns.Mounts) > 0
			n.nameOther(ns, k, &w, &found)
		}
	}
	found.name = n.unique(found.name, k.name, ns)
	k.named = found
}

// podsNow are the pods that a runtime told of, in one pass.
type podsNow struct {
	*workload.Pods
	mounted func(path string) *netns.Namespace
	places  map[*netns.Namespace]*workload.Pod // nil: not looked for yet
}

// at is the pod whose namespace this is, by where the runtime has mounted it.
func (p *podsNow) at(ns *netns.Namespace) *workload.Pod {
	if len(ns.Mounts) == 0 {
		return nil
	}
	if p.places == nil {
		p.places = map[*netns.Namespace]*workload.Pod{}
		for _, pod := range p.ByUID {
			if pod.Path != "" {
				p.places[p.mounted(pod.Path)] = pod
			}
		}
	}
	return p.places[ns]
}

// podOf is the pod of a namespace, nil if it is none's. What is known of it may
// be its UID alone.
func (n *namer) podOf(ns *netns.Namespace, w *workload.Workload, pods *podsNow) *workload.Pod {
	var told *workload.Pod
	uid := w.PodUID
	switch w.Kind {
	case workload.KindPod:
		told = pods.ByUID[uid]
	case workload.KindContainer:
		told = pods.BySandbox[w.ID]
	default:
		told = pods.at(ns)
	}
	if told != nil {
		return told
	}
	if uid == "" {
		return nil
	}
	if n.logs != nil {
		if pod, ok := n.logs.Pod(uid); ok {
			return &pod
		}
	}
	return &workload.Pod{UID: uid}
}

// nameOther names what is no pod.
func (n *namer) nameOther(ns *netns.Namespace, k *naming, w *workload.Workload, found *named) {
	if w.Kind != "" {
		found.workload = &snapshot.Workload{Container: w.Name, ContainerID: w.ID, Runtime: w.Runtime, Unit: w.Unit}
	}
	switch {
	case w.Kind == workload.KindContainer:
		found.kind, found.name = kindContainer, cmp.Or(w.Name, w.ID[:min(len(w.ID), shortID)])
	case ns.Kind == netns.KindNamed:
	case w.Kind == workload.KindUnit:
		found.name = w.Unit
	default:
		if ns.PID > 0 && (k.passes <= commLooks || k.comm == "") {
			k.comm = cmp.Or(n.readComm(ns.PID), k.comm)
		}
		found.name = fmt.Sprintf("%s@%d", cmp.Or(k.comm, "net"), ns.Inode)
	}
}

// readComm reads the name of a process's program, "" if it is gone.
func (n *namer) readComm(pid int) string {
	const most = 64 // the kernel's are shorter
	f, err := os.Open(filepath.Join(n.proc, fmt.Sprint(pid), "comm"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, most)
	size, err := f.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	// A slash would make it look like a pod.
	return strings.ReplaceAll(strings.TrimSuffix(string(b[:size]), "\n"), "/", "_")
}

// unique adds the inode to a name that another namespace bears, or that is
// twwatch's own word for one: a finding says by its name alone whose it is.
func (n *namer) unique(name, before string, ns *netns.Namespace) string {
	own := ns.Kind == netns.KindHost || ns.Kind == netns.KindSelf
	if !own {
		bearer, borne := n.bearers[name]
		if borne && bearer != ns.Serial || name == netns.KindHost || name == netns.KindSelf {
			name = fmt.Sprintf("%s@%d", name, ns.Inode)
		}
	}
	if name != before {
		n.release(before, ns.Serial)
	}
	n.bearers[name] = ns.Serial
	return name
}

func (n *namer) release(name string, serial uint64) {
	if n.bearers[name] == serial {
		delete(n.bearers, name)
	}
}

func newSweep(c *Collector, cfg netns.Config) (*sweep, error) {
	if err := c.cfg.Namespaces.Check(); err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	cfg.Proc, cfg.Group = c.cfg.Proc, workload.Group
	w, err := netns.NewWatcher(cfg)
	if err != nil {
		return nil, err
	}
	return &sweep{watcher: w, names: newNamer(&c.cfg, w), chosen: c.cfg.Namespaces, others: map[uint64]*other{}}, nil
}
