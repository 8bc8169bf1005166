package collector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/netns"
	"github.com/twwatch/twwatch/internal/workload"
)

const (
	testUID    = "7d9f2c4e-8a31-4b0e-9c55-0d1e2f3a4b5c"
	testHash   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	testPod    = "/kubepods/burstable/pod" + testUID
	testDocker = "/system.slice/docker-" + testHash + ".scope"
)

// A namerRig is a namer of namespaces that a test makes up.
type namerRig struct {
	*testing.T
	namer
	namespaces []*netns.Namespace
	proc, logs string
}

func newNamerRig(t *testing.T) *namerRig {
	rig := &namerRig{T: t, proc: t.TempDir(), logs: filepath.Join(t.TempDir(), "pods")}
	rig.namer = newNamer(&Config{Proc: rig.proc, PodLogs: rig.logs}, nil)
	rig.list = func() []*netns.Namespace { return rig.namespaces }
	rig.mounted = func(path string) *netns.Namespace {
		for _, ns := range rig.namespaces {
			if slices.Contains(ns.Mounts, path) {
				return ns
			}
		}
		return nil
	}
	return rig
}

// add adds a namespace in which a process of a program runs.
func (rig *namerRig) add(ns netns.Namespace, comm string) *netns.Namespace {
	rig.Helper()
	ns.Serial = uint64(len(rig.namespaces) + 1)
	ns.Inode = 4026530000 + ns.Serial
	if ns.Kind == "" {
		ns.Kind = netns.KindProcess
	}
	if comm != "" {
		ns.PID = 100 + int(ns.Serial)
		rig.runs(&ns, comm)
	}
	rig.namespaces = append(rig.namespaces, &ns)
	return &ns
}

func (rig *namerRig) runs(ns *netns.Namespace, comm string) {
	rig.Helper()
	dir := filepath.Join(rig.proc, fmt.Sprint(ns.PID))
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "comm"), []byte(comm+"\n"), 0o600)); err != nil {
		rig.Fatal(err)
	}
}

func (rig *namerRig) log(parts ...string) {
	rig.Helper()
	if err := os.MkdirAll(filepath.Join(append([]string{rig.logs}, parts...)...), 0o755); err != nil {
		rig.Fatal(err)
	}
}

// look makes a pass, and returns its gaps.
func (rig *namerRig) look() []snapshot.Gap {
	r := &snapshot.Report{}
	rig.refresh(context.Background(), r)
	return r.Limited
}

func (rig *namerRig) check(ns *netns.Namespace, name, kind string, w *snapshot.Workload) {
	rig.Helper()
	o := &other{Namespace: ns}
	rig.name(o)
	if diff := cmp.Diff(w, o.workload); o.named.name != name || o.kind != kind || diff != "" {
		rig.Errorf("%q, %q, want %q, %q (-want +got):\n%s", o.named.name, o.kind, name, kind, diff)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	rig := newNamerRig(t)
	rig.log("shop_cart-7d9f_"+testUID, "app")
	host := rig.add(netns.Namespace{Kind: netns.KindHost, Name: "host", Cgroup: "/init.scope"}, "systemd")
	pod := rig.add(netns.Namespace{Cgroup: testPod + "/" + testHash, Mounts: []string{"/run/netns/cni-1"}}, "pause")
	other := rig.add(netns.Namespace{Cgroup: "/kubepods/podu2/" + testHash}, "pause")
	docker := rig.add(netns.Namespace{Cgroup: testDocker}, "nginx")
	machine := rig.add(netns.Namespace{Cgroup: `/machine.slice/systemd-nspawn@deb\x2d12.service/payload`}, "systemd")
	blue := rig.add(netns.Namespace{Kind: netns.KindNamed, Name: "blue"}, "")
	busy := rig.add(netns.Namespace{Kind: netns.KindNamed, Name: "green", Cgroup: "/user.slice/user-0.slice/session-1.scope"}, "curl")
	unit := rig.add(netns.Namespace{Cgroup: "/system.slice/nginx.service"}, "nginx")
	user := rig.add(netns.Namespace{Cgroup: "/user.slice/user-1000.slice/kubepods.slice/kubepods-pod" + testUID + ".slice"}, "shop/cart-7d9f")
	plain := rig.add(netns.Namespace{}, "unshare")
	mount := rig.add(netns.Namespace{Mounts: []string{"/run/netns/cni-2"}}, "")
	if gaps := rig.look(); len(gaps) != 0 {
		t.Errorf("gaps: %+v", gaps)
	}
	rig.check(host, "host", "host", nil)
	rig.check(pod, "shop/cart-7d9f", "pod", &snapshot.Workload{Namespace: "shop", Pod: "cart-7d9f", PodUID: testUID, Container: "app"})
	rig.check(other, "pod@u2", "pod", &snapshot.Workload{PodUID: "u2"})
	rig.check(docker, testHash[:12], "container", &snapshot.Workload{ContainerID: testHash, Runtime: "docker"})
	rig.check(machine, "deb-12", "container", &snapshot.Workload{Container: "deb-12", Runtime: "nspawn"})
	rig.check(blue, "blue", "named", nil)
	rig.check(busy, "green", "named", &snapshot.Workload{Unit: "user-0.slice"})
	rig.check(unit, "nginx.service", "process", &snapshot.Workload{Unit: "nginx.service"})
	rig.check(user, "shop_cart-7d9f@4026530009", "process", &snapshot.Workload{Unit: "user-1000.slice"})
	rig.check(plain, "unshare@4026530010", "process", nil)
	rig.check(mount, "net@4026530011", "process", nil)

	// What is learnt later is told later.
	rig.log("shop_web-1_u2", "web")
	rig.look()
	rig.check(other, "shop/web-1", "pod", &snapshot.Workload{Namespace: "shop", Pod: "web-1", PodUID: "u2", Container: "web"})
}

// Names are told apart, and none is one of twwatch's own words.
func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	rig := newNamerRig(t)
	first := rig.add(netns.Namespace{Cgroup: testDocker}, "nginx")
	second := rig.add(netns.Namespace{Cgroup: testDocker + "/inner"}, "dockerd")
	fake := rig.add(netns.Namespace{Kind: netns.KindNamed, Name: "host"}, "")
	own := rig.add(netns.Namespace{Kind: netns.KindSelf, Name: "self"}, "twwatch")
	w := &snapshot.Workload{ContainerID: testHash, Runtime: "docker"}
	for range 3 {
		rig.look()
		rig.check(first, testHash[:12], "container", w)
		rig.check(second, testHash[:12]+"@4026530002", "container", w)
		rig.check(fake, "host@4026530003", "named", nil)
		rig.check(own, "self", "self", nil)
	}
	// When the first has gone, the other one is the only one.
	rig.namespaces = rig.namespaces[1:]
	rig.look()
	rig.look()
	rig.check(second, testHash[:12], "container", w)
	if len(rig.known) != 3 || len(rig.bearers) != 3 {
		t.Errorf("%d namings, %d names", len(rig.known), len(rig.bearers))
	}
}

// A program that calls itself something else all the time doesn't rename its
// namespace, and thereby make new series, each time.
func TestNameOfAProcessSettles(t *testing.T) {
	t.Parallel()
	rig := newNamerRig(t)
	ns := rig.add(netns.Namespace{}, "sh")
	rig.look()
	rig.check(ns, "sh@4026530001", "process", nil)
	rig.runs(ns, "server")
	rig.look()
	rig.check(ns, "server@4026530001", "process", nil)
	rig.runs(ns, "else")
	rig.look()
	rig.check(ns, "server@4026530001", "process", nil)
}

// What a runtime tells comes first, but decides nothing that a cgroup has decided.
func TestNamesByRuntime(t *testing.T) {
	t.Parallel()
	rig := newNamerRig(t)
	rig.labels = true
	rig.log("shop_cart-7d9f_"+testUID, "init")
	rig.log("shop_cart-7d9f_"+testUID, "app")
	pod := rig.add(netns.Namespace{Cgroup: testPod}, "pause")
	sandbox := rig.add(netns.Namespace{Cgroup: "/k8s.io/" + testHash}, "pause")
	mount := rig.add(netns.Namespace{Mounts: []string{"/run/netns/cni-3"}}, "")
	named := rig.add(netns.Namespace{Kind: netns.KindNamed, Name: "blue", Mounts: []string{"/run/netns/blue"}}, "")
	docker := rig.add(netns.Namespace{Cgroup: testDocker[:len(testDocker)-8] + "0.scope", Mounts: []string{"/run/docker/netns/1"}}, "x")
	rig.look()
	if !rig.known[pod.Serial].nameless || !rig.known[mount.Serial].pathless || rig.known[docker.Serial].nameless {
		t.Error("nothing is missing")
	}

	cart := &workload.Pod{Namespace: "shop", Name: "cart-7d9f", UID: testUID, Container: "app", Labels: map[string]string{"app": "cart"}, Path: "/run/netns/none"}
	lone := &workload.Pod{Namespace: "a", Name: "b", UID: "u3"}
	kata := &workload.Pod{Namespace: "a", Name: "c", UID: "u4", Path: "/run/netns/cni-3"}
	pods := &podsNow{Pods: &workload.Pods{
		ByUID: map[string]*workload.Pod{testUID: cart, "u3": lone, "u4": kata}, BySandbox: map[string]*workload.Pod{testHash: lone, "s1": cart, "s4": kata},
	}, mounted: rig.mounted}
	for _, ns := range rig.namespaces {
		rig.identify(ns, rig.known[ns.Serial], pods)
	}
	rig.check(pod, "shop/cart-7d9f", "pod", &snapshot.Workload{Namespace: "shop", Pod: "cart-7d9f", PodUID: testUID, Container: "app", Labels: map[string]string{"app": "cart"}})
	rig.check(sandbox, "a/b", "pod", &snapshot.Workload{Namespace: "a", Pod: "b", PodUID: "u3", Runtime: "containerd"})
	rig.check(mount, "a/c", "pod", &snapshot.Workload{Namespace: "a", Pod: "c", PodUID: "u4"})
	rig.check(named, "blue", "named", nil)
	if k := rig.known[pod.Serial]; k.nameless || k.pathless || rig.known[mount.Serial].pathless {
		t.Errorf("something is missing: %+v", k)
	}
}

// What can't be asked or read is said once a report, and changes no name.
func TestNamesInTrouble(t *testing.T) {
	t.Parallel()
	rig := newNamerRig(t)
	rig.logs = filepath.Join(rig.logs, "none")
	rig.runtime = workload.NewRuntime(workload.RuntimeConfig{Socket: filepath.Join(rig.proc, "none.sock")})
	t.Cleanup(func() {
		if err := rig.close(); err != nil {
			t.Error(err)
		}
	})
	<-rig.runtime.First()
	pod := rig.add(netns.Namespace{Cgroup: testPod}, "pause")
	gaps := rig.look()
	if len(gaps) != 2 || gaps[0].Stage != "cri" || gaps[1].Stage != "namespaces" || gaps[0].Fix == "" || gaps[1].Lost == "" ||
		!strings.Contains(gaps[0].Error, "none.sock") || !strings.Contains(gaps[1].Error, "no such file or directory") {
		t.Errorf("gaps: %+v", gaps)
	}
	rig.check(pod, "pod@"+testUID, "pod", &snapshot.Workload{PodUID: testUID})
}
