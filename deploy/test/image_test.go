package test

import (
	"archive/tar"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/google/go-cmp/cmp"
)

// An engine is a Docker daemon of the test's own, without a network.
type engine struct {
	t      *testing.T
	socket string
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "twwatch-docker-") // not on a tmpfs, as /tmp may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what is left of it lies among temporary files
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e := &engine{t: t, socket: filepath.Join(dir, "docker.sock")}
	cmd := exec.Command("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
		"--data-root="+dir+"/data", "--exec-root="+dir+"/exec", "--pidfile="+dir+"/pid", "--host=unix://"+e.socket)
	cmd.Stdout, cmd.Stderr = log, log
	done := start(t, cmd, syscall.SIGTERM)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dockerd:\n%s", tail(read(t, log.Name())))
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Error("dockerd doesn't end")
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done
		}
	})
	eventually(t, "the engine answers", func() error {
		_, err := try(t.Context(), docker(), "--host=unix://"+e.socket, "version")
		return err
	})
	return e
}

// docker is Debian's: another one first in the path may lack what builds.
func docker() string { return "/usr/bin/docker" }

func (e *engine) run(args ...string) string {
	e.t.Helper()
	return strings.TrimSpace(command(e.t, docker(), append([]string{"--host=unix://" + e.socket}, args...)...))
}

// build runs scripts/image and returns what the engine told of its steps.
func (e *engine) build(args ...string) string {
	e.t.Helper()
	cmd := exec.CommandContext(e.t.Context(), root+"/scripts/image",
		append([]string{"--build-arg=GO_IMAGE=local:go", "--network=none", "--progress=plain"}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket, "BUILD="+docker()+" build")
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("scripts/image: %v\n%s", err, tail(string(out)))
	}
	return string(out)
}

// importBase makes the image that is built in: busybox, this machine's Go, and
// the modules.
func (e *engine) importBase() {
	e.t.Helper()
	dir := e.t.TempDir()
	modules := e.t.TempDir()
	script := fmt.Sprintf(`set -eu
mkdir -p %[1]s/bin %[1]s/usr/bin %[1]s/usr/local %[1]s/tmp %[1]s/root
cp "$(command -v busybox)" %[1]s/bin/busybox
chroot %[1]s /bin/busybox --install -s /bin
cp -a "$(go env GOROOT)" %[1]s/usr/local/go
rm -rf %[1]s/usr/local/go/test %[1]s/usr/local/go/pkg/mod
GOFLAGS=-modcacherw GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GOMODCACHE=%[2]s go mod download
cp -a %[2]s/cache/download %[1]s/proxy
tar -C %[1]s -cf - . | %[3]s --host=unix://%[4]s import \
	--change 'ENV PATH=/usr/local/go/bin:/bin:/usr/bin GOPROXY=file:///proxy GOSUMDB=off GOTOOLCHAIN=local' - local:go
`, dir, modules, docker(), e.socket)
	cmd := exec.CommandContext(e.t.Context(), "sh", "-c", script)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("%v\n%s", err, tail(string(out)))
	}
}

// An image is what matters of one.
type image struct {
	Architecture string
	Size         int64
	Config       struct {
		User       string
		Entrypoint []string
		Cmd        []string
		Labels     map[string]string
	}
	RootFS struct{ Layers []string }
}

func (e *engine) inspect(name string) image {
	e.t.Helper()
	var images []image
	if err := json.Unmarshal([]byte(e.run("image", "inspect", name)), &images); err != nil {
		e.t.Fatal(err)
	}
	return images[0]
}

// The image, built by a real engine from a local base and run with what the
// DaemonSet allows.
func TestImage(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	e.importBase()
	name := "twwatch:" + version(t)
	e.build()
	first := e.inspect(name)
	firstBytes := e.layers(name)

	t.Run("contents", func(t *testing.T) {
		t.Logf("%.1f MB", float64(first.Size)/1e6)
		if first.Size >= 25e6 {
			t.Errorf("%d bytes, want less than 25 MB", first.Size)
		}
		if first.Config.User != "65534:65534" || cmp.Diff(first.Config.Entrypoint, []string{"/usr/bin/twwatch"}) != "" ||
			cmp.Diff(first.Config.Cmd, []string{"serve"}) != "" {
			t.Errorf("%+v", first.Config)
		}
		for _, label := range []string{"title", "description", "source", "licenses", "version", "revision"} {
			if v := first.Config.Labels["org.opencontainers.image."+label]; v == "" || v == "unknown" {
				t.Errorf("label %s is %q", label, v)
			}
		}
		for path, mode := range e.files(name) {
			if mode&(os.ModeSetuid|os.ModeSetgid) != 0 || mode.Perm()&0o022 != 0 {
				t.Errorf("%s has the mode %v", path, mode)
			}
			if !strings.HasPrefix("usr/bin/twwatch", strings.TrimSuffix(path, "/")) && !strings.HasPrefix(path, "usr/share/") {
				t.Errorf("it holds %s", path)
			}
		}
		// The program is the one that scripts/dist made on this machine, in
		// another place, with another cache.
		if got, want := e.program(name), sum(t, program(t)); got != want {
			t.Errorf("its program has other bytes than that of scripts/dist: %s, want %s", got, want)
		}
	})

	t.Run("run", func(t *testing.T) {
		for _, overlay := range []string{"base", "overlays/host-network"} {
			e.runAsPod(t, name, pod(t, overlay), "")
		}
		// A profile that kills instead of refusing: nothing else is needed.
		e.runAsPod(t, name, pod(t, "base"), "SCMP_ACT_KILL_PROCESS")
	})

	t.Run("same bytes", func(t *testing.T) {
		// Nothing is kept of the first one but what the compiler has cached.
		e.run("builder", "prune", "--force", "--all", "--filter=type=regular")
		if out := e.build(); strings.Contains(out, "CACHED") {
			t.Errorf("not all of it was built again:\n%s", tail(out))
		}
		if diff := cmp.Diff(first, e.inspect(name)); diff != "" {
			t.Errorf("built again (-first +second)\n%s", diff)
		}
		if diff := cmp.Diff(firstBytes, e.layers(name)); diff != "" {
			t.Errorf("layers (-first +second)\n%s", diff)
		}
	})

	t.Run("arm64", func(t *testing.T) {
		e.build("--platform=linux/arm64")
		if got := e.inspect(name).Architecture; got != "arm64" {
			t.Errorf("architecture %s", got)
		}
		if got := e.machine(name); got != elf.EM_AARCH64 {
			t.Errorf("a program for %v", got)
		}
	})
}

// runAsPod runs the image with a pod's settings and asks it for metrics.
// Instead of refusing, the seccomp profile does what is given.
func (e *engine) runAsPod(t *testing.T, name string, spec corev1.PodSpec, instead string) {
	t.Helper()
	c := spec.Containers[0]
	s := c.SecurityContext
	args := []string{
		"run", "--detach", "--network=none", "--cap-drop=ALL",
		fmt.Sprintf("--read-only=%v", *s.ReadOnlyRootFilesystem),
		fmt.Sprintf("--user=%d:%d", *s.RunAsUser, *s.RunAsGroup),
		fmt.Sprintf("--memory=%d", c.Resources.Limits.Memory().Value()),
		"--env=HOST_IP=127.0.0.1",
	}
	if !*s.AllowPrivilegeEscalation {
		args = append(args, "--security-opt=no-new-privileges")
	}
	for _, capability := range s.Capabilities.Add {
		args = append(args, "--cap-add="+string(capability))
	}
	if s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeLocalhost {
		args = append(args, "--security-opt=seccomp="+profile(t, instead))
	}
	if spec.HostPID {
		args = append(args, "--pid=host")
	}
	config := filepath.Join(t.TempDir(), "etc")
	write(t, config+"/twwatch.yaml", read(t, root+"/deploy/kubernetes/base/twwatch.yaml"))
	args = append(args, "--volume="+config+":/etc/twwatch:ro", name)
	for _, arg := range c.Args {
		args = append(args, strings.ReplaceAll(arg, "$(HOST_IP)", "127.0.0.1"))
	}
	id := e.run(args...)
	defer e.run("rm", "--force", id)
	pid, err := strconv.Atoi(e.run("inspect", "--format={{.State.Pid}}", id))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, leader: pid} // for its network
	text := m.awaitMetrics()
	if !strings.Contains(text, `twwatch_feature_available{feature="inet_diag"} 1`) {
		t.Errorf("the kernel isn't asked:\n%s", tail(text))
	}
	if spec.HostPID {
		inode := otherNamespace(t)
		eventually(t, "it has found a network namespace outside of the container", func() error {
			_, body, err := m.get("http://127.0.0.1:10060/api/v1/report")
			if err == nil && !strings.Contains(body, `"inode":`+inode+`,`) {
				err = errors.New(tail(body))
			}
			return err
		})
	}
	for _, port := range c.Ports {
		if port.ContainerPort != 10060 {
			t.Errorf("it listens on 10060, the pod's port is %d", port.ContainerPort)
		}
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
		if status, body, err := m.get("http://127.0.0.1:10060" + probe.HTTPGet.Path); status != http.StatusOK {
			t.Errorf("%s: %d %q %v", probe.HTTPGet.Path, status, body, err)
		}
	}
	var want uint64
	for _, capability := range s.Capabilities.Add {
		want |= map[corev1.Capability]uint64{"SYS_ADMIN": 1 << 21, "SYS_PTRACE": 1 << 19, "DAC_READ_SEARCH": 1 << 2}[capability]
	}
	status := read(t, fmt.Sprintf("/proc/%d/status", pid))
	for key, value := range map[string]string{
		"CapEff": fmt.Sprintf("%016x", want), "CapBnd": fmt.Sprintf("%016x", want), "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	} {
		contains(t, "the process", status, `(?m)^`+key+`:\t`+value+`$`)
	}
	if state := e.run("inspect", "--format={{.State.Status}} {{.RestartCount}}", id); state != "running 0" {
		t.Errorf("it is %s:\n%s", state, e.run("logs", id))
	}
}

// otherNamespace starts a process in a network namespace of its own, which ends
// with the test, and returns the namespace's inode number.
func otherNamespace(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(link, "net:[]")
}

// profile is the DaemonSet's seccomp profile; instead replaces its refusal.
func profile(t *testing.T, instead string) string {
	t.Helper()
	path := absolute(t, root+"/deploy/kubernetes/base/seccomp.json")
	if instead == "" {
		return path
	}
	text := strings.Replace(read(t, path), `"SCMP_ACT_ERRNO"`, `"`+instead+`"`, 1)
	text = strings.Replace(text, `"defaultErrnoRet": 1,`, "", 1)
	changed := filepath.Join(t.TempDir(), "seccomp.json")
	write(t, changed, text)
	return changed
}

// each calls f for each entry of each layer of an image.
func (e *engine) each(name string, f func(layer string, h *tar.Header, r io.Reader)) {
	e.t.Helper()
	archive := filepath.Join(e.t.TempDir(), "image.tar")
	e.run("save", "--output="+archive, name)
	file, err := os.Open(archive)
	if err != nil {
		e.t.Fatal(err)
	}
	defer file.Close()
	entries(e.t, file, func(outer *tar.Header, r io.Reader) {
		if strings.HasSuffix(outer.Name, "layer.tar") {
			entries(e.t, r, func(h *tar.Header, r io.Reader) { f(outer.Name, h, r) })
		}
	})
}

func entries(t *testing.T, r io.Reader, f func(*tar.Header, io.Reader)) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		f(h, archive)
	}
}

func (e *engine) files(name string) map[string]os.FileMode {
	e.t.Helper()
	files := map[string]os.FileMode{}
	e.each(name, func(_ string, h *tar.Header, _ io.Reader) { files[h.Name] = h.FileInfo().Mode() })
	return files
}

// layers gives each layer's name, times and contents in one line for each file.
func (e *engine) layers(name string) []string {
	e.t.Helper()
	var lines []string
	e.each(name, func(_ string, h *tar.Header, r io.Reader) {
		hash := sha256.New()
		if _, err := io.Copy(hash, r); err != nil {
			e.t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %v %d:%d %d %x", h.Name, h.FileInfo().Mode(), h.Uid, h.Gid, h.ModTime.UnixNano(), hash.Sum(nil)))
	})
	return lines
}

// extract writes an image's program to a file.
func (e *engine) extract(name string) string {
	e.t.Helper()
	path := filepath.Join(e.t.TempDir(), "twwatch")
	e.each(name, func(_ string, h *tar.Header, r io.Reader) {
		if h.Name != "usr/bin/twwatch" {
			return
		}
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(path, b, 0o755)
		}
		if err != nil {
			e.t.Fatal(err)
		}
	})
	return path
}

func (e *engine) program(name string) string { return sum(e.t, e.extract(name)) }

func (e *engine) machine(name string) elf.Machine {
	e.t.Helper()
	f, err := elf.Open(e.extract(name))
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	return f.Machine
}

func sum(t *testing.T, path string) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, path))))
}
