// Package exporter projects frames to Prometheus metrics, bounded per scrape
// and per day.
//
// An [Exporter] sees every frame once ([Exporter.Observe]), decides which
// flows have series of their own, keeps their counters, and makes the metrics
// of that frame ready. A scrape ([Exporter.Collect]) only hands them out: it
// starts no pass, all its values are of one frame, and any number of scrapes
// of one frame are alike. What an Exporter remembers of a flow lives while
// the flow is exported and ten minutes longer; of a namespace, until it has
// been gone for ten minutes. The package judges nothing, and no value of a
// report, however odd, makes a scrape fail.
//
// docs/metrics.md is generated from the table of families here.
package exporter

//go:generate go test -run=^TestDocument$ -count=1 . -update
