package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A serving is serve under way in this process.
type serving struct {
	t       *testing.T
	url     string
	stderr  *output
	hangups chan os.Signal
	stop    context.CancelFunc
	status  chan int
}

// startServe serves a recording on loopback, so that no kernel is needed.
func startServe(t *testing.T, args ...string) *serving {
	t.Helper()
	e, _, stderr := testEnv(t)
	d := &serving{t: t, stderr: stderr, hangups: make(chan os.Signal), status: make(chan int, 1)}
	e.hangups = func() (<-chan os.Signal, func()) { return d.hangups, func() {} }
	ctx, stop := context.WithCancel(t.Context())
	d.stop = stop
	go func() {
		d.status <- run(ctx, e, append([]string{"serve", "--web.listen-address=127.0.0.1:0"}, args...))
	}()
	t.Cleanup(stop)
	address := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
	d.wait("it listens", func() bool {
		m := address.FindStringSubmatch(stderr.String())
		if m != nil {
			d.url = "http://" + m[1]
		}
		return m != nil
	})
	return d
}

// wait polls until something holds, for ten seconds.
func (d *serving) wait(what string, holds func() bool) {
	d.t.Helper()
	poll(d.t, what, holds, d.stderr.String)
}

func poll(t *testing.T, what string, holds func() bool, log func() string) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("not within 10 s: %s; log:\n%s", what, log())
		case <-tick.C:
		}
	}
}

func (d *serving) get(path string) (status int, body string) {
	d.t.Helper()
	reply, err := http.Get(d.url + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return reply.StatusCode, string(b)
}

// end stops it as SIGTERM does.
func (d *serving) end() {
	d.t.Helper()
	d.stop()
	if got := <-d.status; got != statusHealthy {
		d.t.Errorf("status %d, want 0; log:\n%s", got, d.stderr)
	}
}

func writeRecording(t *testing.T, reports ...*snapshot.Report) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "r.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range reports {
		if err := snapshot.Encode(f, r); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestServe(t *testing.T) {
	d := startServe(t, "--source="+writeRecording(t, recorded(0, 100), recorded(15, 28232)))
	d.wait("it is ready", func() bool { status, _ := d.get("/-/ready"); return status == 200 })
	for path, want := range map[string]string{
		"/":               "twwatch",
		"/-/healthy":      "healthy",
		"/metrics":        "twwatch_ephemeral_ports_used_ratio_max{netns=\"host\"} 1\n",
		"/api/v1/report":  `"id":"ephemeral-ports-exhausted"`,
		"/api/v1/sockets": `{"error":"the recording holds no single sockets: record with --sockets=N"}`,
	} {
		d.wait(path+" says "+want, func() bool { _, body := d.get(path); return strings.Contains(body, want) })
	}
	// Another twwatch reads it as a source.
	e, stdout, stderr := testEnv(t)
	if got := run(t.Context(), e, []string{"check", "--source=" + d.url}); got != statusCritical || !strings.HasPrefix(stdout.String(), "CRITICAL: A client at 10.0.0.5 opens a new connection") {
		t.Errorf("status %d, stdout %s, stderr %s", got, stdout, stderr)
	}
	d.end()
}

// Reports come and go, and the program itself is no reader that lags.
func TestServeGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := startServe(t, "--source="+path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 12 {
		r := recorded(15*i, 100)
		if err := snapshot.Encode(f, r); err != nil {
			t.Fatal(err)
		}
		d.wait("the report is shown", func() bool {
			_, body := d.get("/api/v1/report")
			return strings.Contains(body, r.Time.Format(time.RFC3339))
		})
	}
	if log := d.stderr.String(); strings.Contains(log, "level=WARN") {
		t.Errorf("log:\n%s", log)
	}
	d.end()
}

// A request under way when SIGTERM comes is answered before anything ends.
func TestShutdownAnswersWhatWasAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		_, _ = io.WriteString(w, "whole")
	})}
	go func() { _ = h.Serve(l) }()
	replies := make(chan string, 1)
	go func() {
		reply, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			replies <- err.Error()
			return
		}
		defer reply.Body.Close()
		b, err := io.ReadAll(reply.Body)
		replies <- fmt.Sprintf("%s %v", b, err)
	}()
	<-asked
	s := &server{logger: slog.New(slog.DiscardHandler), http: []*http.Server{h}, stopping: make(chan struct{})}
	passes, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { s.shutdown(cancel); close(stopped) }()
	poll(t, "no new connection is taken", func() bool {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, func() string { return "" })
	if passes.Err() != nil {
		t.Error("the passes ended before the requests")
	}
	close(answer)
	if got := <-replies; got != "whole <nil>" {
		t.Errorf("reply %q", got)
	}
	<-stopped
	if passes.Err() == nil {
		t.Error("the passes go on")
	}
}

func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "twwatch.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log.level: info\n")
	d := startServe(t, "--source="+writeRecording(t, recorded(0, 100)), "--config.file="+file)
	metric := func(name string) string {
		_, body := d.get("/metrics")
		return regexp.MustCompile(`(?m)^` + name + ` (.*)$`).FindString(body)
	}
	const ok = "twwatch_config_last_reload_successful"
	began := metric("twwatch_config_last_reload_success_timestamp_seconds")
	if got := metric(ok); got != ok+" 1" {
		t.Errorf("at the start: %q", got)
	}

	write("log.level: loud\n")
	d.hangups <- syscall.SIGHUP
	d.wait("the fault is told", func() bool {
		return strings.Contains(d.stderr.String(), `msg="Reloading failed, the old configuration stays" err="`+file+`:1: log.level: \"loud\": want debug, info, warn or error"`)
	})
	if got := metric(ok); got != ok+" 0" {
		t.Errorf("after a fault: %q", got)
	}
	if got := metric("twwatch_config_last_reload_success_timestamp_seconds"); got != began {
		t.Errorf("the time of the last success moved from %q to %q", began, got)
	}

	write("log.level: debug\ninterval: 20s\nthresholds: {ports_slow_ratio: 0.9, ports_running_out_ratio: 0.95}\n")
	d.hangups <- syscall.SIGHUP
	d.wait("the reload is told", func() bool {
		return strings.Contains(d.stderr.String(), `msg="Reloaded; a restart is needed for interval"`)
	})
	if got := metric(ok); got != ok+" 1" {
		t.Errorf("after the reload: %q", got)
	}
	d.end()
}

// The next report is judged by the thresholds that the file has now.
func TestReloadThresholds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "twwatch.yaml")
	if err := os.WriteFile(file, []byte("thresholds: {ports_slow_ratio: 0.6}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, _, _ := testEnv(t)
	inv, err := parse(e, []string{"serve", "--config.file=" + file})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{env: e, logger: slog.New(slog.DiscardHandler), level: promslog.NewLevel(), judge: newJudge(inv.cfg.thresholds, nil)}
	r := newReloader(s, inv.cfg)
	for _, want := range []float64{0.6, 0.9} {
		if got := s.judge.thresholds.Load().All()["ports_slow_ratio"]; got != want {
			t.Errorf("ports_slow_ratio %v, want %v", got, want)
		}
		if err := os.WriteFile(file, []byte("thresholds: {ports_slow_ratio: 0.9, ports_running_out_ratio: 0.95}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.reload()
	}
}

// The port in use is told in one line, before anything else is done.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for address, want := range map[string]string{
		l.Addr().String(): "address already in use: another program (a second twwatch?) listens there: stop it (ss -ltnp 'sport = :" + port + "' names it), or give another address",
		"198.51.100.7:0":  "this host has no such address",
		"nonsense":        "want host:port or :port, such as :10060",
	} {
		e, _, stderr := testEnv(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if got := run(ctx, e, []string{"serve", "--web.listen-address=" + address}); got != statusFailed {
			t.Errorf("%s: status %d, want %d", address, got, statusFailed)
		}
		if got := stderr.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "twwatch: --web.listen-address: "+address+": ") || !strings.Contains(got, want) {
			t.Errorf("%s: stderr %q", address, got)
		}
	}
}

// The program itself, with real signals, and systemd told of each step.
func TestServeUnderSystemd(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	said := make(chan string, 100)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			if err != nil {
				return
			}
			said <- string(b[:n])
		}
	}()
	expect := func(want string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case got := <-said:
				if strings.HasPrefix(got, want) {
					return
				}
				if got != "WATCHDOG=1" {
					t.Fatalf("systemd was told %q, want %q", got, want)
				}
			case <-deadline:
				t.Fatalf("systemd was not told %q within 10 s", want)
			}
		}
	}
	config := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(config, []byte("log: {level: info}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("twwatch", "serve", "--web.listen-address=127.0.0.1:0", "--source="+writeRecording(t, recorded(0, 100)), "--config.file="+config)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=20000")
	log := &output{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // already gone, as a rule
	expect("READY=1")
	expect("WATCHDOG=1")
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); err == nil && !strings.Contains(string(status), "Seccomp:\t2\n") {
		t.Errorf("it can still start programs:\n%s", status)
	}
	signal := func(s os.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGHUP)
	expect("RELOADING=1\nMONOTONIC_USEC=")
	expect("READY=1")
	signal(syscall.SIGTERM)
	expect("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v; log:\n%s", err, log)
	}
	if !strings.Contains(log.String(), "msg=Reloaded") {
		t.Errorf("log: %s", log)
	}
}

// The live kernel, end to end: what serve shows, check and sockets can show.
func TestLive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	e, stdout, stderr := testEnv(t)
	status := run(t.Context(), e, []string{"sockets", "--state=LISTEN", fmt.Sprintf("--port=%d", port)})
	if status == statusFailed && strings.Contains(stderr.String(), "not supported") {
		t.Skip("this kernel or system shows no sockets: " + stderr.String())
	}
	if status != statusHealthy || !strings.Contains(stdout.String(), fmt.Sprintf("127.0.0.1:%d", port)) {
		t.Errorf("status %d, stdout %s, stderr %s", status, stdout, stderr)
	}
	path := filepath.Join(t.TempDir(), "live.jsonl.gz")
	for range 2 { // the second time the file is there
		e, _, stderr = testEnv(t)
		status = run(t.Context(), e, []string{"record", "--count=1", "--redact", path})
		if status == statusFailed {
			break
		}
	}
	if !strings.Contains(stderr.String(), "a recording is never overwritten") {
		t.Errorf("recording twice: status %d, stderr %s", status, stderr)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("recording: %v, %v", info, err)
	}
	e, stdout, stderr = testEnv(t)
	if status := run(t.Context(), e, []string{"check", "--source=" + path, "--output=json"}); status == statusFailed && stdout.Len() == 0 {
		t.Errorf("reading it: %s", stderr)
	}
	e, stdout, stderr = testEnv(t)
	run(t.Context(), e, []string{"check", "--for=0"})
	if _, unjudged, _ := strings.Cut(stdout.String(), "Not judged, for want of evidence: "); !strings.Contains(unjudged, "time-wait-buckets-overflow") {
		t.Errorf("a single pass: stdout %s, stderr %s", stdout, stderr)
	}
}
