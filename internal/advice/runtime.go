package advice

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// ProcessHints are how a process looks. All are the host's, and so never
// printed: they only choose an entry. Empty is unknown.
type ProcessHints struct {
	Comm     string // /proc/PID/comm, at most 15 bytes
	Exe      string // the target of /proc/PID/exe
	Title    string // /proc/PID/cmdline, with spaces
	GoBuild  string // the main package's path of a Go binary's build info
	JavaMain string // main class, or jar file
	Script   string // what an interpreter runs
}

// Runtime names the kind of program that a process is: an id of the library
// and its title, both "" if nothing fits. What tells more goes first: a Go
// binary's own path, Java's main class, a script, then the executable, the
// title and the command's name; last come the patterns that fit anything.
func (l *Library) Runtime(p ProcessHints) (id, name string) {
	exe := path.Base(strings.TrimSuffix(p.Exe, " (deleted)"))
	if p.Exe == "" {
		exe = ""
	}
	script := path.Base(p.Script)
	if p.Script == "" {
		script = ""
	}
	looks := []struct {
		value    string
		patterns func(*Runtime) []string
	}{
		{p.GoBuild, func(r *Runtime) []string { return r.GoBuild }},
		{p.JavaMain, func(r *Runtime) []string { return r.JavaMain }},
		{script, func(r *Runtime) []string { return r.Script }},
		{exe, func(r *Runtime) []string { return r.Exe }},
		{p.Title, func(r *Runtime) []string { return r.Cmdline }},
		{p.Comm, func(r *Runtime) []string { return r.Comm }},
	}
	for _, anything := range []bool{false, true} {
		for _, look := range looks {
			if look.value == "" {
				continue
			}
			for _, r := range l.runtimes {
				if matches(look.patterns(r), look.value, anything) {
					return r.ID, r.Title
				}
			}
		}
	}
	return "", ""
}

func matches(patterns []string, value string, anything bool) bool {
	for _, p := range patterns {
		if p == "*" {
			if anything {
				return true
			}
			continue
		}
		if anything {
			continue
		}
		if ok, err := path.Match(p, value); err == nil && ok {
			return true
		}
	}
	return false
}

// A version is numbers from the most significant on.
type version [4]int

// parseVersion reads "1.29.7", also with a "v" or "go" before it and with
// something other than digits after it.
func parseVersion(s string) (version, bool) {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "go"), "v")
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); i >= 0 {
		s = s[:i]
	}
	var v version
	parts := strings.Split(strings.Trim(s, "."), ".")
	for i, part := range parts[:min(len(parts), len(v))] {
		n, err := strconv.Atoi(part)
		if err != nil {
			return version{}, false
		}
		v[i] = n
	}
	return v, true
}

func (v version) less(w version) bool { return v.compare(w) < 0 }

func (v version) compare(w version) int { return slices.Compare(v[:], w[:]) }
