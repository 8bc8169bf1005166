package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
)

// guard decides who may ask for what. The connection's own local address
// tells whether a request came over loopback; nothing that the client writes
// does.
//
// A browser can be made to ask this host in the name of another site's page, by
// a DNS entry of that site (rebinding): its Host header then names the site. So
// who isn't authenticated must use a name that is known here, or an address,
// which no DNS entry can stand for. Off loopback /metrics is answered under every
// name, since scrapers use names that can't be known here. A rebound page can
// then read it, as can everybody on that network; authentication ends both.
type guard struct {
	auth  func(*http.Request) bool // nil: nobody is authenticated
	open  bool                     // everything is answered off loopback too
	hosts map[string]bool
}

func newGuard(cfg Config) guard {
	g := guard{auth: cfg.Authenticated, open: cfg.EnableAPI, hosts: map[string]bool{"localhost": true}}
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
	known := sync.OnceValue(func() bool { return g.auth != nil && g.auth(r) }) // it may read a file
	switch away := !overLoopback(r); {
	case strings.HasPrefix(path, "/-/"):
		return 0, "" // tells nothing of the host
	case away && path == "/metrics":
		return 0, ""
	case away && !g.open && !known():
		return http.StatusForbidden, "off loopback only /metrics and /-/ are answered: " +
			"configure authentication (--web.config.file), or open the API to everybody with --web.enable-api"
	case !g.allowed(r) && !known():
		return http.StatusForbidden, "the Host header is a name that isn't known here, as a web page of another site has it (DNS rebinding): " +
			"use an IP address, or allow the name with --web.allowed-host"
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

// allowed checks the Host header. A browser always sends one; without it
// (HTTP/1.0) there is no page to fear. Nor can a browser reach a unix socket.
// Names below localhost belong to no site (RFC 6761, 6.3).
func (g *guard) allowed(r *http.Request) bool {
	if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); unix || r.Host == "" {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = canonicalHost(host)
	if a, err := netip.ParseAddr(host); err == nil {
		return !a.IsUnspecified()
	}
	return g.hosts[host] || strings.HasSuffix(host, ".localhost")
}

// canonicalHost lowers a host's letters and takes off brackets and the root's dot.
func canonicalHost(host string) string {
	if bare, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(bare, "]") {
		host = strings.TrimSuffix(bare, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
