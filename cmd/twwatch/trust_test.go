package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	toolkit "github.com/prometheus/exporter-toolkit/web"

	"github.com/twwatch/twwatch/internal/hub"
)

// What protects the API is what let this request in, not what the file says by
// now: whether there is TLS was settled at the start. The file is read anew for
// each request.
func TestAuthentication(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yaml")
	address := []string{":10060"}
	s := &server{
		serveFlags: &serveFlags{web: &toolkit.FlagConfig{WebListenAddresses: &address, WebConfigFile: &file}},
		hub:        hub.New(hub.Config{}), logger: slog.New(slog.DiscardHandler),
	}
	handler := s.handler(prometheus.NewRegistry(), nil)
	plain, given, proven := (*tls.ConnectionState)(nil), &tls.ConnectionState{}, &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
	const (
		users   = "basic_auth_users: {alice: \"$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\"}\n"
		require = "tls_server_config: {client_auth_type: RequireAndVerifyClientCert}\n"
		request = "tls_server_config: {client_auth_type: RequestClientCert}\n"
	)
	for _, tt := range []struct {
		text  string
		tls   *tls.ConnectionState
		basic bool // the request carries a name and a password; the toolkit has checked them
		want  bool
	}{
		{users, plain, true, true},
		{users, given, true, true},
		{users, plain, false, false}, // let in before the users were added
		{require, plain, false, false},
		{require, plain, true, false},
		{require, given, false, false},
		{require, proven, false, true},
		{request, given, false, false},
		{request, plain, false, false},
		{"basic_auth_users: {}\n", plain, true, false},
		{"basic_auth_users: [\n", plain, true, false},
		{"", plain, true, false}, // and no file
	} {
		err := os.Remove(file)
		if tt.text != "" {
			err = os.WriteFile(file, []byte(tt.text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "http://web-1.example.com/api/v1/report", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 10060})))
		if r.TLS = tt.tls; tt.basic {
			r.SetBasicAuth("alice", "secret")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		// There is no report yet: who is let in gets 503.
		if got := w.Code == http.StatusServiceUnavailable; got != tt.want || !got && !strings.Contains(w.Body.String(), "off loopback only") {
			t.Errorf("%sTLS %+v, basic auth %v: %d %s, want it answered: %v", tt.text, tt.tls, tt.basic, w.Code, w.Body, tt.want)
		}
	}
}

// A page that was made to seem of this host by DNS gets nothing, unless its
// name was allowed.
func TestAllowedHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "twwatch.yaml")
	if err := os.WriteFile(file, []byte("web.allowed-host: [Web-1.example.com, web-2]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startServe(t, "--source="+writeRecording(t, recorded(0, 100)), "--config.file="+file)
	d.wait("it is ready", func() bool { status, _ := d.get("/-/ready"); return status == 200 })
	for name, want := range map[string]int{"web-1.example.com": 200, "web-2:10060": 200, "localhost": 200, "evil.example": 403} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/api/v1/report", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = name
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = reply.Body.Close() // only its status counts
		if reply.StatusCode != want {
			t.Errorf("%s: %d, want %d", name, reply.StatusCode, want)
		}
	}
	d.end()
}

func TestAllowedHostIsAName(t *testing.T) {
	for _, value := range []string{"http://web-1", "web-1:10060", "*.example.com", "", "a b", "web-1\u202e", "[::1]"} {
		e, _, stderr := testEnv(t)
		want := fmt.Sprintf("twwatch: --web.allowed-host: %q: want a name such as web-1.example.com, without a port\n", value)
		if got := run(t.Context(), e, []string{"serve", "--web.listen-address=nonsense", "--web.allowed-host=" + value}); got != statusFailed ||
			stderr.String() != want {
			t.Errorf("%q: status %d, stderr %q", value, got, stderr)
		}
	}
}

// Every metric of the daemon is in the document, with its type and meaning.
func TestMetricsAreDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	d := startServe(t, "--source="+writeRecording(t, recorded(0, 100)))
	d.wait("it is ready", func() bool { status, _ := d.get("/-/ready"); return status == 200 })
	_, text := d.get("/metrics")
	kinds, seen := map[string]string{}, 0
	for line := range strings.SplitSeq(text, "\n") {
		words := strings.SplitN(line, " ", 4)
		if len(words) < 4 || words[0] != "#" || !strings.HasPrefix(words[2], "twwatch_") {
			continue
		}
		name := words[2]
		if words[1] == "TYPE" {
			kinds[name] = words[3]
		}
	}
	for line := range strings.SplitSeq(string(document), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 6 {
			continue
		}
		name := strings.Trim(cells[1], " `")
		kind, ok := kinds[name]
		if !ok {
			continue
		}
		seen++
		delete(kinds, name)
		if got := strings.TrimSpace(cells[2]); got != kind {
			t.Errorf("%s: documented as a %s, and is a %s", name, got, kind)
		}
		if help := strings.TrimSpace(cells[4]); name != "twwatch_build_info" && !strings.Contains(text, "# HELP "+name+" "+help+"\n") {
			t.Errorf("%s: the help is not what is documented: %s", name, help)
		}
	}
	for name := range kinds {
		t.Errorf("%s is not in docs/metrics.md", name)
	}
	if seen < 10 {
		t.Errorf("only %d metrics were compared", seen)
	}
	d.end()
}

// The API lists what the source has: a recording's sample, or the sockets that
// another twwatch lists.
func TestServeSocketsOfSource(t *testing.T) {
	d := startServe(t, "--source="+writeRecording(t, sampled(recorded(0, 28232), 3), recorded(15, 100)))
	d.wait("it is ready", func() bool { status, _ := d.get("/-/ready"); return status == 200 })
	const want = `"sample":{"time":"2026-03-01T02:59:00Z","host":"web-1","sockets":3,"of":28232}`
	d.wait("the sample is listed", func() bool {
		status, body := d.get("/api/v1/sockets?state=time_wait")
		return status == 200 && strings.Contains(body, want) && strings.Count(body, `"remote":"10.0.0.9:6379"`) == 1
	})
	behind := startServe(t, "--source="+d.url)
	if status, body := behind.get("/api/v1/sockets?port=6379"); status != 200 || !strings.Contains(body, want) || strings.Count(body, `"remote":"10.0.0.9:6379"`) != 2 {
		t.Errorf("%d %s", status, body)
	}
	d.end()
	if status, body := behind.get("/api/v1/sockets"); status != http.StatusBadGateway || !strings.Contains(body, `{"error":"remote: `+d.url+`/api/v1/sockets`) || !strings.Contains(body, "connection refused") {
		t.Errorf("%d %s", status, body)
	}
	behind.end()
}
