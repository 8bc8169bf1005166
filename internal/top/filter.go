package top

import (
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A filter is words that must all be found, in upper or lower case; one that
// begins with ! must not be. The zero value lets all pass.
type filter []string

func parseFilter(s string) filter { return strings.Fields(strings.ToLower(s)) }

// match looks for the words in the parts, each for itself.
func (f filter) match(parts ...string) bool {
	for _, word := range f {
		without, negative := strings.CutPrefix(word, "!")
		if without == "" {
			continue // not finished yet
		}
		found := false
		for _, part := range parts {
			if strings.Contains(strings.ToLower(part), without) {
				found = true
				break
			}
		}
		if found == negative {
			return false
		}
	}
	return true
}

func (f filter) flow(ns *snapshot.Namespace, fl *snapshot.Flow) bool {
	if len(f) == 0 {
		return true
	}
	parts := []string{peer(fl), fl.Local, string(fl.Side), ns.Name}
	for i := range fl.Processes {
		p := &fl.Processes[i]
		parts = append(parts, p.Comm, p.Exe, strconv.Itoa(p.PID))
	}
	return f.match(parts...)
}

func (f filter) wait(ns *snapshot.Namespace, w *snapshot.CloseWait) bool {
	if len(f) == 0 {
		return true
	}
	return f.match(w.Local, w.Remote, w.Comm, strconv.Itoa(w.PID), kindOf(w).name, string(w.Side), ns.Name)
}

func (f filter) finding(fi *snapshot.Finding) bool {
	if len(f) == 0 {
		return true
	}
	s := &fi.Subject
	return f.match(fi.ID, string(fi.Severity), fi.Summary, fi.Namespace, s.Local, s.Remote, s.Service, s.Process, ":"+strconv.Itoa(int(s.Port)))
}
