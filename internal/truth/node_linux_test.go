package truth

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

const (
	// nodeEnv tells the test binary that it is a node: PID 1 of a PID, a mount and
	// a network namespace of its own, which die with it. It names the directory of
	// the programs built.
	nodeEnv = "TWWATCH_TRUTH_NODE"
	nodeDir = "/run/node"
	// lookFile is there from a wish to be looked at until that is done.
	lookFile = "look-from-outside"
	podImage = "localhost/pod:1"
)

// onNode runs the test again, as a node's. When that asks for it (see lookedAt),
// outside looks at the node from the outside, where it is the process pid.
func onNode(t *testing.T, outside func(dir string, pid int)) {
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "loopback", "ptp", "host-local", "ss", "ip", "nsenter"} {
		lab.Tool(t, name)
	}
	dir := filepath.Dir(program(t))
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "pod"), "./testdata/pod")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // there is nothing else in its image
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out bytes.Buffer
	self := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	self.Env, self.Stdout, self.Stderr = append(os.Environ(), nodeEnv+"="+dir), &out, &out
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the signal is sent when this thread ends
	defer runtime.UnlockOSThread()
	if err := self.Start(); err != nil {
		lab.Lacks(t, "netns", err)
	}
	ended := make(chan struct{})
	var failed error
	go func() {
		failed = self.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		<-ended // the test's context is over
		removeGroups(t, dir)
	})
	for asked := filepath.Join(dir, lookFile); ; {
		select {
		case <-ended:
			if failed != nil {
				t.Fatalf("%v\n%s", failed, out.Bytes())
			}
			return
		case <-time.After(100 * time.Millisecond):
			if _, err := os.Stat(asked); err == nil {
				outside(dir, self.Process.Pid)
				if err := os.Remove(asked); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// lookedAt returns when onNode's outside has.
func (n *node) lookedAt() {
	n.t.Helper()
	asked := filepath.Join(n.dir, lookFile)
	if err := os.WriteFile(asked, nil, 0o644); err != nil {
		n.t.Fatal(err)
	}
	lab.Eventually(n.t, 30*time.Second, func() error {
		if _, err := os.Stat(asked); !errors.Is(err, os.ErrNotExist) {
			return errors.New("nobody has looked from outside")
		}
		return nil
	})
}

// uid is the UID of a pod, which names its cgroup: no other run has it.
func uid(dir string, i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", crc32.ChecksumIEEE([]byte(dir)), i)
}

// removeGroups removes what outlives the node: the pods' cgroups, and those above
// if there are no others in them.
func removeGroups(t *testing.T, dir string) {
	prefix, _, _ := strings.Cut(uid(dir, 0), "-")
	pods := "/burstable/pod" + prefix + "-*"
	for _, root := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods"} {
		for _, below := range []string{pods + "/*", pods, "/burstable", ""} {
			groups, err := filepath.Glob(root + below)
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range groups {
				err := unix.Rmdir(group)
				if err != nil && !errors.Is(err, unix.ENOTDIR) && strings.Contains(below, prefix) {
					t.Errorf("remove %s: %v", group, err)
				}
			}
		}
	}
}

// A node runs containerd. It has all its files in a tmpfs of its own.
type node struct {
	t      *testing.T
	dir    string // of the programs built
	daemon *exec.Cmd
	conn   *grpc.ClientConn
	pods   int // so far
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, dir: os.Getenv(nodeEnv)}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"tmpfs", "/run", "tmpfs", 0},
		{"proc", "/proc", "proc", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			t.Fatalf("mount %s: %v", m.target, err)
		}
	}
	if err := errors.Join(os.MkdirAll(n.path("cni"), 0o755), os.MkdirAll(n.path("logs"), 0o755)); err != nil {
		t.Fatal(err)
	}
	n.connect("containerd.sock")
	n.command("ip", "link", "set", "lo", "up")
	n.write("cni/10-pods.conflist", `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp",
		"ipam": {"type": "host-local", "subnet": "10.88.0.0/24", "dataDir": "`+n.path("addresses")+`"}}]}`)
	n.write("config.toml", strings.NewReplacer("DIR", nodeDir, "IMAGE", podImage, "PLUGINS", filepath.Dir(lab.Tool(t, "loopback"))).Replace(`
version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "DIR/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "DIR/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "IMAGE"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "PLUGINS"
conf_dir = "DIR/cni"
`))
	return n
}

// path is a path in the node's own directory.
func (n *node) path(name string) string { return filepath.Join(nodeDir, name) }

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// command runs a program and returns what it writes.
func (n *node) command(args ...string) string {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), args[0], args[1:]...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("%v: %v\n%s", args, err, errOut.Bytes())
	}
	return string(out)
}

// connect makes cri.sock lead to a socket.
func (n *node) connect(socket string) {
	n.t.Helper()
	_ = os.Remove(n.path("cri.sock"))
	if err := os.Symlink(socket, n.path("cri.sock")); err != nil {
		n.t.Fatal(err)
	}
}

// background runs a program until the test's end. What it writes is in a file,
// which a test that fails shows the end of.
func (n *node) background(log string, args ...string) *exec.Cmd {
	n.t.Helper()
	out := must[*os.File](n.t)(os.OpenFile(n.path(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644))
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if n.t.Failed() {
			said := must[[]byte](n.t)(os.ReadFile(n.path(log)))
			n.t.Logf("%s:\n%s", log, said[max(0, len(said)-4000):])
		}
	})
	return cmd
}

// startRuntime starts containerd, and waits until its CRI is ready.
func (n *node) startRuntime() {
	n.t.Helper()
	n.daemon = n.background("containerd.log", "containerd", "--config", n.path("config.toml"))
	n.conn = must[*grpc.ClientConn](n.t)(grpc.NewClient("unix://"+n.path("containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials())))
	n.t.Cleanup(func() { n.conn.Close() })
	lab.Eventually(n.t, 30*time.Second, func() error {
		r, err := n.client().Status(n.t.Context(), &cri.StatusRequest{})
		for _, c := range r.GetStatus().GetConditions() {
			if !c.Status {
				err = fmt.Errorf("%s: %s", c.Type, c.Message)
			}
		}
		return err
	})
}

func (n *node) client() cri.RuntimeServiceClient { return cri.NewRuntimeServiceClient(n.conn) }

// signalRuntime sends containerd a signal.
func (n *node) signalRuntime(s syscall.Signal) {
	n.t.Helper()
	if err := n.daemon.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// importImage makes an image of the one program, as docker-archive.
func (n *node) importImage() {
	n.t.Helper()
	layer := archive(n.t, "pod", must[[]byte](n.t)(os.ReadFile(filepath.Join(n.dir, "pod"))))
	config := must[[]byte](n.t)(json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pod"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	}))
	manifest := must[[]byte](n.t)(json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{podImage}, "Layers": []string{"layer.tar"}}}))
	n.write("image.tar", string(archive(n.t, "manifest.json", manifest, "config.json", config, "layer.tar", layer)))
	n.command("ctr", "--address", n.path("containerd.sock"), "--namespace", "k8s.io", "images", "import", n.path("image.tar"))
	lab.Eventually(n.t, 10*time.Second, func() error { // the CRI hears of it by an event
		r, err := cri.NewImageServiceClient(n.conn).ImageStatus(n.t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: podImage}})
		if err == nil && r.Image == nil {
			err = errors.New("no such image")
		}
		return err
	})
}

// archive is a tar file of names and contents, in turn; programs, for all it knows.
func archive(t *testing.T, files ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		data := files[i+1].([]byte)
		err := w.WriteHeader(&tar.Header{Name: files[i].(string), Mode: 0o755, Size: int64(len(data))})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A pod has one container, "main".
type pod struct {
	name, uid string
	sandbox   string // its id
	pid       int    // of the container's program
	logs      string // their directory
}

func (p *pod) full() string { return "shop/" + p.name }

// run starts a pod, as the kubelet does.
func (n *node) run(name string, sysctls map[string]string, args ...string) *pod {
	n.t.Helper()
	n.pods++
	p := &pod{name: name, uid: uid(n.dir, n.pods)}
	p.logs = n.path("logs/shop_" + name + "_" + p.uid)
	if err := os.MkdirAll(p.logs+"/main", 0o755); err != nil {
		n.t.Fatal(err)
	}
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: p.uid},
		LogDirectory: p.logs, Labels: map[string]string{"app": name, "other": "label"},
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/kubepods/burstable/pod" + p.uid, Sysctls: sysctls},
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	sandbox := must[*cri.RunPodSandboxResponse](n.t)(n.client().RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config}))
	p.sandbox = sandbox.PodSandboxId
	container := must[*cri.CreateContainerResponse](n.t)(n.client().CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.sandbox, SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: podImage}, Args: args, LogPath: "main/0.log",
			Linux: &cri.LinuxContainerConfig{},
		},
	}))
	must[*cri.StartContainerResponse](n.t)(n.client().StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container.ContainerId}))
	status := must[*cri.ContainerStatusResponse](n.t)(n.client().ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: container.ContainerId, Verbose: true}))
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil || info.Pid == 0 {
		n.t.Fatalf("no pid in %q: %v", status.Info["info"], err)
	}
	p.pid = info.Pid
	return p
}

// remove deletes a pod with all that is in it.
func (n *node) remove(p *pod) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()
	must[*cri.StopPodSandboxResponse](n.t)(n.client().StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.sandbox}))
	must[*cri.RemovePodSandboxResponse](n.t)(n.client().RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.sandbox}))
	if err := os.RemoveAll(p.logs); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) signal(p *pod, s syscall.Signal) {
	n.t.Helper()
	if err := syscall.Kill(p.pid, s); err != nil {
		n.t.Fatalf("%s: %v", p.name, err)
	}
}

// inside runs a program in the pod's network namespace.
func (n *node) inside(p *pod, args ...string) string {
	n.t.Helper()
	return n.command(append([]string{"nsenter", "--net=/proc/" + strconv.Itoa(p.pid) + "/ns/net"}, args...)...)
}

// witness is an open /proc/sys file of the pod's namespace: the kernel's own word
// for whether it is dead. It doesn't keep it alive.
func (n *node) witness(p *pod) *os.File {
	n.t.Helper()
	runtime.LockOSThread()
	home, err1 := os.Open("/proc/thread-self/ns/net")
	pods, err2 := os.Open("/proc/" + strconv.Itoa(p.pid) + "/ns/net")
	if err := errors.Join(err1, err2); err != nil {
		n.t.Fatal(err)
	}
	defer home.Close()
	defer pods.Close()
	err1 = unix.Setns(int(pods.Fd()), unix.CLONE_NEWNET)
	settings, err2 := os.Open("/proc/sys/net/ipv4/tcp_fin_timeout")
	if err := errors.Join(err1, err2, unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)); err != nil {
		n.t.Fatal(err)
	}
	runtime.UnlockOSThread()
	n.t.Cleanup(func() { settings.Close() })
	return settings
}

// A watcher is a twwatch that looks at all of the node, once a second.
type watcher struct {
	n    *node
	port string
	cri  bool
}

func (n *node) watch(port string, cri bool, args ...string) *watcher {
	n.t.Helper()
	n.background(port+".log", append([]string{
		filepath.Join(n.dir, "twwatch"), "serve", "--web.listen-address=127.0.0.1:" + port, "--netns=all", "--interval=1s", "--cpu-budget=1",
	}, args...)...)
	return &watcher{n: n, port: port, cri: cri}
}

func (w *watcher) get(path string) (string, error) {
	resp, err := http.Get("http://127.0.0.1:" + w.port + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(body), err
}

// until waits for a report, and returns it.
func (w *watcher) until(check func(*snapshot.Report) error) (r *snapshot.Report) {
	w.n.t.Helper()
	lab.Eventually(w.n.t, 30*time.Second, func() error {
		text, err := w.get("/api/v1/report")
		if err != nil {
			return err
		}
		if r, err = snapshot.Decode([]byte(text)); err != nil {
			return err
		}
		return check(r)
	})
	return r
}

// podIn is a pod in a report, nil if it isn't there.
func podIn(r *snapshot.Report, p *pod) *snapshot.Namespace {
	for _, ns := range r.Namespaces {
		if ns.Name == p.full() {
			return ns
		}
	}
	return nil
}

// complaints are what a report says of what it lacks.
func complaints(r *snapshot.Report) (all []string) {
	for _, gap := range append(r.Incomplete, r.Limited...) {
		all = append(all, gap.Stage+": "+gap.Error)
	}
	return all
}

// noise is what it has logged but for what happens as it should.
func (w *watcher) noise() (lines []string) {
	w.n.t.Helper()
	for line := range strings.Lines(string(must[[]byte](w.n.t)(os.ReadFile(w.n.path(w.port + ".log"))))) {
		if !strings.Contains(line, "level=INFO") {
			lines = append(lines, line)
		}
	}
	return lines
}
