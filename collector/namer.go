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
	watcher *netns.Watcher
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
	n := namer{watcher: watcher, proc: cfg.Proc, known: map[uint64]*naming{}, bearers: map[string]uint64{}}
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
	pods := &workload.Pods{}
	if n.runtime != nil {
		pods = n.runtime.Pods()
	}
	for _, k := range n.known {
		k.here = false
	}
	nameless, pathless, fresh := false, false, false
	for _, ns := range n.watcher.List() {
		k := n.known[ns.Serial]
		if k == nil {
			k = &naming{}
			n.known[ns.Serial] = k
		}
		k.here = true
		k.passes++
		n.identify(ns, k, pods)
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
				Fix: "check that the container runtime runs and that --kubernetes.cri is its socket",
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
func (n *namer) identify(ns *netns.Namespace, k *naming, pods *workload.Pods) {
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

// podOf is the pod of a namespace, nil if it is none's. What is known of it may
// be its UID alone.
func (n *namer) podOf(ns *netns.Namespace, w *workload.Workload, pods *workload.Pods) *workload.Pod {
	var told *workload.Pod
	uid := w.PodUID
	switch w.Kind {
	case workload.KindPod:
		told = pods.ByUID[uid]
	case workload.KindContainer:
		told = pods.BySandbox[w.ID]
	default:
		for _, pod := range pods.ByUID {
			if pod.Path != "" && len(ns.Mounts) > 0 && n.watcher.Mounted(pod.Path) == ns {
				told = pod
				break
			}
		}
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
	return strings.TrimSuffix(string(b[:size]), "\n")
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

func newSweep(c *Collector) (*sweep, error) {
	if err := c.cfg.Namespaces.Check(); err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	w, err := netns.NewWatcher(netns.Config{Proc: c.cfg.Proc, Group: workload.Group})
	if err != nil {
		return nil, err
	}
	return &sweep{watcher: w, names: newNamer(&c.cfg, w), chosen: c.cfg.Namespaces, others: map[uint64]*other{}}, nil
}
