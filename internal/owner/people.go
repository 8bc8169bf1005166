package owner

import (
	"cmp"
	"math"
	"slices"
)

// A person is what is remembered of one process between calls.
type person struct {
	process *Process // nil until it owns a wanted socket
	start   uint64   // 0 until its stat was read
	dir     uint64   // the inode of /proc/PID: another one hints at another process
	name    uint64   // a hash of its name, to see that it has changed
	next    int64    // where in its descriptors the next visit out of turn begins
	pid     int32
	parent  int32
	refs    int32  // slots that name it
	listed  uint32 // the listing that last showed it
	visited uint32 // the pass that last began to visit it
	read    uint32 // the pass that last read all its descriptors from first to last
	denied  uint32 // the pass in which it refused, 0 if it didn't
	retries uint8  // how often it was asked again for what took too long to read
	gone    bool   // it has exited, and stays for the slots that name it
	fresh   bool   // new, and not yet visited
	kernel  bool   // a kernel thread: it has no descriptors
	unused  bool   // the record is free
}

// people remembers processes, in bounded memory.
type people struct {
	all    []person
	free   []uint32
	byPID  map[int32]uint32 // those that haven't exited
	order  []int32          // the pids of the last listing, in the order of a sweep
	fresh  []int32          // the pids of those that are new
	max    int
	refs   int    // the number of slots with an owner
	denied int    // those that refused
	over   bool   // the last listing had more than max
	hidden bool   // the last listing lacked PID 1
	nested bool   // procfs doesn't show the processes of the PID namespaces above
	number uint32 // counts listings
	pass   uint32 // the pass of the last listing
	last   int64  // the pid that the kernel gave last, at the last listing
}

func newPeople(limit int) people {
	return people{byPID: map[int32]uint32{}, max: limit}
}

// meet adds a process, false if there is no room.
func (p *people) meet(pid int32, dir uint64) (uint32, bool) {
	var i uint32
	switch n := len(p.free); {
	case n > 0:
		i = p.free[n-1]
		p.free = p.free[:n-1]
	case len(p.all) < p.max:
		i = uint32(len(p.all))
		p.all = append(p.all, person{})
	default:
		p.over = true
		return 0, false
	}
	p.all[i] = person{pid: pid, dir: dir, listed: p.number}
	p.byPID[pid] = i
	return i, true
}

// part marks a process as exited. Its record stays while slots name it.
func (p *people) part(i uint32) {
	q := &p.all[i]
	if q.gone || q.unused {
		return
	}
	p.allow(i)
	q.gone, q.fresh = true, false
	delete(p.byPID, q.pid)
	p.release(i)
}

func (p *people) release(i uint32) {
	if q := &p.all[i]; q.gone && q.refs == 0 && !q.unused {
		*q = person{unused: true}
		p.free = append(p.free, i)
	}
}

// own makes a process, or none, the owner in a slot.
func (p *people) own(s *slot, owner, aux uint32) {
	before := s.owner
	s.owner, s.aux = owner, aux
	if owner < ownerNone {
		p.all[owner].refs++
		p.refs++
	}
	if before < ownerNone {
		p.drop(before)
	}
}

// drop ends one slot's naming of a process.
func (p *people) drop(i uint32) {
	p.all[i].refs--
	p.refs--
	p.release(i)
}

func (p *people) refuse(i, pass uint32) {
	if p.all[i].denied == 0 {
		p.denied++
	}
	p.all[i].denied = pass
}

func (p *people) allow(i uint32) {
	if p.all[i].denied != 0 {
		p.denied--
		p.all[i].denied = 0
	}
}

// rank orders a sweep: by pid, since parents mostly come first, and PID 1 last.
func rank(pid int32) int32 {
	if pid == 1 {
		return math.MaxInt32
	}
	return pid
}

// settle ends a listing: who wasn't on it has exited.
func (p *people) settle() {
	if !slices.IsSortedFunc(p.order, byRank) {
		slices.SortFunc(p.order, byRank)
	}
	for i := range p.all {
		if q := &p.all[i]; !q.unused && !q.gone && q.listed != p.number {
			p.part(uint32(i))
		}
	}
	p.fresh = slices.DeleteFunc(p.fresh, func(pid int32) bool {
		i, ok := p.byPID[pid]
		return !ok || !p.all[i].fresh
	})
}

func byRank(a, b int32) int { return cmp.Compare(rank(a), rank(b)) }

// after returns the pid that follows in a sweep.
func (p *people) after(cursor int32) (int32, bool) {
	i, found := slices.BinarySearchFunc(p.order, cursor, func(pid, rankOf int32) int { return cmp.Compare(rank(pid), rankOf) })
	if found {
		i++
	}
	if i == len(p.order) {
		return 0, false
	}
	return p.order[i], true
}

// A sweep is one turn through all processes.
type sweep struct {
	number uint32 // of the last that began, from 1
	under  bool   // it is under way
	cursor int32  // the rank of the last process that was visited
	ended  bool   // one has ended
	missed bool   // a pid changed hands while it was read, and who has it now wasn't
	rest   []half // those of which the budget left a rest, read when all others are
}

// A half is a process that was read in part.
type half struct {
	pid  int32
	next int64 // where in its descriptors to go on
}
