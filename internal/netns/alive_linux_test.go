package netns

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// allocated is the kernel's count of network namespaces, those included that
// are dead and still held.
func allocated(t *testing.T) int {
	t.Helper()
	const shrink = "/sys/kernel/slab/net_namespace/shrink" // else what was freed counts too
	if err := os.WriteFile(shrink, []byte("1"), 0); err != nil {
		skip(t, "slabinfo", err)
	}
	text, err := os.ReadFile(outerProc + "/slabinfo")
	if err != nil {
		skip(t, "slabinfo", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "net_namespace" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	skip(t, "slabinfo", errors.New("net_namespace shares its slab with others"))
	return 0
}

// After everything a Watcher can do with it, a namespace dies with its last
// process, before any Refresh. There are two oracles: the kernel's count, which
// other tests of this machine move too, so these are many; and the settings of
// each namespace, which are gone when it is.
func TestKeepsNothingAlive(t *testing.T) {
	inside(t)
	const many, others = 160, 80 // the most that others may make or end meanwhile
	w := watch(t, Config{MaxPerGroup: many})
	before := allocated(t)
	crowd, died := make([]*child, many), make([]witness, many)
	for i := range crowd {
		crowd[i] = inNamespace(t)
		died[i] = crowd[i].witness()
	}
	mount(t, crowd[0], "/run/netns/held")
	refresh(t, w)
	use := func() {
		for _, n := range w.List() {
			_, err := w.Pulse(n)
			if err := errors.Join(err, w.Visit(n, func() error { return nil })); err != nil {
				t.Fatal(err)
			}
		}
	}
	use()
	refresh(t, w)
	use()
	if len(w.List()) != 1+many {
		t.Fatalf("%d are listed", len(w.List()))
	}
	up := allocated(t)
	if up < before+many-others {
		t.Fatalf("%d namespaces with %d new ones, %d before: the oracle doesn't count", up, many, before)
	}
	for _, c := range crowd {
		c.end()
	}
	unmount("/run/netns/held")
	for _, d := range died {
		d.wait(t)
	}
	eventually(t, func() error {
		inNamespace(t).end() // the kernel frees the last ones when the next one dies
		if n := allocated(t); n > up-many+others {
			return fmt.Errorf("%d namespaces, %d with those that died, which were %d", n, up, many)
		}
		return nil
	})
	if c := refresh(t, w); len(c.Gone) != many {
		t.Errorf("%d are gone", len(c.Gone))
	}
}

// A pod that is deleted in mid-storm, looked at all the time: its namespace
// dies, and its TIME_WAITs with it. If one descriptor were left it wouldn't, as
// the second half shows.
func TestDiesInStorm(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	for _, held := range []bool{false, true} {
		c, _ := inRole(t, "storm 0", unix.CLONE_NEWNET)
		died := c.witness()
		refresh(t, w)
		n := find(t, w, c.inode())
		for n.place != nil {
			p, err := w.Pulse(n)
			if err != nil && !errors.Is(err, ErrGone) {
				t.Fatal(err)
			}
			err = w.Visit(n, func() error { return nil })
			if err != nil && !errors.Is(err, ErrGone) {
				t.Fatal(err)
			}
			if !held && p.TimeWait > 500 {
				c.end()
			}
			if held && p.TimeWait > 500 && !c.ended {
				fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", c.pid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				c.end()
				defer unix.Close(fd)
			}
			refresh(t, w)
		}
		if held {
			if died.died() {
				t.Error("a namespace died although a descriptor of it is open")
			}
			continue
		}
		died.wait(t)
	}
}

// Nothing but the settings' files stays open.
func TestOpenFiles(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	inNamespace(t)
	refresh(t, w)
	for _, n := range w.List() {
		if _, err := w.Pulse(n); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	home := 0
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		switch {
		case err != nil: // of ReadDir itself
		case target == fmt.Sprintf("net:[%d]", w.visitor.homeInode):
			home++
		case strings.HasPrefix(target, "net:["), strings.HasPrefix(target, "socket:["), strings.HasPrefix(target, "/proc/") && strings.Contains(target, "/net/") && !strings.HasPrefix(target, "/proc/sys/"):
			t.Errorf("descriptor %s is %s", e.Name(), target)
		}
	}
	if home != 1 {
		t.Errorf("%d descriptors of our own namespace", home)
	}
}
