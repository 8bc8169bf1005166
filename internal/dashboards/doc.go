// Package dashboards makes the Grafana dashboards of dashboards/ from a short
// list of panels.
//
// They are kept as code: a panel here is its question, its expressions, its
// unit and what explains it, in a few lines. What Grafana wants beside (ids,
// places, links, defaults) follows, the same for every panel. The JSON files
// are generated, committed, and importable as they are; nobody needs this
// package to use them. It owns no state, starts nothing, and is part of no
// program. Its tests hold the dashboards, the rules of deploy/prometheus and
// the metrics to each other.
package dashboards

//go:generate go test -run=^TestGenerated$ -count=1 . -update
