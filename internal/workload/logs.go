package workload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	maxLogs = 4096 // pods named by their log directories
	maxName = 253  // of Kubernetes, in bytes
	// settledAfter is how long after a directory's time of change a listing of
	// it is complete: file systems count in ticks.
	settledAfter = 2 * time.Second
)

// A Pod is what Kubernetes calls a pod. What isn't known is "".
type Pod struct {
	Namespace, Name, UID string
	Container            string // the only one; "" where there are several
	// Labels are those asked for; shared, never written.
	Labels map[string]string
	// Path is where its network namespace is mounted, in the mount namespace of
	// the runtime.
	Path string
}

// Logs names pods by the directories of their logs, which the kubelet makes
// before it starts a pod. It is for one goroutine.
type Logs struct {
	dir  string
	most int                // entries that are read
	pods map[string]*logged // by UID
	seen stamp
}

type logged struct {
	Pod
	dir  string
	seen stamp
}

// A stamp tells whether a directory has changed.
type stamp struct {
	modified time.Time
	settled  bool
}

// changed is true if what was listed isn't what is there, or may not be.
func (s *stamp) changed(dir string) (bool, error) {
	info, err := os.Stat(dir)
	if err != nil {
		*s = stamp{}
		return false, err
	}
	if s.settled && info.ModTime().Equal(s.modified) {
		return false, nil
	}
	*s = stamp{info.ModTime(), time.Since(info.ModTime()) > settledAfter}
	return true, nil
}

// NewLogs names pods by what is in a directory such as /var/log/pods.
func NewLogs(dir string) *Logs { return &Logs{dir: dir, most: maxLogs} }

// Refresh reads the directory if it has changed. After an error what was known
// stays known. That there is no such directory is an fs.ErrNotExist.
func (l *Logs) Refresh() error {
	changed, err := l.seen.changed(l.dir)
	if err != nil || !changed {
		return err
	}
	names, err := list(l.dir, l.most+1)
	if err != nil {
		l.seen = stamp{}
		return err
	}
	over := len(names) > l.most
	names = names[:min(len(names), l.most)]
	pods := make(map[string]*logged, len(names))
	for _, name := range names {
		pod, ok := parseLogs(name)
		if !ok {
			continue
		}
		if known := l.pods[pod.UID]; known != nil && known.dir == name {
			pods[pod.UID] = known
			continue
		}
		pods[pod.UID] = &logged{Pod: pod, dir: name}
	}
	l.pods = pods
	if over {
		return fmt.Errorf("%q has more than %d entries", l.dir, l.most)
	}
	return nil
}

// Pod is the pod of a UID, false if it has no directory.
func (l *Logs) Pod(uid string) (Pod, bool) {
	p := l.pods[uid]
	if p == nil {
		return Pod{}, false
	}
	p.readContainer(filepath.Join(l.dir, p.dir))
	return p.Pod, true
}

// readContainer learns the container of a pod that has only one. One for
// initialising counts.
func (p *logged) readContainer(dir string) {
	changed, err := p.seen.changed(dir)
	if err != nil || !changed {
		return // it is being deleted: what was known of it stays
	}
	names, err := list(dir, 2)
	p.Container = ""
	if err == nil && len(names) == 1 && isName(names[0]) {
		p.Container = names[0]
	}
}

// list returns names of a directory, at most so many.
func list(dir string, most int) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// parseLogs reads the name of a pod's directory: "namespace_name_uid".
func parseLogs(dir string) (Pod, bool) {
	namespace, rest, ok1 := strings.Cut(dir, "_")
	name, uid, ok2 := strings.Cut(rest, "_")
	return Pod{Namespace: namespace, Name: name, UID: uid}, ok1 && ok2 && isName(namespace) && isName(name) && isID(uid)
}

// isName tells what Kubernetes allows as a name (RFC 1123's subdomains, but for
// where its dots and dashes may stand).
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= maxName && s != "." && s != ".."
}
