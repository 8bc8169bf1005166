package diagnose

import "github.com/twwatch/twwatch/collector/snapshot"

// A service mesh puts a proxy into each pod, and every connection of the program
// goes through it: one load makes short connections twice. What the proxy does
// follows from what the program does.

// meshConsequences fold what a sidecar passes on.
func meshConsequences() []consequence {
	return []consequence{
		{cause: ShortClient, of: ShortClient, when: passedOn},
		{cause: ShortClient, of: ShortServer, when: passedOn},
		{cause: ShortServer, of: ShortClient, when: passedOn},
		{cause: ShortServer, of: ShortServer, when: passedOn},
	}
}

// sidecar tells the proxies of service meshes by their comm.
func sidecar(comm string) bool {
	switch comm {
	case "envoy", "linkerd2-proxy", "pilot-agent":
		return true
	}
	return false
}

// passedOn tells whether a pod's sidecar has as many short connections as the
// pod's program, or fewer: then they are the program's.
func passedOn(s *scene, cause, of *found) bool {
	if !isPod(s.ns) || sidecar(cause.Subject.Process) || !sidecar(of.Subject.Process) || cause.Subject.Process == "" {
		return false
	}
	const more = 1.25 // than the program's own, for what two looks differ by
	program, known := loadOf(&cause.Finding)
	proxy, also := loadOf(&of.Finding)
	return known && also && proxy <= more*program
}

// loadOf is how many connections a second a finding is about.
func loadOf(f *snapshot.Finding) (float64, bool) {
	own, known := evidence(f, evidenceRate)
	far, _ := evidence(f, evidenceFar)
	return own + far, known
}
