package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/sysctl"
)

var update = flag.Bool("update", false, "write the expected output in the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"twwatch": main})
}

// The scripts run the program itself: flags, files, exit statuses, output.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":    statusCommand,
			"recording": recordingCommand,
			"cut":       cutCommand,
		},
	})
}

// status N runs a program and demands its exit status, which the script can't
// do by itself: `status 2 twwatch check`.
func statusCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [args...]")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// recording KIND FILE writes a recording.
func recordingCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: recording kind file")
	}
	var b bytes.Buffer
	reports, ok := recordings()[args[0]]
	if !ok {
		ts.Fatalf("no recording %q", args[0])
	}
	for _, r := range reports {
		ts.Check(snapshot.Encode(&b, r))
	}
	if filepath.Ext(args[1]) == ".gz" {
		plain := bytes.Clone(b.Bytes())
		b.Reset()
		z := gzip.NewWriter(&b)
		_, err := z.Write(plain)
		ts.Check(errors.Join(err, z.Close()))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b.Bytes(), 0o600))
}

// cut FILE BYTES takes so many bytes off the end.
func cutCommand(ts *testscript.TestScript, neg bool, args []string) {
	var n int64
	if _, err := fmt.Sscan(args[1], &n); err != nil || neg {
		ts.Fatalf("usage: cut file bytes")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}

// recordings are made by the model, so that they stay readable.
func recordings() map[string][]*snapshot.Report {
	at := func(second int, timeWait uint32) *snapshot.Report { return recorded(second, timeWait) }
	incomplete := at(0, 100)
	incomplete.Incomplete = []snapshot.Gap{{
		Stage: "counters", Namespace: "host", Error: "open /proc/thread-self/net/netstat: permission denied", Lost: "some counters", Fix: "mount proc",
	}}
	incompleteCritical := at(0, 28232)
	incompleteCritical.Incomplete = incomplete.Incomplete
	const evil = "evil\x1b[2J\n\u202e$(reboot)`id`"
	hostile := at(0, 28232)
	hostile.Host = evil
	ns := hostile.Namespaces[0]
	ns.Name, ns.Flows[0].Service, ns.Flows[0].Device = evil, evil, evil
	ns.Flows[0].Processes = []snapshot.Process{{PID: 1, Comm: evil, Share: 1}}
	hostile.Incomplete = []snapshot.Gap{{Stage: evil, Namespace: evil, Error: evil, Lost: evil, Fix: evil}}
	unlike := at(15, 100) // its verdict is not what its numbers say now
	unlike.Verdict = snapshot.Critical
	unlike.Findings = []snapshot.Finding{{
		ID: "of-another-version", Severity: snapshot.Critical, Namespace: "host", Summary: "A rule of another version was broken.",
	}}
	unjudged := at(0, 100)
	unjudged.Verdict = ""
	hostileSockets := at(0, 100)
	hostileSockets.Host = evil
	hostileSockets.Namespaces[0].Sockets = []snapshot.Socket{{State: evil, Local: evil, Remote: evil, Device: evil, Timer: evil, TimerSeconds: new(1.0)}}
	return map[string][]*snapshot.Report{
		"as-recorded":         {at(0, 28232), unlike},
		"unjudged":            {unjudged},
		"sampled":             {sampled(at(0, 28232), 3), at(15, 100)},
		"sampled-idle":        {sampled(at(0, 3), 3), sampled(at(15, 0), 0)},
		"sampled-none":        {sampled(at(0, 0), 0)},
		"sampled-all":         {sampled(at(0, 3), 3)},
		"sampled-hostile":     {hostileSockets},
		"healthy":             {at(0, 90), at(15, 100)},
		"warning":             {at(0, 100), at(15, 20000)},
		"critical":            {at(0, 100), at(15, 20000), at(30, 28232)},
		"recovered":           {at(0, 28232), at(15, 100)},
		"still":               {at(0, 28232), at(15, 28232)},
		"incomplete":          {incomplete},
		"incomplete-critical": {incompleteCritical},
		"hostile":             {hostile},
		"empty":               {},
	}
}

// recorded is a host with so many TIME_WAIT sockets to one redis.
func recorded(second int, timeWait uint32) *snapshot.Report {
	const ports = 28232
	start := time.Date(2026, 3, 1, 2, 59, 0, 0, time.UTC).Add(time.Duration(second) * time.Second)
	opened := make([]uint32, 60)
	for i := range opened {
		opened[i] = timeWait / 60
	}
	rate := float64(timeWait) / 60
	limit := 131072
	return &snapshot.Report{
		Schema: snapshot.Schema, Version: "0.1.0", Host: "web-1", Kernel: "6.12.9", BootID: "b", Time: start, Uptime: float64(1000 + second),
		TookSeconds: 0.003, Verdict: snapshot.Healthy,
		Namespaces: []*snapshot.Namespace{{
			Name: "host", Kind: "host", Inode: 4026531840, Source: "inet_diag", SampledAt: start,
			States:   snapshot.States{TimeWait: timeWait, Listen: 3},
			Limits:   sysctl.Limits{IPLocalPortRange: &sysctl.PortRange{Low: 32768, High: 60999}, TCPMaxTWBuckets: &limit},
			Counters: map[string]uint64{"TW": uint64(100000 + 300*second), "TCPTimeWaitOverflow": 0},
			TimeWait: snapshot.TimeWait{BucketsUsed: int(timeWait), BucketsLimit: &limit, OpenedPerSecond: opened, CloseRate: &rate, CloseRateBy: "timers"},
			Ports:    &snapshot.PortPool{Range: ports, BoundSeen: true},
			Flows: []snapshot.Flow{{
				Side: snapshot.Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379, Service: "redis", ServiceBy: "port",
				States: snapshot.States{TimeWait: timeWait}, CloseRate: &rate, OpenedPerSecond: opened,
				Ports: &snapshot.Ports{Range: ports, Used: int(timeWait), Free: ports - int(timeWait)},
			}},
		}},
	}
}

// sampled adds the first n of three sockets to a report.
func sampled(r *snapshot.Report, n int) *snapshot.Report {
	of := int(r.Namespaces[0].States.TimeWait)
	r.Namespaces[0].SocketsOf = &of
	r.Namespaces[0].Sockets = []snapshot.Socket{
		{State: "time_wait", Local: "10.0.0.5:40000", Remote: "10.0.0.9:6379", AgeSeconds: new(12.0), Timer: "time_wait", TimerSeconds: new(48.0)},
		{State: "close_wait", Local: "10.0.0.5:40002", Remote: "10.0.0.9:6379", AgeSeconds: new(600.0), RecvQ: 1, UID: new(uint32(33)), Inode: 4711, Cookie: 7},
		{State: "established", Local: "10.0.0.5:40004", Remote: "10.1.0.9:443", UID: new(uint32(33)), Inode: 4712, Cookie: 8},
	}[:n]
	return r
}

// A panic is one line and a status, not a trace over the operator's screen.
func TestPanicIsOneLine(t *testing.T) {
	e, _, stderr := testEnv(t)
	e.stdout = panicker{}
	if got := run(t.Context(), e, []string{"version"}); got != statusFailed {
		t.Errorf("status %d, want %d", got, statusFailed)
	}
	got := stderr.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `internal error: a\x1bb`) || !strings.Contains(got, "main_test.go:") || !strings.Contains(got, "please report") {
		t.Errorf("stderr: %q", got)
	}
}

type panicker struct{}

func (panicker) Write([]byte) (int, error) { panic("a\x1bb") }

// A full disk, or a pipe closed early, is told and has a status.
func TestWriteErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	var b bytes.Buffer
	if err := snapshot.Encode(&b, recorded(0, 100)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, output := range []string{"text", "json"} {
		e, _, stderr := testEnv(t)
		e.stdout = full{}
		if got := run(t.Context(), e, []string{"check", "--source=" + path, "--output=" + output}); got != statusFailed {
			t.Errorf("%s: status %d, want %d", output, got, statusFailed)
		}
		if got := stderr.String(); got != "twwatch: writing the report: no space left\n" {
			t.Errorf("%s: stderr: %q", output, got)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// An interrupted look says so, and has no report.
func TestInterrupted(t *testing.T) {
	e, stdout, stderr := testEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := run(ctx, e, []string{"check", "--for=10m"}); got != statusFailed {
		t.Errorf("status %d, want %d", got, statusFailed)
	}
	if stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}

// Colour is for terminals alone, and NO_COLOR forbids it there.
func TestColour(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	var b bytes.Buffer
	if err := snapshot.Encode(&b, recorded(0, 28232)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		terminal bool
		vars     map[string]string
		want     bool
	}{
		{true, nil, true},
		{false, nil, false},
		{true, map[string]string{"NO_COLOR": "1"}, false},
		{true, map[string]string{"TERM": "dumb"}, false},
	} {
		e, stdout, _ := testEnv(t)
		e.columns = func(io.Writer) (int, bool) { return 80, test.terminal }
		e.getenv = func(name string) string { return test.vars[name] }
		run(t.Context(), e, []string{"check", "--source=" + path})
		if got := strings.Contains(stdout.String(), "\x1b["); got != test.want {
			t.Errorf("terminal %v, %v: colour %v, want %v", test.terminal, test.vars, got, test.want)
		}
	}
}

// testEnv is a world without a terminal, with nothing set but what keeps serve
// from changing this process's own limits.
func testEnv(t *testing.T) (e env, stdout, stderr *output) {
	t.Helper()
	stdout, stderr = &output{}, &output{}
	return env{
		stdout: stdout, stderr: stderr,
		getenv: func(name string) string {
			return map[string]string{"GOMEMLIMIT": "off", "GOMAXPROCS": "2"}[name]
		},
		columns: func(io.Writer) (int, bool) { return 0, false },
		hangups: func() (<-chan os.Signal, func()) { return nil, func() {} },
	}, stdout, stderr
}

// An output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) Len() int { return len(o.String()) }
