//go:build linux

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// play is this test binary as another program. "outer X" goes into a private
// namespace and plays X there.
func play(role string) int {
	if inner, ok := strings.CutPrefix(role, "outer "); ok {
		must0(os.Setenv(roleEnv, inner))
		exit, err := InPrivateNamespace(context.Background(), nil, Stdio{Out: os.Stdout, Err: os.Stderr})
		if err != nil {
			fmt.Println(err)
		}
		return exit
	}
	if err := Prepare(); err != nil {
		fmt.Println(err)
		return 1
	}
	switch role {
	case "storm":
		return playStorm()
	case "wait":
		got := make(chan os.Signal, 1)
		signal.Notify(got, unix.SIGTERM, unix.SIGINT)
		fmt.Println("ready")
		fmt.Println("got", <-got)
		return 3
	case "killed":
		must0(unix.Kill(os.Getpid(), unix.SIGKILL))
	case "refused":
		return playRefused()
	}
	return 99
}

func must0(err error) {
	if err != nil {
		panic(err)
	}
}

func playStorm() int {
	ns, err := Here(Options{Sysctls: map[string]string{"net.ipv4.ip_local_port_range": "40000 40009", "net.ipv4.tcp_tw_reuse": "0"}})
	must0(err)
	s, err := ns.Listen(loopback(900), ListenOptions{})
	must0(err)
	r, err := ns.Run(context.Background(), Storm{Remotes: one(s), Count: 12})
	must0(err)
	n, err := ns.TimeWaits()
	must0(err)
	fmt.Println("uid", os.Getuid(), "inside", Inside(), "closed", r.Closed, "tw", n, "failed", r.Failed[unix.EADDRNOTAVAIL])
	must0(ns.Close())
	return 7
}

// playRefused forbids further namespaces in its own user namespace, and says
// what the two ways of making one answer.
func playRefused() int {
	must0(os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0))
	must0(os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0))
	_, err := New(Options{})
	fmt.Println(err)
	_, err = InPrivateNamespace(context.Background(), nil, Stdio{})
	fmt.Println(err)
	runtime.LockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := make([]unix.CapUserData, 2)
	must0(unix.Capset(&hdr, &none[0]))
	_, err = InPrivateNamespace(context.Background(), nil, Stdio{})
	fmt.Println(err)
	return 0
}

// as starts this test binary in a role, as a user without rights or as this
// one.
func as(t *testing.T, role string, unprivileged bool) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	if unprivileged && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	return cmd, bufio.NewReader(out)
}

// finish returns what the program printed and its exit status.
func finish(t *testing.T, cmd *exec.Cmd, out io.Reader) (string, int) {
	t.Helper()
	text, err := io.ReadAll(out)
	must(t, err)
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// privileges runs a test as root (if it is) and as a user without rights.
func privileges(t *testing.T, test func(t *testing.T, unprivileged bool)) {
	t.Run("with rights", func(t *testing.T) {
		Require(t, "netns")
		test(t, false)
	})
	t.Run("without rights", func(t *testing.T) {
		Require(t, "userns")
		test(t, true)
	})
}

func TestInPrivateNamespace(t *testing.T) {
	if Inside() {
		t.Fatal("the tests themselves claim to be inside")
	}
	privileges(t, func(t *testing.T, unprivileged bool) {
		cmd, out := as(t, "outer storm", unprivileged)
		text, exit := finish(t, cmd, out)
		must(t, equal("output", "uid 0 inside true closed 10 tw 10 failed 2\n", text), equal("exit", 7, exit))
	})
}

func TestInPrivateNamespaceForwardsSignals(t *testing.T) {
	privileges(t, func(t *testing.T, unprivileged bool) {
		cmd, out := as(t, "outer wait", unprivileged)
		line, err := out.ReadString('\n')
		must(t, err, equal("first", "ready\n", line), cmd.Process.Signal(unix.SIGTERM))
		text, exit := finish(t, cmd, out)
		must(t, equal("output", "got terminated\n", text), equal("exit", 3, exit))
	})
}

// The inner process holds the other end of the pipe: it ends with it.
func TestInPrivateNamespaceDiesWithItsParent(t *testing.T) {
	privileges(t, func(t *testing.T, unprivileged bool) {
		cmd, out := as(t, "outer wait", unprivileged)
		line, err := out.ReadString('\n')
		must(t, err, equal("first", "ready\n", line), cmd.Process.Kill())
		ended := make(chan string)
		go func() {
			text, _ := finish(t, cmd, out)
			ended <- text
		}()
		select {
		case text := <-ended:
			must(t, equal("output", "", text))
		case <-time.After(30 * time.Second):
			t.Fatal("it outlives its parent")
		}
	})
}

func TestInPrivateNamespaceEndsWithItsContext(t *testing.T) {
	Require(t, "netns")
	t.Setenv(roleEnv, "wait")
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = bufio.NewReader(r).ReadString('\n')
		cancel()
		_, _ = io.Copy(io.Discard, r)
	}()
	exit, err := InPrivateNamespace(ctx, nil, Stdio{Out: w})
	must(t, err, w.Close(), equal("exit", 3, exit))
	t.Setenv(roleEnv, "killed")
	exit, err = InPrivateNamespace(t.Context(), nil, Stdio{})
	must(t, err, equal("exit", 128+9, exit))
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	Require(t, "userns")
	cmd, out := as(t, "outer refused", true)
	text, exit := finish(t, cmd, out)
	must(t, equal("exit", 0, exit))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	want := []string{
		"lab: make a network namespace: no space left on device (no more namespaces allowed: see user.max_net_namespaces)",
		"lab: start a process in a network namespace: no space left on device (no more namespaces allowed: see user.max_net_namespaces)",
		"lab: start a process in a user and network namespace: no space left on device (user.max_user_namespaces=0 forbids user namespaces: run it with sudo)",
	}
	must(t, equal("lines", strings.Join(want, "\n"), strings.Join(lines, "\n")))
}

// Outside, nothing may be changed: the namespace may be the host's.
func TestOutsideIsRefused(t *testing.T) {
	self, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	for _, value := range []string{"", "1", self} {
		t.Setenv(marker, value)
		if Inside() {
			t.Errorf("%s=%q passes for inside", marker, value)
		}
		if err := Prepare(); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Prepare: %v", err)
		}
		if _, err := Here(Options{}); !errors.Is(err, ErrBadRequest) {
			t.Errorf("Here: %v", err)
		}
	}
}
