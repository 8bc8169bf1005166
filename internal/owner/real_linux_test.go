package owner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// play is what the test binary does in a role.
func play(what string) error {
	words := strings.Fields(what)
	switch words[0] {
	case "hold": // open sockets when told to, print their inodes, wait
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		fmt.Println("ready")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return err
		}
		inodes, err := openSockets(n)
		if err != nil {
			return err
		}
		fmt.Println(inodes[0])
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "look": // look for sockets without any right, print what was found
		mine, err := openSockets(1)
		if err != nil {
			return err
		}
		other, err := strconv.ParseUint(words[1], 10, 32)
		if err != nil {
			return err
		}
		return look(mine[0], uint32(other), words[2])
	}
	return fmt.Errorf("unknown role %q", what)
}

// openSockets opens TCP sockets that stay open until the process ends.
func openSockets(n int) ([]uint32, error) {
	var inodes []uint32
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		inode, err := inodeOf(fd)
		if err != nil {
			return nil, err
		}
		inodes = append(inodes, inode)
	}
	return inodes, nil
}

func inodeOf(fd int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return uint32(st.Ino), err
}

// A sight is what an unprivileged process has seen.
type sight struct {
	Mine, Other int // pids, 0 if not found
	Report      Report
	Gap         string
	Permission  bool
	Same        bool // the gap is the same in each call
	Pass        int
	Used, Limit int // of the other's descriptors
	Err         string
}

func look(mine, other uint32, otherPID string) error {
	f := New(Config{})
	var s sight
	for s.Pass = range 1000 {
		_, r := f.Find(context.Background(), want(mine, other), nil)
		s.Same = s.Pass == 0 || s.Gap == fmt.Sprint(r.Gap)
		s.Report, s.Gap, s.Permission = r, fmt.Sprint(r.Gap), errors.Is(r.Gap, fs.ErrPermission)
		if r.Complete {
			break
		}
	}
	s.Report.Gap = nil
	if p, ok := f.Owner(mine); ok {
		s.Mine = p.PID
	}
	if p, ok := f.Owner(other); ok {
		s.Other = p.PID
	}
	pid, _ := strconv.Atoi(otherPID)
	var err error
	s.Used, s.Limit, err = f.Descriptors(pid, 0)
	s.Err = fmt.Sprint(err)
	s.Pass = os.Getpid()
	return json.NewEncoder(os.Stdout).Encode(s)
}

// hold starts a process that opens sockets once prepared, and returns the
// inode of one.
func hold(t *testing.T, n int, prepare func(pid int)) (*exec.Cmd, uint32) {
	t.Helper()
	cmd := myself(fmt.Sprintf("hold %d", n))
	c, _ := start(t, cmd)
	prepare(cmd.Process.Pid)
	if _, err := c.in.Write([]byte{'\n'}); err != nil {
		t.Fatal(err)
	}
	if !c.out.Scan() {
		t.Fatal("the holder says nothing")
	}
	inode, err := strconv.ParseUint(c.out.Text(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, uint32(inode)
}

func TestRealProcess(t *testing.T) {
	cmd, inode := hold(t, 3, func(int) {})
	f := New(Config{})
	r := findReal(t, f, want(inode))
	if r.Gap != nil {
		t.Errorf("report %+v", r)
	}
	pid := cmd.Process.Pid
	got, ok := f.Owner(inode)
	if !ok {
		t.Fatalf("no owner: %+v", r)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), ":"+got.Cgroup+"\n") {
		t.Errorf("cgroup %q is none of %q", got.Cgroup, text)
	}
	if got.Start == 0 || !strings.HasPrefix(got.Version, "1.") {
		t.Errorf("process %+v", got)
	}
	if diff := cmp.Diff(&Process{
		PID: pid, Start: got.Start, Comm: strings.TrimSuffix(string(comm), "\n"), Exe: exe, Cgroup: got.Cgroup,
		Title: "/proc/self/exe", GoBuild: "github.com/twwatch/twwatch", Version: got.Version,
	}, got); diff != "" {
		t.Errorf("process (-want +got):\n%s", diff)
	}

	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	used, most, err := f.Descriptors(pid, got.Start)
	if used != len(fds) || uint64(most) != limit.Cur || err != nil {
		t.Errorf("%d of %d descriptors, %v; want %d of %d", used, most, err, len(fds), limit.Cur)
	}
	if _, _, err = f.Descriptors(pid, got.Start+1); !errors.Is(err, ErrGone) {
		t.Errorf("descriptors of another process: %v, want ErrGone", err)
	}
}

// findReal calls Find until it has looked everywhere: other tests' processes
// come and go meanwhile.
func findReal(t *testing.T, f *Finder, wanted []Want, hints ...int) Report {
	t.Helper()
	for range 100 {
		if r := find(t, f, wanted, hints...); r.Complete {
			return r
		}
	}
	t.Fatal("not complete after 100 calls")
	return Report{}
}

// A shell and its subshell hold one socket at the same descriptor.
func TestRealFork(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), "socket")
	inode, err := inodeOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `exec 4<&0; (read x <&4) & echo $!; wait`)
	cmd.ExtraFiles = []*os.File{socket}
	_, line := start(t, cmd)
	socket.Close()
	worker, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	f := New(Config{})
	findReal(t, f, want(inode), worker)
	if p, ok := f.Owner(inode); !ok || p.PID != cmd.Process.Pid {
		t.Errorf("owner %+v, want the shell %d, which is above %d", p, cmd.Process.Pid, worker)
	}
}

// The cgroup of a socket leads to its process, past all others.
func TestRealCgroup(t *testing.T) {
	f := New(Config{})
	root := f.cgroupRoot()
	if root == "" {
		skip(t, "cgroup2", errors.New("cgroup v2 is not mounted"))
	}
	dir := filepath.Join(root, "twwatch-owner-test")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		skip(t, "cgroup2", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) }) // after its process has ended: cleanups run last first
	cmd, inode := hold(t, 1, func(pid int) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			skip(t, "cgroup2", err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	r := find(t, f, []Want{{Inode: inode, Cgroup: st.Ino}})
	if !r.Complete || r.ProcessesSeen != 1 {
		t.Errorf("report %+v, want one process to be read", r)
	}
	p, ok := f.Owner(inode)
	if !ok || p.PID != cmd.Process.Pid || p.Cgroup != "/twwatch-owner-test" {
		t.Errorf("owner %+v, want %d", p, cmd.Process.Pid)
	}
}

// Without any right one's own sockets are found, and the rest is said.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "root", errors.New("to become another user"))
	}
	holder, inode := hold(t, 1, func(int) {})
	cmd := myself(fmt.Sprintf("look %d %d", inode, holder.Process.Pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	_, line := start(t, cmd)
	var s sight
	if err := json.Unmarshal([]byte(line), &s); err != nil {
		t.Fatal(err)
	}
	if s.Mine != cmd.Process.Pid || s.Other != 0 {
		t.Errorf("found processes %d and %d, want only its own %d", s.Mine, s.Other, cmd.Process.Pid)
	}
	if s.Report.Denied == 0 || s.Report.Failed != 1 || !s.Report.Complete {
		t.Errorf("report %+v", s.Report)
	}
	if !s.Permission || !s.Same {
		t.Errorf("gap %q, want a refusal, the same each time", s.Gap)
	}
	// The limit needs no right; the number of descriptors none since Linux 6.2.
	if s.Err == "<nil>" && (s.Used == 0 || s.Limit == 0) {
		t.Errorf("%d of %d descriptors", s.Used, s.Limit)
	}
	t.Logf("%+v, %s; descriptors: %d of %d, %s", s.Report, s.Gap, s.Used, s.Limit, s.Err)
}

// A process that makes reading its executable wait costs its fields, not us.
func TestSlowDescription(t *testing.T) {
	var d describer
	d.result, d.hangs = make(chan description, 1), true
	if got, ok := d.read("/proc", int32(os.Getpid()), ""); ok || got != (description{}) {
		t.Errorf("%+v while another read hangs", got)
	}
	d.result <- description{}
	d.builds, d.buffer = map[file]build{}, make([]byte, 4096)
	if got, ok := d.read("/proc", int32(os.Getpid()), "x"); !ok || got.title != os.Args[0] {
		t.Errorf("%+v after the read that hung has ended", got)
	}
}

// What took too long to read is read later: the host was busy, maybe.
func TestDescriptionLater(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	inode, err := inodeOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	f := New(Config{})
	f.slow = describer{result: make(chan description, 1), hangs: true, builds: map[file]build{}, buffer: make([]byte, 4096)}
	wanted := []Want{{Inode: inode}}
	findReal(t, f, wanted, os.Getpid())
	if p, _ := f.Owner(inode); p.PID != os.Getpid() || p.Title != "" {
		t.Fatalf("while a read hangs: %+v", p)
	}
	find(t, f, wanted)
	if p, _ := f.Owner(inode); p.Title != "" {
		t.Fatalf("while it hangs still: %+v", p)
	}
	f.slow.result <- description{}
	find(t, f, wanted)
	if p, _ := f.Owner(inode); p.Title == "" || p.GoBuild == "" {
		t.Errorf("after it has ended: %+v", p)
	}
}

// No descriptor stays open between calls.
func TestNothingStaysOpen(t *testing.T) {
	open := func() []string {
		var names []string
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			to, _ := os.Readlink("/proc/self/fd/" + e.Name())
			names = append(names, e.Name()+" "+to)
		}
		return names
	}
	f := New(Config{})
	before := open()
	findReal(t, f, []Want{{1, 99}, {2, 1}, {4294967295, 0}}, os.Getpid())
	if _, _, err := f.Descriptors(os.Getpid(), 0); err != nil {
		t.Error(err)
	}
	if after := open(); !slices.Equal(before, after) {
		t.Errorf("open before %q, after %q", before, after)
	}
}

// What an installed nginx says of itself on -v stands in its executable too.
func TestRealNginx(t *testing.T) {
	exe, err := exec.LookPath("nginx")
	if err != nil {
		exe = "/usr/sbin/nginx" // which is in root's search path only
	}
	said, err := exec.Command(exe, "-v").CombinedOutput()
	if err != nil {
		skip(t, "nginx", err)
	}
	_, version, _ := strings.Cut(strings.TrimSpace(string(said)), "/")
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	var d describer
	d.builds = map[file]build{}
	for range 2 { // read, then remembered
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.inspect(fd, exe+" (deleted)"); got != (build{version: strings.Fields(version)[0]}) {
			t.Errorf("%+v, and nginx -v says %q", got, said)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if len(d.builds) != 1 {
		t.Errorf("%d files are remembered", len(d.builds))
	}
}
