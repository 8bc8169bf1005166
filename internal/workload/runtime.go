package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// Deadline is how long a runtime may take for an answer.
	Deadline = 2 * time.Second
	// maxStatus is how many pods are asked for by name in one go.
	maxStatus = 64
)

// RuntimeConfig says whom to ask for what.
type RuntimeConfig struct {
	// Socket is the CRI's, such as /run/containerd/containerd.sock; "unix://"
	// before it is allowed.
	Socket string
	Labels []string // of pods, that are wanted
}

// A Runtime asks a container runtime for its pods, by calls of the CRI that only
// read (ListPodSandbox, ListContainers, PodSandboxStatus). It asks in a goroutine
// of its own, so that nobody waits for a runtime that hangs; what it learnt stays
// known while the runtime can't be asked.
type Runtime struct {
	config   RuntimeConfig
	deadline time.Duration
	asks     chan bool
	first    chan struct{}
	stop     context.CancelFunc
	done     chan struct{}
	pods     atomic.Pointer[Pods]
	err      atomic.Pointer[error]
	paths    map[string]string // by the id of the sandbox
}

// Pods are the pods of a runtime that run. They never change.
type Pods struct {
	ByUID map[string]*Pod
	// BySandbox has them by the id of the container that a pod begins with.
	BySandbox map[string]*Pod
}

// NewRuntime begins to ask.
func NewRuntime(config RuntimeConfig) *Runtime { return newRuntime(config, Deadline) }

func newRuntime(config RuntimeConfig, deadline time.Duration) *Runtime {
	ctx, stop := context.WithCancel(context.Background())
	config.Socket = strings.TrimPrefix(config.Socket, "unix://")
	r := &Runtime{
		config: config, deadline: deadline, stop: stop, paths: map[string]string{},
		asks: make(chan bool, 1), first: make(chan struct{}), done: make(chan struct{}),
	}
	r.pods.Store(&Pods{})
	go r.run(ctx)
	return r
}

// Close stops asking.
func (r *Runtime) Close() error {
	r.stop()
	<-r.done
	return nil
}

// Pods returns what is known by now, never nil.
func (r *Runtime) Pods() *Pods { return r.pods.Load() }

// Err is why the last attempt failed, nil if it didn't, a *CallError else.
func (r *Runtime) Err() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

// First is closed when the first attempt is over.
func (r *Runtime) First() <-chan struct{} { return r.first }

// Ask asks once more, and returns at once. With paths it asks for the network
// namespaces of pods too, which takes a call for each pod that is new.
func (r *Runtime) Ask(paths bool) {
	select {
	case r.asks <- paths:
	default: // it is being asked
	}
}

func (r *Runtime) run(ctx context.Context) {
	defer close(r.done)
	paths := false
	for first := true; ; first = false {
		pods, err := r.round(ctx, paths)
		if ctx.Err() != nil {
			return
		}
		if pods != nil {
			r.pods.Store(pods)
		}
		r.err.Store(&err)
		if first {
			close(r.first)
		}
		select {
		case paths = <-r.asks:
		case <-ctx.Done():
			return
		}
	}
}

// round asks for all that is wanted, over one connection. It returns no pods if
// these can't be had.
func (r *Runtime) round(ctx context.Context, paths bool) (*Pods, error) {
	c, err := dial(ctx, r.config.Socket, r.deadline)
	if err != nil {
		return nil, err
	}
	defer c.close()
	pods, left, err := r.list(ctx, c)
	if err == nil {
		err = containers(ctx, c, pods)
	}
	if err != nil {
		return nil, err
	}
	err = r.networks(ctx, c, pods, paths)
	if left > 0 {
		err = errors.Join(&CallError{c.socket, "ListPodSandbox", fmt.Errorf("%d pods are too many or too large to read", left)}, err)
	}
	return pods, err
}

// list asks for the pods that are ready. What is left out is counted.
func (r *Runtime) list(ctx context.Context, c *caller) (pods *Pods, left int, err error) {
	pods = &Pods{ByUID: map[string]*Pod{}, BySandbox: map[string]*Pod{}}
	over := 0
	err = c.call(ctx, "ListPodSandbox", readySandboxes(), func(b *bufio.Reader) (err error) {
		left, err = eachPart(b, func(field protowire.Number, b []byte) error {
			if field != 1 {
				return nil
			}
			s, ok, err := parseSandbox(b, r.config.Labels)
			switch {
			case !ok:
				return err
			case len(pods.BySandbox) == maxPods:
				over++
				return nil
			}
			pods.ByUID[s.UID], pods.BySandbox[s.id] = &s.Pod, &s.Pod
			return nil
		})
		return err
	})
	return pods, left + over, err
}

// containers asks for the containers that run, to learn which pods have only one.
func containers(ctx context.Context, c *caller, pods *Pods) error {
	several := map[*Pod]bool{}
	return c.call(ctx, "ListContainers", runningContainers(), func(b *bufio.Reader) error {
		_, err := eachPart(b, func(field protowire.Number, b []byte) error {
			if field != 1 {
				return nil
			}
			id, name, err := parseContainer(b)
			pod := pods.BySandbox[id]
			switch {
			case err != nil || pod == nil || !isName(name):
				return err
			case several[pod]:
			case pod.Container == "":
				pod.Container = name
			default:
				several[pod], pod.Container = true, ""
			}
			return nil
		})
		return err
	})
}

// networks learns where the network namespaces of pods are mounted; for those
// that it doesn't know only if asked to.
func (r *Runtime) networks(ctx context.Context, c *caller, pods *Pods, ask bool) error {
	for id := range r.paths {
		if pods.BySandbox[id] == nil {
			delete(r.paths, id)
		}
	}
	asked := 0
	var failed error
	for id, pod := range pods.BySandbox {
		if _, known := r.paths[id]; !known && ask && asked < maxStatus && failed == nil {
			asked++
			path, err := network(ctx, c, id)
			var refused *statusError
			switch {
			case err == nil:
				r.paths[id] = path
			case errors.As(err, &refused) && refused.code == notFound: // it ended meanwhile
			default:
				failed = err
			}
		}
		pod.Path = r.paths[id]
	}
	return failed
}

func network(ctx context.Context, c *caller, id string) (path string, err error) {
	err = c.call(ctx, "PodSandboxStatus", statusOf(id), func(b *bufio.Reader) error {
		_, err := eachPart(b, func(field protowire.Number, b []byte) error {
			if field != 2 { // info
				return nil
			}
			key, value, err := parseEntry(b)
			if string(key) == "info" {
				path = parseNetwork(value)
			}
			return err
		})
		return err
	})
	return path, err
}
