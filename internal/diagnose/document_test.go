package diagnose

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docs/rules.md tells each rule in a row of its own, and each threshold with its
// default; and it tells of none that isn't there.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, named := map[string]int{}, map[string]bool{}
	given := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if m := regexp.MustCompile("^\\| `([a-z-]+)` \\|").FindStringSubmatch(line); m != nil {
			rows[m[1]]++
		}
		for _, m := range regexp.MustCompile("`([a-z]+(?:-[a-z]+)+)`").FindAllStringSubmatch(line, -1) {
			named[m[1]] = true
		}
		for _, m := range regexp.MustCompile("`([a-z0-9_]+)` ([0-9][0-9.,]*)").FindAllStringSubmatch(line, -1) {
			value, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimRight(m[2], ".,"), ",", ""), 64)
			if _, twice := given[m[1]]; twice || err != nil {
				t.Errorf("%s: given twice, or %v", m[0], err)
			}
			given[m[1]] = value
		}
	}
	once := map[string]int{}
	for _, id := range IDs() {
		once[id] = 1
	}
	if diff := cmp.Diff(once, rows); diff != "" {
		t.Errorf("rows by rule (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(IDs(), slices.Sorted(maps.Keys(named))); diff != "" {
		t.Errorf("rules named (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(defaults(), given); diff != "" {
		t.Errorf("thresholds (-want +got):\n%s", diff)
	}
	// A threshold may be named again without its value, but by its right name.
	suffix := regexp.MustCompile("`([a-z0-9_]+_(?:ratio|rate|seconds|sockets|demand|many))`")
	for _, m := range suffix.FindAllStringSubmatch(string(text), -1) {
		if _, ok := defaults()[m[1]]; !ok {
			t.Errorf("there is no threshold %s", m[1])
		}
	}
}
