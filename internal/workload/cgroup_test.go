package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	hash  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	uid   = "7d9f2c4e-8a31-4b0e-9c55-0d1e2f3a4b5c"
	slug  = "7d9f2c4e_8a31_4b0e_9c55_0d1e2f3a4b5c" // uid, as systemd has it
	fixed = "97000c9ddafe62a21b74dcc8fb9d742d"     // the UID of a static pod
)

func TestOf(t *testing.T) {
	t.Parallel()
	pod := func(group, uid, id, runtime string) Workload {
		return Workload{Kind: KindPod, Group: group, PodUID: uid, ID: id, Runtime: runtime}
	}
	contained := func(group, id, runtime string) Workload {
		return Workload{Kind: KindContainer, Group: group, ID: id, Runtime: runtime}
	}
	called := func(group, name, runtime string) Workload {
		return Workload{Kind: KindContainer, Group: group, Name: name, Runtime: runtime}
	}
	unit := func(group, unit string) Workload { return Workload{Kind: KindUnit, Group: group, Unit: unit} }
	user := func(group, unit string) Workload { return Workload{Kind: KindUser, Group: group, Unit: unit} }
	unknown := func(group string) Workload { return Workload{Group: group} }
	burst := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + slug + ".slice"
	guaranteed := "/kubepods.slice/kubepods-pod" + slug + ".slice"

	for path, want := range map[string]Workload{
		// Pods: systemd and cgroupfs as the driver, three classes, three runtimes.
		burst + "/cri-containerd-" + hash + ".scope":      pod(burst, uid, hash, Containerd),
		burst + "/crio-" + hash + ".scope":                pod(burst, uid, hash, CRIO),
		burst + "/crio-" + hash + ".scope/container/deep": pod(burst, uid, hash, CRIO),
		burst + "/docker-" + hash + ".scope":              pod(burst, uid, hash, Docker),
		burst + "/crio-conmon-" + hash + ".scope":         pod(burst, uid, hash, CRIO),
		burst:                              pod(burst, uid, "", ""),
		guaranteed + "/x":                  pod(guaranteed, uid, "", ""),
		"/kubepods/pod" + uid:              pod("/kubepods/pod"+uid, uid, "", ""),
		"/kubepods/pod" + uid + "/" + hash: pod("/kubepods/pod"+uid, uid, hash, ""),
		"/kubepods/burstable/pod" + uid + "/" + hash:         pod("/kubepods/burstable/pod"+uid, uid, hash, ""),
		"/kubepods/besteffort/pod" + fixed + "/crio-" + hash: pod("/kubepods/besteffort/pod"+fixed, fixed, hash, CRIO),
		"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + fixed + ".slice/cri-containerd-" + hash + ".scope": pod(
			"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod"+fixed+".slice", fixed, hash, Containerd),
		// With --cgroup-root.
		"/kubelet/kubepods/besteffort/pod" + uid + "/" + hash: pod("/kubelet/kubepods/besteffort/pod"+uid, uid, hash, ""),
		"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + slug + ".slice/cri-containerd-" + hash + ".scope": pod(
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod"+slug+".slice", uid, hash, Containerd),
		// The drivers of kubelet and containerd differ.
		"/system.slice/containerd.service/kubepods-burstable-pod" + slug + ".slice:cri-containerd:" + hash: pod(
			"/system.slice/containerd.service/kubepods-burstable-pod"+slug+".slice:cri-containerd:"+hash, uid, hash, Containerd),

		// Containers.
		"/docker/" + hash:                                    contained("/docker/"+hash, hash, Docker),
		"/docker/" + hash + "/init.scope":                    contained("/docker/"+hash, hash, Docker),
		"/system.slice/docker-" + hash + ".scope":            contained("/system.slice/docker-"+hash+".scope", hash, Docker),
		"/my.slice/docker-" + hash + ".scope":                contained("/my.slice/docker-"+hash+".scope", hash, Docker),
		"/ecs/0f1e2d3c/" + hash:                              contained("/ecs/0f1e2d3c/"+hash, hash, ""),
		"/system.slice/nerdctl-" + hash + ".scope":           contained("/system.slice/nerdctl-"+hash+".scope", hash, Containerd),
		"/k8s.io/" + hash:                                    contained("/k8s.io/"+hash, hash, Containerd),
		"/default/" + hash:                                   contained("/default/"+hash, hash, Containerd),
		"/default/redis":                                     called("/default/redis", "redis", Containerd),
		"/machine.slice/libpod-" + hash + ".scope/container": contained("/machine.slice/libpod-"+hash+".scope", hash, Podman),
		"/machine.slice/libpod-conmon-" + hash + ".scope":    contained("/machine.slice/libpod-conmon-"+hash+".scope", hash, Podman),
		"/machine.slice/machine-libpod_pod_" + other + ".slice/libpod-" + hash + ".scope": contained(
			"/machine.slice/machine-libpod_pod_"+other+".slice/libpod-"+hash+".scope", hash, Podman),
		"/libpod_parent/libpod-" + hash:                            contained("/libpod_parent/libpod-"+hash, hash, Podman),
		"/lxc/web1":                                                called("/lxc/web1", "web1", LXC),
		"/lxc.payload/web1/system.slice/nginx.service":             called("/lxc.payload/web1", "web1", LXC),
		"/lxc.payload.web1/system.slice/docker-" + hash + ".scope": called("/lxc.payload.web1", "web1", LXC),
		"/machine.slice/systemd-nspawn@deb\\x2d12.service/payload": called("/machine.slice/systemd-nspawn@deb\\x2d12.service", "deb-12", Nspawn),
		"/machine.slice/machine-deb\\x2d12.scope/payload":          called("/machine.slice/machine-deb\\x2d12.scope", "deb-12", Nspawn),
		"/machine.slice/machine-lxc\\x2d7\\x2dweb.scope":           called("/machine.slice/machine-lxc\\x2d7\\x2dweb.scope", "7-web", LXC),
		"/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/emulator":  unit("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", "machine-qemu\\x2d1\\x2dvm.scope"),

		// Units.
		"/system.slice/nginx.service":                         unit("/system.slice/nginx.service", "nginx.service"),
		"/system.slice/system-getty.slice/getty@tty1.service": unit("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
		"/init.scope":                                    unknown("/init.scope"),
		"/system.slice/containerd.service":               unit("/system.slice/containerd.service", "containerd.service"),
		"/system.slice/docker.service/x/y":               unit("/system.slice/docker.service", "docker.service"),
		"/system.slice/docker.service/x.service/" + hash: contained("/system.slice/docker.service/x.service/"+hash, hash, ""),

		// Nobody can pose as something else.
		"/user.slice/user-1000.slice/session-3.scope":                                            user("/user.slice/user-1000.slice", "user-1000.slice"),
		"/user.slice/user-1000.slice/kubepods.slice/kubepods-pod" + slug + ".slice/crio-" + hash: user("/user.slice/user-1000.slice", "user-1000.slice"),
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + hash + ".scope":     user("/user.slice/user-1000.slice", "user-1000.slice"),
		"/user/" + hash:                                            user("/user/"+hash, hash),
		"/user/alice/0/kubepods/pod" + uid:                         user("/user/alice", "alice"),
		"/system.slice/ci.service/kubepods/pod" + uid + "/" + hash: unit("/system.slice/ci.service", "ci.service"),
		"/system.slice/ci.service/docker/" + hash:                  unit("/system.slice/ci.service", "ci.service"),
		"/system.slice/docker-" + hash + ".scope/kubelet.slice/kubelet-kubepods.slice/pod" + uid: contained("/system.slice/docker-"+hash+".scope", hash, Docker),
		"/docker/" + hash + "/docker/" + other:                                                   contained("/docker/"+hash, hash, Docker),
		burst + "/cri-containerd-" + hash + ".scope/kubepods/pod" + fixed:                        pod(burst, uid, hash, Containerd),
		"/lxc.payload.a/user.slice/user-1000.slice":                                              called("/lxc.payload.a", "a", LXC),

		// What looks nearly like it.
		"/system.slice/docker-" + hash[1:] + ".scope": unit("/system.slice/docker-"+hash[1:]+".scope", "docker-"+hash[1:]+".scope"),
		"/pod" + uid:                               unknown("/pod" + uid),
		"/a/pod" + uid + "/b":                      unknown("/a/pod" + uid),
		"/kubepods/other/pod" + uid:                unknown("/kubepods/other"),
		"/kubepods/pod":                            unknown("/kubepods/pod"),
		"/kubepods/pod/" + strings.Repeat("x", 9):  unknown("/kubepods/pod"),
		"/kubepods/pod../x":                        unknown("/kubepods/pod.."),
		"/kubepods/pod" + strings.Repeat("a", 129): unknown("/kubepods/pod" + strings.Repeat("a", 129)),
		"/kubepods.slice":                          unknown("/kubepods.slice"),
		"/system.slice":                            unknown("/system.slice"),
		"/lxc":                                     unknown("/lxc"),
		"/lxc.payload.":                            unknown("/lxc.payload."),
		"/a/lxc/web1":                              unknown("/a/lxc"),
		"/docker/" + strings.ToUpper(hash):         unknown("/docker/" + strings.ToUpper(hash)),
		"/user.slice":                              unknown("/user.slice"),
		"/":                                        unknown("/"),
		"/a//b":                                    unknown("/a/"),
		"":                                         {},
		"relative/docker/" + hash:                  unknown("relative/docker"),
		"/../docker/" + hash:                       {}, // outside of the cgroup namespace
		"/../../kubepods/pod" + uid:                {},
	} {
		if diff := cmp.Diff(want, Of(path)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", path, diff)
		}
		if got := Group(path); got != want.Group {
			t.Errorf("%q: group %q, want %q", path, got, want.Group)
		}
	}
}

// Two pods of one node are never one group, however they are driven.
func TestGroupsOfPodsDiffer(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%.slice/cri-containerd-" + hash + ".scope",
		"/kubepods/burstable/pod%/" + hash,
		"/system.slice/docker-%" + hash[8:] + ".scope",
	} {
		a, b := Group(strings.ReplaceAll(pattern, "%", "11111111")), Group(strings.ReplaceAll(pattern, "%", "22222222"))
		if a == b {
			t.Errorf("%s: both are in %q", pattern, a)
		}
	}
}

func TestOfAllocatesNothingForPaths(t *testing.T) {
	path := "/kubepods/burstable/pod" + uid + "/" + hash
	if n := testing.AllocsPerRun(100, func() { Of(path) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// What a path is taken for depends only on the path down to the group: nothing
// that a workload makes below itself changes it.
func FuzzOf(f *testing.F) {
	f.Add("/kubepods/burstable/pod"+uid+"/"+hash, "x")
	f.Add("/user.slice/user-1000.slice", "kubepods.slice/kubepods-pod"+slug+".slice")
	f.Add("/system.slice/containerd.service", "docker/"+hash)
	f.Add("/machine.slice/machine-a\\x2d.scope", "..")
	f.Fuzz(func(t *testing.T, path, below string) {
		w := Of(path)
		if !strings.HasPrefix(path, w.Group) {
			t.Fatalf("the group %q is no part of %q", w.Group, path)
		}
		if (w.Kind == KindPod) != (w.PodUID != "") || len(w.PodUID) > maxID || len(w.Name) > maxID || w.ID != "" && !isHash(w.ID) {
			t.Fatalf("%q: %+v", path, w)
		}
		switch w.Kind {
		case KindPod, KindContainer, KindUnit, KindUser:
		default:
			return
		}
		if isDaemon(w.Unit) {
			return // its containers are below
		}
		again := Of(w.Group + "/" + below)
		if strings.HasPrefix(below, "../") || below == ".." {
			return
		}
		if again.Kind != w.Kind || again.Group != w.Group || again.Unit != w.Unit || again.PodUID != w.PodUID || again.Name != w.Name {
			t.Fatalf("%q is %+v, with %q below %+v", w.Group, w, below, again)
		}
		if w.Kind != KindPod && again.ID != w.ID {
			t.Fatalf("%q is %+v, with %q below %+v", w.Group, w, below, again)
		}
	})
}
