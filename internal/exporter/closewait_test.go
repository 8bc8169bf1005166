package exporter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

func TestCloseWaitKinds(t *testing.T) {
	flow := func(c snapshot.CloseWaitCount) snapshot.Flow {
		f := server("10.0.0.5", "192.0.2.1", 80, snapshot.States{CloseWait: c.Sockets})
		f.CloseWait = c
		return f
	}
	for name, c := range map[string]struct {
		ns   *snapshot.Namespace
		want string
	}{
		"none": {
			namespace("host", "host", 1, snapshot.Omitted{}),
			"eof_read 0, other 0, unaccepted 0, unread 0",
		},
		"each row is at hand": {
			func() *snapshot.Namespace {
				ns := namespace("host", "host", 1, snapshot.Omitted{States: snapshot.States{CloseWait: 7}})
				ns.CloseWaits = []snapshot.CloseWait{
					{RecvQ: 0, Inode: 1},
					{RecvQ: 0, Inode: 2},
					{RecvQ: 1, Inode: 3},
					{RecvQ: 9, Inode: 4},
					{RecvQ: 9},
					{RecvQ: 1},
					{RecvQ: 1},
				}
				return ns
			}(),
			"eof_read 2, other 1, unaccepted 3, unread 1",
		},
		"the flows' sums": {
			namespace("host", "host", 1, snapshot.Omitted{States: snapshot.States{CloseWait: 5}},
				flow(snapshot.CloseWaitCount{Sockets: 300, EOFRead: 200, Unread: 50, Unaccepted: 20}),
				flow(snapshot.CloseWaitCount{Sockets: 10, EOFRead: 1, Unaccepted: 9})),
			// 5 of no flow, and 30 + 20 that wait for nothing but their end, at most
			"eof_read 201, other 55, unaccepted 29, unread 30",
		},
		"sums that can't be": {
			namespace("host", "host", 1, snapshot.Omitted{},
				flow(snapshot.CloseWaitCount{Sockets: 3, EOFRead: 9, Unread: 9, Unaccepted: 9})),
			"eof_read 3, other 0, unaccepted 0, unread 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := New(Config{})
			e.Observe(at(0, c.ns))
			var got []string
			for line := range strings.Lines(named(series(t, e), "twwatch_close_wait_sockets")) {
				_, kind, _ := strings.Cut(line, `kind="`)
				kind, rest, _ := strings.Cut(kind, `"`)
				_, value, _ := strings.Cut(rest, "} ")
				got = append(got, kind+" "+strings.TrimSpace(value))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCloseWaitDescriptors(t *testing.T) {
	holds := func(closeWaits uint32, owners ...snapshot.Owner) *snapshot.Namespace {
		ns := namespace("host", "host", 1, snapshot.Omitted{States: snapshot.States{CloseWait: closeWaits}})
		ns.Owners = owners
		return ns
	}
	for name, c := range map[string]struct {
		ns   *snapshot.Namespace
		want string
	}{
		"no CLOSE_WAIT":   {holds(0, snapshot.Owner{Descriptors: new(9), DescriptorLimit: new(10)}), "{netns=\"host\"} 0\n"},
		"nobody's known":  {holds(5), ""},
		"limit not known": {holds(5, snapshot.Owner{CloseWait: 5, Descriptors: new(9)}), ""},
		"an absurd limit": {holds(5, snapshot.Owner{CloseWait: 5, Descriptors: new(9), DescriptorLimit: new(0)}), ""},
		"only of its own": {holds(5, snapshot.Owner{Descriptors: new(9), DescriptorLimit: new(10)}), ""},
		"the nearest to it": {holds(
			5, snapshot.Owner{CloseWait: 4, Descriptors: new(100), DescriptorLimit: new(1000)},
			snapshot.Owner{CloseWait: 1, Descriptors: new(48), DescriptorLimit: new(64)},
		), "{netns=\"host\"} 0.75\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := New(Config{})
			e.Observe(at(0, c.ns))
			if diff := cmp.Diff(c.want, named(series(t, e), "twwatch_close_wait_descriptors_used_ratio_max")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCloseWaitEOFReadOldest(t *testing.T) {
	ns := namespace("host", "host", 1, snapshot.Omitted{States: snapshot.States{CloseWait: 4}})
	ns.CloseWaits = []snapshot.CloseWait{
		{RecvQ: 1, Inode: 1, AgeSeconds: new(900.0)}, // a pool's
		{RecvQ: 0, AgeSeconds: new(800.0)},           // nobody has it
		{RecvQ: 0, Inode: 2, AgeSeconds: new(70.0)},
		{RecvQ: 0, Inode: 3},
	}
	e := New(Config{})
	e.Observe(at(0, ns))
	all := series(t, e)
	if got := named(all, "twwatch_close_wait_eof_read_oldest_seconds"); got != "{netns=\"host\"} 70\n" {
		t.Errorf("of eof_read: %q", got)
	}
	if got := named(all, "twwatch_close_wait_oldest_seconds"); got != "{netns=\"host\"} 900\n" {
		t.Errorf("of all: %q", got)
	}
}

// What a further namespace has beyond its four is for those that need it, and
// bounded.
func TestPressingNamespaces(t *testing.T) {
	pods := []*snapshot.Namespace{namespace("host", "host", 1, snapshot.Omitted{})}
	for i := range 30 {
		f := client("10.0.0.9", 6379, 100, tw(100))
		f.CloseRate = new(float64(i) * 28232 / 60 / 20) // demand i/20
		ns := namespace("pod", fmt.Sprintf("pod-%02d", i), uint64(100+i), snapshot.Omitted{States: snapshot.States{CloseWait: 1}}, f)
		ns.Owners = []snapshot.Owner{{CloseWait: 1, Descriptors: new(i), DescriptorLimit: new(20)}}
		pods = append(pods, ns)
	}
	e := New(Config{Flows: -1})
	e.Observe(at(0, pods...))
	all := series(t, e)
	for _, name := range []string{"twwatch_ephemeral_port_demand_ratio_max", "twwatch_close_wait_descriptors_used_ratio_max"} {
		got := named(all, name)
		if strings.Count(got, "pod-") != maxPressing || !strings.Contains(got, `"pod-29"} 1.45`) || strings.Contains(got, "pod-19") {
			t.Errorf("%s: want those of the %d worst of the further namespaces\n%s", name, maxPressing, got)
		}
	}
	if got := named(all, "twwatch_ephemeral_port_demand_ratio_max"); !strings.Contains(got, `{netns="host"} 0`) {
		t.Errorf("the host's own is not there:\n%s", got)
	}

	e.Observe(at(1, append(pods[:1:1], pods[1:12]...)...)) // the greatest is exactly pressing
	if got := named(series(t, e), "twwatch_ephemeral_port_demand_ratio_max"); strings.Count(got, "pod-") != 1 {
		t.Errorf("want that of the namespace at %v alone:\n%s", pressing, got)
	}
}

func TestOwnerFeature(t *testing.T) {
	for _, limited := range []bool{true, false} {
		r := at(0, namespace("host", "host", 1, snapshot.Omitted{}))
		if limited {
			r.Limited = []snapshot.Gap{{Stage: "owner", Error: "not permitted"}}
		}
		e := New(Config{})
		e.Observe(r)
		if got := named(series(t, e), "twwatch_feature_available"); strings.Contains(got, `{feature="owner"} 0`) != limited || strings.Contains(got, `{feature="owner"} 1`) == limited {
			t.Errorf("limited: %v\n%s", limited, got)
		}
	}
}
