package remote

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// Where a twwatch answers.
const (
	reportPath  = "/api/v1/report"
	socketsPath = "/api/v1/sockets"
	streamPath  = "/api/v1/stream"
)

// defaultTimeout bounds one request where the Config doesn't.
const defaultTimeout = 10 * time.Second

// Config says which twwatch is asked, and how.
type Config struct {
	// URL is the base address of the other twwatch, as in
	// "http://host:10060". A path is kept, for a proxy that serves it there.
	URL string
	// HTTPConfigFile is a YAML file in the form that Prometheus uses for its
	// HTTP clients (tls_config, basic_auth, authorization, proxy_url, …); ""
	// is none. Paths in it are relative to it.
	HTTPConfigFile string
	// Interval is the time from one request for a report to the next; 0 asks
	// once. Of a stream it is the time until one that has ended is opened
	// again; 0 is 2 s.
	Interval time.Duration
	// Timeout bounds one request with its reply; 0 is 10 s, and 15 s for
	// sockets, which the other side has to look for first. A stream must begin
	// within it, and may then be silent for three times as long.
	Timeout time.Duration
}

// Check reports what is wrong with the configuration, without asking the
// other side.
func (c Config) Check() error {
	if _, err := c.endpoint(reportPath); err != nil {
		return err
	}
	_, err := c.client()
	return err
}

// endpoint returns the address of what the other twwatch has under that path.
func (c Config) endpoint(path string) (*url.URL, error) {
	wrong := func(format string, args ...any) (*url.URL, error) {
		return nil, fmt.Errorf("remote: source %s: %s", quote(c.URL), fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		if parse, ok := errors.AsType[*url.Error](err); ok { // repeats the address, and a password in it
			err = parse.Err
		}
		return nil, errors.New("remote: the source's address can't be read: " + oneLine(err.Error()) + ": want something like http://host:10060")
	}
	if u.User != nil {
		return nil, errors.New("remote: the source's address holds a user name: put credentials into --source.config.file, where no process list shows them")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return wrong("want an address that begins with http:// or https://")
	case u.Hostname() == "":
		return wrong("it names no host: want something like http://host:10060")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return wrong("want an address without ? and #")
	}
	for _, known := range []string{reportPath, socketsPath, streamPath} {
		if trimmed := strings.TrimRight(u.Path, "/"); strings.HasSuffix(trimmed, known) {
			u.Path, u.RawPath = strings.TrimSuffix(trimmed, known), ""
			break
		}
	}
	return u.JoinPath(path), nil
}

// client makes the HTTP client that the configuration file asks for.
func (c Config) client() (*http.Client, error) {
	settings := &promconfig.DefaultHTTPClientConfig
	if c.HTTPConfigFile != "" {
		loaded, _, err := promconfig.LoadHTTPConfigFile(c.HTTPConfigFile)
		if err != nil {
			return nil, fmt.Errorf("remote: --source.config.file %s: %s", quote(c.HTTPConfigFile), oneLine(err.Error()))
		}
		settings = loaded
	}
	client, err := promconfig.NewClientFromConfig(*settings, "twwatch_source", promconfig.WithUserAgent("twwatch"))
	if err != nil {
		return nil, fmt.Errorf("remote: --source.config.file %s: %s", quote(c.HTTPConfigFile), oneLine(err.Error()))
	}
	return client, nil
}
