package main

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A reloader reads the --config.file anew, and tells in two metrics how that
// went. What can't change while serving is named and left.
type reloader struct {
	server *server
	cfg    configuration
	flags  map[string]string // in force, by name

	success, timestamp *prometheus.Desc
	mu                 sync.Mutex
	ok                 float64
	at                 time.Time
}

func newReloader(s *server, cfg configuration) *reloader {
	return &reloader{
		server: s, cfg: cfg, flags: cfg.flags, ok: 1, at: time.Now(),
		success: prometheus.NewDesc("twwatch_config_last_reload_successful",
			"Whether the last reading of --config.file succeeded; 1 without a file.", nil, nil),
		timestamp: prometheus.NewDesc("twwatch_config_last_reload_success_timestamp_seconds",
			"When --config.file was last read successfully; without a file, when twwatch started.", nil, nil),
	}
}

// Describe is of prometheus.Collector.
func (r *reloader) Describe(ch chan<- *prometheus.Desc) { ch <- r.success; ch <- r.timestamp }

// Collect is of prometheus.Collector.
func (r *reloader) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(r.success, prometheus.GaugeValue, r.ok)
	ch <- prometheus.MustNewConstMetric(r.timestamp, prometheus.GaugeValue, float64(r.at.UnixMilli())/1000)
}

// reload keeps everything as it is if the file has a fault.
func (r *reloader) reload() {
	s := r.server
	if r.cfg.path == "" {
		s.logger.Info("Nothing to reload: there is no --config.file")
		return
	}
	inv, err := parse(s.env, r.cfg.args)
	if err != nil {
		r.done(0)
		s.logger.Error("Reloading failed, the old configuration stays", "err", oneLine(err.Error()))
		return
	}
	f := inv.runner.(*serveFlags) // the command line is the same
	if err := s.level.Set(f.logLevel); err != nil {
		r.done(0)
		s.logger.Error("Reloading failed, the old configuration stays", "err", err)
		return
	}
	thresholds := inv.cfg.thresholds
	s.judge.thresholds.Store(&thresholds)
	var restart []string
	for _, name := range slices.Sorted(maps.Keys(inv.cfg.flags)) {
		if name != "log.level" && inv.cfg.flags[name] != r.flags[name] {
			restart = append(restart, name)
		}
	}
	r.done(1)
	if len(restart) > 0 {
		s.logger.Warn("Reloaded; a restart is needed for "+strings.Join(restart, ", "), "file", r.cfg.path)
		return
	}
	s.logger.Info("Reloaded", "file", r.cfg.path)
}

func (r *reloader) done(ok float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok = ok
	if ok == 1 {
		r.at = time.Now()
	}
}
