package web

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
)

func TestSocketQuery(t *testing.T) {
	var got snapshot.SocketQuery
	h, _ := start(t, 1)
	cfg := config(h)
	cfg.Sockets = func(ctx context.Context, q snapshot.SocketQuery) (any, error) {
		got = q
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		return map[string]string{"comm": "a\u202eb\x1b\U000e0001"}, nil
	}
	site := Handler(cfg)
	for query, want := range map[string]snapshot.SocketQuery{
		"": {Limit: 100},
		"state=time_wait,close_wait&remote=10.1.2.3&port=443&older=90s&limit=1000": {
			States: []string{"time_wait", "close_wait"}, Remote: netip.MustParsePrefix("10.1.2.3/32"), Port: 443, Older: 90 * time.Second, Limit: 1000,
		},
		"state=listen&state=listen&state=syn_recv": {States: []string{"listen", "syn_recv"}, Limit: 100},
		"remote=10.1.2.3/8":                        {Remote: netip.MustParsePrefix("10.0.0.0/8"), Limit: 100},
		"remote=::ffff:10.1.2.3":                   {Remote: netip.MustParsePrefix("10.1.2.3/32"), Limit: 100},
	} {
		r := ask(site, loopback, "GET", "/api/v1/sockets?"+query)
		if b := body(t, r); r.StatusCode != 200 || b != `{"comm":"a\u202eb\u001b\udb40\udc01"}`+"\n" {
			t.Errorf("%s: %d %s", query, r.StatusCode, b)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	for query, texts := range map[string][]string{
		"state=timewait":                   {`state=\"timewait\"`, "time_wait, close"},
		"state=":                           {"state="},
		"remote=example.com":               {`remote=`, "a prefix"},
		"remote=fe80::1%25eth0":            {"remote="},
		"port=0":                           {"port=", "1 to 65535"},
		"port=65536":                       {"port="},
		"port=80&port=81":                  {"port is given 2 times"},
		"older=30":                         {"older=", "30s"},
		"older=-1s":                        {"older="},
		"older=1s&state=established":       {"older: only time_wait and close_wait sockets have an age"},
		"limit=0":                          {"limit=", "1 to 1000"},
		"limit=1001":                       {"limit="},
		"colour=red":                       {"colour", "allowed are state, remote, port, process, older, limit"},
		"a=1&b=2":                          {`\"a\"`},
		"port=%zz":                         {"malformed"},
		"port=1;limit=2":                   {"malformed"},
		"port=" + strings.Repeat("9", 999): {`9\"…`},
		"port=9" + strings.Repeat("ö", 99): {`ö\"…`}, // not cut within one
		"port=%1b%5b2J%e2%80%ae":           {`\\x1b[2J\\u202e`},
	} {
		r := ask(site, loopback, "GET", "/api/v1/sockets?"+query)
		b := body(t, r)
		for _, text := range texts {
			if r.StatusCode != 400 || !strings.Contains(b, text) || len(b) > 400 {
				t.Errorf("%.40s: got %d %s, want 400 with %q", query, r.StatusCode, b, text)
			}
		}
	}
}

func TestSocketsAreSingleFlight(t *testing.T) {
	h, _ := start(t, 1)
	cfg := config(h)
	entered, leave := make(chan bool), make(chan error)
	cfg.Sockets = func(context.Context, snapshot.SocketQuery) (any, error) {
		entered <- true
		return []int{}, <-leave
	}
	site := Handler(cfg)
	for _, c := range []struct {
		err    error
		status int
	}{{nil, 200}, {errors.New("no\x1b"), 500}, {context.DeadlineExceeded, 504}, {nil, 200}} {
		done := make(chan *http.Response)
		go func() { done <- ask(site, loopback, "GET", "/api/v1/sockets") }()
		<-entered
		r := ask(site, loopback, "GET", "/api/v1/sockets")
		if r.Header.Get("Retry-After") != "1" {
			t.Error("no Retry-After")
		}
		wantError(t, r, 429, "under way")
		leave <- c.err
		if r := <-done; r.StatusCode != c.status {
			t.Errorf("%v: %d, want %d", c.err, r.StatusCode, c.status)
		}
	}
}

// A listing that panics must not leave the door locked.
func TestSocketsPanic(t *testing.T) {
	h, _ := start(t, 1)
	cfg := config(h)
	calls := 0
	cfg.Sockets = func(context.Context, snapshot.SocketQuery) (any, error) {
		if calls++; calls == 1 {
			panic("first")
		}
		return 7, nil
	}
	site := Handler(cfg)
	func() {
		defer func() { _ = recover() }() // as net/http does
		ask(site, loopback, "GET", "/api/v1/sockets")
	}()
	if r := ask(site, loopback, "GET", "/api/v1/sockets"); r.StatusCode != 200 {
		t.Errorf("after a panic: %d", r.StatusCode)
	}
}
