package workload

import "strings"

// Kinds of workloads.
const (
	KindPod       = "pod"
	KindContainer = "container"
	KindUnit      = "unit" // a service or scope of systemd's system manager
	KindUser      = "user" // all that a user started
)

// Container runtimes.
const (
	Docker     = "docker"
	Containerd = "containerd"
	CRIO       = "cri-o"
	Podman     = "podman"
	LXC        = "lxc"
	Nspawn     = "nspawn"
)

// A Workload is what a cgroup belongs to. What its path doesn't tell is "".
type Workload struct {
	Kind string
	// Group is the path of the cgroup that the workload is in and can't leave.
	Group   string
	Unit    string // of kinds unit and user: "nginx.service", "user-1000.slice"
	PodUID  string
	ID      string // of the container, of a pod one of its containers
	Name    string // of an LXC container or a machine of systemd-nspawn
	Runtime string
}

// maxID bounds what a path may have as a name or an id, in bytes.
const maxID = 128

// Of tells what a cgroup belongs to, by its path from the root of the whole
// tree. Of the cgroups on the path the outermost that is a workload decides:
// what is below it has been made by the workload itself, and may have any name.
// So a user's own "kubepods.slice" is no pod, and what runs in a container that
// runs in a pod is the pod's.
func Of(cgroup string) Workload {
	w := walker{path: cgroup}
	for w.next() {
		if found, ok := w.here(); ok {
			return found
		}
	}
	switch {
	case w.outside:
		return Workload{}
	case w.daemon.Kind != "":
		return w.daemon
	}
	return Workload{Group: w.firstTwo()}
}

// Group is the part of a cgroup path that one user or workload can't leave.
// Where that isn't known it is the path's first two parts.
func Group(cgroup string) string { return Of(cgroup).Group }

// A walker goes down a cgroup path.
type walker struct {
	path    string
	end     int      // of the part that it is at
	part    string   // it
	parent  string   // the part above
	depth   int      // 1 for the first part
	kube    bool     // the part above is one that has pods
	outside bool     // the path leads out of the cgroup namespace
	daemon  Workload // a container runtime's unit above, if there is one
}

func (w *walker) next() bool {
	if w.end >= len(w.path) || w.path[w.end] != '/' {
		return false
	}
	w.kube = w.kube && isQOS(w.part) || isKube(w.part)
	w.parent = w.part
	start := w.end + 1
	w.end = len(w.path)
	if i := strings.IndexByte(w.path[start:], '/'); i >= 0 {
		w.end = start + i
	}
	w.part = w.path[start:w.end]
	w.depth++
	if w.part == ".." {
		w.outside = true
	}
	return w.part != "" && !w.outside
}

// here tells whether the part is a workload, and which.
func (w *walker) here() (Workload, bool) {
	found := Workload{Group: w.path[:w.end]}
	if isUser(w.parent, w.depth) {
		found.Kind, found.Unit = KindUser, w.part
		return found, true
	}
	if uid, ok := podUID(w.part, w.kube); ok {
		found.Kind, found.PodUID = KindPod, uid
		below := *w
		if below.next() {
			found.ID, found.Runtime, _ = container(below.part, "")
		}
		return found, true
	}
	if uid, id, runtime, ok := flatPod(w.part); ok {
		found.Kind, found.PodUID, found.ID, found.Runtime = KindPod, uid, id, runtime
		return found, true
	}
	if id, runtime, ok := container(w.part, w.parent); ok {
		found.Kind, found.ID, found.Runtime = KindContainer, id, runtime
		return found, true
	}
	if name, runtime, ok := machine(w.part, w.parent, w.depth); ok {
		found.Kind, found.Name, found.Runtime = KindContainer, name, runtime
		return found, true
	}
	if w.daemon.Kind == "" && isUnit(w.part) {
		found.Kind, found.Unit = KindUnit, w.part
		if isDaemon(w.part) {
			w.daemon = found
			return Workload{}, false
		}
		return found, true
	}
	return Workload{}, false
}

// firstTwo is the part of the path that is the group of an unknown workload.
func (w *walker) firstTwo() string {
	for i, n := 1, 2; i < len(w.path); i++ {
		if w.path[i] == '/' {
			if n--; n == 0 {
				return w.path[:i]
			}
		}
	}
	return w.path
}

// isDaemon tells the units of container runtimes that are root's. Where their
// cgroup driver isn't that of the kubelet, or has no parent to use, containers
// are below them.
func isDaemon(unit string) bool {
	switch unit {
	case "containerd.service", "docker.service", "crio.service", "kubelet.service",
		"k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service":
		return true
	}
	return false
}

// isUnit leaves init.scope out: each systemd, also that of a container whose
// cgroup isn't its own, has one, so it says nothing.
func isUnit(part string) bool {
	return strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") && part != "init.scope"
}

// isUser tells systemd's slice of a user, and what others make in its place: all
// below it the user can name.
func isUser(parent string, depth int) bool {
	return depth == 2 && (parent == "user.slice" || parent == "user") // the second is pam_cgfs's
}

// isKube tells the cgroup of all pods: "kubepods", "kubepods.slice", and
// "kubelet-kubepods.slice" under a --cgroup-root.
func isKube(part string) bool {
	name, _ := strings.CutSuffix(part, ".slice")
	return name == "kubepods" || name != part && strings.HasSuffix(name, "-kubepods")
}

// isQOS tells the cgroups of the pods that may be throttled.
func isQOS(part string) bool {
	name, slice := strings.CutSuffix(part, ".slice")
	for _, class := range []string{"burstable", "besteffort"} {
		if !slice && name == class || slice && strings.HasSuffix(name, "kubepods-"+class) {
			return true
		}
	}
	return false
}

// podUID reads the UID from the cgroup of a pod: "pod<UID>" in one of all pods,
// or with systemd "kubepods-burstable-pod<UID>.slice", which has "_" for "-".
func podUID(part string, kube bool) (string, bool) {
	if !kube {
		return "", false
	}
	name, slice := strings.CutSuffix(part, ".slice")
	if !slice {
		uid, ok := strings.CutPrefix(part, "pod")
		return uid, ok && isID(uid)
	}
	return slicedUID(name)
}

func slicedUID(name string) (string, bool) {
	_, rest, ok := strings.Cut(name, "kubepods-")
	if !ok {
		return "", false
	}
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "burstable-"), "besteffort-")
	uid, ok := strings.CutPrefix(rest, "pod")
	return strings.ReplaceAll(uid, "_", "-"), ok && isID(uid)
}

// flatPod reads what a runtime makes of systemd's notation if its own driver is
// cgroupfs: "kubepods-burstable-pod<UID>.slice:cri-containerd:<id>" is the name of
// one directory then.
func flatPod(part string) (uid, id, runtime string, ok bool) {
	name, rest, ok := strings.Cut(part, ".slice:")
	if !ok {
		return "", "", "", false
	}
	prefix, id, ok := strings.Cut(rest, ":")
	if !ok || !isHash(id) {
		return "", "", "", false
	}
	uid, ok = slicedUID(name)
	return uid, id, runtimeOf(prefix), ok
}

// container reads the id of a container: "docker-<id>.scope" with systemd; with
// cgroupfs "<id>" in the runtime's own directory, or "crio-<id>".
func container(part, parent string) (id, runtime string, ok bool) {
	name, scope := strings.CutSuffix(part, ".scope")
	if i := strings.LastIndexByte(name, '-'); i > 0 && isHash(name[i+1:]) {
		return name[i+1:], runtimeOf(name[:i]), true
	}
	if !scope && isHash(name) {
		return name, runtimeOf(parent), true
	}
	return "", "", false
}

// runtimeOf knows what runtimes put before a container's id, or call the
// directory of their containers.
func runtimeOf(prefix string) string {
	switch prefix {
	case "docker":
		return Docker
	case "cri-containerd", "nerdctl", "k8s.io", "default", "moby":
		return Containerd
	case "crio", "crio-conmon":
		return CRIO
	case "libpod", "libpod-conmon", "libpod_parent":
		return Podman
	}
	return ""
}

// machine reads the name of what has one: containers of LXC and systemd-nspawn,
// and those of containerd's own command.
func machine(part, parent string, depth int) (name, runtime string, ok bool) {
	if n, ok := strings.CutPrefix(part, "lxc.payload."); ok {
		name, runtime = n, LXC
	} else if depth == 2 && (parent == "lxc" || parent == "lxc.payload") {
		name, runtime = part, LXC
	} else if n, ok := between(part, "systemd-nspawn@", ".service"); ok {
		name, runtime = unescape(n), Nspawn
	} else if n, ok := between(part, "machine-", ".scope"); ok && parent == "machine.slice" {
		// Also libvirt's: "machine-lxc\x2d1\x2dname.scope", and virtual machines,
		// which are no containers.
		name, runtime = unescape(n), Nspawn
		if strings.HasPrefix(name, "qemu-") {
			return "", "", false
		}
		if n, ok := strings.CutPrefix(name, "lxc-"); ok {
			name, runtime = n, LXC
		}
	} else if depth == 2 && parent == "default" {
		name, runtime = part, Containerd
	}
	return name, runtime, name != "" && len(name) <= maxID
}

func between(s, before, after string) (string, bool) {
	s, ok1 := strings.CutPrefix(s, before)
	s, ok2 := strings.CutSuffix(s, after)
	return s, ok1 && ok2
}

// unescape takes back systemd's \x2d.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+3 < len(s) && s[i] == '\\' && s[i+1] == 'x' && hex(s[i+2]) >= 0 && hex(s[i+3]) >= 0 {
			b.WriteByte(byte(hex(s[i+2])<<4 | hex(s[i+3])))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func hex(c byte) int { return strings.IndexByte("0123456789abcdef", c) }

// isHash tells a container's id: 64 hexadecimal digits.
func isHash(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// isID tells a pod's UID, which is a UUID, or the hash of a static pod's
// manifest, but may be any other word.
func isID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxID
}
