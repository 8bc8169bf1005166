package main

import (
	"sync/atomic"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/diagnose"
)

// A judge judges reports one after the other: what it found last time makes a
// finding keep its time. Its thresholds may be replaced meanwhile.
type judge struct {
	thresholds atomic.Pointer[diagnose.Thresholds]
	advice     *advice.Library
	ownPort    uint16 // where this program listens; 0: nowhere
	previous   []snapshot.Finding
}

func newJudge(t diagnose.Thresholds, a *advice.Library) *judge {
	j := &judge{advice: a}
	j.thresholds.Store(&t)
	return j
}

// judge fills in what the last report of the window says. The report must not
// have been shown to anybody yet.
func (j *judge) judge(window []*snapshot.Report) {
	last := window[len(window)-1]
	t := *j.thresholds.Load()
	result := diagnose.Judge(window, j.previous, diagnose.Settings{Thresholds: t, Advice: j.advice, OwnPort: j.ownPort})
	last.Findings, last.Verdict, last.NotJudged = result.Findings, result.Verdict, result.NotJudged
	last.Thresholds = t.All()
	j.previous = result.Findings
}
