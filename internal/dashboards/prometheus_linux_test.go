package dashboards

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twwatch/twwatch/internal/lab"
)

// database is a real Prometheus, in a namespace of a test's.
type database struct {
	ns      *lab.Namespace
	client  *http.Client
	data    string // folder of its blocks
	started time.Time
}

const prometheusAddress = "127.0.0.1:9090"

// startPrometheus runs Prometheus with the rules of deploy/prometheus and with
// this part of a configuration. How often rules are evaluated, and for how long
// a condition must hold, is as many times faster as pace says.
func startPrometheus(t *testing.T, ns *lab.Namespace, path string, pace float64, global, scrapes string, flags ...string) *database {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"prometheus.yml": "global:\n" + global + "rule_files: [twwatch.rules.yml, twwatch.alerts.yml]\nscrape_configs:\n" + scrapes}
	for _, name := range []string{"twwatch.rules.yml", "twwatch.alerts.yml"} {
		files[name] = hasten(read(t, "deploy/prometheus/"+name), pace)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &database{ns: ns, client: clientIn(ns), data: filepath.Join(dir, "data"), started: time.Now()}
	args := append([]string{
		"--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + p.data,
		"--web.listen-address=" + prometheusAddress, "--log.level=warn",
	}, flags...)
	startIn(t, ns, exec.Command(path, args...))
	lab.Eventually(t, 2*time.Minute, func() error {
		_, err := p.get("/-/ready")
		return err
	})
	return p
}

// hasten lets rules be evaluated sooner, and alerts wait less. The ranges that
// they look at stay: a machine that is slow misses nothing.
func hasten(text string, pace float64) string {
	if pace == 1 {
		return text
	}
	times := regexp.MustCompile(`(for: |interval: )(\d+)(s|m|h)\b`)
	return times.ReplaceAllStringFunc(text, func(s string) string {
		m := times.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2])
		d := time.Duration(n) * map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[m[3]]
		return fmt.Sprintf("%s%dms", m[1], time.Duration(float64(d)/pace).Milliseconds())
	})
}

// startIn runs a program in the namespace until the test ends, or until stop,
// which gives what it wrote.
func startIn(t *testing.T, ns *lab.Namespace, cmd *exec.Cmd) (stop func() string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = sync.OnceValue(func() string {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		return out.String()
	})
	t.Cleanup(func() {
		if said := stop(); t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), said)
		}
	})
	return stop
}

// clientIn makes connections from within the namespace.
func clientIn(ns *lab.Namespace) *http.Client {
	return &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: 8,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			c, err := ns.Open(to, lab.ConnOptions{})
			if err != nil {
				return nil, err
			}
			defer c.Close()
			fd, err := syscall.Dup(c.FD())
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), address)
			defer f.Close()
			return net.FileConn(f)
		},
	}}
}

func fetch(client *http.Client, address string) ([]byte, error) {
	resp, err := client.Get(address)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", address, resp.Status, body)
	}
	return body, err
}

func (p *database) get(path string) ([]byte, error) {
	return fetch(p.client, "http://"+prometheusAddress+path)
}

// sample is one series of an answer, with its newest value.
type sample struct {
	labels map[string]string
	value  float64
	points int // of a range
}

// ask gives the answer to an expression: now, or with a span over so long in so
// many steps.
func (p *database) ask(expr string, span time.Duration, steps int) ([]sample, error) {
	q := url.Values{"query": {expr}}
	path := "/api/v1/query?"
	if span > 0 {
		now := time.Now()
		path = "/api/v1/query_range?"
		q.Set("start", strconv.FormatInt(now.Add(-span).Unix(), 10))
		q.Set("end", strconv.FormatInt(now.Unix(), 10))
		q.Set("step", fmt.Sprintf("%dms", (span/time.Duration(steps)).Milliseconds()))
	}
	body, err := p.get(path + q.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  []any
				Values [][]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	all := make([]sample, 0, len(answer.Data.Result))
	for _, r := range answer.Data.Result {
		s := sample{labels: r.Metric, points: len(r.Values)}
		if s.points > 0 {
			r.Value = r.Values[s.points-1]
		}
		if len(r.Value) != 2 {
			return nil, errors.New("a sample without a value")
		}
		text, _ := r.Value[1].(string)
		if s.value, err = strconv.ParseFloat(text, 64); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// one is the value of an expression with one series.
func (p *database) one(t *testing.T, expr string) float64 {
	t.Helper()
	answer, err := p.ask(expr, 0, 0)
	if err != nil || len(answer) != 1 {
		t.Fatalf("%s: %d series, %v", expr, len(answer), err)
	}
	return answer[0].value
}

// alert is one that Prometheus has raised.
type alert struct {
	State               string
	Labels, Annotations map[string]string
}

// alerts gives the firing alerts, and fails the test if a rule couldn't be
// evaluated.
func (p *database) alerts(t *testing.T) []alert {
	t.Helper()
	body, err := p.get("/api/v1/rules")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name, Health, LastError string
					Alerts                  []alert
				}
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	var firing []alert
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if r.Health == "err" {
				t.Errorf("the rule %s fails: %s", r.Name, r.LastError)
			}
			for _, a := range r.Alerts {
				if a.State == "firing" {
					firing = append(firing, a)
				}
			}
		}
	}
	return firing
}

// checkTexts holds an alert's texts to being filled in.
func checkTexts(t *testing.T, a alert) {
	t.Helper()
	for _, name := range []string{"summary", "description", "runbook_url"} {
		text := a.Annotations[name]
		if text == "" || regexp.MustCompile(`<no value>|<error|%!|\{\{| \(\)|NaN|Inf| ,`).MatchString(text) {
			t.Errorf("%s: %s: %q", a.Labels["alertname"], name, text)
		}
	}
	if u, err := url.Parse(a.Annotations["runbook_url"]); err != nil || u.Host == "" || strings.HasSuffix(u.Path, "/") {
		t.Errorf("%s: runbook_url %q: %v", a.Labels["alertname"], a.Annotations["runbook_url"], err)
	}
}
