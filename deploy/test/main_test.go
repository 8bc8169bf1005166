// Package test tests what is deployed: the systemd unit and the packages in a
// Debian that is booted, the image in a Docker engine, and the manifests. It
// needs root, what scripts/setup-deploy installs and what scripts/packages
// makes; scripts/test-deploy runs it. Nothing of it outlives a test, and what
// it starts has no network but loopback.
package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// root of the source tree.
const root = "../.."

func TestMain(m *testing.M) {
	flag.Parse()
	tools, err := filepath.Abs(root + "/.tools/bin")
	if err == nil {
		err = os.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// command runs a program to its end and returns what it wrote on stdout.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), err
}

// start starts a program in a process group of its own; done is closed when it
// has ended, with whatever status. If the tests are ended first, it gets a
// signal.
func start(t *testing.T, cmd *exec.Cmd, orphaned syscall.Signal) (done <-chan struct{}) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel takes the end of this thread for the parent's.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is ended by a signal
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return ended
}

// eventually polls until f returns nil, for a minute: this machine may be busy.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within a minute: %s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func version(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(read(t, root+"/VERSION"))
}

// program is the static twwatch of this machine that scripts/dist made.
func program(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(fmt.Sprintf("%s/dist/twwatch-%s.linux-amd64/twwatch", root, version(t)))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// contains complains unless a regular expression matches.
func contains(t *testing.T, what, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("%s doesn't match %q:\n%s", what, pattern, text)
	}
}
