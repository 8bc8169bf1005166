package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard decides who may ask for what. The connection's own local address
// tells whether a request came over loopback; nothing that the client writes
// does.
type guard struct {
	open  bool // everything is answered off loopback too
	hosts map[string]bool
}

func newGuard(cfg Config) guard {
	g := guard{open: cfg.Auth || cfg.EnableAPI, hosts: map[string]bool{"localhost": true}}
	for _, addr := range cfg.ListenAddrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			continue // a unix socket, or something that fails to listen anyway
		}
		if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
			continue
		}
		g.allow(host)
	}
	for _, name := range cfg.AllowedHosts {
		g.allow(name)
	}
	return g
}

func (g *guard) allow(host string) {
	if host = canonicalHost(host); host != "" {
		g.hosts[host] = true
	}
}

// refuse returns the status and reason for which a request is turned away, 0
// if it isn't.
func (g *guard) refuse(r *http.Request) (status int, why string) {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/-/"):
		return 0, "" // tells nothing of the host
	case !overLoopback(r):
		if !g.open && path != "/metrics" {
			return http.StatusForbidden, "off loopback only /metrics and /-/ are answered: " +
				"configure authentication (--web.config.file), or open the API to everybody with --web.enable-api"
		}
	case !g.allowed(r):
		return http.StatusForbidden, "the Host header names neither localhost nor an address that is listened on: " +
			"a web page that does so may be another site's (DNS rebinding)"
	}
	return 0, ""
}

// overLoopback tells whether the connection was made to a loopback address or
// a unix socket.
func overLoopback(r *http.Request) bool {
	switch a := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// allowed checks the Host header of a request over loopback. A browser always
// sends one; without it (HTTP/1.0) there is no page to fear. Nor can a browser
// reach a unix socket.
func (g *guard) allowed(r *http.Request) bool {
	if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); unix || r.Host == "" {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = canonicalHost(host)
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().IsLoopback() {
		return true
	}
	return g.hosts[host]
}

// canonicalHost lowers a host's letters and takes off brackets and the root's dot.
func canonicalHost(host string) string {
	if bare, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(bare, "]") {
		host = strings.TrimSuffix(bare, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
