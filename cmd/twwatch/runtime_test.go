package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

// The daemon is a small guest on other people's hosts, unless the environment
// says otherwise.
func TestLimitRuntime(t *testing.T) {
	procs, memory, percent := runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	defer func() {
		runtime.GOMAXPROCS(procs)
		debug.SetMemoryLimit(memory)
		debug.SetGCPercent(percent)
	}()
	for _, tt := range []struct {
		set    string // what the environment has
		memory int64
		procs  int
	}{{"", memoryLimit, maxProcs}, {"yes", math.MaxInt64, 3}} {
		runtime.GOMAXPROCS(3)
		debug.SetMemoryLimit(math.MaxInt64)
		limitRuntime(env{getenv: func(string) string { return tt.set }})
		if got := debug.SetMemoryLimit(-1); got != tt.memory {
			t.Errorf("environment %q: memory limit %d, want %d", tt.set, got, tt.memory)
		}
		if got := runtime.GOMAXPROCS(0); got != tt.procs {
			t.Errorf("environment %q: GOMAXPROCS %d, want %d", tt.set, got, tt.procs)
		}
	}
}
