package owner

import (
	"errors"
	"io/fs"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

type pathError = fs.PathError

// A hit is a socket seen in the process that is being visited.
type hit struct{ inode, descriptor uint32 }

const maxHits = 4096

// at makes the name of a file of a process, valid until the next.
func (s *search) at(pid int32, file string) []byte {
	s.path = append(appendPID(s.path[:0], pid), file...)
	return s.path
}

func (s *search) status(pid int32) (status, error) {
	text, err := s.proc.read(s.at(pid, "/stat"), s.f.text)
	if err != nil {
		return status{}, err
	}
	st, ok := parseStat(text)
	if !ok {
		return status{}, unix.EINVAL
	}
	return st, nil
}

// visitNext visits a process out of turn, once a call, and goes on where the
// last such visit ended for want of budget. It returns false if this one did.
func (s *search) visitNext(pid int32) bool {
	p := &s.f.people
	i, ok := p.byPID[pid]
	if !ok { // it may be new since the last listing
		if i, ok = p.meet(pid, 0); !ok {
			return true
		}
	}
	if p.all[i].visited == s.f.pass || s.wholly(i) {
		return true
	}
	next, done := s.visit(i, p.all[i].next)
	if s.pending == 0 {
		next = 0 // nothing was wanting any more: what will be may be anywhere
	}
	if q := &p.all[i]; !q.gone && !q.unused {
		q.next = next
	}
	return done
}

// visit reads a process's descriptors from a position on. It returns where to
// go on if the budget ended it, or 0 and true. The process is whom it was taken
// for if its start time is the same before and after; else nothing is believed.
func (s *search) visit(i uint32, from int64) (next int64, done bool) {
	f, p := s.f, &s.f.people
	pid := p.all[i].pid
	s.spent += visitCost
	p.all[i].visited = f.pass
	f.hits, s.near = f.hits[:0], 0
	before, err := s.status(pid)
	switch {
	case err != nil && refused(err):
		p.refuse(i, f.pass)
		return 0, true
	case err != nil:
		p.part(i)
		return 0, true
	}
	if i, err = s.identify(i, before); err != nil || before.kernel {
		return 0, true
	}
	s.report.ProcessesSeen++
	fd, err := s.proc.open(s.at(pid, "/fd"), unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(fd)
		if from != 0 {
			_, err = unix.Seek(fd, from, unix.SEEK_SET)
		}
	}
	if err == nil {
		next, done, err = s.descriptors(i, fd, from)
	}
	switch {
	case err != nil && refused(err):
		p.refuse(i, f.pass)
		return 0, true
	case err != nil:
		return 0, true // it is going; the next listing knows
	}
	p.allow(i)
	if !s.confirm(i) {
		return 0, true
	}
	if q := &p.all[i]; done {
		q.fresh = false
		if from == 0 {
			q.read = f.pass
		}
	}
	return next, done
}

// identify compares a process with what is remembered of it, and begins anew
// if it is another.
func (s *search) identify(i uint32, st status) (uint32, error) {
	p := &s.f.people
	q := &p.all[i]
	if q.start != 0 && q.start != st.start {
		pid, dir := q.pid, q.dir
		p.part(i)
		var ok bool
		if i, ok = p.meet(pid, dir); !ok {
			return 0, ErrTooManyProcesses
		}
		q = &p.all[i]
		q.visited = s.f.pass
	}
	renamed := q.name != st.name
	q.start, q.parent, q.kernel, q.name = st.start, st.parent, st.kernel, st.name
	if renamed && q.process != nil {
		s.describe(i) // it has called exec
	}
	return i, nil
}

// descriptors reads the links in an open /proc/PID/fd into hits.
func (s *search) descriptors(i uint32, fd int, from int64) (next int64, done bool, err error) {
	f := s.f
	known := s.known(i)
	defer s.unknow(known)
	links := tree{fd}
	next = from
	var stop error
	done, err = entries(fd, f.dirents, func(d dirent) bool {
		n, ok := parsePID(d.name)
		if !ok {
			next = d.next
			return true
		}
		if !s.more() {
			return false
		}
		next = d.next
		if s.isKnown(n) {
			if s.skipped++; s.skipped == skippedCost {
				s.skipped = 0
				s.spent++
			}
			return true
		}
		s.spent++
		s.report.LinksRead++
		to, err := links.link(d.name, s.linkTo[:])
		if err != nil {
			if refused(err) || errors.Is(err, unix.ESRCH) {
				stop = err
			}
			return stop == nil // closed meanwhile
		}
		if inode, ok := parseLink(to); ok && s.interesting(inode) {
			f.hits = append(f.hits, hit{inode, uint32(n)})
			if len(f.hits) == maxHits && !s.confirm(i) {
				stop = ErrGone
			}
		}
		return stop == nil && (s.pending == 0 || s.near < s.pending)
	})
	if stop != nil {
		err = stop
	}
	if done {
		next = 0
	}
	return next, done, err
}

// interesting reports whether an inode's process isn't known yet. What nobody
// wants now is taken along while there is room: it may be wanted next.
func (s *search) interesting(inode uint32) bool {
	t := &s.f.table
	e := t.at(inode)
	if e == nil {
		return t.count+len(s.f.hits) < t.max/2
	}
	if e.owner == ownerPending && e.used == s.f.pass {
		s.near++
		if s.limit != math.MaxInt && s.free < maxFree { // the first call's limit is time
			s.free++
			s.spent--
		}
	}
	return e.owner >= ownerNone || s.f.people.all[e.owner].gone
}

// known marks the descriptors of a process that needn't be read: those of
// sockets that this call wants, so they are alive, and that were found there
// before. It returns them, for unknow.
func (s *search) known(i uint32) []uint32 {
	f := s.f
	s.index()
	if int(i)+1 >= len(f.heads) {
		return nil
	}
	descriptors := f.known[f.heads[i]:f.heads[i+1]]
	for _, n := range descriptors {
		for int(n/64) >= len(f.live) {
			f.live = append(f.live, 0)
		}
		f.live[n/64] |= 1 << (n % 64)
	}
	return descriptors
}

func (s *search) unknow(descriptors []uint32) {
	for _, n := range descriptors {
		s.f.live[n/64] = 0
	}
}

func (s *search) isKnown(n int32) bool {
	return int(n/64) < len(s.f.live) && s.f.live[n/64]&(1<<(n%64)) != 0
}

// index sorts the known descriptors by process, once a call: those of process
// i are known[heads[i]:heads[i+1]].
func (s *search) index() {
	if s.indexed {
		return
	}
	s.indexed = true
	f := s.f
	const most = 1 << 20 // descriptors beyond are read each time
	worth := func(e *slot) bool { return e.owner < ownerNone && e.used == f.pass && e.aux < most }
	f.heads = slices.Grow(f.heads[:0], len(f.people.all)+2)[:len(f.people.all)+2]
	clear(f.heads)
	n := 0
	f.table.all(func(e *slot) {
		if worth(e) {
			f.heads[e.owner+2]++
			n++
		}
	})
	for i := 1; i < len(f.heads); i++ {
		f.heads[i] += f.heads[i-1]
	}
	f.known = slices.Grow(f.known[:0], n)[:n]
	f.table.all(func(e *slot) {
		if worth(e) {
			f.known[f.heads[e.owner+1]] = e.aux
			f.heads[e.owner+1]++
		}
	})
}

// confirm believes the hits, if the process is still the same.
func (s *search) confirm(i uint32) bool {
	f, p := s.f, &s.f.people
	hits := f.hits
	f.hits, s.near = f.hits[:0], 0
	if len(hits) == 0 {
		return true
	}
	after, err := s.status(p.all[i].pid)
	if err != nil || after.start != p.all[i].start {
		p.part(i)
		f.turn.missed = f.turn.missed || err == nil
		return false
	}
	for _, h := range hits {
		e := f.table.at(h.inode)
		switch {
		case e == nil:
			if e = f.table.add(h.inode); e == nil {
				continue
			}
			e.used, e.owner = f.pass, ownerPending
			p.own(e, i, h.descriptor)
		case !e.asked || e.used != f.pass:
			p.own(e, i, h.descriptor)
		case e.owner >= ownerNone:
			s.settle(e, i, h.descriptor)
		}
	}
	return true
}

// settle gives a wanted inode that has no owner yet the process that it was
// found in, or rather the ancestor that opened it.
func (s *search) settle(e *slot, i, descriptor uint32) {
	p := &s.f.people
	i = s.opener(e.inode, i, descriptor)
	failed := e.owner == ownerFailed
	p.own(e, i, descriptor)
	if p.all[i].process == nil {
		s.describe(i)
	}
	if failed {
		s.failed--
	} else {
		s.pending--
	}
	s.found++
}

// opener goes from a process that holds a socket up to its farthest ancestor
// that bears the same name and holds the socket at the same descriptor.
func (s *search) opener(inode, i, descriptor uint32) uint32 {
	const generations = 8
	p := &s.f.people
	for range generations {
		up, ok := p.byPID[p.all[i].parent]
		if !ok || p.all[i].parent == 0 || up == i || p.all[up].read == s.f.pass {
			break // the last has been read in this call, and so doesn't hold it
		}
		if p.all[up].start == 0 {
			st, err := s.status(p.all[up].pid)
			if err != nil {
				break
			}
			if up, err = s.identify(up, st); err != nil {
				break
			}
		}
		if p.all[up].name != p.all[i].name || p.all[up].start > p.all[i].start || !s.holds(up, descriptor, inode) {
			break
		}
		i = up
	}
	return i
}

// holds reads one descriptor's link.
func (s *search) holds(i, descriptor, inode uint32) bool {
	s.spent++
	s.report.LinksRead++
	name := appendPID(append(s.at(s.f.people.all[i].pid, "/fd"), '/'), int32(descriptor))
	to, err := s.proc.link(name, s.linkTo[:])
	got, ok := parseLink(to)
	return err == nil && ok && got == inode
}

// A check is an entry to be looked at again.
type check struct {
	inode uint32
	bare  bool // what its process says of itself wasn't read yet
}

// check looks whether an entry still holds, and looks for its inode if not.
func (s *search) check(c check) {
	p, inode := &s.f.people, c.inode
	e := s.f.table.at(inode)
	if e == nil || e.owner >= ownerNone {
		return
	}
	i, descriptor := e.owner, e.aux
	if p.all[i].gone || !s.holds(i, descriptor, inode) {
		p.own(e, ownerPending, s.f.turn.number)
		s.pending++
		if c.bare {
			s.unchecked--
		} else {
			s.found--
		}
		return
	}
	if c.bare {
		s.unchecked--
		s.found++
		if up := s.opener(inode, i, descriptor); up != i {
			p.own(e, up, descriptor)
			i = up
		}
		if p.all[i].process == nil {
			s.describe(i)
		}
	}
}
