package owner

import (
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What things cost, in links read (2.5 µs).
const (
	visitCost    = 8  // opening a process and reading its stat twice
	describeCost = 32 // reading what a process says of itself
	skippedCost  = 4  // so many descriptors passed over make a link
)

const (
	checksPerPass = 64 // entries checked anew in a pass
	retryAfter    = 64 // passes until what was given up is looked for again
	listEvery     = 16 // passes until processes are listed in any case
	freshEvery    = 4  // passes until they are if only what was given up is wanting
	maxGroups     = 32 // cgroups searched in a pass
	leastHint     = 50 // links that a hint is worth at least

	// maxFree is how many links to wanted sockets are read in a pass beside the
	// budget.
	maxFree = 1 << 14
)

// A search is one call of Find.
type search struct {
	f      *Finder
	ctx    context.Context
	proc   tree
	report Report

	pending   int      // wanted inodes still looked for
	near      int      // of them those among the hits
	failed    int      // wanted inodes given up
	found     int      // wanted inodes whose process is known
	unchecked int      // those whose process is known, but not what it says of itself
	groups    []uint64 // the cgroups of those pending

	spent    int // in links
	limit    int // of this stage
	skipped  int // descriptors passed over, less than skippedCost
	free     int // links to wanted sockets, beside what was spent
	deadline time.Time
	clock    int // what had been spent when the clock was last read
	began    time.Time
	listing  bool // processes are to be listed in any case
	indexed  bool // known's index is made
	path     []byte
	linkTo   [64]byte
	failure  error
}

// Find looks for the processes of the wanted sockets whose process isn't known
// yet, and returns of how many it is known. hints are the pids that are likely,
// the likeliest first. The first call takes Config.FirstBudget at most, later
// ones read Config.LinksPerPass links at most, give or take one process and
// beside those of 16,384 sockets that they find, and nearly nothing if every
// process is known; what is Pending then is looked for in the next call, if it
// is wanted there too. A cancelled context ends a call early. Errors are in the
// report: what was found holds in any case.
func (f *Finder) Find(ctx context.Context, wanted []Want, hints []int) (found int, report Report) {
	f.pass++
	f.buffers()
	s := &search{f: f, ctx: ctx, began: time.Now(), path: make([]byte, 0, 64)}
	checks := s.look(wanted)
	idle := f.pass - f.people.pass
	s.listing = idle >= listEvery && f.people.refs > 0 || idle >= freshEvery && s.failed > 0
	if s.pending > 0 || len(checks) > 0 || s.listing || len(f.poor) > 0 {
		s.work(checks, hints)
	}
	r := &s.report
	r.Pending, r.Failed, r.Denied = s.pending+s.unchecked, s.failed, f.people.denied
	r.Swept = f.turn.ended
	r.Complete = r.Pending == 0 && r.Dropped == 0 && s.failure == nil && !f.people.over
	switch {
	case s.failure != nil:
		r.Gap = s.failure
	case ctx.Err() != nil:
		r.Gap = ctx.Err()
	case f.people.hidden:
		r.Gap = ErrHidden
	case f.people.denied > 0:
		r.Gap = &DeniedError{}
	case f.people.over:
		r.Gap = ErrTooManyProcesses
	case f.people.nested && s.failed > 0:
		r.Gap = ErrNested
	}
	return s.found, s.report
}

// look takes stock of what is wanted, and returns which entries are to be
// checked anew.
func (s *search) look(wanted []Want) (checks []check) {
	f := s.f
	if f.table.count >= f.table.full {
		f.forget(wanted)
	}
	// Each entry has its turn once a period, without a note of when it last had.
	period, due := uint32(max(listEvery, f.people.refs/checksPerPass)), 0
	for _, w := range wanted {
		if w.Inode == 0 {
			continue
		}
		e := f.table.at(w.Inode)
		if e == nil {
			if e = f.table.add(w.Inode); e == nil {
				s.report.Dropped++
				continue
			}
			e.owner, e.aux = ownerPending, f.turn.number
		}
		if e.used == f.pass && e.asked {
			continue // named twice
		}
		e.used, e.asked = f.pass, true
		switch {
		case e.owner < ownerNone && f.people.all[e.owner].gone,
			e.owner == ownerFailed && f.pass-e.aux >= retryAfter:
			f.people.own(e, ownerPending, f.turn.number)
			s.wait(w)
		case e.owner < ownerNone && f.people.all[e.owner].process == nil:
			s.unchecked++ // seen before it was wanted
			checks = append(checks, check{w.Inode, true})
		case e.owner < ownerNone:
			s.found++
			if due < checksPerPass && (w.Inode+f.pass)%period == 0 {
				due++
				checks = append(checks, check{w.Inode, false})
			}
		case e.owner == ownerFailed:
			s.failed++
		default:
			s.wait(w)
		}
	}
	return checks
}

// wait counts an inode that is looked for.
func (s *search) wait(w Want) {
	s.pending++
	if w.Cgroup != 0 && len(s.groups) < maxGroups && !slices.Contains(s.groups, w.Cgroup) {
		s.groups = append(s.groups, w.Cgroup)
	}
}

// forget drops the inodes that were not wanted for a while: sockets that are
// closed, mostly. If that leaves no room, only what was just wanted stays.
func (f *Finder) forget(wanted []Want) {
	drop := func(since uint32) {
		f.table.keep(func(e *slot) bool {
			if f.pass-e.used <= since {
				return true
			}
			if e.owner < ownerNone {
				f.people.drop(e.owner)
			}
			return false
		})
	}
	mark := func(pass uint32) {
		for _, w := range wanted {
			if e := f.table.at(w.Inode); e != nil {
				e.used = pass
			}
		}
	}
	mark(f.pass)
	drop(4)
	if f.table.count >= f.table.max {
		drop(0)
	}
	mark(f.pass - 1) // that they are wanted now is for look to find
}

// work does what needs procfs.
func (s *search) work(checks []check, hints []int) {
	f := s.f
	if s.proc, s.failure = openTree(f.config.Proc); s.failure != nil {
		return
	}
	defer s.proc.close()
	s.again()
	first := f.people.number == 0
	if first || s.listing {
		if s.failure = s.list(); s.failure != nil {
			return
		}
	}
	// Each stage leaves something to the next, so that one process with very
	// many descriptors can't keep the search from all others.
	s.stage(0.3, first)
	for _, c := range checks {
		if s.more() {
			s.check(c)
		} else if p, _ := f.Owner(c.inode); p != nil && c.bare {
			s.unchecked-- // another socket of its process was checked
			s.found++
		}
	}
	if s.pending > 0 {
		s.stage(0.5, first)
		s.hints(hints)
	}
	if s.pending > 0 {
		s.stage(0.7, first)
		s.members()
	}
	if s.pending > 0 {
		if s.failure = s.list(); s.failure != nil {
			return
		}
	}
	if s.pending+s.failed > 0 {
		s.stage(0.85, first)
		s.fresh()
	}
	s.stage(1, first)
	s.sweep()
}

// stage allows a share of this call's budget to be spent, from the call's
// beginning.
func (s *search) stage(share float64, first bool) {
	c := s.f.config
	s.limit = int(share * float64(c.LinksPerPass))
	if first {
		s.limit = math.MaxInt
		s.deadline = s.began.Add(time.Duration(share * float64(c.FirstBudget)))
		s.clock = s.spent
	}
}

// more reports whether there is still something to look for, and the budget
// to do it.
func (s *search) more() bool {
	if s.spent >= s.limit {
		return false
	}
	if s.limit == math.MaxInt && s.spent-s.clock >= 64 {
		s.clock = s.spent
		if time.Now().After(s.deadline) {
			s.limit = 0
			return false
		}
	}
	return s.ctx.Err() == nil
}

// list lists the processes, if any may have come since the last time.
func (s *search) list() error {
	p := &s.f.people
	last, known := s.lastPID()
	if p.pass == s.f.pass || p.number > 0 && known && last == p.last && s.f.pass-p.pass < listEvery {
		return nil
	}
	fd, err := s.proc.open([]byte("."), unix.O_DIRECTORY)
	if err != nil {
		return s.fail(err)
	}
	defer unix.Close(fd)
	p.number++
	p.pass, p.last, p.over, p.order = s.f.pass, last, false, p.order[:0]
	_, err = entries(fd, s.f.dirents, func(d dirent) bool {
		if pid, ok := parsePID(d.name); ok && pid > 0 {
			s.meet(pid, d.inode)
		}
		return true
	})
	if err != nil {
		return s.fail(err)
	}
	p.settle()
	_, one := p.byPID[1]
	p.hidden = !one && !p.over
	p.nested = s.nested()
	return nil
}

// nested tells whether procfs is known to be of a PID namespace within another.
func (s *search) nested() bool {
	const first = "pid:[4026531836]" // PROC_PID_INIT_INO, include/linux/proc_ns.h
	to, err := s.proc.link([]byte("1/ns/pid"), s.linkTo[:])
	return err == nil && string(to) != first
}

// meet takes a listed process in. /proc/PID has another inode for another
// process, though it may also have one after the kernel was short of memory.
func (s *search) meet(pid int32, dir uint64) {
	p := &s.f.people
	i, known := p.byPID[pid]
	if known && p.all[i].dir != dir {
		p.all[i].dir = dir
		if start := p.all[i].start; start != 0 {
			if st, err := s.status(pid); err != nil || st.start != start {
				p.part(i)
				known = false
			}
		}
	}
	if !known {
		var ok bool
		if i, ok = p.meet(pid, dir); !ok {
			return
		}
		if p.number > 1 { // of the first listing all are new, and the sweep's
			p.all[i].fresh = true
			p.fresh = append(p.fresh, pid)
		}
	}
	p.all[i].listed = p.number
	p.order = append(p.order, pid)
}

// lastPID is the pid that was given last, which changes whenever a process or
// thread begins. It is that of our own pid namespace: unknown if procfs shows
// another.
func (s *search) lastPID() (int64, bool) {
	self, err := s.proc.link([]byte("self"), s.linkTo[:])
	if err != nil || string(self) != strconv.Itoa(unix.Getpid()) {
		return 0, false
	}
	text, err := s.proc.read([]byte("loadavg"), s.f.text)
	if err != nil {
		return 0, false
	}
	return parseLastPID(text)
}

func (s *search) fail(err error) error {
	return &pathError{Op: "read", Path: s.f.config.Proc, Err: err}
}

// hints visits the processes that the caller names. Each may use its part of what
// is left of the budget, so that one with very many descriptors leaves something
// to the others.
func (s *search) hints(hints []int) {
	f, whole := s.f, s.limit
	timed := whole == math.MaxInt // the first call
	for n := range hints {
		if !timed {
			s.limit = whole
		}
		if !s.more() || s.pending == 0 {
			f.hintTurn += n // the next call goes on here
			return
		}
		if !timed {
			s.limit = min(whole, s.spent+max(leastHint, (whole-s.spent)/(len(hints)-n)))
		}
		pid := hints[(f.hintTurn+n)%len(hints)]
		if pid > 0 && pid <= math.MaxInt32 {
			s.visitNext(int32(pid))
		}
	}
	f.hintTurn = 0
}

// fresh visits the processes that have come since the last call.
func (s *search) fresh() {
	p := &s.f.people
	for len(p.fresh) > 0 && s.more() {
		pid := p.fresh[0]
		if i, ok := p.byPID[pid]; ok && p.all[i].fresh && !s.visitNext(pid) {
			return
		}
		p.fresh = p.fresh[1:]
	}
	if len(p.fresh) == 0 {
		p.fresh = nil
	}
}

// sweep goes on with the turn through all processes, and gives up what a whole
// turn hasn't found. A process that has more descriptors than the budget allows
// is finished at the turn's end, lest the others wait for it.
func (s *search) sweep() {
	f := s.f
	t := &f.turn
	ended := 0
	for s.pending > 0 && ended < 2 && s.more() { // the second began with all that is wanted
		if !t.under {
			t.number, t.under, t.cursor, t.missed = t.number+1, true, 0, false
		}
		if pid, ok := f.people.after(t.cursor); ok {
			t.cursor = rank(pid)
			if next, done := s.visitInTurn(pid, 0); !done {
				t.rest = append(t.rest, half{pid, next})
			}
			continue
		}
		if len(t.rest) > 0 {
			h := &t.rest[0]
			var done bool
			if h.next, done = s.visitInTurn(h.pid, h.next); done {
				t.rest = t.rest[1:]
			}
			continue
		}
		t.under = false
		ended++
		t.ended = true
		if t.missed {
			return // the next call begins another
		}
		s.giveUp(t.number)
	}
}

func (s *search) visitInTurn(pid int32, from int64) (next int64, done bool) {
	i, known := s.f.people.byPID[pid]
	if !known || s.wholly(i) {
		return 0, true
	}
	return s.visit(i, from)
}

// wholly reports whether there is nothing to gain from a process in this call.
func (s *search) wholly(i uint32) bool {
	p := &s.f.people.all[i]
	return p.kernel || p.read == s.f.pass || p.denied != 0 && s.f.pass-p.denied < retryAfter
}

// giveUp gives up what a sweep hasn't found that began after it was wanted.
func (s *search) giveUp(number uint32) {
	s.f.table.all(func(e *slot) {
		if e.owner != ownerPending || e.aux >= number {
			return
		}
		s.f.people.own(e, ownerFailed, s.f.pass)
		if e.used == s.f.pass {
			s.pending--
			s.failed++
		}
	})
}
