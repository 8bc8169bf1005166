package exporter

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const closeWaitProcess = "twwatch_close_wait_process_sockets"

// held is a namespace with this many CLOSE_WAIT sockets in all, held by these
// processes.
func held(name string, sockets uint32, owners ...snapshot.Owner) *snapshot.Namespace {
	ns := namespace("pod", name, 1, snapshot.Omitted{States: snapshot.States{CloseWait: sockets}})
	ns.Owners = owners
	return ns
}

// Processes of one name count together, over all namespaces; few sockets and
// those of nobody known are the others'.
func TestCloseWaitProcesses(t *testing.T) {
	old := snapshot.CloseWait{AgeSeconds: new(300.0), Comm: "app"}
	shop := held("shop", 20, snapshot.Owner{Comm: "app", CloseWait: 6}, snapshot.Owner{Comm: "curl", CloseWait: 9}, snapshot.Owner{Comm: "idle", Sockets: 50})
	shop.CloseWaits = []snapshot.CloseWait{{AgeSeconds: new(2.0), Comm: "app"}, old, {AgeSeconds: new(999.0)}}
	cart := held("cart", 8, snapshot.Owner{Comm: "app", CloseWait: 4}, snapshot.Owner{CloseWait: 3})
	e := New(Config{})
	e.Observe(at(0, shop, cart))
	all := series(t, e)
	want := "{process=\"\"} 18\n{process=\"app\"} 10\n"
	if diff := cmp.Diff(want, named(all, closeWaitProcess)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := named(all, "twwatch_close_wait_process_oldest_seconds"); got != "{process=\"app\"} 300\n" {
		t.Errorf("the oldest: %s", got)
	}
}

// A name stays for an hour after its last socket, and whatever names come, few
// have series; the sum is all CLOSE_WAIT sockets at any time.
func TestCloseWaitProcessesAreBounded(t *testing.T) {
	e := New(Config{})
	names := map[string]bool{}
	for n := range 3 * 240 { // three hours
		owners := []snapshot.Owner{{Comm: fmt.Sprint("renamed-", n), CloseWait: 40}, {Comm: "more", CloseWait: 1}}
		total := uint32(50)
		if n < 10 {
			owners, total = append(owners, snapshot.Owner{Comm: "app", CloseWait: 30}), total+30
		}
		e.Observe(at(n, held("host", total, owners...)))
		all := series(t, e)
		sum, there := 0.0, false
		for k, v := range all {
			if len(k) > len(closeWaitProcess) && k[:len(closeWaitProcess)] == closeWaitProcess {
				names[k] = true
				sum += v
				there = there || k == closeWaitProcess+`{process="app"}`
			}
		}
		if sum != float64(total) {
			t.Fatalf("pass %d: %v sockets by process, of %d", n, sum, total)
		}
		if want := n < 9+240; there != want {
			t.Fatalf("pass %d: the name that left with pass 9 is there: %v", n, there)
		}
	}
	if most := 3*maxProcesses + 1; len(names) > most || len(names) < maxProcesses {
		t.Errorf("%d label sets in three hours, want at most %d", len(names), most)
	}
}
