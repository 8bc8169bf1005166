package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A fake is a container runtime, served by gRPC's own library with Kubernetes'
// own types.
type fake struct {
	cri.UnimplementedRuntimeServiceServer
	mu         sync.Mutex
	sandboxes  []*cri.PodSandbox
	containers []*cri.Container
	info       map[string]string // by sandbox
	asked      map[string]int    // by call
	fail       func(ctx context.Context, call string) error
}

func (f *fake) enter(ctx context.Context, call string) error {
	f.mu.Lock()
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[call]++
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		return fail(ctx, call)
	}
	return nil
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[call]
}

func (f *fake) ListPodSandbox(ctx context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	if err := f.enter(ctx, "list"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &cri.ListPodSandboxResponse{}
	for _, s := range f.sandboxes {
		if want := r.GetFilter().GetState(); want == nil || want.State == s.State {
			out.Items = append(out.Items, s)
		}
	}
	return out, nil
}

func (f *fake) ListContainers(ctx context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	if err := f.enter(ctx, "containers"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &cri.ListContainersResponse{}
	for _, c := range f.containers {
		if want := r.GetFilter().GetState(); want == nil || want.State == c.State {
			out.Containers = append(out.Containers, c)
		}
	}
	return out, nil
}

func (f *fake) PodSandboxStatus(ctx context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	if err := f.enter(ctx, "status"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info, ok := f.info[r.PodSandboxId]
	if !ok {
		return nil, grpcstatus.Error(codes.NotFound, "no such sandbox")
	}
	out := &cri.PodSandboxStatusResponse{Status: &cri.PodSandboxStatus{Id: r.PodSandboxId}}
	if r.Verbose {
		out.Info = map[string]string{"info": info, "other": "{"}
	}
	return out, nil
}

// serve serves a fake at a socket until the returned function is called.
func serve(t *testing.T, socket string, f *fake) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	var once sync.Once
	stop = func() { once.Do(func() { s.Stop(); <-done }) }
	t.Cleanup(stop)
	return stop
}

func sandboxOf(id, namespace, name, uid string, labels map[string]string) *cri.PodSandbox {
	return &cri.PodSandbox{
		Id: id, Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: uid, Attempt: 3}, Labels: labels,
		CreatedAt: 1700000000, Annotations: map[string]string{"a": "b"}, RuntimeHandler: "runc",
	}
}

func containerOf(id, sandbox, name string) *cri.Container {
	return &cri.Container{
		Id: id, PodSandboxId: sandbox, Metadata: &cri.ContainerMetadata{Name: name, Attempt: 1}, State: cri.ContainerState_CONTAINER_RUNNING,
		Image: &cri.ImageSpec{Image: "img"}, ImageRef: "sha256:1",
	}
}

// two is a runtime with two pods, of which the second has two containers, and one
// that has ended.
func two() *fake {
	ended := sandboxOf("s3", "shop", "job-1", "u3", nil)
	ended.State = cri.PodSandboxState_SANDBOX_NOTREADY
	exited := containerOf("c9", "s1", "init")
	exited.State = cri.ContainerState_CONTAINER_EXITED
	return &fake{
		sandboxes: []*cri.PodSandbox{
			sandboxOf("s1", "shop", "cart-7d9f", uid, map[string]string{"app": "cart", "tier": "front", "io.kubernetes.pod.name": "x"}),
			sandboxOf("s2", "kube-system", "dns", fixed, nil), ended,
		},
		containers: []*cri.Container{
			containerOf("c1", "s1", "app"), exited, containerOf("c2", "s2", "dns"), containerOf("c3", "s2", "proxy"), containerOf("c5", "s2", "log"), containerOf("c4", "s9", "lost"),
		},
		info: map[string]string{
			"s1": `{"pid": 0, "runtimeSpec": {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/var/run/netns/cni-1"}]}}}`,
			"s2": `{"runtimeSpec": {"linux": {"namespaces": []}}}`,
		},
	}
}

func ask(t *testing.T, socket string, deadline time.Duration) *Runtime {
	t.Helper()
	r := newRuntime(RuntimeConfig{Socket: "unix://" + socket, Labels: []string{"app", "none"}}, deadline)
	t.Cleanup(func() { r.Close() })
	<-r.First()
	return r
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestRuntime(t *testing.T) {
	t.Parallel()
	socket, f := filepath.Join(t.TempDir(), "cri.sock"), two()
	serve(t, socket, f)
	r := ask(t, socket, time.Minute)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	cart := &Pod{Namespace: "shop", Name: "cart-7d9f", UID: uid, Container: "app", Labels: map[string]string{"app": "cart"}}
	dns := &Pod{Namespace: "kube-system", Name: "dns", UID: fixed}
	want := &Pods{ByUID: map[string]*Pod{uid: cart, fixed: dns}, BySandbox: map[string]*Pod{"s1": cart, "s2": dns}}
	if diff := cmp.Diff(want, r.Pods()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := f.count("status"); n != 0 {
		t.Errorf("%d status calls, unasked", n)
	}
	cart.Path = "/var/run/netns/cni-1"
	before := r.Pods()
	r.Ask(true)
	eventually(t, "the paths are known", func() bool { return r.Pods() != before })
	if diff := cmp.Diff(want, r.Pods()); diff != "" {
		t.Errorf("with paths (-want +got):\n%s", diff)
	}
	// A path is asked for once, one of a pod that has gone is forgotten, and one that
	// goes just then is no error.
	f.set(func() { f.sandboxes = append(f.sandboxes[1:], sandboxOf("s4", "shop", "cart-2", "u4", nil)) })
	before = r.Pods()
	r.Ask(true)
	eventually(t, "the third answer", func() bool { return r.Pods() != before })
	last := &Pod{Namespace: "shop", Name: "cart-2", UID: "u4"}
	want = &Pods{ByUID: map[string]*Pod{fixed: dns, "u4": last}, BySandbox: map[string]*Pod{"s2": dns, "s4": last}}
	if diff := cmp.Diff(want, r.Pods()); diff != "" || r.Err() != nil || f.count("status") != 3 {
		t.Errorf("%v, %d status calls (-want +got):\n%s", r.Err(), f.count("status"), diff)
	}
}

// A runtime that hangs, refuses, isn't there or has just been started again
// changes nothing of what is known, and nobody waits for it.
func TestRuntimeInTrouble(t *testing.T) {
	t.Parallel()
	socket, f := filepath.Join(t.TempDir(), "cri.sock"), two()
	stop := serve(t, socket, f)
	r := ask(t, socket, 200*time.Millisecond)
	eventually(t, "the runtime is asked", func() bool { r.Ask(false); return r.Err() == nil })
	known := r.Pods()
	in := func(what string, is func(error) bool) {
		t.Helper()
		eventually(t, what, func() bool { r.Ask(true); return r.Err() != nil && is(r.Err()) })
		var call *CallError
		if err := r.Err(); !errors.As(err, &call) || call.Socket != socket || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(known, r.Pods()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	hang := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	f.set(func() { f.fail = hang })
	in("it hangs", func(err error) bool { return errors.Is(err, context.DeadlineExceeded) })
	f.set(func() {
		f.fail = func(context.Context, string) error { return grpcstatus.Error(codes.Unavailable, "not yet\nready") }
	})
	in("it refuses", func(err error) bool { return strings.Contains(err.Error(), "not yet") })
	f.set(func() {
		f.fail = func(_ context.Context, call string) error {
			if call == "containers" {
				return grpcstatus.Error(codes.Internal, "oh")
			}
			return nil
		}
	})
	in("it fails half way", func(err error) bool { return strings.Contains(err.Error(), "ListContainers") })
	stop()
	in("it is gone", func(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) })
	f = two()
	f.sandboxes[0].Labels["app"] = "cart2"
	serve(t, socket, f)
	eventually(t, "it is back", func() bool {
		r.Ask(false)
		return r.Err() == nil && r.Pods().ByUID[uid].Labels["app"] == "cart2"
	})
}

// A runtime that lies costs no more than its bounds, and breaks nothing.
func TestRuntimeLies(t *testing.T) {
	t.Parallel()
	ready := func(id, name string) *cri.PodSandbox { return sandboxOf(id, "a", name, "u"+id, nil) }
	long := strings.Repeat("x", maxPart+1)
	for name, c := range map[string]struct {
		change func(*fake)
		pods   int
		err    string
	}{
		"no names": {func(f *fake) {
			f.sandboxes = []*cri.PodSandbox{{Id: "1"}, {}, sandboxOf("2", "a\x1b[31m", "b", "c", nil), sandboxOf("3", "a", "../b", "c", nil), sandboxOf("", "a", "b", "c", nil), ready("4", "fine")}
		}, 1, ""},
		"a huge pod": {func(f *fake) {
			f.sandboxes = []*cri.PodSandbox{ready("1", "fine"), sandboxOf("2", "a", "b", "c", map[string]string{"app": long})}
		}, 1, "1 pods are too many or too large to read"},
		"many pods": {func(f *fake) {
			f.sandboxes = nil
			for i := range maxPods + 7 {
				f.sandboxes = append(f.sandboxes, ready(fmt.Sprint(i), "b"))
			}
		}, maxPods, "7 pods are too many"},
		"a huge reply": {func(f *fake) {
			f.sandboxes = nil
			for i := range 40 {
				f.sandboxes = append(f.sandboxes, sandboxOf(fmt.Sprint(i), "a", "b", "c", map[string]string{"x": long[:maxPart-200]}))
			}
		}, 0, "more than 16777216 are not read"},
		"millions of parts": {func(f *fake) { f.sandboxes = make([]*cri.PodSandbox, maxParts+1) }, 0, "a reply of more than 65536 parts"},
		"long names":        {func(f *fake) { f.containers = []*cri.Container{containerOf("c", "s1", long[:maxName+1])} }, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket, f := filepath.Join(t.TempDir(), "s"), two()
			c.change(f)
			for i, s := range f.sandboxes {
				if s == nil {
					f.sandboxes[i] = &cri.PodSandbox{}
				}
			}
			serve(t, socket, f)
			r := ask(t, socket, time.Minute)
			got := ""
			if err := r.Err(); err != nil {
				got = err.Error()
			}
			if len(r.Pods().ByUID) != c.pods || (got == "") != (c.err == "") || !strings.Contains(got, c.err) {
				t.Errorf("%d pods, %s, want %d, %s", len(r.Pods().ByUID), got, c.pods, c.err)
			}
		})
	}
}

// What answers may be no gRPC, no HTTP, or nothing.
func TestRuntimeSpeaksAnotherLanguage(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(net.Conn){
		"garbage": func(c net.Conn) {
			_, _ = io.WriteString(c, strings.Repeat("\xff\x00garbage", 100))
			_, _ = io.Copy(io.Discard, c)
		},
		"HTTP/1": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		},
		"an end":  func(net.Conn) {},
		"silence": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"a flood": func(c net.Conn) {
			b := make([]byte, 1<<16)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		},
		"settings": func(c net.Conn) {
			_, _ = io.WriteString(c, "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
			_, _ = io.Copy(io.Discard, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			all.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					all.Go(func() { defer c.Close(); answer(c) })
				}
			})
			r := ask(t, socket, 300*time.Millisecond)
			if err := r.Err(); err == nil || len(r.Pods().ByUID) != 0 {
				t.Errorf("%v", err)
			}
			r.Close()
			l.Close()
			all.Wait() // no connection stays
		})
	}
}

// HTTP/2 it may be, and no gRPC.
func TestCallAnswers(t *testing.T) {
	t.Parallel()
	whole := "\x00\x00\x00\x00\x03abc"
	for name, c := range map[string]struct {
		kind, body, status, err string
	}{
		"right":         {"application/grpc+proto", whole, "0", ""},
		"refused late":  {"application/grpc", whole, "13", `gRPC status "13"`},
		"no status":     {"application/grpc", whole, "", "without a gRPC status"},
		"no message":    {"application/grpc", "", "0", "no message of the CRI"},
		"cut":           {"application/grpc", whole[:7], "0", "no message of the CRI"},
		"cut early":     {"application/grpc", whole[:3], "0", "no message of the CRI"},
		"too much":      {"application/grpc", whole + whole, "0", "no message of the CRI"},
		"compressed":    {"application/grpc", "\x01" + whole[1:], "0", "compressed"},
		"another thing": {"text/html", whole, "0", "no gRPC in it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				if c.status != "" {
					w.Header().Set(http.TrailerPrefix+"Grpc-Status", c.status)
				} else {
					w.Header().Set(http.TrailerPrefix+"Other", "x")
				}
				_, _ = io.WriteString(w, c.body)
			})}
			server.Protocols.SetUnencryptedHTTP2(true)
			done := make(chan struct{})
			go func() { defer close(done); _ = server.Serve(l) }()
			t.Cleanup(func() { server.Close(); <-done })
			caller, err := dial(t.Context(), socket, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer caller.close()
			var got []byte
			err = caller.call(t.Context(), "X", nil, func(r *bufio.Reader) (err error) { got, err = io.ReadAll(r); return err })
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || err == nil && string(got) != "abc" {
				t.Errorf("%q, %v, want %s", got, err, c.err)
			}
		})
	}
}

func TestCloseDoesNotWaitForARuntime(t *testing.T) {
	t.Parallel()
	socket, f := filepath.Join(t.TempDir(), "s"), two()
	entered := make(chan struct{})
	f.fail = func(ctx context.Context, _ string) error { close(entered); <-ctx.Done(); return ctx.Err() }
	serve(t, socket, f)
	r := newRuntime(RuntimeConfig{Socket: socket}, time.Hour)
	<-entered
	r.Ask(true)
	r.Ask(true) // returns at once, too
	if err := r.Close(); err != nil || len(r.Pods().ByUID) != 0 || r.Err() != nil {
		t.Error(err, r.Err())
	}
}
