//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Ports below the range that the rows' connections came from.
const (
	servePort    = "127.0.0.1:998"
	exporterPort = "127.0.0.1:997"
)

// daemon is a program that serves HTTP in the table's namespace.
type daemon struct {
	cmd    *exec.Cmd
	client *http.Client
	url    string
	errOut bytes.Buffer
	ended  chan struct{}
}

// startDaemon starts a program and waits until it answers path.
func startDaemon(ctx context.Context, t *table, address, path, name string, args ...string) (*daemon, error) {
	d := &daemon{cmd: exec.CommandContext(ctx, name, args...), url: "http://" + address, ended: make(chan struct{})}
	d.cmd.Stderr = &d.errOut
	d.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxConnsPerHost: 1, // one connection, kept: the table stays as it is
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = t.ns.Do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	if err := t.ns.Do(d.cmd.Start); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait() // it is ended by a signal
		close(d.ended)
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := d.get(ctx, path)
		if err == nil {
			return d, nil
		}
		select {
		case <-d.ended:
			return nil, fmt.Errorf("%s ended: %s", name, bytes.TrimSpace(d.errOut.Bytes()))
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			d.stop()
			return nil, fmt.Errorf("%s doesn't answer: %w: %s", name, err, bytes.TrimSpace(d.errOut.Bytes()))
		}
	}
}

func (d *daemon) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// cpu is what the daemon has used so far.
func (d *daemon) cpu() time.Duration { return time.Duration(cpuOf(d.cmd.Process.Pid)) }

func (d *daemon) stop() {
	d.client.CloseIdleConnections()
	_ = d.cmd.Process.Signal(unix.SIGTERM) // it may have ended
	select {
	case <-d.ended:
	case <-time.After(10 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
}

// exporter is node_exporter with nothing but tcpstat.
type exporter struct{ *daemon }

func startExporter(ctx context.Context, t *table, name string) (exporter, error) {
	d, err := startDaemon(ctx, t, exporterPort, "/metrics", name, "--web.listen-address="+exporterPort,
		"--collector.disable-defaults", "--collector.tcpstat", "--web.disable-exporter-metrics")
	return exporter{d}, err
}

// scrape is what one scrape costs it.
func (e exporter) scrape(ctx context.Context) (time.Duration, error) {
	before := e.cpu()
	body, err := e.get(ctx, "/metrics")
	if err == nil && !bytes.Contains(body, []byte(`node_tcp_connection_states{state="time_wait"}`)) {
		err = errors.New("node_exporter's tcpstat shows no TIME_WAIT")
	}
	return e.cpu() - before, err
}

// memoryResult is what `twwatch serve` holds after a few passes and many
// scrapes.
type memoryResult struct {
	rows, remotes    int
	passes, scrapes  int
	peakKiB, nowKiB  int // VmHWM and VmRSS
	heavy            int // remotes that hold share of the sockets each
	share            int // sockets
	found            int // of these, reported
	exact            int // of these, with their exact number
	missed, greatest int // most sockets that a report missed, and most that it said may be missed
	flows            int
}

// servePasses is how many passes serve makes before its memory is read.
const servePasses = 4

func (r *results) measureMemory(ctx context.Context, t *table) (*memoryResult, error) {
	if err := t.ready(ctx, 40*time.Second); err != nil {
		return nil, err
	}
	d, err := startDaemon(ctx, t, servePort, "/-/healthy", r.twwatch, "serve", "--web.listen-address="+servePort,
		"--interval="+r.interval.String(), "--cpu-budget=1", "--log.level=warn")
	if err != nil {
		return nil, err
	}
	defer d.stop()
	m := &memoryResult{rows: t.rows, remotes: t.rows - len(t.heavy)*(t.rows/1000) + len(t.heavy), heavy: len(t.heavy), share: t.rows / 1000}
	deadline := time.Now().Add(35 * time.Second)
	var last *snapshot.Report
	for m.passes < servePasses {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("serve made %d passes in 35 s: %s", m.passes, bytes.TrimSpace(d.errOut.Bytes()))
		}
		time.Sleep(r.interval / 5)
		if _, err := d.get(ctx, "/metrics"); err != nil {
			return nil, err
		}
		m.scrapes++
		body, err := d.get(ctx, "/api/v1/report")
		if err != nil {
			continue // no pass yet
		}
		report, err := snapshot.Decode(body)
		if err != nil {
			return nil, err
		}
		if last == nil || report.Time != last.Time {
			m.passes, last = m.passes+1, report
		}
	}
	n := last.Namespaces[0]
	if int(n.States.TimeWait) != t.there {
		return nil, fmt.Errorf("serve reports %d TIME_WAITs of %d", n.States.TimeWait, t.there)
	}
	m.findHeavy(t, n)
	m.peakKiB, m.nowKiB, err = resident(d.cmd.Process.Pid)
	return m, err
}

// findHeavy looks for the heavy remotes among the report's flows.
func (m *memoryResult) findHeavy(t *table, n *snapshot.Namespace) {
	m.flows = len(n.Flows)
	flows := map[string]*snapshot.Flow{}
	for i := range n.Flows {
		flows[n.Flows[i].Remote] = &n.Flows[i]
	}
	for _, a := range t.heavy {
		f := flows[a.String()]
		if f == nil {
			continue
		}
		missed := m.share - int(f.States.TimeWait)
		if missed < 0 || missed > int(f.MissedAtMost) {
			continue // a wrong number isn't a report
		}
		m.found++
		if missed == 0 {
			m.exact++
		}
		m.missed, m.greatest = max(m.missed, missed), max(m.greatest, int(f.MissedAtMost))
	}
}

// resident is VmHWM and VmRSS of a process, in KiB.
func resident(pid int) (peak, now int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak) // another line
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &now)
	}
	if peak == 0 || now == 0 {
		return 0, 0, errors.New("the process has no resident memory")
	}
	return peak, now, nil
}
