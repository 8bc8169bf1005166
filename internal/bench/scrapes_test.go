//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

func TestScrapesAreJudged(t *testing.T) {
	r := &results{options: options{pairs: 3}, scrapes: []scrapesResult{
		{series: 480, bytes: 2048, ns: []int64{1e6, 3e6, 9e6}, target: 3},
		{args: "--metrics.flows=48", series: 844, ns: []int64{7e6, 6e6, 9e6}, target: 6},
	}}
	targets := r.scrapeTargets()
	if len(targets) != 2 || !targets[0].met || targets[1].met {
		t.Errorf("%+v", targets)
	}
	p := &page{}
	r.writeScrapes(p)
	for _, want := range []string{"| as it is | 480 | 2 | 3.00 (1.00–9.00) |", "| `--metrics.flows=48` | 844 | 0 | 7.00 (6.00–9.00) |"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("no %q in\n%s", want, p)
		}
	}
}

// What is recorded for the scrapes is a report that can be read, and more flows
// than any scrape shows.
func TestCrowdedHost(t *testing.T) {
	r := crowdedHost(time.Unix(1, 0))
	var b strings.Builder
	if err := snapshot.Encode(&b, r); err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.Decode([]byte(b.String())); err != nil {
		t.Error(err)
	}
	sum := snapshot.States{}
	for i := range r.Namespaces[0].Flows {
		sum.Add(&r.Namespaces[0].Flows[i].States)
	}
	if sum != r.Namespaces[0].States || len(r.Namespaces[0].Flows) != 800 || len(r.Namespaces) != 1+crowdedPods {
		t.Errorf("%d flows of %+v in a namespace of %+v", len(r.Namespaces[0].Flows), sum, r.Namespaces[0].States)
	}
}
