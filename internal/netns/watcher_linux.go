package netns

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// textSize is enough for a whole net/snmp: one with all 512 kinds of ICMP
// messages has 20 KB.
const textSize = 32 << 10

// A Watcher knows the network namespaces of this kernel. It is for one goroutine
// at a time.
type Watcher struct {
	config    Config
	proc      tree
	visitor   visitor
	hostInode uint64            // 0 if there is no telling
	roots     map[string]string // of our cgroup namespace
	rooted    bool              // they are known

	tables    []*mountTable
	mountGap  error             // why one of them is missing
	processes []process         // by ascending pid
	spare     []process         // where the next Refresh writes them
	places    map[uint64]*place // by inode number
	list      []*Namespace
	serial    uint64 // given last
	turn      int    // of the eighths
	text      []byte
}

// A place is the inode number of a namespace that something leads to, listed or
// not.
type place struct {
	inode  uint64
	mounts []mountPoint // sorted
	pid    int32        // Namespace's PID
	group  string       // of the cgroup of pid
	young  bool         // its cgroup is read again: a runtime moves a new process
	listed *Namespace
	home   bool // of the Watcher
	dead   bool // its namespace is, and another one may have its number
	doubt  bool // it wasn't where it should be: all its links are read again

	// Of this Refresh:
	lowest  int32 // the first process met, 0 if none
	pidHere bool
	kept    bool // one that was in it before is still
}

// NewWatcher makes a Watcher whose home is the calling thread's network
// namespace. Nothing is listed before the first Refresh.
func NewWatcher(config Config) (*Watcher, error) {
	w := &Watcher{
		config: config.withDefaults(),
		places: map[uint64]*place{},
		text:   make([]byte, textSize),
	}
	var err error
	if w.proc, err = openTree(w.config.Proc); err != nil {
		return nil, err
	}
	const ours = "thread-self/ns/net"
	home, err := w.proc.open(ours)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(home, &st)
	}
	if err != nil {
		w.proc.close()
		return nil, &Error{Op: "open", Path: w.config.Proc + "/" + ours, Err: err}
	}
	w.visitor = visitor{proc: w.proc, home: home, homeInode: st.Ino}
	w.places[st.Ino] = &place{inode: st.Ino, home: true}
	w.hostInode = w.findHost()
	w.roots, w.rooted = w.proc.cgroupRoots()
	w.openMountTables()
	return w, nil
}

// findHost tells which namespace is the host's. Settings that only the first
// one has show it from inside (tcp_max_orphans, net/ipv4/sysctl_net_ipv4.c),
// and PID 1 of the first PID namespace from anywhere.
func (w *Watcher) findHost() uint64 {
	if unix.Faccessat(w.proc.fd, "sys/net/ipv4/tcp_max_orphans", unix.F_OK, 0) == nil {
		return w.visitor.homeInode
	}
	if pids, err := w.proc.namespace("1/ns/pid", "pid"); err == nil && pids == firstPID {
		if inode, err := w.proc.namespace("1/ns/net", "net"); err == nil {
			return inode
		}
	}
	return 0
}

func (w *Watcher) openMountTables() {
	open := func(process, root string) {
		m, err := openMountTable(w.config.Proc+"/"+process+"/mountinfo", root)
		if err != nil {
			w.mountGap = errors.Join(w.mountGap, err)
			return
		}
		w.tables = append(w.tables, m)
	}
	ours, err1 := w.proc.namespace("thread-self/ns/mnt", "mnt")
	first, err2 := w.proc.namespace("1/ns/mnt", "mnt")
	if err1 == nil && err2 == nil && ours != first {
		open("1", w.config.Proc+"/1/root")
	} else if refused(err2) {
		w.mountGap = &Error{Op: "read", Path: w.config.Proc + "/1/ns/mnt", Err: err2}
	}
	open("thread-self", "")
}

// Close ends the Watcher's thread and closes its files. What it listed can't be
// visited any more.
func (w *Watcher) Close() error {
	w.visitor.close()
	for _, n := range w.list {
		w.letGo(n)
	}
	w.list = nil
	var errs []error
	for _, m := range w.tables {
		errs = append(errs, m.file.Close())
	}
	w.proc.close()
	return errors.Join(append(errs, unix.Close(w.visitor.home))...)
}

// List returns the namespaces as the last Refresh left them: the host's, our
// own, then in the order of their discovery. The slice belongs to the Watcher
// and is valid until the next Refresh.
func (w *Watcher) List() []*Namespace { return w.list }

// Visit runs a function on a thread that is inside of a namespace. There
// /proc/thread-self/net (not /proc/self/net) is the namespace's, and so are the
// sockets and the files of /proc/sys/net that it opens; goroutines that it
// starts are not inside. The thread leaves when the function returns; until
// then, the namespace can't die.
//
// The error is the function's, ErrGone, or an *Error: n.Trouble if that is set.
func (w *Watcher) Visit(n *Namespace, run func() error) error {
	switch {
	case n.place == nil:
		return ErrGone
	case n.place.home:
		return w.visitor.visit(n.Inode, nil, run)
	case n.token < 0:
		return n.Trouble
	}
	err := w.visitor.visit(n.Inode, n.place.ways(), func() error {
		// Whatever is here now can't die. If what the token is of isn't dead, its
		// number is nobody else's, so it is the same.
		if dead(n.token) {
			return ErrGone
		}
		return run()
	})
	n.place.doubt = n.place.doubt || errors.Is(err, ErrGone)
	return err
}

// ways lead to the namespace.
func (p *place) ways() []string {
	ways := make([]string, 0, 1+len(p.mounts))
	if p.pid != 0 {
		ways = append(ways, ofProcess(p.pid, "ns/net"))
	}
	for _, m := range p.mounts {
		ways = append(ways, m.way)
	}
	return ways
}

// letGo closes what is open of a namespace.
func (w *Watcher) letGo(n *Namespace) {
	if n.token >= 0 {
		unix.Close(n.token)
	}
	n.token, n.place = -1, nil
}

// Cgroup reads the cgroup path of a process from the root of the whole tree (in
// a cgroup namespace of its own, as containers have, a process sees other
// cgroups as "/../other"). Of several hierarchies it is systemd's own, else v2's,
// else the first of v1 that isn't "/". It is "" if there is none, if the process
// is gone, and if this process's cgroup namespace isn't PID 1's and CAP_SYS_ADMIN
// to look from there was missing. Whether it is still the same process is for the
// caller to tell.
func (w *Watcher) Cgroup(pid int) string {
	if pid <= 0 || !w.rooted {
		return ""
	}
	text, err := w.proc.read(ofProcess(int32(pid), "cgroup"), w.text)
	if err != nil {
		return ""
	}
	return parseCgroup(text, w.roots)
}

// groupOf is a copy of the group of a cgroup, which isn't kept for its sake.
func (w *Watcher) groupOf(cgroup string) string {
	const most = 256
	group := w.config.Group(cgroup)
	return strings.Clone(group[:min(len(group), most)])
}
