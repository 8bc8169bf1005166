package advice

import (
	"math"
	"testing"
)

func TestPoolSize(t *testing.T) {
	for _, tt := range []struct {
		rate, lifetime float64
		processes      int
		want           int
	}{
		{470, 0.003, 1, 3}, // 1.41 in use, doubled
		{470, 0.05, 4, 12}, // 5.875 in use in each
		{470, 1, 1, 940},   //
		{0.1, 0.001, 1, 1}, // at least one
		{0, 0, 0, 1},
		{math.NaN(), 1, 1, 1},
		{math.Inf(1), 1, 1, 1_000_000},
		{-5, 1, 1, 1},
	} {
		if got := PoolSize(tt.rate, tt.lifetime, tt.processes, Margin); got != tt.want {
			t.Errorf("PoolSize(%v, %v, %d) = %d, want %d", tt.rate, tt.lifetime, tt.processes, got, tt.want)
		}
	}
}

func TestSums(t *testing.T) {
	for name, pair := range map[string][2]int{
		"32 connections renewed every 180 s": {TimeWaitAfter(32, 180), 11},
		"none renewed":                       {TimeWaitAfter(32, 0), 0},
		"470 a second":                       {RateCeiling(28232, 60), 470},
		"with reuse":                         {RateCeiling(28232, 1), 28232},
		"no hold":                            {RateCeiling(28232, 0), 0},
		"freed":                              {PortsFreed(28000, 32, 11), 27957},
		"none freed":                         {PortsFreed(10, 32, 11), 0},
		"conntrack":                          {ConntrackEntries(470, 120), 56400},
		"5 retries of a SYN-ACK":             {int(HandshakeLife(5)), 63},
		"6 retries of a SYN":                 {int(HandshakeLife(6)), 127},
		"3 retries":                          {int(HandshakeLife(3)), 15},
		"no retries":                         {int(HandshakeLife(0)), 1},
		"8 retries, the wait capped":         {int(HandshakeLife(8)), 127 + 120 + 120},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %d, want %d", name, pair[0], pair[1])
		}
	}
	if low, high := TimeWaitMemory(1000); low != 400_000 || high != 660_000 {
		t.Errorf("memory of 1000: %d to %d", low, high)
	}
}
