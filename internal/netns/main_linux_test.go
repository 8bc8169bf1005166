package netns

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run in a PID and a mount namespace of their own, where they see
// their own processes only and may mount as they like. With roleEnv in its
// environment the test binary does what that says instead.
const (
	roleEnv     = "TWWATCH_NETNS_TEST_ROLE"
	roleInside  = "inside"
	outerProc   = "/run/outer-proc" // the procfs of the whole machine
	outerCgroup = "/sys/fs/cgroup"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	switch {
	case role == roleInside:
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case role != "":
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case strings.Contains(strings.Join(os.Args, " "), "-test.fuzz"):
		os.Exit(m.Run()) // the fuzzer has its own ways with processes
	}
	runtime.LockOSThread() // the death signal is sent when this thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+roleInside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		os.Exit(m.Run()) // what needs the namespaces skips
	}
	_ = cmd.Wait()
	os.Exit(cmd.ProcessState.ExitCode())
}

// prepare makes the mount namespace.
func prepare() error {
	mount := func(source, target, kind string, flags uintptr) error {
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", source, target, err)
		}
		return nil
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", 0); err != nil {
		return err
	}
	if err := os.Mkdir(outerProc, 0o755); err != nil {
		return err
	}
	if err := mount("/proc", outerProc, "", unix.MS_BIND|unix.MS_REC); err != nil {
		return err
	}
	return mount("proc", "/proc", "proc", 0)
}

// inside skips a test that isn't in the namespaces of its own.
func inside(t testing.TB) {
	t.Helper()
	if os.Getenv(roleEnv) != roleInside {
		skip(t, "netns", errors.New("a PID and a mount namespace can't be made"))
	}
}

// skip skips for want of an ability, unless TWWATCH_REQUIRE asks for it.
func skip(t testing.TB, ability string, why error) {
	t.Helper()
	for want := range strings.SplitSeq(os.Getenv("TWWATCH_REQUIRE"), ",") {
		if want == ability || want == "all" {
			t.Fatalf("%s is required by TWWATCH_REQUIRE: %v", ability, why)
		}
	}
	t.Skipf("needs %s: %v", ability, why)
}

// A child is a process of a test. It ends when its input ends.
type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	ended bool
}

func start(t testing.TB, cmd *exec.Cmd, flags uintptr) *child {
	t.Helper()
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= flags
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(c.end)
	return c
}

// inNamespace starts a process in a network namespace of its own.
func inNamespace(t testing.TB) *child {
	t.Helper()
	return start(t, exec.Command("cat"), unix.CLONE_NEWNET)
}

// inRole starts this binary in a role and waits for its first line.
func inRole(t testing.TB, role string, flags uintptr) (*child, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	c := start(t, cmd, flags)
	return c, c.line()
}

func (c *child) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%s says %q: %v", c.cmd, line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// end ends the process and waits until it is gone.
func (c *child) end() {
	if !c.ended {
		c.ended = true
		c.in.Close()
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

func (c *child) inode() uint64 {
	c.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", c.pid()), &st); err != nil {
		c.t.Fatal(err)
	}
	return st.Ino
}

// A witness is an open /proc/sys file of a namespace: the kernel's own word for
// whether it is dead. It doesn't keep it alive.
type witness struct{ file *os.File }

func (c *child) witness() witness {
	c.t.Helper()
	var w witness
	err := within(fmt.Sprintf("/proc/%d/ns/net", c.pid()), func() (err error) {
		w.file, err = os.Open("/proc/sys/net/ipv4/tcp_fin_timeout")
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { w.file.Close() })
	return w
}

func (w witness) died() bool {
	_, err := w.file.ReadAt(make([]byte, 16), 0)
	return errors.Is(err, unix.ENOENT)
}

func (w witness) wait(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if !w.died() {
			return errors.New("the namespace lives")
		}
		return nil
	})
}

// within runs a function in the namespace of a path. The thread dies with it.
func within(path string, f func() error) error {
	done := make(chan error, 1)
	apart(isMainThread, func() {
		defer close(done) // after a t.Fatal too
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	})
	return <-done
}

// eventually calls check until it returns nil.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func watch(t testing.TB, config Config) *Watcher {
	t.Helper()
	w, err := NewWatcher(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// refresh refuses a look that lacks anything.
func refresh(t testing.TB, w *Watcher) Changes {
	t.Helper()
	c, err := w.Refresh()
	if err := errors.Join(err, c.Gap); err != nil {
		t.Fatal(err)
	}
	return c
}

func find(t testing.TB, w *Watcher, inode uint64) *Namespace {
	t.Helper()
	var found *Namespace
	for _, n := range w.List() {
		if n.Inode == inode {
			if found != nil {
				t.Fatalf("net:[%d] is listed twice", inode)
			}
			found = n
		}
	}
	if found == nil {
		t.Fatalf("net:[%d] isn't listed", inode)
	}
	return found
}

// play does what a child is for.
func play(role string) error {
	name, arg, _ := strings.Cut(role, " ")
	switch name {
	case "storm":
		return storm(arg)
	case "look":
		return look()
	case "look-from-cgroup":
		// What is unshared is the thread's, and exec keeps just this thread.
		runtime.LockOSThread()
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWCGROUP), os.Setenv(roleEnv, "look")); err != nil {
			return err
		}
		return unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	return fmt.Errorf("no role %q", role)
}

// storm opens and closes connections over loopback until the input ends, or as
// many as asked for.
func storm(arg string) error {
	most, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	addr := &unix.SockaddrInet4{Port: 1000, Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(listener, addr), unix.Listen(listener, 8)); err != nil {
		return err
	}
	for n := 0; most == 0 || n < most; n++ {
		if n == 1 && most == 0 {
			fmt.Println("storming")
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin)
				os.Exit(0)
			}()
		}
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(client, addr)
		}
		if err != nil {
			return err
		}
		server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err := errors.Join(err, unix.Close(client), unix.Close(server)); err != nil {
			return err
		}
	}
	fmt.Println("done")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// A sight is what a Watcher with fewer rights tells of a look.
type sight struct {
	Denied     int
	Gap        string
	Permission bool // what is missing is a right
	List       []seen
}

type seen struct {
	Inode   uint64
	Kind    string
	Cgroup  string
	Trouble string
	Visit   string
	Pulse   string
}

// look looks once and tells it in one line.
func look() error {
	w, err := NewWatcher(Config{})
	if err != nil {
		return err
	}
	defer w.Close()
	c, err := w.Refresh()
	if err != nil {
		return err
	}
	text := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	s := sight{Denied: c.Denied, Gap: text(c.Gap), Permission: errors.Is(c.Gap, os.ErrPermission)}
	for _, n := range w.List() {
		_, pulse := w.Pulse(n)
		s.List = append(s.List, seen{n.Inode, n.Kind, n.Cgroup, text(n.Trouble), text(w.Visit(n, func() error { return nil })), text(pulse)})
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// lookAs runs a Watcher in a process of its own.
func lookAs(t *testing.T, role string, attr *syscall.SysProcAttr) sight {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.SysProcAttr = attr
	var s sight
	if err := json.Unmarshal([]byte(start(t, cmd, 0).line()), &s); err != nil {
		t.Fatal(err)
	}
	return s
}
