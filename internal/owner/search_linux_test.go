package owner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFind(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, hostile(), 100, 1, 1001, 1002)
	root.process(20, "nginx", 200, 1, 2001)
	root.write(20, "cmdline", "nginx: worker process\x00\x00\x00")
	root.write(20, "cgroup", "3:memory:/m\n1:name=systemd:/system.slice/nginx.service\n0::/\n")
	root.do(os.Symlink("/usr/sbin/nginx (deleted)", root.path(20, "exe")))
	f := root.finder(Config{})
	if _, ok := f.Owner(1001); ok {
		t.Error("an owner before anything was looked for")
	}
	r := find(t, f, want(1001, 2001, 0, 1001, 1002))
	if !r.Complete || r.Gap != nil || r.LinksRead == 0 {
		t.Errorf("report %+v, want it complete", r)
	}
	got := expectOwner(t, f, 2001, 20, 200)
	if diff := cmp.Diff(&Process{
		PID: 20, Start: 200, Comm: "nginx", Exe: "/usr/sbin/nginx (deleted)",
		Cgroup: "/system.slice/nginx.service", Title: "nginx: worker process",
	}, got); diff != "" {
		t.Errorf("process (-want +got):\n%s", diff)
	}
	if got = expectOwner(t, f, 1002, 10, 100); got.Comm != hostile()[:256] || len(got.Title) != 256 {
		t.Errorf("comm %q, title %q, want 256 raw bytes", got.Comm, got.Title)
	}
	if r = find(t, f, want(1001, 2001, 1002)); r.LinksRead != 0 || r.ProcessesSeen != 0 {
		t.Errorf("report %+v though all is known", r)
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	for pid, text := range map[int]string{
		10: "", 11: "11 nobody S 1", 12: "12 (x) S", 13: strings.Repeat("(", 9000), 14: "14 (x) S -1 1",
		15: stat(15, "x", 1, 1)[:40],
	} {
		root.process(pid, "x", 1, 1, uint32(pid))
		root.write(pid, "stat", text)
	}
	root.process(20, "no descriptors", 1, 1)
	root.do(os.RemoveAll(root.path(20, "fd")))
	root.process(21, "descriptors are a file", 1, 1)
	root.do(os.RemoveAll(root.path(21, "fd")))
	root.write(21, "fd", "")
	root.process(22, "loops", 1, 1, 22)
	root.do(os.Remove(root.path(22, "stat")))
	root.do(os.Symlink("stat", root.path(22, "stat")))
	root.process(23, "links", 1, 1)
	for i, to := range []string{
		"5", "socket:[", "socket:[]", "socket:[4294967296]", "socket:[-1]", "socket:[0]", "socket:[7] (deleted)",
		"anon_inode:[eventpoll]", "socket:[77", strings.Repeat("socket:[77]", 30),
	} {
		root.do(os.Symlink(to, root.path(23, fmt.Sprintf("fd/%d", 5+i))))
	}
	root.do(os.Symlink("socket:[77]", root.path(23, "fd/x")))
	root.do(os.Symlink("24", filepath.Join(root.root, "24")))
	root.do(os.Mkdir(filepath.Join(root.root, "99999999999"), 0o700))
	root.process(25, "well", 7, 1, 25)
	f := root.finder(Config{})
	r := find(t, f, want(25, 77, 10, 11, 12, 13, 14, 15, 22, 7))
	expectOwner(t, f, 25, 25, 7)
	if r.Failed != 9 || !r.Complete {
		t.Errorf("report %+v, want one found and nine given up", r)
	}
}

func TestNoProcfs(t *testing.T) {
	t.Parallel()
	f := New(Config{Proc: filepath.Join(t.TempDir(), "absent")})
	_, r := f.Find(t.Context(), want(1), nil)
	if !errors.Is(r.Gap, fs.ErrNotExist) || r.Complete || r.Pending != 1 {
		t.Errorf("report %+v, want the error and no success", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := newFake(t)
	root.process(10, "x", 1, 1, 1)
	f = root.finder(Config{})
	if found, r := f.Find(ctx, want(1), nil); found != 0 || !errors.Is(r.Gap, context.Canceled) || r.Complete {
		t.Errorf("found %d, %+v, want it cancelled", found, r)
	}
	if r := find(t, f, want(1)); !r.Complete || r.Gap != nil {
		t.Errorf("report %+v after a call that was cancelled", r)
	}
	root.exit(1)
	f = root.finder(Config{})
	if r := find(t, f, want(1)); !errors.Is(r.Gap, ErrHidden) {
		t.Errorf("report %+v, want it to say that processes are hidden", r)
	}
}

// In a container a socket may be of a process that its procfs doesn't show.
func TestNestedPIDs(t *testing.T) {
	t.Parallel()
	for pids, want1 := range map[string]error{"pid:[4026531836]": nil, "pid:[4026532999]": ErrNested} {
		root := newFake(t)
		root.process(10, "x", 1, 1, 7)
		root.do(os.MkdirAll(root.path(1, "ns"), 0o700))
		root.do(os.Symlink(pids, root.path(1, "ns/pid")))
		f := root.finder(Config{})
		if r := find(t, f, want(7)); r.Gap != nil {
			t.Errorf("%s: %v, where nothing is missing", pids, r.Gap)
		}
		if r := find(t, f, want(7, 8)); r.Failed != 1 || !errors.Is(r.Gap, want1) {
			t.Errorf("%s: %+v, want %v", pids, r, want1)
		}
	}
}

// A pid that another process takes while its descriptors are read.
func TestReusedWhileRead(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "old", 100, 1, many(1000, 20)...)
	f := root.finder(Config{})
	s := &swap{context.Background(), 10, func() { root.write(10, "stat", stat(10, "new", 500, 1)) }}
	found, r := f.Find(s, want(1003, 1), nil) // 1 is nowhere, so that all descriptors are read
	if p, ok := f.Owner(1003); ok && p.Start == 100 {
		t.Errorf("the descriptors of one process are taken for another's: %+v, %+v", p, r)
	}
	if s.n > 0 || found != 0 {
		t.Fatalf("found %d, %d questions were left: the test tests nothing", found, s.n)
	}
	consistent(t, f)
	find(t, f, want(1003))
	expectOwner(t, f, 1003, 10, 500)
}

// A process that goes while its descriptors are read.
func TestGoneWhileRead(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "old", 100, 1, many(1000, 20)...)
	root.process(11, "stays", 101, 1, 1103)
	f := root.finder(Config{})
	s := &swap{context.Background(), 15, func() { root.exit(10) }}
	if found, r := f.Find(s, want(1003, 1103), nil); found != 1 || s.n > 0 {
		t.Errorf("found %d, %+v, %d questions left", found, r, s.n)
	}
	consistent(t, f)
	expectOwner(t, f, 1103, 11, 101)
	if r := find(t, f, want(1003, 1103)); r.Failed != 1 || !r.Complete {
		t.Errorf("report %+v, want the socket of a process that is gone given up", r)
	}
}

// What was seen before anybody wanted it needs no search.
func TestSeenBefore(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	var all []uint32
	for pid := range 50 {
		root.process(100+pid, fmt.Sprint("p", pid), 5, 1, many(uint32(1000+10*pid), 2)...)
		all = append(all, many(uint32(1000+10*pid), 2)...)
	}
	f := root.finder(Config{LinksPerPass: 300})
	find(t, f, want(1)) // reads all
	for passes := range 50 {
		r := find(t, f, want(all...))
		if r.LinksRead > 300 || r.ProcessesSeen != 0 || passes == 0 && r.Complete {
			t.Fatalf("pass %d: report %+v", passes, r)
		}
		if r.Complete {
			break
		}
	}
	expectOwner(t, f, 1001, 100, 5)
	expectOwner(t, f, all[len(all)-1], 149, 5)
}

// New processes that nobody needs to look into aren't piled up.
func TestNewProcesses(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "a", 100, 1, 1001)
	f := root.finder(Config{MaxProcesses: 10})
	find(t, f, want(1001))
	for pid := range 30 {
		root.process(100+pid, "short", 5, 1)
		for range listEvery {
			if r := find(t, f, want(1001)); r.Gap != nil || !r.Complete {
				t.Fatalf("report %+v", r)
			}
		}
		root.exit(100 + pid)
	}
	if len(f.people.all) > 5 {
		t.Errorf("%d records for three processes", len(f.people.all))
	}
}

// A pid that another process takes between two calls.
func TestReused(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"another", "the same"} {
		t.Run(dir+" directory", func(t *testing.T) {
			t.Parallel()
			root := newFake(t)
			root.process(10, "old", 100, 1, 1001)
			f := root.finder(Config{})
			find(t, f, want(1001))
			old := expectOwner(t, f, 1001, 10, 100)
			kept := *old
			if dir == "another" {
				root.process(11, "new", 300, 1, 1002)
				root.exit(10)
				root.do(os.Rename(filepath.Join(root.root, "11"), filepath.Join(root.root, "10")))
			} else {
				root.write(10, "stat", stat(10, "new", 300, 1))
				root.write(10, "comm", "new\n")
				root.close(10, 3)
				root.socket(10, 3, 1002)
			}
			find(t, f, want(1002))
			if p := expectOwner(t, f, 1002, 10, 300); p.Comm != "new" {
				t.Errorf("new process %+v", p)
			}
			expectOwner(t, f, 1001, 10, 100) // until it is wanted again
			if r := find(t, f, want(1001, 1002)); r.Failed != 1 {
				t.Errorf("report %+v, want the old socket given up", r)
			}
			if *old != kept {
				t.Errorf("a process that was handed out has changed: %+v", old)
			}
		})
	}
}

// A process that has exited is remembered while its inode is asked for.
func TestExited(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "short", 100, 1, 1001)
	root.process(11, "long", 101, 1, 1002)
	f := root.finder(Config{})
	find(t, f, want(1001, 1002))
	root.exit(10)
	for i := range 3 * retryAfter {
		find(t, f, want(uint32(5000+i), 1002)) // not found: lists processes each time
		expectOwner(t, f, 1001, 10, 100)
	}
	for i := range 20 * retryAfter {
		find(t, f, want(uint32(9000+i), 1002))
	}
	expectOwner(t, f, 1001, 0, 0)
	expectOwner(t, f, 1002, 11, 101)
}

// An exec gives a process another name, and its sockets stay.
func TestExec(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "sh", 100, 1, 1001)
	f := root.finder(Config{})
	find(t, f, want(1001))
	before := expectOwner(t, f, 1001, 10, 100)
	root.write(10, "stat", stat(10, "server", 100, 1))
	root.write(10, "comm", "server\n")
	root.socket(10, 4, 1002)
	find(t, f, want(1001, 1002))
	if after := expectOwner(t, f, 1001, 10, 100); after.Comm != "server" || before.Comm != "sh" {
		t.Errorf("before exec %+v, after %+v", before, after)
	}
}

// What a whole turn didn't find is left alone, until it can be found.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	for pid := range 50 {
		root.process(100+pid, "p", uint64(pid+1), 1, uint32(100+pid))
	}
	f := root.finder(Config{})
	if r := find(t, f, want(1, 100)); r.Failed != 1 || !r.Complete {
		t.Fatalf("report %+v, want it given up", r)
	}
	for range 10 {
		if r := find(t, f, want(1, 100)); r.Failed != 1 || r.LinksRead > 1 || r.ProcessesSeen != 0 {
			t.Fatalf("report %+v, want it left alone", r)
		}
	}
	root.process(500, "new", 1000, 1, 1)
	for i := 1; ; i++ {
		r := find(t, f, want(1, 100))
		if r.Failed == 0 && r.ProcessesSeen == 1 && r.Complete {
			break
		}
		if i == freshEvery || r.ProcessesSeen != 0 {
			t.Fatalf("report %+v, want it found in the new process soon", r)
		}
	}
	expectOwner(t, f, 1, 500, 1000)

	// A new process with the pid of one that is gone.
	find(t, f, want(3))
	root.process(600, "new", 2000, 1, 3)
	root.exit(149)
	root.do(os.Rename(filepath.Join(root.root, "600"), filepath.Join(root.root, "149")))
	for range freshEvery {
		find(t, f, want(3))
	}
	expectOwner(t, f, 3, 149, 2000)

	// A descriptor that came to a process that was there.
	find(t, f, want(2, 100))
	root.socket(120, 9, 2)
	passes := 1
	for ; passes <= retryAfter; passes++ {
		if find(t, f, want(2, 100)).Failed == 0 {
			break
		}
	}
	if passes < 2 || passes > retryAfter {
		t.Fatalf("found after %d passes", passes)
	}
	expectOwner(t, f, 2, 120, 21)
}

// An entry is checked anew in turn: here the descriptor was closed while
// another process kept the socket.
func TestPassedOn(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "acceptor", 100, 1, 1001)
	f := root.finder(Config{})
	find(t, f, want(1001))
	root.process(11, "worker", 101, 10, 1001)
	root.close(10, 3)
	passes := 0
	for ; passes < 2*listEvery; passes++ {
		find(t, f, want(1001))
		if p, ok := f.Owner(1001); ok && p.PID == 11 {
			break
		}
	}
	if passes == 2*listEvery {
		t.Error("the socket stays with the process that has closed it")
	}
}

// The budget holds, and no process keeps the search from the others.
func TestBudget(t *testing.T) {
	t.Parallel()
	const descriptors, links = 5000, 200
	root := newFake(t)
	root.process(10, "large", 100, 1, many(100_000, descriptors)...)
	for pid := range 40 {
		root.process(100+pid, "small", 100, 1, uint32(100+pid))
	}
	f := root.finder(Config{FirstBudget: 1, LinksPerPass: links})
	wanted := append(want(many(100, 40)...), want(100_000+descriptors-1)...)
	passes, smallFirst := 0, 0
	for ; passes < 100; passes++ {
		r := find(t, f, wanted, 10)
		if r.LinksRead > links+20 {
			t.Fatalf("pass %d read %d links, want about %d", passes, r.LinksRead, links)
		}
		if _, ok := f.Owner(139); ok && smallFirst == 0 {
			smallFirst = passes
		}
		if r.Complete {
			break
		}
	}
	expectOwner(t, f, 100_000+descriptors-1, 10, 100)
	if most := 2 * (descriptors + 40*(visitCost+describeCost)) / links; passes > most {
		t.Errorf("took %d passes, want at most %d", passes, most)
	}
	t.Logf("%d passes, the last small process in pass %d", passes, smallFirst)
}

// Sockets that don't last are others in each call, and never are all found; that
// each process has been looked at is known all the same.
func TestSwept(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	const processes, links = 100, 100
	for pid := range processes {
		root.process(100+pid, "p", 100, 1, uint32(100+pid))
	}
	f := root.finder(Config{FirstBudget: 1, LinksPerPass: links})
	passes := 0
	for passes < 100 && !find(t, f, want(uint32(10_000+passes))).Swept {
		passes++
	}
	if least, most := processes*visitCost/links, 2*processes*(visitCost+2)/links; passes < least || passes > most {
		t.Errorf("swept after %d passes, want %d to %d", passes, least, most)
	}
}

// A visit that ended since all was found doesn't hide what comes before.
func TestFoundBeforeTheEnd(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "p", 100, 1, many(1000, 20)...)
	for pid := range 100 {
		root.process(100+pid, "other", 100, 1, many(uint32(100_000+100*pid), 20)...)
	}
	f := root.finder(Config{FirstBudget: 1, LinksPerPass: 200})
	find(t, f, want(1), 10) // is known of
	for i := range 20 {
		last := many(2000+uint32(100*i), 20)
		for fd, inode := range last {
			root.do(os.Remove(root.path(10, "fd/"+strconv.Itoa(3+fd))))
			root.socket(10, 3+fd, inode)
		}
		if r := find(t, f, want(last...), 10); r.Pending != 0 {
			t.Fatalf("call %d: %+v", i, r)
		}
	}
}

// A likely process with very many descriptors doesn't hide another.
func TestHintsShare(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "large", 100, 1, many(100_000, 3000)...)
	root.process(20, "small", 100, 1, 1)
	f := root.finder(Config{FirstBudget: time.Minute, LinksPerPass: 500})
	find(t, f, want(1))
	for i, inode := range many(1000, 100) {
		root.socket(20, 10+i, inode)
	}
	if r := find(t, f, want(many(1000, 100)...), 10, 20); !r.Complete || r.LinksRead > 600 {
		t.Errorf("report %+v, want all found", r)
	}
}

// Links that lead to what is wanted are beside the budget: connections that are
// there at one look only are found at it.
func TestWantedAreFree(t *testing.T) {
	t.Parallel()
	const links, sockets = 100, 2000
	root := newFake(t)
	root.process(10, "busy", 100, 1, 5)
	for pid := range 40 {
		root.process(100+pid, "other", 100, 1, many(uint32(100_000+1000*pid), 30)...)
	}
	f := root.finder(Config{FirstBudget: time.Minute, LinksPerPass: links})
	find(t, f, want(5))
	wanted := many(1000, sockets)
	for i, inode := range wanted {
		root.socket(10, 10+i, inode)
	}
	if r := find(t, f, want(wanted...), 10); !r.Complete || r.LinksRead > sockets+links {
		t.Errorf("report %+v, want all found", r)
	}
	wanted = many(200_000, maxFree+10*links)
	for i, inode := range wanted {
		root.socket(10, 10+sockets+i, inode)
	}
	if r := find(t, f, want(wanted...), 10); r.Complete || r.LinksRead > maxFree+2*links {
		t.Errorf("report %+v, want at most about %d links", r, maxFree+links)
	}
}

// 100,000 descriptors in one process: bounded each time, and found in the end.
func TestManyDescriptors(t *testing.T) {
	t.Parallel()
	const descriptors = 100_000
	root := newFake(t)
	root.process(10, "leaks", 100, 1, many(1_000_000, 3)...)
	for fd := 6; fd < descriptors+3; fd++ { // another name is made faster than another link
		root.do(os.Link(root.path(10, "fd/3"), root.path(10, fmt.Sprintf("fd/%d", fd))))
	}
	f := root.finder(Config{FirstBudget: time.Nanosecond, LinksPerPass: 20_000})
	for range 20 {
		r := find(t, f, want(many(1_000_000, 3)...), 10)
		if r.LinksRead > 20_100 {
			t.Fatalf("report %+v", r)
		}
		if r.Complete {
			break
		}
	}
	expectOwner(t, f, 1_000_002, 10, 100)
	used, limit, err := f.Descriptors(10, 100)
	if err == nil || used != 0 || limit != 0 {
		t.Errorf("%d of %d descriptors, %v without a limits file", used, limit, err)
	}
	root.write(10, "limits", "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            200000               unlimited            files     \n")
	if used, limit, err = f.Descriptors(10, 100); used != descriptors+1 || limit != 200_000 || err != nil {
		t.Errorf("%d of %d descriptors, %v", used, limit, err)
	}
	if _, _, err = f.Descriptors(10, 99); !errors.Is(err, ErrGone) {
		t.Errorf("another process's: %v, want ErrGone", err)
	}
	if _, _, err = f.Descriptors(11, 0); !errors.Is(err, ErrGone) {
		t.Errorf("nobody's: %v, want ErrGone", err)
	}
	root.write(10, "limits", "Max open files            unlimited            unlimited            files     \n")
	if _, limit, err = f.Descriptors(10, 0); limit != math.MaxInt || err != nil {
		t.Errorf("limit %d, %v", limit, err)
	}
}

// Where the search looks first: in each case it reads one process of 200.
func TestOrder(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T) (fake, *Finder, uint64) {
		root := newFake(t)
		for pid := range 200 {
			root.process(100+pid, "p", 1, 1, uint32(100+pid))
		}
		groups := t.TempDir()
		root.do(os.MkdirAll(filepath.Join(groups, "pod"), 0o700))
		root.do(os.WriteFile(filepath.Join(groups, "pod", "cgroup.procs"), []byte("0\n250\n2"), 0o600))
		root.write(250, "cgroup", "0::/pod\n")
		f := root.finder(Config{Cgroup: groups})
		find(t, f, want(100, 250, 298, 299)) // learns the cgroup on the way
		for id, path := range f.groups {
			if path == "/pod" {
				return root, f, id
			}
		}
		t.Fatalf("cgroups %v, want one to be learnt", f.groups)
		return root, nil, 0
	}
	expectOne := func(t *testing.T, f *Finder, w Want, pid int, hints ...int) {
		t.Helper()
		if r := find(t, f, []Want{w}, hints...); r.ProcessesSeen != 1 || !r.Complete {
			t.Errorf("report %+v, want one process to be read", r)
		}
		if p, ok := f.Owner(w.Inode); !ok || p.PID != pid {
			t.Errorf("owner %+v, want %d", p, pid)
		}
	}
	t.Run("hint", func(t *testing.T) {
		t.Parallel()
		root, f, _ := build(t)
		root.socket(260, 9, 9000)
		expectOne(t, f, Want{Inode: 9000}, 260, -5, 0, 77777, math.MaxInt, 260, 261)
	})
	t.Run("cgroup", func(t *testing.T) {
		t.Parallel()
		root, f, id := build(t)
		root.socket(250, 9, 9000)
		expectOne(t, f, Want{Inode: 9000, Cgroup: id}, 250)
	})
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		root, f, _ := build(t)
		root.process(500, "new", 9, 1, 9000)
		expectOne(t, f, Want{Inode: 9000}, 500)
	})
}

// Of several that hold a socket the one that opened it is named.
func TestShared(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.do(os.Symlink("socket:[1]", root.path(1, "fd/30"))) // as a superuser's listener holds it
	root.process(10, "master", 100, 1, 1)
	root.process(11, "master", 101, 10, 1, 2)
	root.process(12, "master", 102, 11, 1)
	root.process(13, "helper", 103, 12, 1)
	f := root.finder(Config{})
	find(t, f, want(1, 2), 12)
	expectOwner(t, f, 1, 10, 100) // up from the worker that was hinted at
	expectOwner(t, f, 2, 11, 101)
	f = root.finder(Config{})
	find(t, f, want(1), 13)
	expectOwner(t, f, 1, 13, 103) // another program's descriptor
	f = root.finder(Config{})
	find(t, f, want(1))
	expectOwner(t, f, 1, 10, 100)
}

// What is known of a process with many sockets isn't read again.
func TestManyKnown(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	known := many(10_000, 2000)
	root.process(10, "proxy", 100, 1, known...)
	f := root.finder(Config{LinksPerPass: 3000})
	find(t, f, want(known...))
	for i := range 10 {
		root.socket(10, 5000+i, uint32(50_000+i))
	}
	// 1 is nowhere, so that all descriptors are read that have to be.
	r := find(t, f, want(append(slices.Clone(known), append(many(50_000, 10), 1)...)...), 10)
	if !r.Complete || r.Failed != 1 || r.LinksRead > 20+checksPerPass {
		t.Errorf("report %+v, want only new descriptors to be read", r)
	}
	expectOwner(t, f, 50_009, 10, 100)
}

// However much is wanted and whatever comes and goes, memory is bounded, and
// what is wanted stays.
func TestBounds(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "a", 100, 1, many(1000, 100)...)
	for pid := range 30 {
		root.process(100+pid, "p", uint64(pid+1), 1, many(uint32(pid*100+5000), 10)...)
	}
	f := root.finder(Config{MaxInodes: 80, MaxProcesses: 40})
	for i := range 300 {
		r := find(t, f, want(append(many(1000, 50), many(uint32(20_000+100*i), 60)...)...))
		if r.Complete || r.Dropped != 30 || r.Gap != nil {
			t.Fatalf("pass %d: report %+v", i, r)
		}
		expectOwner(t, f, 1000, 10, 100)
	}
	f = root.finder(Config{MaxProcesses: 20})
	for range 3 {
		if r := find(t, f, want(1000)); r.Complete || !errors.Is(r.Gap, ErrTooManyProcesses) {
			t.Errorf("report %+v with more processes than may be remembered", r)
		}
	}
	f = root.finder(Config{})
	for i := range 300 {
		find(t, f, want(append(many(1000, 10), many(uint32(20_000+5*i), 5)...)...))
	}
	if f.table.count > 1000 {
		t.Errorf("%d slots for 15 inodes that are wanted", f.table.count)
	}
}

// The search ends where nothing is wanted any more.
func TestStops(t *testing.T) {
	t.Parallel()
	root := newFake(t)
	root.process(10, "proxy", 100, 1, many(1000, 300)...)
	f := root.finder(Config{})
	if r := find(t, f, want(1150)); r.LinksRead >= 300 || !r.Complete {
		t.Errorf("report %+v, want it to end at the socket that was wanted", r)
	}
}
