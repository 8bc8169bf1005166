package collector

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// states are a list's, in its order.
func states(list *snapshot.SocketList) string {
	var names []string
	for _, s := range list.Sockets {
		names = append(names, s.State)
	}
	return strings.Join(names, " ")
}

// Without sock_diag /proc is read, filtered here, and what is lost is said.
func TestSocketsFromProc(t *testing.T) {
	proc := procTable(t,
		procLine(10, "0050", "0000", 0, "00000000"), // listen 80
		procLine(6, "8000", "0050", 3, "00000BB8"),  // 30 s of 60 are left
		procLine(6, "8001", "01BB", 3, "00001194"),  // 45 s
		procLine(8, "8002", "0050", 0, "00000000"),
		procLine(1, "0050", "8003", 2, "00000064"),
	)
	c := &Collector{cfg: Config{Proc: proc, ForceProc: true}}
	for _, tt := range []struct {
		name string
		q    snapshot.SocketQuery
		want string
	}{
		{"all", snapshot.SocketQuery{}, "listen time_wait time_wait close_wait established"},
		{"states", snapshot.SocketQuery{States: []string{"close_wait", "established"}}, "close_wait established"},
		{"a port", snapshot.SocketQuery{Port: 80}, "listen time_wait close_wait established"},
		{"a remote", snapshot.SocketQuery{Remote: netip.MustParsePrefix("127.0.0.2/32")}, "listen time_wait time_wait close_wait established"},
		{"another remote", snapshot.SocketQuery{Remote: netip.MustParsePrefix("127.0.0.1/32")}, ""},
		{"older", snapshot.SocketQuery{Older: 20 * time.Second}, "time_wait"},
		{"older, CLOSE_WAIT too", snapshot.SocketQuery{Older: time.Second, States: []string{"time_wait", "close_wait"}}, "time_wait time_wait"},
		{"a limit", snapshot.SocketQuery{Limit: 2}, "listen time_wait"},
		{"together", snapshot.SocketQuery{States: []string{"time_wait"}, Port: 443, Older: 15 * time.Second}, "time_wait"},
	} {
		list, err := c.Sockets(t.Context(), tt.q)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := states(list); got != tt.want || list.Truncated != (tt.q.Limit > 0) {
			t.Errorf("%s: got %q, truncated %v; want %q", tt.name, got, list.Truncated, tt.want)
		}
		if !strings.HasPrefix(list.Lost, "devices, cookies, bound sockets and the age of CLOSE_WAIT sockets: ") {
			t.Errorf("%s: lost %q", tt.name, list.Lost)
		}
	}
	list, err := c.Sockets(t.Context(), snapshot.SocketQuery{States: []string{"time_wait"}, Port: 80})
	if err != nil {
		t.Fatal(err)
	}
	want := []snapshot.Socket{{
		State: "time_wait", Local: "127.0.0.1:32768", Remote: "127.0.0.2:80", AgeSeconds: new(30.0),
		Timer: "time_wait", TimerSeconds: new(30.0), Inode: 4711,
	}}
	if diff := cmp.Diff(want, list.Sockets); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// An age that /proc can't tell is no empty list.
func TestSocketsProcHasNoAge(t *testing.T) {
	c := &Collector{cfg: Config{Proc: procTable(t), ForceProc: true}}
	_, err := c.Sockets(t.Context(), snapshot.SocketQuery{States: []string{"close_wait"}, Older: time.Second})
	if !errors.Is(err, inetdiag.ErrNotSupported) || !strings.Contains(err.Error(), "the age of CLOSE_WAIT sockets can't be known without sock_diag") {
		t.Errorf("got %v", err)
	}
}

func TestSocketsFallback(t *testing.T) {
	c := &Collector{cfg: Config{Proc: procTable(t, procLine(6, "8000", "0050", 3, "00000BB8"))}}
	refused := errors.New("seccomp says no")
	dial := func() (*inetdiag.Conn, error) { return nil, refused }
	list, err := c.listSockets(t.Context(), snapshot.SocketQuery{}, dial)
	if err != nil || len(list.Sockets) != 1 || !strings.Contains(list.Lost, "seccomp says no") {
		t.Errorf("%+v, %v", list, err)
	}
	// An answer that is no dump at all is like none.
	broken := func() (*inetdiag.Conn, error) { return inetdiag.Replay(strings.NewReader("")), nil }
	if list, err := c.listSockets(t.Context(), snapshot.SocketQuery{}, broken); err != nil || len(list.Sockets) != 1 || list.Lost == "" {
		t.Errorf("%+v, %v", list, err)
	}
	// Who has gone away needs no second source.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if list, err := c.listSockets(ctx, snapshot.SocketQuery{}, dial); err == nil || err.Error() != "collector: sockets: seccomp says no" {
		t.Errorf("%+v, %v", list, err)
	}
	// Rows come with their error.
	c.cfg.Proc = procTable(t, procLine(6, "8000", "0050", 3, "00000BB8"), "nonsense\n")
	if list, err := c.listSockets(t.Context(), snapshot.SocketQuery{}, dial); !errors.Is(err, inetdiag.ErrMalformed) || len(list.Sockets) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	c.cfg.Proc = t.TempDir()
	if _, err := c.listSockets(t.Context(), snapshot.SocketQuery{}, dial); err == nil {
		t.Error("nothing can be read, and there is no error")
	}
}

// A question without an answer is none for all sockets.
func TestSocketsQueryError(t *testing.T) {
	c := &Collector{cfg: Config{Proc: procTable(t)}}
	for _, q := range []snapshot.SocketQuery{
		{Older: time.Second, States: []string{"established", "listen"}},
		{States: []string{"time-wait"}},
	} {
		list, err := c.Sockets(t.Context(), q)
		if _, ok := errors.AsType[*snapshot.QueryError](err); !ok || list != nil {
			t.Errorf("%+v: %+v, %v", q, list, err)
		}
	}
}
