package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// marker is the environment variable that tells a process that it was started
// in a private namespace. Its value is the namespace it was started from, so
// that a stray variable can't pass the host's namespace off as private.
const marker = "TWWATCH_OUTER_NETNS"

// grace is how long a process has to end after SIGTERM.
const grace = 5 * time.Second

// Inside reports whether InPrivateNamespace started this process, and in a
// namespace other than its parent's.
func Inside() bool {
	outer := os.Getenv(marker)
	self, err := os.Readlink("/proc/self/ns/net")
	return err == nil && strings.HasPrefix(outer, "net:[") && outer != self
}

// InPrivateNamespace starts this program again with args, in a network
// namespace of its own, and waits for it. Without CAP_SYS_ADMIN the new process
// gets a user namespace too, in which it is root; the program's own files and
// rights stay those of the user. The new process must call Prepare first.
//
// Signals that end or reload a program are passed on; when ctx ends the process
// gets SIGTERM, and 5 s later SIGKILL; it dies with its parent. exit is its exit
// status (128 + signal if a signal ended it). err is an *Error if it could not
// be started, and then exit is -1.
func InPrivateNamespace(ctx context.Context, args []string, stdio Stdio) (exit int, err error) {
	outer, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return -1, &Error{"read this process's namespace", bare(err), "is /proc mounted?"}
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"="+outer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.In, stdio.Out, stdio.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = grace
	cmd.SysProcAttr = privateNamespace(os.Getuid(), os.Getgid(), mayUnshare())

	// The kernel sends the death signal when the *thread* that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return -1, startFailed(err, cmd.SysProcAttr)
	}
	ended := make(chan struct{})
	defer close(ended)
	go forward(signals, cmd.Process, ended)

	err = cmd.Wait()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	case status.Exited():
		return status.ExitStatus(), nil
	}
	return -1, &Error{"wait for the process", err, ""}
}

func privateNamespace(uid, gid int, privileged bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if !privileged {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return attr
}

// mayUnshare: this thread has CAP_SYS_ADMIN.
func mayUnshare() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

func startFailed(err error, attr *syscall.SysProcAttr) error {
	cause := bare(err)
	if attr.Cloneflags&unix.CLONE_NEWUSER == 0 {
		return &Error{"start a process in a network namespace", cause, explainUnshare(cause)}
	}
	return &Error{"start a process in a user and network namespace", cause, explainUserns(cause)}
}

// forward passes signals on. What the terminal's keys send reaches the whole
// foreground group, the new process with it: passing that on would double it.
func forward(signals <-chan os.Signal, p *os.Process, ended <-chan struct{}) {
	for {
		select {
		case sig := <-signals:
			if (sig == unix.SIGINT || sig == unix.SIGQUIT) && foreground() {
				continue
			}
			_ = p.Signal(sig)
		case <-ended:
			return
		}
	}
}

// foreground: this process is in its terminal's foreground group.
func foreground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer func() { _ = tty.Close() }()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// Prepare makes the private namespace of a process that InPrivateNamespace
// started fit for a storm: loopback up, and the settings that a storm changes
// shown to be writable. Some distributions let the namespace be made and refuse
// this; the *Error says which step failed and what to do.
func Prepare() error {
	if !Inside() {
		return &Error{"prepare the private namespace", ErrBadRequest, "this process was not started in one"}
	}
	// A second thread of this process would do: all are in the namespace.
	if err := loopbackUp(); err != nil {
		return err
	}
	for _, name := range []string{"net.ipv4.ip_local_port_range", "net.ipv4.tcp_max_tw_buckets"} {
		value, err := os.ReadFile(sysctlPath(name))
		if err != nil {
			return &Error{"read " + name, bare(err), explainSysctl(err)}
		}
		if err := writeSysctl(name, strings.TrimSpace(string(value))); err != nil {
			return err
		}
	}
	return nil
}

// userNamespaces probes whether a user without rights can make a user and
// network namespace, with util-linux's programs: a probe by this process's own
// threads would leave it undumpable.
func userNamespaces(ctx context.Context) error {
	args := []string{"unshare", "--user", "--map-root-user", "--net", "true"}
	if os.Geteuid() == 0 {
		args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, args...)
	}
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return &Error{strings.Join(args, " "), errors.Join(err, errors.New(strings.TrimSpace(string(out)))), explainUserns(unix.EPERM)}
	}
	return nil
}
