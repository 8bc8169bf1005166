package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// debian makes a copy of the small Debian, removed at the test's end.
func debian(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "debian")
	command(t, "cp", "-a", "--reflink=auto", root+"/.tools/debian", dir)
	return dir
}

// A machine is a Debian with its own systemd as process 1 and a network of its
// own, which has loopback only.
type machine struct {
	t      *testing.T
	root   string
	leader int // its process 1, as this machine numbers it
}

// boot starts a machine and waits until it is up. It is switched off at the
// test's end. Two at a time would share control groups, so tests that boot are
// not parallel.
func boot(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: debian(t)}
	console := filepath.Join(t.TempDir(), "console")
	out, err := os.Create(console)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("systemd-nspawn", "--quiet", "--directory="+m.root, "--boot", "--register=no", "--keep-unit",
		"--private-network", "--console=pipe", "--machine="+strings.ToLower(t.Name()))
	cmd.Stdout, cmd.Stderr = out, out
	done := start(t, cmd, syscall.SIGKILL)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s\njournal:\n%s", tail(read(t, console)), tail(m.output("journalctl", "--no-pager", "-u", "twwatch*")))
		}
		_, _ = m.in(context.Background(), "systemctl", "poweroff", "--force") // ends it with its own connection
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the machine can't be switched off")
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done
		}
	})
	eventually(t, "the machine is up", func() error {
		// Its process 1 is a child, but not the first one.
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return err
		}
		if m.leader, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
			return err
		}
		out, err := m.in(t.Context(), "systemctl", "is-system-running")
		if state := strings.TrimSpace(out); state == "running" || strings.HasPrefix(state, "degraded") {
			return nil
		}
		return errors.Join(errors.New(out), err)
	})
	return m
}

func tail(text string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// in runs a program in the machine and returns its stdout.
func (m *machine) in(ctx context.Context, name string, args ...string) (string, error) {
	enter := []string{
		"--target", strconv.Itoa(m.leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--", "env", "-i",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive", name,
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return try(ctx, "nsenter", append(enter, args...)...)
}

func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.in(m.t.Context(), name, args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// output is what a program writes, whatever its exit status.
func (m *machine) output(name string, args ...string) string {
	out, _ := m.in(context.Background(), name, args...)
	return strings.TrimSpace(out)
}

// property of a unit, as systemctl show names it.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property="+name, unit)
}

// awaitProperty waits until a property of twwatch.service has that value.
func (m *machine) awaitProperty(name, want string) {
	m.t.Helper()
	eventually(m.t, name+" is "+want, func() error {
		if got := m.property("twwatch.service", name); got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// path is where this machine sees a file of that one.
func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// get asks a server on the machine's loopback.
func (m *machine) get(url string, edit ...func(*http.Request)) (status int, body string, err error) {
	client := &http.Client{
		Transport: &http.Transport{DialContext: m.dial, DisableKeepAlives: true},
		Timeout:   20 * time.Second,
	}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	for _, f := range edit {
		f(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// dial connects in the machine's network. The thread stays there, so it is
// ended.
func (m *machine) dial(ctx context.Context, _, address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		conn, err := func() (net.Conn, error) {
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.leader))
			if err != nil {
				return nil, err
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, err
			}
			// One address, so that the dialer makes no other goroutine.
			return (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, "tcp4", address)
		}()
		answers <- answer{conn, err}
	}()
	a := <-answers
	return a.conn, a.err
}

// awaitMetrics waits until the daemon answers with figures.
func (m *machine) awaitMetrics() string {
	m.t.Helper()
	var text string
	eventually(m.t, "/metrics has figures", func() error {
		status, body, err := m.get("http://127.0.0.1:10060/metrics")
		if err == nil && (status != http.StatusOK || !strings.Contains(body, "\ntwwatch_sockets{")) {
			err = fmt.Errorf("status %d:\n%s", status, tail(body))
		}
		text = body
		return err
	})
	return text
}
