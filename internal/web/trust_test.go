package web

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestTrust(t *testing.T) {
	h, _ := start(t, 1)
	closed := config(h)
	auth, enabled, named := closed, closed, closed
	auth.Authenticated, enabled.EnableAPI = func(*http.Request) bool { return true }, true
	named.AllowedHosts, named.ListenAddrs = []string{"Node1.Example.COM."}, []string{"10.0.0.5:10060", "[fd00::5]:1", "0.0.0.0:2", ":3", "agent:4"}
	open := named
	open.EnableAPI = true
	const api, away = "/api/v1/report", "10.0.0.5:10060"
	for _, c := range []struct {
		name, local, path string
		cfg               Config
		host              string
		status            int
	}{
		{"loopback", loopback, api, closed, "localhost:10060", 200},
		{"loopback index", loopback, "/", closed, "localhost", 200},
		{"IPv6 loopback", "[::1]:10060", api, closed, "[::1]:10060", 200},
		{"mapped loopback", "[::ffff:127.0.0.1]:10060", api, closed, "127.0.0.1:10060", 200},
		{"another loopback", "127.8.8.8:10060", api, closed, "127.8.8.8", 200},
		{"unix socket", "@twwatch", api, closed, "whatever", 200},
		{"no connection", "", api, closed, "localhost", 403},
		{"off loopback: report", away, api, closed, "localhost", 403},
		{"off loopback: sockets", away, "/api/v1/sockets", closed, "10.0.0.5", 403},
		{"off loopback: index", away, "/", closed, "10.0.0.5", 403},
		{"off loopback: no such path", away, "/nothing", closed, "10.0.0.5", 403},
		{"off loopback: metrics", away, "/metrics", closed, "any.example", 200},
		{"off loopback: metrics in disguise", away, "/metrics/../api/v1/report", closed, "10.0.0.5", 403},
		{"off loopback: health in disguise", away, "/-/../api/v1/report", closed, "10.0.0.5", 404},
		{"off loopback: health", away, "/-/healthy", closed, "any.example", 200},
		{"off loopback: ready", away, "/-/ready", closed, "any.example", 200},
		{"off loopback with authentication", away, api, auth, "any.example", 200},
		{"loopback with authentication", loopback, api, auth, "any.example", 200},
		{"off loopback, opened", away, api, enabled, "10.0.0.5:10060", 200},
		{"off loopback, opened, behind NAT", away, api, enabled, "203.0.113.9", 200},
		{"off loopback, opened, IPv6", "[fd00::5]:10060", api, enabled, "[fd00::5]:10060", 200},
		{"off loopback, opened, allowed name", away, api, open, "node1.example.com:10060", 200},
		{"off loopback, opened, listen name", away, api, open, "agent", 200},
		{"off loopback, opened: metrics", away, "/metrics", enabled, "any.example", 200},
		{"off loopback, opened: health", away, "/-/healthy", enabled, "any.example", 200},
		{"rebinding off loopback: report", away, api, enabled, "evil.example:10060", 403},
		{"rebinding off loopback: sockets", away, "/api/v1/sockets", enabled, "evil.example", 403},
		{"rebinding off loopback: index", away, "/", enabled, "evil.example", 403},
		{"rebinding off loopback: no such path", away, "/nothing", enabled, "evil.example", 403},
		{"rebinding off loopback: no address", away, api, enabled, "10.0.0.5.evil.example", 403},
		{"rebinding", loopback, api, closed, "evil.example", 403},
		{"rebinding: metrics", loopback, "/metrics", closed, "evil.example:10060", 403},
		{"rebinding: index", loopback, "/", closed, "127.0.0.1.evil.example", 403},
		{"rebinding: opened all the same", loopback, api, enabled, "localhost.evil.example", 403},
		{"rebinding: not below localhost", loopback, api, closed, "evillocalhost", 403},
		{"rebinding: not a name", loopback, api, closed, "[::1", 403},
		{"health has no secrets", loopback, "/-/healthy", closed, "evil.example", 200},
		{"no Host, as HTTP/1.0 has it", loopback, api, closed, "", 200},
		{"the root's dot, capitals", loopback, api, closed, "LocalHost.:10060", 200},
		{"allowed name", loopback, api, named, "node1.example.com:10060", 200},
		{"listen address", loopback, api, named, "10.0.0.5:10060", 200},
		{"listen address, IPv6", loopback, api, named, "[fd00::5]:10060", 200},
		{"listen name", loopback, api, named, "agent", 200},
		{"unspecified address", loopback, api, named, "0.0.0.0:2", 403},
		{"address not listened on", loopback, api, closed, "10.0.0.5:10060", 200},
		{"a name below localhost", loopback, api, closed, "twwatch.localhost:10060", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ask(Handler(c.cfg), c.local, "GET", "http://x"+c.path, host(c.host))
			switch {
			case r.StatusCode != c.status:
				t.Errorf("%s: got %d %s, want %d", c.path, r.StatusCode, body(t, r), c.status)
			case c.status == 403 && strings.HasPrefix(c.name, "rebinding"):
				wantError(t, r, 403, "Host header")
			case c.status == 403 && strings.HasPrefix(c.name, "off"):
				wantError(t, r, 403, "--web.enable-api")
			}
		})
	}
}

// The same over real connections, so that the local address is the kernel's.
func TestTrustOverConnections(t *testing.T) {
	h, _ := start(t, 1)
	srv := Server(Handler(config(h)), nil)
	defer srv.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{tcp, unix} {
		go func() { _ = srv.Serve(l) }()
	}
	overUnix := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for url, client := range map[string]*http.Client{
		"http://" + tcp.Addr().String(): http.DefaultClient,
		"http://anything":               overUnix,
	} {
		r, err := client.Get(url + "/api/v1/report")
		if err != nil {
			t.Fatal(err)
		}
		if b := body(t, r); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", url, r.StatusCode, b)
		}
		r.Body.Close()
		client.CloseIdleConnections()
	}
}
