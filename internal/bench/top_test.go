//go:build linux

package main

import "testing"

func TestTopIsJudged(t *testing.T) {
	for _, tt := range []struct {
		top, alone []int64
		met        bool
	}{
		{[]int64{11, 12, 90}, []int64{10, 10, 10}, true},
		{[]int64{11, 13, 14}, []int64{10, 10, 10}, false},
	} {
		m := &topResult{rows: 100_000, topNS: tt.top, passNS: tt.alone}
		if got := m.targets(); len(got) != 1 || got[0].met != tt.met {
			t.Errorf("%v against %v: %+v", tt.top, tt.alone, got)
		}
	}
}
