package diagnose

import (
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A consequence is a finding that another explains. A cause takes the severity
// of the worst that follows from it, and stands before it; what follows says
// because_of, and repeats none of the cause's advice.
type consequence struct {
	cause, of string
	// when tells whether this one follows from that one; nil: whenever both are
	// about the same flow.
	when func(s *scene, cause, of *found) bool
}

// consequences are all there are. Where several causes fit, the first listed
// counts.
func consequences() []consequence {
	return slices.Concat(portConsequences(), shortConsequences(), closeConsequences(), settingConsequences(), meshConsequences())
}

// shares tells whether two findings are about the same flow, or have one in
// common.
func (f *found) shares(o *found) bool {
	if f.flow != nil && f.flow == o.flow {
		return true
	}
	return slices.ContainsFunc(f.flows, func(a *snapshot.Flow) bool { return a == o.flow || slices.Contains(o.flows, a) }) ||
		f.flow != nil && slices.Contains(o.flows, f.flow)
}

// link finds the cause of each finding. A cause is never one that follows from
// something itself, so there are no rings.
func link(s *scene, all []*found) {
	for _, c := range consequences() {
		for _, of := range all {
			if of.ID != c.of || of.cause != nil {
				continue
			}
			for _, cause := range all {
				if cause.ID != c.cause || cause == of || cause.cause != nil {
					continue
				}
				if c.when != nil && c.when(s, cause, of) || c.when == nil && cause.shares(of) {
					of.cause = cause
					cause.Severity = worse(cause.Severity, of.Severity)
					break
				}
			}
		}
	}
}
