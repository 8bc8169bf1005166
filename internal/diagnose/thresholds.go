package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Thresholds are the numbers that rules compare with, by name. The zero value
// has the defaults. Each name and its reason is in docs/rules.md.
type Thresholds struct{ set map[string]float64 }

// threshold names, as in the config file.
const (
	portsSlow       = "ports_slow_ratio"
	portsRunningOut = "ports_running_out_ratio"
	portsSeconds    = "ports_running_out_seconds"
	bucketsNear     = "time_wait_buckets_near_ratio"
)

func defaults() map[string]float64 {
	return map[string]float64{
		portsSlow:       0.5, // connect() has used up the half of the range that it tries first
		portsRunningOut: 0.8,
		portsSeconds:    60, // a TIME_WAIT's life: what is closed now comes too late
		bucketsNear:     0.8,
	}
}

// leaves is how far below its threshold a finding has to fall to go, as a
// share of the threshold: a load that hovers about it doesn't flap.
const leaves = 0.9

// Set gives a threshold another value; the error names what is allowed.
func (t *Thresholds) Set(name string, value float64) error {
	if _, ok := defaults()[name]; !ok {
		return fmt.Errorf("no threshold %q: give one of %s", name, strings.Join(slices.Sorted(maps.Keys(defaults())), ", "))
	}
	top := 1.0
	if strings.HasSuffix(name, "_seconds") {
		top = 3600
	}
	if !(value > 0 && value <= top) {
		return fmt.Errorf("threshold %s: %v: give more than 0 and at most %v", name, value, top)
	}
	if t.set == nil {
		t.set = make(map[string]float64)
	}
	t.set[name] = value
	return nil
}

// Check tells whether the thresholds in force contradict each other. Each may be
// fine alone, so Set can't tell.
func (t Thresholds) Check() error {
	all := t.All()
	if all[portsSlow] < all[portsRunningOut] {
		return nil
	}
	show := func(name string) string {
		text := fmt.Sprintf("%s %v", name, all[name])
		if _, given := t.set[name]; !given {
			text += " (the default)"
		}
		return text
	}
	return fmt.Errorf("%s must be below %s: else it is critical before it is a warning; change one of them", show(portsSlow), show(portsRunningOut))
}

// All are the thresholds in force, by name.
func (t Thresholds) All() map[string]float64 {
	all := defaults()
	maps.Copy(all, t.set)
	return all
}

// of is the threshold in force: lower while the finding is there already.
func (t Thresholds) of(name string, held bool) float64 {
	v, ok := t.set[name]
	if !ok {
		v = defaults()[name]
	}
	if held {
		v *= leaves
	}
	return v
}
