package flow

import (
	"fmt"
	"testing"
)

// load gives the TIME_WAIT rows of a flow that closed perSecond(age) times in
// each second of the last minute, and overdue ones.
func load(perSecond func(age int) int, overdue int) []row {
	var rows []row
	add := func(expires int) {
		rows = append(rows, timeWait(fmt.Sprintf("10.0.0.5:%d", 32768+len(rows)), "10.0.0.9:6379", uint32(expires)))
	}
	for age := range 60 {
		n := perSecond(age)
		for i := range n {
			add(60_000 - age*1000 - i*1000/n)
		}
	}
	for range overdue {
		add(0)
	}
	return rows
}

func TestSecondsToExhaustion(t *testing.T) {
	for _, tt := range []struct {
		name      string
		perSecond func(age int) int
		overdue   int
		want      any // seconds, or nil
	}{
		{"too slow to fill the range", func(int) int { return 400 }, 400, nil},
		{"steady since 10 s, and too fast", func(age int) int {
			if age < 10 {
				return 600
			}
			return 0
		}, 0, 38}, // (28232 − 6000) / 600 = 37.05
		// A load of 400/s stopped for 20 s and goes on since 10 s: a slope
		// would say that it runs dry in 30 s, but what closes a minute comes back.
		{"a steady load after a pause", func(age int) int {
			if age >= 10 && age < 30 {
				return 0
			}
			return 400
		}, 0, nil},
		{"what leaves is less than what comes", func(age int) int {
			if age < 20 {
				return 800
			}
			return 100
		}, 100, 12}, // 20,100 used; +800 − 100 a second, the first of them back after the slack
		{"a burst, and nothing since", func(age int) int {
			if age == 15 {
				return 20_000
			}
			return 0
		}, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := look(t, NewTable(), config(), load(tt.perSecond, tt.overdue)).Flows[0].Ports
			var got any
			if p.SecondsToExhaustion != nil {
				got = *p.SecondsToExhaustion
			}
			if got != tt.want {
				t.Errorf("%v, want %v (%+v)", got, tt.want, *p)
			}
		})
	}
}
