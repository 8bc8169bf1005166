package netns

import (
	"cmp"
	"errors"
	"slices"
)

// rounds is how many calls of Refresh look once at each known process's link.
const rounds = 8

// A process is one that the last Refresh listed.
type process struct {
	pid    int32
	young  bool // it was new: it may be on its way to its namespace
	denied bool
	dir    uint64 // see tree.processes
	place  *place // nil if unknown
}

// Refresh looks for namespaces that are new or gone, and brings what is told of
// the others up to date. It reads the links of new processes and those of an
// eighth of the known ones. If processes can't be listed the error says so, and
// what is listed stays as it was.
func (w *Watcher) Refresh() (Changes, error) {
	w.turn = (w.turn + 1) % rounds
	c := Changes{Gap: w.mountGap}
	w.dropDead(&c)
	err := w.readProcesses(&c)
	if err == nil {
		w.readMounts(&c)
		w.dropUnreached(&c)
		w.describe()
		w.admit(&c)
	}
	w.list = slices.DeleteFunc(w.list, func(n *Namespace) bool { return n.place == nil })
	inOrder := func(a, b *Namespace) int {
		return cmp.Or(cmp.Compare(min(w.rank(a.place), mounted), min(w.rank(b.place), mounted)), cmp.Compare(a.Serial, b.Serial))
	}
	slices.SortFunc(w.list, inOrder)
	slices.SortFunc(c.New, inOrder)
	slices.SortFunc(c.Gone, func(a, b *Namespace) int { return cmp.Compare(a.Serial, b.Serial) })
	return c, err
}

// The ranks of places: the order in which they are listed if there isn't room
// for all.
const (
	host = iota
	home
	mounted
	unmounted // anybody may have made it
)

func (w *Watcher) rank(p *place) int {
	switch {
	case p.inode == w.hostInode:
		return host
	case p.home:
		return home
	case len(p.mounts) > 0:
		return mounted
	}
	return unmounted
}

// dropDead finds namespaces that died although something seems to lead to them:
// a process left for another one, or another one has their number.
func (w *Watcher) dropDead(c *Changes) {
	for _, n := range w.list {
		if n.token >= 0 && dead(n.token) {
			w.drop(n.place, c)
		}
	}
}

// drop forgets a place.
func (w *Watcher) drop(p *place, c *Changes) {
	p.dead = true // for the processes that point to it
	delete(w.places, p.inode)
	if n := p.listed; n != nil {
		c.Gone = append(c.Gone, n)
		w.letGo(n)
	}
}

// placeOf is the place of an inode number, a new one if need be.
func (w *Watcher) placeOf(inode uint64) *place {
	p := w.places[inode]
	if p == nil {
		p = &place{inode: inode, young: true}
		w.places[inode] = p
	}
	return p
}

// readProcesses lists the processes. As old and new list ascend, they are
// compared in one walk.
func (w *Watcher) readProcesses(c *Changes) error {
	for _, p := range w.places {
		p.lowest, p.pidHere, p.kept = 0, false, false
	}
	now, old := w.spare[:0], w.processes
	err := w.proc.processes(w.text, func(pid int32, dir uint64) {
		if len(now) == w.config.MaxProcesses {
			c.Unread++
			return
		}
		for len(old) > 0 && old[0].pid < pid {
			old = old[1:]
		}
		p := process{pid: pid, dir: dir, young: true}
		known := len(old) > 0 && old[0].pid == pid && old[0].dir == dir
		if known {
			p = old[0]
		}
		before := p.place
		doubt := p.place != nil && (p.place.dead || p.place.doubt)
		if !known || p.young || doubt || int(pid)%rounds == w.turn {
			c.LinksRead++
			w.readLink(&p)
			p.young = !known
		}
		if p.place != nil {
			if p.place.lowest == 0 {
				p.place.lowest = pid
			}
			p.place.pidHere = p.place.pidHere || p.place.pid == pid
			p.place.kept = p.place.kept || p.place == before
		}
		if p.denied {
			c.Denied++
		}
		now = append(now, p)
	})
	if err != nil {
		return &Error{Op: "read", Path: w.config.Proc, Err: err}
	}
	for _, p := range w.places {
		p.doubt = false
	}
	w.processes, w.spare = now, w.processes
	c.Processes = len(now)
	if c.Denied > 0 {
		c.Gap = errors.Join(&DeniedError{c.Denied}, c.Gap)
	}
	return nil
}

func (w *Watcher) readLink(p *process) {
	inode, err := w.proc.namespace(ofProcess(p.pid, "ns/net"), "net")
	p.place, p.denied = nil, refused(err)
	if err == nil {
		p.place = w.placeOf(inode)
	}
}

// dropUnreached forgets the places that nothing leads to any more. One without a
// token, since it can't be entered, is the same only as long as one of its
// processes stays.
func (w *Watcher) dropUnreached(c *Changes) {
	for _, p := range w.places {
		lost := p.lowest == 0 || p.listed != nil && p.listed.token < 0 && !p.kept
		if lost && w.rank(p) == unmounted {
			w.drop(p, c)
		}
	}
}

// describe brings up to date what is told of each place.
func (w *Watcher) describe() {
	for _, p := range w.places {
		read := p.young
		p.young = !p.pidHere
		if !p.pidHere {
			p.pid, read = p.lowest, true
		}
		n := p.listed
		if n == nil {
			if read {
				p.group = w.groupOf(w.Cgroup(int(p.pid)))
			}
			continue
		}
		if read || int(n.Serial)%rounds == w.turn {
			w.readCgroup(n)
			if n.Trouble != nil {
				n.Trouble = w.identify(n)
			}
		}
		w.name(n)
	}
}

// readCgroup keeps what was known if there is no process any more.
func (w *Watcher) readCgroup(n *Namespace) {
	if cgroup := w.Cgroup(int(n.place.pid)); cgroup != "" {
		n.Cgroup, n.place.group = cgroup, w.groupOf(cgroup)
	}
}

// name tells what leads to a namespace, and what it is called after that.
func (w *Watcher) name(n *Namespace) {
	n.PID = int(n.place.pid)
	n.Mounts = nil
	n.Kind, n.Name = KindProcess, ""
	for _, m := range n.place.mounts {
		n.Mounts = append(n.Mounts, m.path)
		if name := mountedName(m.path); name != "" && n.Name == "" {
			n.Kind, n.Name = KindNamed, name
		}
	}
	switch n.Inode {
	case w.hostInode:
		n.Kind, n.Name = KindHost, KindHost
	case w.visitor.homeInode:
		n.Kind, n.Name = KindSelf, KindSelf
	}
}

// admit lists the places that aren't yet, as far as the limits allow.
func (w *Watcher) admit(c *Changes) {
	inGroup := map[string]int{}
	for _, n := range w.list {
		if n.place != nil && w.rank(n.place) == unmounted {
			inGroup[n.place.group]++
		}
	}
	over := func(p *place) bool {
		return w.rank(p) == unmounted && inGroup[p.group] >= w.config.MaxPerGroup
	}
	var waiting []*place
	listed := 0
	for _, p := range w.places {
		switch {
		case p.listed != nil:
			listed++
		case over(p):
			c.OverGroup++
		default:
			waiting = append(waiting, p)
		}
	}
	slices.SortFunc(waiting, func(a, b *place) int {
		return cmp.Or(cmp.Compare(w.rank(a), w.rank(b)), cmp.Compare(a.lowest, b.lowest), cmp.Compare(a.inode, b.inode))
	})
	for _, p := range waiting {
		switch {
		case over(p):
			c.OverGroup++
			continue
		case listed >= w.config.MaxNamespaces:
			c.OverAll++
			continue
		}
		n := &Namespace{Serial: w.serial + 1, Inode: p.inode, token: -1, place: p}
		if n.Trouble = w.identify(n); errors.Is(n.Trouble, ErrGone) {
			continue // the next Refresh knows more
		}
		w.serial++
		p.listed = n
		w.readCgroup(n)
		w.name(n)
		listed++
		if w.rank(p) == unmounted {
			inGroup[p.group]++
		}
		w.list = append(w.list, n)
		c.New = append(c.New, n)
	}
}

// identify visits a namespace to learn its cookie and to open its token.
func (w *Watcher) identify(n *Namespace) error {
	return w.visitor.visit(n.Inode, n.place.ways(), func() error {
		n.Cookie = OwnCookie()
		if n.place.home {
			return nil // held open, so it needs no token
		}
		const name = "sys/net/ipv4/ip_local_port_range" // every namespace has it
		token, err := w.proc.open(name)
		if err != nil {
			return &Error{Op: "open", Path: w.config.Proc + "/" + name, Err: err}
		}
		n.token = token
		return nil
	})
}
