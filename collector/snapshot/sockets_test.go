package snapshot

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestSocketQueryMatch(t *testing.T) {
	sockets := []Socket{
		{State: "time_wait", Local: "10.0.0.5:40000", Remote: "10.0.0.9:6379", AgeSeconds: new(30.0)},
		{State: "time_wait", Local: "10.0.0.5:6379", Remote: "10.0.1.9:40000", AgeSeconds: new(29.9)},
		{State: "close_wait", Local: "[fe80::1]:80", Remote: "[fe80::2%eth0]:40000", AgeSeconds: new(3600.0), AgeAtLeast: true, AgeAtMostSeconds: new(4000.0)},
		{State: "established", Local: "[2001:db8::5]:40000", Remote: "[2001:db8::9]:443", PID: 33, Comm: "prometheus-node"},
		{State: "listen", Local: "0.0.0.0:80"},
		{State: "close_wait", Local: "nonsense", Remote: "\x1b"},
	}
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		name string
		q    SocketQuery
		want []int
	}{
		{"all", SocketQuery{}, []int{0, 1, 2, 3, 4, 5}},
		{"one state", SocketQuery{States: []string{"time_wait"}}, []int{0, 1}},
		{"two states", SocketQuery{States: []string{"established", "listen"}}, []int{3, 4}},
		{"a remote", SocketQuery{Remote: prefix("10.0.0.9/32")}, []int{0}},
		{"a network", SocketQuery{Remote: prefix("10.0.0.0/8")}, []int{0, 1}},
		{"a mapped network", SocketQuery{Remote: prefix("::ffff:10.0.1.0/120")}, []int{1}},
		{"IPv6, with a zone", SocketQuery{Remote: prefix("fe80::/10")}, []int{2}},
		{"all of IPv6", SocketQuery{Remote: prefix("::/0")}, []int{2, 3}},
		{"all of IPv4", SocketQuery{Remote: prefix("0.0.0.0/0")}, []int{0, 1}},
		{"a port at either end", SocketQuery{Port: 6379}, []int{0, 1}},
		{"a listener's port", SocketQuery{Port: 80}, []int{2, 4}},
		{"older", SocketQuery{Older: 30 * time.Second}, []int{0, 2}},
		{"older than a CLOSE_WAIT surely is", SocketQuery{Older: 3601 * time.Second}, []int{2}},
		{"older than it may be", SocketQuery{Older: 4001 * time.Second}, nil},
		{"a process", SocketQuery{Process: "prometheus-node"}, []int{3}},
		{"a process by the name of its file", SocketQuery{Process: "prometheus-node-exporter"}, []int{3}},
		{"a pid", SocketQuery{Process: "33"}, []int{3}},
		{"another process", SocketQuery{Process: "prometheus"}, nil},
		{"a process in another state", SocketQuery{Process: "33", States: []string{"listen"}}, nil},
		{"together", SocketQuery{States: []string{"time_wait"}, Remote: prefix("10.0.0.0/16"), Port: 40000, Older: 30 * time.Second}, []int{0}},
	} {
		var got []int
		for i := range sockets {
			if tt.q.Match(&sockets[i]) {
				got = append(got, i)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		// Select is Match with a limit.
		for limit := 1; limit <= len(tt.want)+1; limit++ {
			tt.q.Limit = limit
			selected, truncated := tt.q.Select(sockets)
			if len(selected) != min(limit, len(tt.want)) || truncated != (limit < len(tt.want)) {
				t.Errorf("%s, at most %d: %d, truncated %v", tt.name, limit, len(selected), truncated)
			}
		}
	}
	none := SocketQuery{Port: 1}
	if selected, _ := none.Select(sockets); selected == nil || len(selected) != 0 {
		t.Errorf("none: %v, want an empty list, which encodes as []", selected)
	}
}

func TestSocketQueryCheck(t *testing.T) {
	for _, tt := range []struct {
		q    SocketQuery
		want string // "": no error
	}{
		{SocketQuery{}, ""},
		{SocketQuery{Older: time.Second}, ""},
		{SocketQuery{Older: time.Second, States: []string{"established", "close_wait"}}, ""},
		{SocketQuery{Older: time.Second, States: []string{"established", "fin_wait2"}}, "older: only time_wait and close_wait sockets have an age that can be known"},
		{SocketQuery{States: []string{"time_wait", "\x1b\u202e"}}, `state: unknown state "\u001b\u202e": want one or more of established, syn_sent, `},
		{SocketQuery{Older: -1}, "older: want"},
		{SocketQuery{Limit: -1}, "limit: want"},
		{SocketQuery{Process: "nginx"}, ""},
		{SocketQuery{Process: "0"}, "process: want a name or a pid"},
	} {
		err := tt.q.Check()
		var q *QueryError
		if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &q) || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v, want %q", tt.q, err, tt.want)
		}
		checkLine(t, err)
	}
}

func fullSockets() *SocketList {
	return &SocketList{
		Sockets: []Socket{{
			State: "close_wait", Local: "127.0.0.1:9000", Remote: "10.20.30.41:51514", Device: "ens\u202e3", AgeSeconds: new(3605.5), AgeAtLeast: true, AgeAtMostSeconds: new(4000.25),
			Timer: "keepalive", TimerSeconds: new(5.0), RecvQ: 26, SendQ: 10, UID: new(uint32(33)), Inode: 998877, Cookie: 77123,
		}},
		Truncated: true, Lost: "devices",
		Sample: &SocketSample{Time: time.Date(2026, 3, 14, 3, 15, 9, 0, time.UTC), Host: "web-17", Redacted: true, Sockets: 1000, Of: 28177},
	}
}

func TestSocketListRoundTrip(t *testing.T) {
	for _, want := range []*SocketList{fullSockets(), {Sockets: []Socket{}}} {
		var b bytes.Buffer
		if err := EncodeSockets(&b, want); err != nil {
			t.Fatal(err)
		}
		if i := bytes.IndexFunc(bytes.ReplaceAll(b.Bytes(), []byte("\n"), nil), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("byte %d can't be shown: %q", i, b.Bytes())
		}
		got, err := DecodeSockets(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	// A live list may be longer than a sample.
	long := &SocketList{Sockets: make([]Socket, 10*MaxSampledSockets)}
	if err := EncodeSockets(new(bytes.Buffer), long); err != nil {
		t.Errorf("%d sockets: %v", len(long.Sockets), err)
	}
}

func TestDecodeSocketsHostile(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "no list of sockets: it is empty"},
		{"<html>\x1b", `no list of sockets: it starts with "<html>\u001b"`},
		{`{"status":"ok"}`, "no list of sockets: it starts with"},
		{`{"sockets":null}`, "no list of sockets: it starts with"},
		{`[]`, "no list of sockets"},
		{`{"sockets":[{"state":"time_wa`, "the list is damaged: unexpected end"},
		{`{"sockets":{}}`, "the list is damaged: "},
		{`{"sockets":[` + strings.Repeat("{},", MaxSampledSockets) + `{}]}`, "the list is damaged: sockets: more than 10000 elements"},
		{`{"sockets":[{"device":"` + strings.Repeat("x", MaxString+1) + `"}]}`, "the list is damaged: sockets[0].device: a string of 4097"},
		{`{"sockets":[{"age_seconds":1e300}]}`, "sockets[0].age_seconds: 1e+300 is no measurement"},
		{`{"sockets":[],"sample":{"of":-1}}`, "sample.of: -1 is less than nothing"},
		{strings.Repeat(" ", MaxEncoded+1), "the list is damaged: it is larger than 16 MiB"},
	} {
		list, err := DecodeSockets([]byte(tt.in))
		if list != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: got %v, want %s", tt.in, err, tt.want)
		}
		checkLine(t, err)
	}
}

func FuzzDecodeSockets(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeSockets(&b, fullSockets()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := DecodeSockets(data)
		checkLine(t, err)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := EncodeSockets(&b, list); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		again, err := DecodeSockets(b.Bytes())
		if err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, b.Bytes())
		}
		if !reflect.DeepEqual(list, again) {
			t.Errorf("%+v became %+v", list, again)
		}
		query := SocketQuery{Port: 80, Remote: netip.MustParsePrefix("10.0.0.0/8"), Older: time.Second}
		query.Select(list.Sockets)
	})
}
