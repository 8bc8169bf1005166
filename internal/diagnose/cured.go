package diagnose

import (
	"cmp"
	"fmt"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

const (
	// curedSeconds is how long good news are told: as far as a daemon with
	// the default interval looks back.
	curedSeconds = 600
	// curedShare of the earlier rate, and of the threshold, is what a cured
	// flow is below.
	curedShare, curedOfThreshold = 0.1, 0.5
	// longSeconds is the lifetime from which on connections count as kept
	// where no earlier look tells.
	longSeconds = 10

	evidenceBefore = "new connections before"
	evidenceNow    = "new connections now"
)

// judgeCured tells that a change worked: what opened a connection for each
// request now keeps them. A flow that only went quiet is none.
func judgeCured(s *scene) []*found {
	far := s.remoteCloses(true)
	var all []*found
	seen := map[snapshot.Subject]bool{}
	try := func(f *snapshot.Finding) {
		if f.Namespace != s.ns.Name || seen[identity(f.Subject)] {
			return
		}
		if cure := s.cureOf(f, far); cure != nil {
			seen[identity(f.Subject)] = true
			all = append(all, cure)
		}
	}
	// What was found last goes first; then what was found within the last minute
	// and is gone, for a rate may fall in steps.
	for i := range s.previous {
		try(&s.previous[i])
	}
	for i := len(s.history) - 1; i >= 0 && s.history[i].ago <= growthSeconds; i-- {
		for j := range s.history[i].findings {
			try(&s.history[i].findings[j])
		}
	}
	return s.most(all)
}

// cureOf judges what has become of an earlier finding about short connections,
// nil if it isn't cured.
func (s *scene) cureOf(f *snapshot.Finding, far remoteChurn) *found {
	before, held := 0.0, false
	limit := shortRate
	switch f.ID {
	case ShortServer:
		limit = shortServerRate
		before, _ = evidence(f, evidencePeak)
	case ShortClient, ShortRemoteCloses:
		before, _ = evidence(f, evidencePeak)
	case ShortCured:
		before, _ = evidence(f, evidenceBefore)
		held = true
		if !f.Since.IsZero() && s.at.Sub(f.Since).Seconds() > curedSeconds {
			return nil
		}
		if f.Subject.Side == snapshot.Server {
			limit = shortServerRate
		}
	default:
		return nil
	}
	if f.Subject.Port == 0 || before <= 0 {
		return nil // health checks, and what no flow was named for
	}
	now, kept, open := 0.0, 0.0, 0.0
	known := true
	var first *snapshot.Flow
	var flows []*snapshot.Flow
	for i := range s.ns.Flows {
		o := &s.ns.Flows[i]
		if !about(o, f.Subject) {
			continue
		}
		now += present(o)
		if o.Side == snapshot.Client {
			now += s.twinRate(o)
		}
		if far.flow == o {
			now += far.rate
		}
		open += float64(o.States.Established)
		if o.LongLived == nil {
			known = false
		} else {
			kept += float64(min(*o.LongLived, o.States.Established))
		}
		if first == nil || o.States.Established > first.States.Established {
			first = o
		}
		flows = append(flows, o)
	}
	if !known && life(uint32(open), now) >= longSeconds {
		kept = open
	}
	least := s.settings.Thresholds.of(limit, false) * curedOfThreshold
	if first == nil || kept < 1 || now >= least || now >= before*curedShare {
		return nil
	}
	// A pool that was there before and has no more connections than then only
	// has less to do.
	was, _ := evidence(f, evidenceKept)
	if !held && kept <= was {
		return nil
	}
	return s.curedFinding(f, tightestFirst(flows, first), before, now, kept)
}

// about tells whether a flow is one of those that a finding was about.
func about(f *snapshot.Flow, subject snapshot.Subject) bool {
	return f.Side == subject.Side && f.Port == subject.Port &&
		(subject.Local == "" || f.Local == subject.Local) &&
		(subject.Remote == "" || f.Remote == subject.Remote && f.Device == subject.Device)
}

func (s *scene) curedFinding(f *snapshot.Finding, flows []*snapshot.Flow, before, now, kept float64) *found {
	subject := f.Subject
	open := draw.Count(int64(kept)) + " " + plural(int(kept), "stays", "stay") + " open"
	what := ""
	if subject.Side == snapshot.Server {
		name := "the server"
		if subject.Process != "" {
			name = foreign(subject.Process)
		}
		what = fmt.Sprintf("Connections to %s on port %d", name, subject.Port)
	} else {
		what = "Connections"
		if name := cmp.Or(comm(flows[0]), subject.Process); name != "" {
			what += " of " + foreign(name)
		}
		if what += " to " + destination(flows); subject.Remote == "" && len(flows) == 1 {
			what += " and others on that port"
		}
	}
	return &found{
		Finding: snapshot.Finding{
			ID: ShortCured, Severity: snapshot.Info, Subject: subject,
			Summary: fmt.Sprintf("%s were short and now last: new ones fell from %s to %s, and %s.", what, draw.Rate(before), draw.Rate(now), open),
			Evidence: []snapshot.Evidence{
				{What: evidenceBefore, Value: before, Unit: "1/s", Source: "the earlier finding"},
				{What: evidenceNow, Value: finite(now), Unit: "1/s", Source: sourceTimers},
				{What: evidenceKept, Value: kept, Unit: "sockets", Source: "seen at two looks at least, by cookie"},
			},
		},
		flow: flows[0], flows: flows,
	}
}
