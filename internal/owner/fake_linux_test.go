package owner

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A fake is a directory that looks like procfs. It has a process 1 from the
// beginning, which holds nothing.
type fake struct {
	t    testing.TB
	root string
}

func newFake(t testing.TB) fake {
	root, err := os.MkdirTemp("/dev/shm", "owner") // in memory, if it is there
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	f := fake{t, root}
	f.process(1, "init", 1, 0)
	return f
}

func (f fake) do(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f fake) path(pid int, name string) string {
	return filepath.Join(f.root, strconv.Itoa(pid), name)
}

func (f fake) write(pid int, name, text string) {
	f.t.Helper()
	f.do(os.WriteFile(f.path(pid, name), []byte(text), 0o600))
}

// stat is a line as the kernel writes it.
func stat(pid int, comm string, start uint64, parent int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 9 10 18446744073709551615\n", pid, comm, parent, start)
}

// process makes a process whose descriptors from 3 on are the given sockets.
func (f fake) process(pid int, comm string, start uint64, parent int, sockets ...uint32) {
	f.t.Helper()
	f.do(os.MkdirAll(f.path(pid, "fd"), 0o700))
	f.write(pid, "stat", stat(pid, comm, start, parent))
	f.write(pid, "comm", comm+"\n")
	f.write(pid, "cgroup", "0::/\n")
	f.write(pid, "cmdline", comm+"\x00")
	f.do(os.Symlink("/dev/null", f.path(pid, "fd/0")))
	for i, inode := range sockets {
		f.socket(pid, 3+i, inode)
	}
}

func (f fake) socket(pid, fd int, inode uint32) {
	f.t.Helper()
	f.do(os.Symlink(fmt.Sprintf("socket:[%d]", inode), f.path(pid, "fd/"+strconv.Itoa(fd))))
}

func (f fake) close(pid, fd int) {
	f.t.Helper()
	f.do(os.Remove(f.path(pid, "fd/"+strconv.Itoa(fd))))
}

func (f fake) exit(pid int) {
	f.t.Helper()
	f.do(os.RemoveAll(f.path(pid, "")))
}

// finder reads the fake, with a budget of many links if none is given.
func (f fake) finder(c Config) *Finder {
	c.Proc = f.root
	if c.Cgroup == "" {
		c.Cgroup = filepath.Join(f.root, "no cgroups here")
	}
	if c.FirstBudget == 0 {
		c.FirstBudget = time.Minute
	}
	return New(c)
}

func want(inodes ...uint32) []Want {
	var w []Want
	for _, inode := range inodes {
		w = append(w, Want{Inode: inode})
	}
	return w
}

// find calls Find, and checks what always holds.
func find(t testing.TB, f *Finder, wanted []Want, hints ...int) Report {
	t.Helper()
	found, r := f.Find(context.Background(), wanted, hints)
	distinct := map[uint32]bool{}
	for _, w := range wanted {
		distinct[w.Inode] = true
	}
	delete(distinct, 0)
	owned := 0
	for inode := range distinct {
		if _, ok := f.Owner(inode); ok {
			owned++
		}
	}
	if found != owned {
		t.Errorf("found %d, but %d have an owner", found, owned)
	}
	if sum := found + r.Pending + r.Failed + r.Dropped; sum != len(distinct) {
		t.Errorf("found %d and %+v make %d of %d wanted", found, r, sum, len(distinct))
	}
	consistent(t, f)
	return r
}

// consistent checks the books: counts of references and of free records.
func consistent(t testing.TB, f *Finder) {
	t.Helper()
	refs, count, sum := map[uint32]int32{}, 0, 0
	f.table.all(func(e *slot) {
		count++
		if e.owner < ownerNone {
			refs[e.owner]++
			sum++
		}
	})
	if count != f.table.count || sum != f.people.refs || count > f.config.MaxInodes || len(f.people.all) > f.config.MaxProcesses {
		t.Errorf("%d slots, counted %d; %d owned, counted %d; %d processes", count, f.table.count, sum, f.people.refs, len(f.people.all))
	}
	if len(f.people.fresh) > len(f.people.byPID) {
		t.Errorf("%d new processes of %d", len(f.people.fresh), len(f.people.byPID))
	}
	unused, denied := 0, 0
	for i, q := range f.people.all {
		if q.refs != refs[uint32(i)] {
			t.Errorf("process %d has %d references, counted %d", q.pid, refs[uint32(i)], q.refs)
		}
		if q.unused {
			unused++
		} else if q.gone && q.refs == 0 {
			t.Errorf("process %d is gone, and nothing names it", q.pid)
		}
		if q.denied != 0 {
			denied++
		}
	}
	if unused != len(f.people.free) || denied != f.people.denied {
		t.Errorf("%d records are free, %d listed; %d refused, counted %d", unused, len(f.people.free), denied, f.people.denied)
	}
}

// expectOwner checks who an inode's owner is, 0 for nobody.
func expectOwner(t testing.TB, f *Finder, inode uint32, pid int, start uint64) *Process {
	t.Helper()
	p, ok := f.Owner(inode)
	switch {
	case !ok && pid == 0:
	case !ok:
		t.Fatalf("inode %d has no owner, want process %d", inode, pid)
	case p.PID != pid || p.Start != start:
		t.Fatalf("inode %d is of process %d started at %d, want %d at %d", inode, p.PID, p.Start, pid, start)
	}
	return p
}

// many is n inodes from first on.
func many(first uint32, n int) []uint32 {
	inodes := make([]uint32, n)
	for i := range inodes {
		inodes[i] = first + uint32(i)
	}
	return inodes
}

// A swap is a context that does something at the nth question whether it is
// over. The search asks before each link, so this is in the midst of a visit.
type swap struct {
	context.Context
	n  int
	do func()
}

func (s *swap) Err() error {
	if s.n--; s.n == 0 {
		s.do()
	}
	return s.Context.Err()
}

func hostile() string { return "a) R 1 (b\n\x1b[31m\u202e" + strings.Repeat("x", 300) }
