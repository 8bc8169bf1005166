package truth

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/lab"
	"github.com/twwatch/twwatch/sysctl"
)

// Three pods in a real containerd, of which two have storms of their own, seen by
// a daemon that knows them by their cgroups and the directories of their logs,
// and by another that asks the runtime.
func TestPods(t *testing.T) {
	if os.Getenv(nodeEnv) == "" {
		t.Parallel()
		onNode(t, func(dir string, pid int) { driftFromOutside(t, dir, pid) })
		return
	}
	n := newNode(t)
	n.startRuntime()
	n.importImage()
	batch := n.run("batch", map[string]string{"net.ipv4.ip_local_port_range": "40000 40099", "net.ipv4.tcp_tw_reuse": "0"}, "storm", "50")
	web := n.run("web", nil, "storm", "250")
	idle := n.run("idle", nil)
	pods := []*pod{batch, idle, web}

	byLogs := n.watch("10061", false, "--kubernetes.pod-logs="+n.path("logs"))
	byCRI := n.watch("10062", true, "--kubernetes.pod-logs=", "--kubernetes.cri="+n.path("cri.sock"), "--kubernetes.label=app")
	watchers := []*watcher{byLogs, byCRI}

	lab.Eventually(t, 30*time.Second, func() error { // from 1,000 sockets on it is looked at in every pass
		if c, w := n.timeWaits(batch), n.timeWaits(web); c < 90 || w < 1200 {
			return fmt.Errorf("%d and %d TIME_WAIT", c, w)
		}
		return nil
	})
	n.countsAreTheKernels(pods, watchers)
	for _, w := range watchers {
		r := w.until(func(r *snapshot.Report) error { return tellsPods(r, pods) })
		for _, p := range pods {
			n.checkPod(w, podIn(r, p), p)
		}
	}
	n.lookedAt()
	n.dies(web, watchers)
	n.runtimeFails([]*pod{batch, idle}, byCRI)
}

// tellsPods demands that these are the pods of a report, that each storm has been
// found, by its pod, and that nothing else has.
func tellsPods(r *snapshot.Report, pods []*pod) error {
	var got, want, storms []string
	for _, ns := range r.Namespaces {
		if ns.Kind == "pod" {
			got = append(got, ns.Name)
		}
	}
	for _, p := range pods {
		want = append(want, p.full())
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("pods (-want +got):\n%s", diff)
	}
	for _, f := range r.Findings {
		storms = append(storms, f.Namespace+" "+f.ID)
	}
	slices.Sort(storms)
	if diff := cmp.Diff([]string{"shop/batch " + diagnose.PortsExhausted, "shop/web " + diagnose.ShortClient}, storms); diff != "" {
		return fmt.Errorf("findings (-want +got):\n%s", diff)
	}
	return nil
}

// checkPod holds what is said of a pod beside its figures against what was asked
// of the runtime, and its limits against what the kernel says in it.
func (n *node) checkPod(w *watcher, ns *snapshot.Namespace, p *pod) {
	n.t.Helper()
	want := &snapshot.Workload{Namespace: "shop", Pod: p.name, PodUID: p.uid, Container: "main"}
	if w.cri {
		want.Labels = map[string]string{"app": p.name}
	}
	if diff := cmp.Diff(want, ns.Workload); diff != "" {
		n.t.Errorf("%s (-want +got):\n%s", p.full(), diff)
	}
	var low, high uint16
	if _, err := fmt.Sscan(n.inside(p, "cat", "/proc/sys/net/ipv4/ip_local_port_range"), &low, &high); err != nil {
		n.t.Fatal(err)
	}
	buckets := number(strings.TrimSpace(n.inside(p, "cat", "/proc/sys/net/ipv4/tcp_max_tw_buckets")))
	if diff := cmp.Diff(&sysctl.PortRange{Low: low, High: high}, ns.Limits.IPLocalPortRange); diff != "" {
		n.t.Errorf("%s (-want +got):\n%s", p.full(), diff)
	}
	if diff := cmp.Diff(&buckets, ns.Limits.TCPMaxTWBuckets); diff != "" {
		n.t.Errorf("%s: tcp_max_tw_buckets (-want +got):\n%s", p.full(), diff)
	}
	if p.name == "batch" && (low != 40000 || high != 40099) {
		n.t.Errorf("the runtime has set %d-%d", low, high)
	}
}

// countsAreTheKernels stops the storms for a moment, in which what stands in a
// report must be what ss counts in that namespace. That is before the minute in
// which a TIME_WAIT ends.
func (n *node) countsAreTheKernels(pods []*pod, watchers []*watcher) {
	n.t.Helper()
	for _, p := range pods {
		n.signal(p, syscall.SIGSTOP)
	}
	for _, w := range watchers {
		for _, p := range pods {
			w.until(func(r *snapshot.Report) error {
				before := n.states(p)
				ns := podIn(r, p)
				if ns == nil {
					return fmt.Errorf("%s isn't there", p.full())
				}
				got := [3]int{int(ns.States.TimeWait), int(ns.States.Established), int(ns.States.Listen)}
				if after := n.states(p); before != after || got != after {
					return fmt.Errorf("%s: %v in the report, ss counts %v, then %v (TIME-WAIT, ESTAB, LISTEN)", p.full(), got, before, after)
				}
				return nil
			})
		}
	}
	for _, p := range pods {
		n.signal(p, syscall.SIGCONT)
	}
}

// dies deletes a pod in mid-storm, which leaves nothing of it.
func (n *node) dies(p *pod, watchers []*watcher) {
	n.t.Helper()
	settings := n.witness(p)
	n.remove(p)
	lab.Eventually(n.t, 20*time.Second, func() error {
		if _, err := settings.ReadAt(make([]byte, 16), 0); !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("the namespace lives: %v", err)
		}
		return nil
	})
	for _, w := range watchers {
		r := w.until(func(r *snapshot.Report) error {
			if text, err := w.get("/metrics"); err != nil || strings.Contains(text, p.full()) {
				return fmt.Errorf("it has series, or there is no telling: %v", err)
			}
			if podIn(r, p) != nil || slices.ContainsFunc(r.Findings, func(f snapshot.Finding) bool { return f.Namespace == p.full() }) {
				return errors.New("it stands in the report")
			}
			return nil
		})
		if noise := append(w.noise(), complaints(r)...); len(noise) > 0 {
			n.t.Errorf("%q", noise)
		}
	}
}

// runtimeFails makes the runtime hang, lie and start again, while passes go on and
// names stay.
func (n *node) runtimeFails(pods []*pod, w *watcher) {
	n.t.Helper()
	asks := 0
	// ask makes it ask: a namespace is new that only a mount holds.
	ask := func() {
		asks++
		n.command("ip", "netns", "add", "new"+strconv.Itoa(asks))
	}
	fails := func(how string) {
		n.t.Helper()
		ask()
		passed := w.until(func(r *snapshot.Report) error {
			if got := complaints(r); len(got) != 1 || !strings.HasPrefix(got[0], "cri: ") || !strings.Contains(got[0], how) {
				return fmt.Errorf("it complains of %v", got)
			}
			return nil
		})
		w.until(func(r *snapshot.Report) error { // two more passes
			if r.Time.Sub(passed.Time) < 2*time.Second {
				return errors.New("no pass since")
			}
			for _, p := range pods {
				ns := podIn(r, p)
				if ns == nil || ns.Workload.Labels["app"] != p.name {
					return fmt.Errorf("%s has no name or no label", p.full())
				}
			}
			return nil
		})
	}
	works := func() {
		n.t.Helper()
		ask()
		w.until(func(r *snapshot.Report) error {
			if got := complaints(r); len(got) > 0 {
				return fmt.Errorf("it complains of %v", got)
			}
			return nil
		})
	}
	n.signalRuntime(syscall.SIGSTOP)
	fails("deadline exceeded")
	n.signalRuntime(syscall.SIGCONT)
	works()

	n.connect(n.liar())
	fails("ListPodSandbox")
	n.connect("containerd.sock")
	works()

	n.signalRuntime(syscall.SIGKILL)
	fails("refused")
	n.startRuntime()
	late := n.run("late", nil)
	w.until(func(r *snapshot.Report) error {
		if ns := podIn(r, late); ns == nil || ns.Workload.Labels["app"] != "late" || len(complaints(r)) > 0 {
			return fmt.Errorf("no pod %s, or complaints: %v", late.full(), complaints(r))
		}
		return nil
	})
	if noise := w.noise(); len(noise) > 0 {
		n.t.Errorf("%q", noise)
	}
}

// liar is a socket that answers anything with nonsense.
func (n *node) liar() string {
	l, err := net.Listen("unix", n.path("liar.sock"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npods"))
			c.Close()
		}
	}()
	return "liar.sock"
}

// driftFromOutside looks at the same pods from the first PID namespace, where the
// host's settings are seen as well: the pod near its limit has fewer ports than
// the host. (In the other pod the range is the host's.) Nothing is changed there.
func driftFromOutside(t *testing.T, dir string, pid int) {
	host := must[[]byte](t)(os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"))
	if _, err := os.Stat("/proc/sys/net/ipv4/tcp_max_orphans"); err != nil {
		t.Log("the host's network namespace isn't to be seen from here")
		return
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "twwatch"), "check", "--output=json", "--for=0",
		"--netns=host", "--netns=shop/*", "--kubernetes.pod-logs=/proc/"+strconv.Itoa(pid)+"/root"+nodeDir+"/logs").Output()
	if status, ok := errors.AsType[*exec.ExitError](err); !ok || status.ExitCode() != 2 {
		t.Fatalf("%v; %s", err, out)
	}
	r := must[*snapshot.Report](t)(snapshot.Decode(out))
	i := slices.IndexFunc(r.Findings, func(f snapshot.Finding) bool { return f.ID == diagnose.SysctlDrift })
	if i < 0 {
		t.Fatalf("no drift: %s", said(r))
	}
	f := strings.Fields(string(host))
	want := "The node has ip_local_port_range " + f[0] + "-" + f[1] + ", but shop/batch runs on 40000-40099 and is near that limit: a pod doesn't get the node's settings."
	if got := r.Findings[i]; got.Summary != want || got.Namespace != "host" {
		t.Errorf("of %s: %s\nwant %s", got.Namespace, got.Summary, want)
	}
}

// timeWaits and states are what ss counts in a pod's namespace.
func (n *node) timeWaits(p *pod) int { return n.states(p)[0] }

func (n *node) states(p *pod) (counts [3]int) {
	n.t.Helper()
	for line := range strings.Lines(n.inside(p, "ss", "-Htan")) {
		state, _, _ := strings.Cut(line, " ")
		if i := slices.Index([]string{"TIME-WAIT", "ESTAB", "LISTEN"}, state); i >= 0 {
			counts[i]++
		}
	}
	return counts
}
