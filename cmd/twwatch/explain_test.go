package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Where the host can't be looked at, that is said, and the explanation stands.
func TestExplainWithoutALook(t *testing.T) {
	var out strings.Builder
	f := &explainFlags{outputFlags: outputFlags{"text"}, id: "time-wait", look: true, now: func(context.Context) (*snapshot.Report, error) {
		return nil, errors.New("dump: operation\nnot permitted\x1b[2J")
	}}
	status, err := f.run(t.Context(), env{stdout: &out}, configuration{})
	if status != statusHealthy || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
	const want = "On this host right now\n  Could not be looked up: dump: operation; not permitted\\x1b[2J\n"
	if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "\x1b") {
		t.Errorf("no %q in:\n%s", want, out.String())
	}
}

// One look serves all texts, and none is made where nothing is asked.
func TestExplainLooksOnce(t *testing.T) {
	looks := 0
	look := func(context.Context) (*snapshot.Report, error) {
		looks++
		return recorded(0, 28000), nil
	}
	for id, want := range map[string]int{"fin-timeout-myth": 1, "why-three": 1, "redis": 0, "": 0} {
		looks = 0
		var out strings.Builder
		f := &explainFlags{outputFlags: outputFlags{"text"}, id: id, look: true, now: look}
		if _, err := f.run(t.Context(), env{stdout: &out}, configuration{}); err != nil {
			t.Fatal(err)
		}
		if looks != want {
			t.Errorf("%q: %d looks, want %d", id, looks, want)
		}
	}
}
