//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/internal/lab"
)

// The benchmark starts itself; in a test that is the test's binary.
func TestMain(m *testing.M) {
	if known, err := processMain(context.Background(), os.Args[1:], os.Stdout); known {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Counts are compared on the way: a program that sees other rows than were made
// is an error. Times are anybody's guess here.
func TestQuick(t *testing.T) {
	lab.Require(t, "netns", "ss")
	program := filepath.Join(t.TempDir(), "twwatch")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/twwatch").CombinedOutput(); err != nil {
		t.Fatalf("building twwatch: %v\n%s", err, out)
	}
	var out, log bytes.Buffer
	written := filepath.Join(t.TempDir(), "benchmarks.md")
	err := run(t.Context(), []string{"-quick", "-twwatch", program, "-node-exporter", "no-such-program", "-out", written}, &out, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	text := out.String()
	for _, want := range []string{
		"one pass, 1,000 sockets, 64 remotes", "one pass, 10,000 sockets, 64 remotes",
		"remotes of 0.1 % of the sockets each that are reported | 10 of 10 | 10 of 10 | met",
		"allocations", "| 10,000 | `ss -tan` |", "node_exporter isn't installed here", "MiB resident",
		"a sweep of 20 unmoved namespaces and one with 10,000 sockets", "| all, none of which moved, no sockets | ",
		"10,000 TIME_WAIT sockets, and beside them 50 processes with 12 open connections each", "every process was known",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if !strings.Contains(text, "| `twwatch top` | ") {
		t.Errorf("the report lacks twwatch top:\n%s", text)
	}
	if file, err := os.ReadFile(written); err != nil || string(file) != text {
		t.Errorf("the file isn't what was printed: %v", err)
	}
}

func TestHeavyRemotesHoldTheirShare(t *testing.T) {
	for _, rows := range []int{1_000, 10_000, 100_000} {
		all, heavy := singles(rows)
		count := map[netip.Addr]int{}
		for _, a := range all {
			count[a]++
		}
		if len(all) != rows || len(count) != rows-heavyRemotes*(rows/1000)+heavyRemotes {
			t.Errorf("%d sockets: %d destinations, %d of them different", rows, len(all), len(count))
		}
		for _, a := range heavy {
			if count[a] != rows/1000 {
				t.Errorf("%d sockets: %v has %d", rows, a, count[a])
			}
		}
	}
}

func TestTargetsAreJudged(t *testing.T) {
	r := &results{
		tables: []tableResult{
			{rows: 1000, passes: passes{FloorNS: []int64{1e6, 1e6}, PassNS: []int64{4e6, 4e6}, BoundNS: []int64{25e5, 25e5}, BoundSeen: true}},
			{rows: 10_000, passes: passes{FloorNS: []int64{1e6}, PassNS: []int64{3e6}}},
			{rows: 100_000, passes: passes{FloorNS: []int64{10, 10, 10}, PassNS: []int64{99, 12, 12}}, commands: []commandResult{
				{name: theSS, ns: []int64{10}, ssNS: []int64{10}}, {name: "twwatch check", ns: []int64{3}, ssNS: []int64{10}},
			}},
			{rows: 1_000_000, single: true, passes: passes{FloorNS: []int64{10}, PassNS: []int64{16}}},
		},
		mallocs: []mallocsResult{{10, 10, true, 99}, {10_000, 64, false, 500}, {100_000, 64, false, 600}},
		owners:  &ownersResult{Rows: 100_000, Processes: 2000, WithNS: []int64{12, 13, 99}, WithoutNS: []int64{10, 10, 10}},
		memory:  &memoryResult{peakKiB: 48<<10 + 1, heavy: 10, found: 10},
	}
	want := []bool{true, false, true, false, true, false, false, false, true}
	targets := r.targets()
	for i, target := range targets {
		if i >= len(want) || target.met != want[i] {
			t.Errorf("target %d: %+v", i, target)
		}
	}
	if len(targets) != len(want) {
		t.Errorf("%d targets, want %d", len(targets), len(want))
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
	if got := (series{3, 1, 2}).spread(1); got != "2.0 (1.0–3.0)" {
		t.Errorf("spread %q", got)
	}
	if got := (series{4, 1, 2, 3}).median(); got != 2.5 {
		t.Errorf("median %v, want 2.5", got)
	}
}
