package netns

import (
	"errors"
	"fmt"
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

// mount holds a process's namespace at a path, as container runtimes do.
func mount(t *testing.T, c *child, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", c.pid()), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(path) })
}

func unmount(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

// ip runs iproute2, the other program that knows namespaces by name.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// walk is the oracle of what there is: the links of all processes, and what is
// mounted, read in the plainest way.
func walk(t *testing.T, proc string) []uint64 {
	t.Helper()
	found := map[string]bool{}
	links, err := filepath.Glob(proc + "/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			found[target] = true
		}
	}
	for _, table := range []string{"/proc/self/mountinfo", proc + "/1/mountinfo"} {
		text, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); strings.Contains(line, " - nsfs ") {
				found[f[3]] = true
			}
		}
	}
	var inodes []uint64
	for name := range found {
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "net:["), "]"), 10, 64)
		if err == nil && strings.HasPrefix(name, "net:[") {
			inodes = append(inodes, n)
		}
	}
	slices.Sort(inodes)
	return inodes
}

func listed(w *Watcher) []uint64 {
	var inodes []uint64
	for _, n := range w.List() {
		inodes = append(inodes, n.Inode)
	}
	slices.Sort(inodes)
	return inodes
}

// Everything that processes and mounts hold is found, once each, with its kind,
// its name and the cookie that the kernel gives inside.
func TestFinds(t *testing.T) {
	inside(t)
	a, b := inNamespace(t), inNamespace(t)
	second := start(t, exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", a.pid()), "sh", "-c", "echo here; exec cat"), 0)
	second.line()
	ip(t, "netns", "add", "blue")
	t.Cleanup(func() { ip(t, "netns", "delete", "blue") })
	dead := inNamespace(t)
	mount(t, dead, "/run/docker/netns/0123456789ab")
	ofMount := dead.inode()
	mount(t, b, "/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef")
	mount(t, b, "/run/netns/a name with\\a\tfew things")
	dead.end()

	w := watch(t, Config{})
	c := refresh(t, w)
	if diff := cmp.Diff(walk(t, "/proc"), listed(w)); diff != "" {
		t.Errorf("(-there +listed):\n%s", diff)
	}
	if !slices.Equal(c.New, w.List()) || len(c.Gone) != 0 {
		t.Errorf("new %d, gone %d, listed %d", len(c.New), len(c.Gone), len(w.List()))
	}
	var blue unix.Stat_t
	if err := unix.Stat("/run/netns/blue", &blue); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Namespace{
		{Inode: w.visitor.homeInode, Kind: KindHost, Name: "host", PID: 1},
		{Inode: a.inode(), Kind: KindProcess, PID: a.pid()},
		{Inode: b.inode(), Kind: KindNamed, Name: "a name with\\a\tfew things", PID: b.pid(), Mounts: []string{"/run/netns/a name with\\a\tfew things", "/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef"}},
		{Inode: ofMount, Kind: KindProcess, Mounts: []string{"/run/docker/netns/0123456789ab"}},
		{Inode: blue.Ino, Kind: KindNamed, Name: "blue", Mounts: []string{"/run/netns/blue"}},
	} {
		n := find(t, w, want.Inode)
		if n.Kind != want.Kind || n.Name != want.Name || n.PID != want.PID || !slices.Equal(n.Mounts, want.Mounts) || n.Trouble != nil {
			t.Errorf("%+v, want %+v", n, want)
		}
	}
	if w.List()[0].Kind != KindHost {
		t.Errorf("%+v is first", w.List()[0])
	}
	cookies := map[uint64]bool{}
	for _, n := range w.List() {
		var cookie uint64
		path := "/proc/self/ns/net"
		if n.PID != 0 {
			path = fmt.Sprintf("/proc/%d/ns/net", n.PID)
		} else if len(n.Mounts) > 0 {
			path = n.Mounts[0]
		}
		if err := within(path, func() error { cookie = OwnCookie(); return nil }); err != nil {
			t.Fatal(err)
		}
		if n.Cookie != cookie || cookies[cookie] {
			t.Errorf("%+v: cookie %d", n, cookie)
		}
		cookies[cookie] = true
	}
	for path, inode := range map[string]uint64{"/var/run/netns/blue": blue.Ino, "/run/docker/netns/0123456789ab": ofMount} {
		if n := w.Mounted(path); n == nil || n.Inode != inode {
			t.Errorf("%s is %+v", path, n)
		}
	}
	if n := w.Mounted("/run/netns/green"); n != nil {
		t.Errorf("nothing is there, but %+v", n)
	}
}

// On the whole machine, by the procfs of the first PID namespace: no namespace is
// left out, and ours is told from the host's.
func TestWholeMachine(t *testing.T) {
	inside(t)
	inThread(t, func() {
		w := watch(t, Config{Proc: outerProc})
		c, err := w.Refresh()
		if err != nil || c.Gap != nil && !errors.Is(c.Gap, os.ErrPermission) {
			t.Fatal(err, c.Gap) // some machines keep even root from looking at PID 1
		}
		var ours unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &ours); err != nil {
			t.Fatal(err)
		}
		if n := find(t, w, ours.Ino); n.Kind != KindSelf || n.Name != "self" {
			t.Errorf("%+v, want it as our own", n)
		}
		var host unix.Stat_t
		if err := unix.Stat("/proc/self/ns/net", &host); err != nil {
			t.Fatal(err)
		}
		if n := find(t, w, host.Ino); c.Denied == 0 && (n.Kind != KindHost || n.PID != 1) {
			t.Errorf("%+v, want it as the host's", n)
		}
	})
	w := watch(t, Config{Proc: outerProc})
	if _, err := w.Refresh(); err != nil {
		t.Fatal(err)
	}
	if n := w.List()[0]; n.Kind != KindHost || !n.place.home {
		t.Errorf("%+v is first, want the host's, in which we are", n)
	}
}

// PID 1's namespace is the host's only if it is PID 1 of the whole machine.
func TestHost(t *testing.T) {
	for pids, want := range map[string]uint64{"pid:[4026531836]": 77, "pid:[4026532999]": 0} {
		dir := t.TempDir()
		err := errors.Join(os.MkdirAll(dir+"/1/ns", 0o755), os.Symlink(pids, dir+"/1/ns/pid"), os.Symlink("net:[77]", dir+"/1/ns/net"))
		if err != nil {
			t.Fatal(err)
		}
		proc, err := openTree(dir)
		if err != nil {
			t.Fatal(err)
		}
		w := Watcher{proc: proc, visitor: visitor{homeInode: 5}}
		if got := w.findHost(); got != want {
			t.Errorf("%s: net:[%d], want %d", pids, got, want)
		}
		proc.close()
	}
}

// inThread runs a test in a network namespace that only one thread is in.
func inThread(t *testing.T, f func()) {
	t.Helper()
	c := inNamespace(t)
	if err := within(fmt.Sprintf("/proc/%d/ns/net", c.pid()), func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// PID 1's mounts, where ours are others.
func TestMountsOfPID1(t *testing.T) {
	inside(t)
	// A process in a mount namespace in which the mount is taken away again.
	c := inNamespace(t)
	mount(t, c, "/run/netns/pid1")
	inode := c.inode()
	c.end()
	cmd := exec.Command("unshare", "--mount", "--propagation=private", "sh", "-c", `umount /run/netns/pid1 && exec "$0"`, "/proc/self/exe")
	cmd.Args[len(cmd.Args)-1] = executable(t)
	cmd.Env = append(os.Environ(), roleEnv+"=look")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), fmt.Sprintf(`{"Inode":%d,"Kind":"named","Cgroup":"","Trouble":"","Visit":"","Pulse":""}`, inode)) {
		t.Errorf("net:[%d] isn't in %s", inode, out)
	}
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What comes and goes is told by the next Refresh, which reads few links.
func TestNewAndGone(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	refresh(t, w)
	refresh(t, w)
	refresh(t, w)
	for range 3 {
		c := inNamespace(t)
		changes := refresh(t, w)
		if len(changes.New) != 1 || changes.New[0].Inode != c.inode() || len(changes.Gone) != 0 {
			t.Fatalf("%+v after a start", changes)
		}
		n := changes.New[0]
		if changes := refresh(t, w); len(changes.New)+len(changes.Gone) != 0 {
			t.Fatalf("%+v in between", changes)
		}
		c.end()
		changes = refresh(t, w)
		if len(changes.New) != 0 || !slices.Equal(changes.Gone, []*Namespace{n}) {
			t.Fatalf("%+v after the end", changes)
		}
		if err := w.Visit(n, func() error { return nil }); !errors.Is(err, ErrGone) {
			t.Errorf("visiting it: %v", err)
		}
		if _, err := w.Pulse(n); !errors.Is(err, ErrGone) {
			t.Errorf("its pulse: %v", err)
		}
	}
	// A mount alone.
	ip(t, "netns", "add", "green")
	if c := refresh(t, w); len(c.New) != 1 || c.New[0].Name != "green" {
		t.Errorf("%+v, want green", c)
	}
	ip(t, "netns", "delete", "green")
	if c := refresh(t, w); len(c.Gone) != 1 || c.Gone[0].Name != "green" {
		t.Errorf("%+v, want green gone", c)
	}
}

// New processes are read twice, of the others one in eight.
func TestLinksRead(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	all := refresh(t, w)
	if all.LinksRead != all.Processes {
		t.Errorf("first %d links of %d processes", all.LinksRead, all.Processes)
	}
	if c := refresh(t, w); c.LinksRead != c.Processes {
		t.Errorf("then %d links of %d processes", c.LinksRead, c.Processes)
	}
	sum := 0
	for range rounds {
		sum += refresh(t, w).LinksRead
	}
	if sum != all.Processes {
		t.Errorf("%d links in %d rounds, of %d processes", sum, rounds, all.Processes)
	}
	inNamespace(t)
	before := w.turn
	c := refresh(t, w)
	c2 := refresh(t, w)
	if w.turn != (before+2)%rounds || c.LinksRead < 1 || c.LinksRead > 1+(c.Processes+rounds-1)/rounds+1 || c2.LinksRead < 1 {
		t.Errorf("%d and %d links of %d processes, one of them new", c.LinksRead, c2.LinksRead, c.Processes)
	}
}

// A process that a runtime moves to its namespace after it was seen elsewhere.
func TestMovesAfterStart(t *testing.T) {
	inside(t)
	const path = "/run/kept/x"
	target := inNamespace(t)
	mount(t, target, path)
	inode := target.inode()
	target.end()
	mover := start(t, exec.Command("sh", "-c", `echo started; read line; exec nsenter --net="$0" sh -c "echo inside; exec cat"`, path), 0)
	mover.line()
	w := watch(t, Config{})
	w.turn = mover.pid() % rounds // its turn isn't soon
	refresh(t, w)
	if _, err := mover.in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	mover.line()
	refresh(t, w)
	if n := find(t, w, inode); n.PID != mover.pid() {
		t.Errorf("%+v, want process %d", n, mover.pid())
	}
}

// A process that took over another one's number between two looks is another one.
func TestSamePID(t *testing.T) {
	inside(t)
	const last = "/proc/sys/kernel/ns_last_pid"
	if _, err := os.Stat(last); err != nil {
		skip(t, "checkpoint-restore", err)
	}
	w := watch(t, Config{})
	a := inNamespace(t)
	refresh(t, w)
	refresh(t, w)
	old := find(t, w, a.inode())
	mount(t, a, "/run/netns/old") // it lives on
	a.end()
	w.turn = a.pid() % rounds // its turn isn't soon
	var b *child
	for range 100 { // this program makes threads too
		if err := os.WriteFile(last, []byte(strconv.Itoa(a.pid()-1)), 0); err != nil {
			t.Fatal(err)
		}
		if b = inNamespace(t); b.pid() == a.pid() {
			break
		}
		b.end()
	}
	if b.pid() != a.pid() {
		t.Fatalf("process %d doesn't come back", a.pid())
	}
	refresh(t, w)
	if n := find(t, w, b.inode()); n.PID != b.pid() || old.PID != 0 || old.place == nil {
		t.Errorf("%+v and %+v, want process %d in the first", n, old, b.pid())
	}
}

// succeed waits for the death of a namespace and gives its number to another
// one. The kernel does that itself if nobody else made or ended a namespace
// meanwhile; else what the Watcher knows of the dead one is changed.
func succeed(t *testing.T, w *Watcher, old *Namespace, died witness, next *child) {
	t.Helper()
	died.wait(t)
	if next == nil {
		next = inNamespace(t)
	}
	if inode := next.inode(); inode != old.Inode {
		delete(w.places, old.Inode)
		old.Inode, old.place.inode = inode, inode
		w.places[inode] = old.place
	}
}

// A namespace that took over an inode number between two looks is another one,
// even if what led to the old one seems to be there.
func TestSameInode(t *testing.T) {
	inside(t)
	// A process that leaves its namespace, and then makes another one.
	const wanderer = `echo started; read line; exec nsenter --net=/proc/1/ns/net sh -c 'echo home; read line; exec unshare --net sh -c "echo apart; exec cat"'`
	wander := func(a *child) {
		t.Helper()
		if _, err := a.in.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		a.line()
	}
	w := watch(t, Config{})
	begin := func(t *testing.T) (*child, *Namespace, witness) {
		a := start(t, exec.Command("sh", "-c", wanderer), unix.CLONE_NEWNET)
		a.line()
		refresh(t, w)
		refresh(t, w)
		for w.turn == (a.pid()+rounds-1)%rounds { // its link would be read in the next call
			refresh(t, w)
		}
		return a, find(t, w, a.inode()), a.witness()
	}
	check := func(t *testing.T, old *Namespace) {
		t.Helper()
		if err := w.Visit(old, func() error { return nil }); !errors.Is(err, ErrGone) {
			t.Errorf("visiting the old one: %v", err)
		}
		if _, err := w.Pulse(old); !errors.Is(err, ErrGone) {
			t.Errorf("the old one's pulse: %v", err)
		}
		changes := refresh(t, w)
		if !slices.Equal(changes.Gone, []*Namespace{old}) || len(changes.New) != 1 {
			t.Fatalf("%+v, want one new and one gone", changes)
		}
		if n := changes.New[0]; n.Inode != old.Inode || n.Serial == old.Serial || n.Cookie == old.Cookie || n.Trouble != nil {
			t.Errorf("%+v after %+v", n, old)
		}
	}
	t.Run("its process ended", func(t *testing.T) {
		a, old, died := begin(t)
		a.end()
		succeed(t, w, old, died, nil)
		check(t, old)
	})
	refresh(t, w)
	t.Run("its process left", func(t *testing.T) {
		a, old, died := begin(t)
		wander(a)
		succeed(t, w, old, died, nil)
		check(t, old)
	})
	refresh(t, w)
	t.Run("its process made another", func(t *testing.T) {
		a, old, died := begin(t)
		wander(a)
		died.wait(t)
		wander(a)
		succeed(t, w, old, died, a)
		check(t, old)
	})
	refresh(t, w)
	t.Run("another one is mounted in its place", func(t *testing.T) {
		const path = "/run/netns/place"
		a, old, died := begin(t)
		mount(t, a, path)
		a.end()
		refresh(t, w)
		unmount(path)
		b := inNamespace(t)
		mount(t, b, path)
		succeed(t, w, old, died, b)
		check(t, old)
	})
}

// A namespace that can't be entered is told apart by its processes.
func TestSameInodeWithoutToken(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	a := inNamespace(t)
	died := a.witness()
	refresh(t, w)
	refresh(t, w)
	n := find(t, w, a.inode())
	unix.Close(n.token)
	n.token, n.Trouble = -1, errors.New("for the test")
	w.turn = int(n.Serial) % rounds                                       // it isn't tried again in the next call
	if err := w.Visit(n, func() error { return nil }); err != n.Trouble { //nolint:errorlint // just this one
		t.Errorf("a visit: %v", err)
	}
	if c := refresh(t, w); len(c.Gone) != 0 || n.Trouble == nil {
		t.Fatalf("%+v although its process stays", c)
	}
	a.end()
	succeed(t, w, n, died, nil)
	if c := refresh(t, w); !slices.Equal(c.Gone, []*Namespace{n}) {
		t.Errorf("%+v, want it gone", c)
	}
	if c := refresh(t, w); len(c.New) != 1 || c.New[0].Inode != n.Inode || c.New[0].Trouble != nil {
		t.Errorf("%+v, want the next one", c)
	}
}

func TestLimits(t *testing.T) {
	inside(t)
	group := func(string) string { return "everybody" }
	crowd := make([]*child, 12)
	for i := range crowd {
		crowd[i] = inNamespace(t)
	}
	t.Run("group", func(t *testing.T) {
		w := watch(t, Config{MaxPerGroup: 3, Group: group})
		c := refresh(t, w)
		if len(w.List()) != 1+3 || c.OverGroup != 9 || c.OverAll != 0 {
			t.Fatalf("%d listed, %+v", len(w.List()), c)
		}
		if c := refresh(t, w); len(c.New)+len(c.Gone) != 0 || c.OverGroup != 9 {
			t.Errorf("the second time %+v", c)
		}
		first := find(t, w, crowd[0].inode()) // the lowest numbers came first
		crowd[0].end()
		c = refresh(t, w)
		if !slices.Equal(c.Gone, []*Namespace{first}) || len(c.New) != 1 || c.OverGroup != 8 || c.New[0].Inode != crowd[3].inode() {
			t.Errorf("after the end of one %+v", c)
		}
		mount(t, crowd[11], "/run/netns/mounted") // is beyond the limit of groups
		c = refresh(t, w)
		if len(c.New) != 1 || c.New[0].Name != "mounted" || c.OverGroup != 7 {
			t.Errorf("after a mount %+v", c)
		}
	})
	t.Run("all", func(t *testing.T) {
		mount(t, crowd[11], "/run/netns/mounted")
		w := watch(t, Config{MaxNamespaces: 4})
		c := refresh(t, w)
		if len(w.List()) != 4 || c.OverAll != 8 || c.OverGroup != 0 {
			t.Errorf("%d listed, %+v", len(w.List()), c)
		}
		find(t, w, crowd[11].inode()) // what is mounted goes before the others
		if w.List()[0].Kind != KindHost {
			t.Errorf("the host isn't listed, but %+v", w.List()[0])
		}
	})
	t.Run("processes", func(t *testing.T) {
		w := watch(t, Config{MaxProcesses: 5})
		c := refresh(t, w)
		if c.Processes != 5 || c.Unread < 7 || len(w.List()) > 5 {
			t.Errorf("%d listed, %+v", len(w.List()), c)
		}
	})
}

// Of each right that is missing, the Watcher tells what is lost, and the rest
// works.
func TestFewerRights(t *testing.T) {
	inside(t)
	root := inNamespace(t)
	nobody := start(t, func() *exec.Cmd {
		cmd := exec.Command("cat")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd
	}(), unix.CLONE_NEWNET)
	as := func(caps ...uintptr) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
	}
	of := func(s sight, c *child) *seen {
		for i := range s.List {
			if s.List[i].Inode == c.inode() {
				return &s.List[i]
			}
		}
		return nil
	}

	s := lookAs(t, "look", as())
	if s.Denied == 0 || !s.Permission || !strings.Contains(s.Gap, "CAP_SYS_PTRACE") || s.List[0].Kind != KindHost || of(s, root) != nil {
		t.Errorf("without any: %+v", s)
	}
	if n := of(s, nobody); n == nil || !strings.Contains(n.Trouble, "CAP_SYS_ADMIN") || n.Visit != n.Trouble || n.Pulse != "" {
		t.Errorf("without any, its own user's namespace is %+v", n)
	}
	s = lookAs(t, "look", as(unix.CAP_SYS_PTRACE))
	if n := of(s, root); s.Gap != "" || n == nil || !strings.Contains(n.Trouble, "CAP_SYS_ADMIN") || n.Visit != n.Trouble || n.Pulse != "" {
		t.Errorf("with CAP_SYS_PTRACE: %+v", s)
	}
	s = lookAs(t, "look", as(unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN))
	if n := of(s, root); s.Gap != "" || n == nil || n.Trouble != "" || n.Visit != "" || n.Pulse != "" {
		t.Errorf("with both: %+v", s)
	}
}

// A process's cgroup is told from the root of the tree, also to a Watcher that
// is in a cgroup namespace of its own.
func TestCgroup(t *testing.T) {
	inside(t)
	top := outerCgroup
	var fsys unix.Statfs_t
	if unix.Statfs(top, &fsys) != nil || fsys.Type != unix.CGROUP2_SUPER_MAGIC {
		top = filepath.Join(top, "unified")
	}
	dir, err := os.MkdirTemp(top, "twwatch-netns-test-")
	if err != nil {
		skip(t, "cgroup2", err)
	}
	dir = strings.TrimPrefix(dir, top)
	defer func() {
		if err := os.Remove(top + dir); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"/watcher", "/other"} {
		if err := os.Mkdir(top+dir+name, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() {
			eventually(t, func() error { return os.Remove(top + dir + name) }) // when its last process is gone
		}()
	}
	in := func(name string, flags uintptr, cmd *exec.Cmd) *child {
		f, err := os.Open(top + dir + name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		return start(t, cmd, flags)
	}
	other := in("/other", unix.CLONE_NEWNET, exec.Command("cat"))
	defer other.end()
	want := parseCgroup(mustRead(t, fmt.Sprintf("/proc/%d/cgroup", other.pid())), nil)
	if !strings.HasSuffix(want, dir+"/other") {
		t.Skipf("another hierarchy than v2 names the process: %q", want)
	}
	w := watch(t, Config{})
	refresh(t, w)
	if n := find(t, w, other.inode()); n.Cgroup != want || w.Cgroup(other.pid()) != want {
		t.Errorf("cgroup %q, %q, want %q", n.Cgroup, w.Cgroup(other.pid()), want)
	}
	// A runtime moves its process after the start.
	w.turn = int(find(t, w, other.inode()).Serial) % rounds // its turn isn't soon
	if err := os.WriteFile(top+dir+"/watcher/cgroup.procs", []byte(strconv.Itoa(other.pid())), 0o644); err != nil {
		t.Fatal(err)
	}
	refresh(t, w)
	if n := find(t, w, other.inode()); n.Cgroup != strings.Replace(want, "/other", "/watcher", 1) {
		t.Errorf("after a move cgroup %q", n.Cgroup)
	}
	if err := os.WriteFile(top+dir+"/other/cgroup.procs", []byte(strconv.Itoa(other.pid())), 0o644); err != nil {
		t.Fatal(err)
	}

	look := func(role string, command ...string) string {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), roleEnv+"="+role)
		return in("/watcher", 0, cmd).line()
	}
	told := func(cgroup string) string {
		return fmt.Sprintf(`"Inode":%d,"Kind":"process","Cgroup":%q,"Trouble"`, other.inode(), cgroup)
	}
	exe := executable(t)
	for _, line := range []string{look("look", exe), look("look-from-cgroup", exe)} {
		if !strings.Contains(line, told(want)) {
			t.Errorf("no cgroup %q in %s", want, line)
		}
	}
	// Without the right to look from outside it is unknown, not wrong.
	line := look("look", "unshare", "--cgroup", "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", exe)
	if !strings.Contains(line, told("")) {
		t.Errorf("a cgroup in %s", line)
	}
	other.end()
	refresh(t, w)
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
