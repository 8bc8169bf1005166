package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/google/go-cmp/cmp"
)

const (
	kubernetes = root + "/deploy/kubernetes/"
	chart      = root + "/deploy/helm/twwatch"
)

// kustomized is what kubectl apply -k would apply.
func kustomized(t *testing.T, dir string) string {
	t.Helper()
	return command(t, "kustomize", "build", kubernetes+dir)
}

// templated is what helm install would apply.
func templated(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "helm", append([]string{"template", "twwatch", chart, "--namespace=twwatch", "--kube-version=1.31.0"}, args...)...)
}

// rendered are all manifests that the tests look at, by what they came from.
func rendered(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"base", "overlays/host-network", "overlays/prometheus-operator"} {
		all["kustomize "+dir] = kustomized(t, dir)
	}
	for _, component := range []string{"cri", "runtime-default"} {
		dir := t.TempDir()
		write(t, dir+"/kustomization.yaml", fmt.Sprintf("resources: [%q]\ncomponents: [%q]\n",
			relative(t, dir, kubernetes+"base"), relative(t, dir, kubernetes+"components/"+component)))
		all["kustomize components/"+component] = command(t, "kustomize", "build", dir)
	}
	for _, args := range values() {
		all["helm "+strings.Join(args, " ")] = templated(t, args...)
	}
	return all
}

// values are settings of the chart that change what comes out.
func values() [][]string {
	return [][]string{
		{},
		{"--set=mode=host-network"},
		{"--set=cri.enabled=true,cri.socket=/run/crio/crio.sock,cri.labels={app},netns.include={kind:pod},netns.exclude={kube-system/*},seccomp.type=RuntimeDefault"},
		{"--set=seccomp.install=false,appArmor=,seLinuxType=,serviceAccount.create=false,serviceAccount.name=own,priorityClass.create=false"},
		{"--set=podMonitor.create=true,prometheusRule.create=true,dashboards.create=true,podMonitor.labels.release=prometheus"},
		{"--set=service.create=false,fullnameOverride=own,image.digest=sha256:" + strings.Repeat("0", 64)},
		{"--kube-version=1.29.0", "--set-json=config={\"interval\":\"30s\",\"thresholds\":{\"ports_slow_ratio\":0.4}}", "--set=extraArgs={--metrics.server-remotes}"},
		{
			"--set-json=networkPolicy.from=[{\"namespaceSelector\":{\"matchLabels\":{\"kubernetes.io/metadata.name\":\"monitoring\"}}}]",
			"--set=imagePullSecrets[0].name=registry,podLabels.team=net,podAnnotations.a=b,affinity.nodeAffinity=null",
		},
	}
}

func relative(t *testing.T, from, to string) string {
	t.Helper()
	path, err := filepath.Rel(from, absolute(t, to))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// decode reads manifests as the API server does with strict validation of
// fields: an unknown or doubled one is an error.
func decode(t *testing.T, text string) []runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, schedulingv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(regexp.MustCompile(`(?m)^#.*$`).ReplaceAll(document, nil))) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Errorf("%v in\n%s", err, document)
			continue
		}
		objects = append(objects, object)
	}
}

// daemonSet is the only one among the manifests.
func daemonSet(t *testing.T, text string) *appsv1.DaemonSet {
	t.Helper()
	return only(t, decode(t, text))
}

func only(t *testing.T, objects []runtime.Object) *appsv1.DaemonSet {
	t.Helper()
	var found *appsv1.DaemonSet
	for _, object := range objects {
		if d, ok := object.(*appsv1.DaemonSet); ok {
			if found != nil {
				t.Fatal("two DaemonSets")
			}
			found = d
		}
	}
	if found == nil {
		t.Fatal("no DaemonSet")
	}
	return found
}

func pod(t *testing.T, dir string) corev1.PodSpec {
	t.Helper()
	return daemonSet(t, kustomized(t, dir)).Spec.Template.Spec
}

func TestManifests(t *testing.T) {
	t.Parallel()
	for name, text := range rendered(t) {
		t.Run(name, func(t *testing.T) {
			objects := decode(t, text)
			checkReferences(t, objects)
			spec := daemonSet(t, text).Spec.Template.Spec
			checkFlags(t, spec.Containers[0].Args)
			checkSettings(t, objects)
			path := filepath.Join(t.TempDir(), "manifests.yaml")
			write(t, path, text)
			if out, err := try(t.Context(), "kube-score", "score", "--output-format=ci", path); err != nil {
				t.Errorf("kube-score: %v\n%s", err, out)
			}
		})
	}
}

// checkReferences complains of names that nothing bears.
func checkReferences(t *testing.T, objects []runtime.Object) {
	t.Helper()
	have, configMaps := map[string]bool{}, map[string]bool{}
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.ConfigMap:
			configMaps[o.Name] = true
		case *corev1.ServiceAccount:
			have["account "+o.Name] = true
		case *schedulingv1.PriorityClass:
			have["class "+o.Name] = true
		}
	}
	d := only(t, objects)
	spec := d.Spec.Template.Spec
	if name := spec.ServiceAccountName; !have["account "+name] && name != "own" {
		t.Errorf("no ServiceAccount %q", name)
	}
	if name := spec.PriorityClassName; name != "" && !have["class "+name] {
		t.Errorf("no PriorityClass %q", name)
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = false
		if v.ConfigMap != nil && !configMaps[v.ConfigMap.Name] {
			t.Errorf("no ConfigMap %q", v.ConfigMap.Name)
		}
	}
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		for _, mount := range c.VolumeMounts {
			if _, ok := volumes[mount.Name]; !ok {
				t.Errorf("no volume %q", mount.Name)
			}
			volumes[mount.Name] = true
		}
	}
	for name, used := range volumes {
		if !used {
			t.Errorf("volume %q is not used", name)
		}
	}
	for key, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[key] != value {
			t.Errorf("the pods have no label %s=%s", key, value)
		}
	}
	for _, object := range objects {
		var selector map[string]string
		switch o := object.(type) {
		case *corev1.Service:
			selector = o.Spec.Selector
		case *networkingv1.NetworkPolicy:
			selector = o.Spec.PodSelector.MatchLabels
		case *monitoringv1.PodMonitor:
			selector = o.Spec.Selector.MatchLabels
		default:
			continue
		}
		if want := d.Spec.Selector.MatchLabels; !maps.Equal(selector, want) {
			t.Errorf("%T selects %v, the pods are %v", object, selector, want)
		}
	}
}

// checkFlags has twwatch read a command line. --help ends it before anything
// else is done.
func checkFlags(t *testing.T, args []string) {
	t.Helper()
	var known []string
	for _, arg := range args {
		if !strings.HasPrefix(arg, "--config.file=") {
			known = append(known, strings.ReplaceAll(arg, "$(HOST_IP)", "10.0.0.1"))
		}
	}
	if _, err := try(t.Context(), program(t), append(known, "--help")...); err != nil {
		t.Error(err)
	}
}

// checkSettings has twwatch read the --config.file.
func checkSettings(t *testing.T, objects []runtime.Object) {
	t.Helper()
	for _, object := range objects {
		if o, ok := object.(*corev1.ConfigMap); ok && o.Data["twwatch.yaml"] != "" {
			path := filepath.Join(t.TempDir(), "twwatch.yaml")
			write(t, path, o.Data["twwatch.yaml"])
			if _, err := try(t.Context(), program(t), "serve", "--config.file="+path, "--help"); err != nil {
				t.Error(err)
			}
		}
	}
}

// Every flag of twwatch that a file names exists.
func TestFlags(t *testing.T) {
	t.Parallel()
	help := command(t, program(t), "serve", "--help") + command(t, program(t), "check", "--help")
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  (?:-\w, )?--(?:\[no-\])?([a-z.-]+)`).FindAllStringSubmatch(help, -1) {
		known["--"+m[1]] = true
	}
	// Of other programs.
	others := []string{"--threshold", "--platform", "--build-arg", "--network", "--set", "--namespace", "--now", "--mount"}
	flag := regexp.MustCompile(`(?:^|[\s"'=\x60\[(])(--[a-z][a-z.-]*[a-z])`)
	count := 0
	for _, dir := range []string{"deploy/systemd", "deploy/packaging", "deploy/kubernetes", "deploy/helm", "docs/kubernetes.md"} {
		err := filepath.Walk(filepath.Join(root, dir), func(path string, info os.FileInfo, err error) error {
			if err != nil || !info.Mode().IsRegular() || strings.Contains(path, "/completion/") ||
				slices.Contains([]string{".rpm", ".1"}, filepath.Ext(path)) || strings.HasSuffix(filepath.Dir(path), "packaging/deb") || strings.HasSuffix(filepath.Dir(path), "packaging/rpm") {
				return err
			}
			for _, m := range flag.FindAllStringSubmatch(read(t, path), -1) {
				if count++; !known[m[1]] && !slices.Contains(others, m[1]) {
					t.Errorf("%s: twwatch has no flag %s", path, m[1])
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if count < 10 {
		t.Errorf("only %d flags found", count)
	}
}

// What the DaemonSet may do is what docs/kubernetes.md explains, and no more.
func TestDaemonSetRights(t *testing.T) {
	t.Parallel()
	type rights struct {
		HostPID, HostNetwork bool
		User                 int64
		Capabilities         []corev1.Capability
		Seccomp              corev1.SeccompProfileType
		Paths                []string // of the node
		Writable             []string // by any container
	}
	of := func(spec corev1.PodSpec) rights {
		c := spec.Containers[0]
		r := rights{HostPID: spec.HostPID, HostNetwork: spec.HostNetwork, User: *c.SecurityContext.RunAsUser, Capabilities: c.SecurityContext.Capabilities.Add}
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			s := c.SecurityContext
			if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Privileged != nil ||
				len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
				t.Errorf("%s: %+v", c.Name, s)
			}
			for _, mount := range c.VolumeMounts {
				if !mount.ReadOnly {
					r.Writable = append(r.Writable, c.Name+" "+mount.MountPath)
				}
			}
		}
		r.Seccomp = spec.SecurityContext.SeccompProfile.Type
		if p := c.SecurityContext.SeccompProfile; p != nil {
			r.Seccomp = p.Type
		}
		for _, v := range spec.Volumes {
			if v.HostPath != nil {
				r.Paths = append(r.Paths, v.HostPath.Path)
			}
		}
		if spec.HostIPC || *spec.AutomountServiceAccountToken {
			t.Error("hostIPC, or a token of the API server")
		}
		return r
	}
	for name, tc := range map[string]struct {
		spec corev1.PodSpec
		want rights
	}{
		"all namespaces": {pod(t, "base"), rights{
			HostPID: true, Capabilities: []corev1.Capability{"SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"}, Seccomp: "Localhost",
			Paths: []string{"/var/log/pods", "/var/lib/kubelet/seccomp"}, Writable: []string{"seccomp-profile /seccomp"},
		}},
		"host network": {pod(t, "overlays/host-network"), rights{HostNetwork: true, User: 65534, Seccomp: "RuntimeDefault"}},
		"the chart": {daemonSet(t, templated(t)).Spec.Template.Spec, rights{
			HostPID: true, Capabilities: []corev1.Capability{"SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"}, Seccomp: "Localhost",
			Paths: []string{"/var/log/pods", "/var/lib/kubelet/seccomp"}, Writable: []string{"seccomp-profile /seccomp"},
		}},
		"the chart, host network": {
			daemonSet(t, templated(t, "--set=mode=host-network")).Spec.Template.Spec,
			rights{HostNetwork: true, User: 65534, Seccomp: "RuntimeDefault"},
		},
	} {
		if diff := cmp.Diff(tc.want, of(tc.spec)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	document := read(t, root+"/docs/kubernetes.md")
	for _, word := range []string{"hostPID", "SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "/var/log/pods", "/var/lib/kubelet/seccomp", "seccomp", "AppArmor", "SELinux"} {
		if !strings.Contains(document, word) {
			t.Errorf("docs/kubernetes.md doesn't explain %s", word)
		}
	}
}

// The chart and the kustomization give the same pods.
func TestChartAndBaseAgree(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ dir, mode string }{{"base", "all-namespaces"}, {"overlays/host-network", "host-network"}} {
		want, got := pod(t, tc.dir), daemonSet(t, templated(t, "--set=mode="+tc.mode)).Spec.Template.Spec
		for _, spec := range []*corev1.PodSpec{&want, &got} {
			for i := range spec.Volumes {
				if m := spec.Volumes[i].ConfigMap; m != nil { // kustomize adds a hash
					m.Name = regexp.MustCompile(`-[a-z0-9]{10}$`).ReplaceAllString(m.Name, "")
				}
			}
			slices.SortFunc(spec.Volumes, func(a, b corev1.Volume) int { return strings.Compare(a.Name, b.Name) })
		}
		if diff := cmp.Diff(encode(t, want), encode(t, got)); diff != "" {
			t.Errorf("%s (-kustomize +helm)\n%s", tc.mode, diff)
		}
	}
}

func encode(t *testing.T, spec corev1.PodSpec) map[string]any {
	t.Helper()
	text, err := json.Marshal(spec)
	var value map[string]any
	if err == nil {
		err = json.Unmarshal(text, &value)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// The seccomp profile refuses what would lead out of the container or into
// other processes.
func TestSeccompProfile(t *testing.T) {
	t.Parallel()
	var p struct {
		DefaultAction string
		Syscalls      []struct {
			Names  []string
			Action string
			Args   []struct {
				Index           int
				Value, ValueTwo uint64
				Op              string
			}
		}
	}
	if err := json.Unmarshal([]byte(read(t, kubernetes+"base/seccomp.json")), &p); err != nil {
		t.Fatal(err)
	}
	if p.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Errorf("the default is %s", p.DefaultAction)
	}
	allowed, conditional := map[string]bool{}, map[string]bool{}
	for _, rule := range p.Syscalls {
		for _, name := range rule.Names {
			if allowed[name] {
				t.Errorf("%s stands there twice", name)
			}
			allowed[name], conditional[name] = true, len(rule.Args) > 0
		}
	}
	for _, name := range []string{
		"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "execveat", "open_by_handle_at", "name_to_handle_at",
		"mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "chroot", "unshare", "bpf", "perf_event_open",
		"init_module", "finit_module", "kexec_load", "reboot", "swapon", "keyctl", "add_key", "userfaultfd", "io_uring_setup",
		"kill", "sethostname", "settimeofday", "clone3", "mknod", "mknodat", "unlink", "unlinkat", "rename", "chmod", "chown", "truncate", "ftruncate", "mkdir", "mkdirat",
	} {
		if allowed[name] {
			t.Errorf("%s is allowed", name)
		}
	}
	for _, name := range []string{"clone", "setns"} {
		if !conditional[name] {
			t.Errorf("%s is allowed with every argument", name)
		}
	}
}

// Settings that make no sense are refused before anything is applied.
func TestValuesSchema(t *testing.T) {
	t.Parallel()
	for _, set := range []string{
		"mode=all", "unknown=1", "image.tagg=1", "seccomp.type=Unconfined", "cri.socket=run/x.sock", "podMonitor.interval=15",
		"extraArgs={serve}", "priorityClass.value=high", "image.digest=sha256:1", "resources.limit.cpu=1",
	} {
		out, err := try(t.Context(), "helm", "template", "twwatch", chart, "--kube-version=1.31.0", "--set="+set)
		if err == nil || !strings.Contains(err.Error(), "don't meet the specifications of the schema") {
			t.Errorf("%s: %v\n%s", set, err, tail(out))
		}
	}
}

func TestHelmLint(t *testing.T) {
	t.Parallel()
	for _, args := range values() {
		if !strings.Contains(strings.Join(args, " "), "--kube-version") {
			args = append(args, "--kube-version=1.31.0")
		}
		if _, err := try(t.Context(), "helm", append([]string{"lint", "--strict", chart}, args...)...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	// What is packed has what the links in the chart lead to.
	dir := t.TempDir()
	command(t, "helm", "package", chart, "--destination="+dir)
	names := strings.Fields(command(t, "tar", "-tzf", dir+"/twwatch-"+version(t)+".tgz"))
	for _, name := range []string{"seccomp.json", "twwatch.alerts.yml", "twwatch.rules.yml", "dashboards/twwatch-host.json"} {
		if !slices.Contains(names, "twwatch/files/"+name) {
			t.Errorf("the packed chart lacks %s: %q", name, names)
		}
	}
}

// One version stands everywhere.
func TestVersions(t *testing.T) {
	t.Parallel()
	v := version(t)
	contains(t, "Chart.yaml", read(t, chart+"/Chart.yaml"), `(?m)^version: `+regexp.QuoteMeta(v)+`$`)
	contains(t, "Chart.yaml", read(t, chart+"/Chart.yaml"), `(?m)^appVersion: `+regexp.QuoteMeta(v)+`$`)
	contains(t, "the kustomization", read(t, kubernetes+"base/kustomization.yaml"), `newTag: `+regexp.QuoteMeta(v)+`\n`)
	goVersion := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, root+"/go.mod"))[1]
	contains(t, "Dockerfile", read(t, root+"/Dockerfile"), `golang:`+regexp.QuoteMeta(goVersion)+`-`)
}

// What the packaged settings offer as defaults is what twwatch takes.
func TestPackagedSettings(t *testing.T) {
	t.Parallel()
	text := read(t, root+"/deploy/packaging/twwatch.yaml")
	path := filepath.Join(t.TempDir(), "twwatch.yaml")
	for _, change := range []func(string) string{
		func(s string) string { return s },
		func(s string) string { return regexp.MustCompile(`(?m)^#([a-z]|  [a-z])`).ReplaceAllString(s, "$1") },
	} {
		write(t, path, change(text))
		if _, err := try(t.Context(), program(t), "serve", "--config.file="+path, "--help"); err != nil {
			t.Errorf("%v\n%s", err, change(text))
		}
	}
}
