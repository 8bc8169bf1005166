package collector

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A Selection says which network namespaces to look at, beside the Collector's
// own, which always is. The zero value is none. Patterns are those of
// [path.Match], where * crosses no slash: "default/*" is every pod of that
// Kubernetes namespace.
type Selection struct {
	// All looks at every namespace; Names at those whose name matches one.
	All   bool
	Names []string
	// Include, if it isn't empty, keeps of those only the ones that match one of
	// its patterns, and Exclude takes away those that match one of its own. Each
	// is held to the name, to "kind:pod" and to "key=value" of the labels.
	Include, Exclude []string
}

// any tells whether a namespace beside the Collector's own is to be looked at.
func (s *Selection) any() bool { return s.All || len(s.Names) > 0 }

// Check finds patterns that are none.
func (s *Selection) Check() error {
	for _, p := range slices.Concat(s.Names, s.Include, s.Exclude) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("%q is no pattern: want a name, such as default/web-*, kind:pod or app=web", p)
		}
	}
	return nil
}

// A named is what a namespace is known as.
type named struct {
	name, kind string
	workload   *snapshot.Workload
}

// wants tells whether a namespace is chosen.
func (s *Selection) wants(n *named) bool {
	matches := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return n.matches(p) })
	}
	return (s.All || matches(s.Names)) && (len(s.Include) == 0 || matches(s.Include)) && !matches(s.Exclude)
}

func (n *named) matches(pattern string) bool {
	is := func(s string) bool {
		ok, _ := path.Match(pattern, s) // Check has seen it
		return ok || pattern == s       // a name may look like a pattern
	}
	if is(n.name) || strings.HasPrefix(pattern, "kind:") && is("kind:"+n.kind) {
		return true
	}
	if n.workload == nil || !strings.Contains(pattern, "=") {
		return false
	}
	for _, key := range slices.Sorted(maps.Keys(n.workload.Labels)) {
		if is(key + "=" + n.workload.Labels[key]) {
			return true
		}
	}
	return false
}
