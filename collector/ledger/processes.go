package ledger

import "github.com/twwatch/twwatch/internal/owner"

// MaxProcesses is how many processes a namespace remembers, those that have
// exited and left sockets in TIME_WAIT among them.
const MaxProcesses = 1 << 13

// Process is one process with what is known of it beside.
type Process struct {
	*owner.Process
	// Program is the same number for all processes that have one name,
	// executable and cgroup, until the next [Processes.Keep].
	Program int
	// Runtime is what kind of program it is, an id; "" if unknown.
	Runtime string

	used bool // in this pass
}

// Processes gives numbers from 1 on to processes, by which a connection's memory
// names them. It outlives the processes themselves. The zero value knows none.
// It is for one goroutine.
type Processes struct {
	all      []Process // by number − 1; without a process where free
	free     []uint16
	numbers  map[identity]uint16
	pointers map[*owner.Process]uint16
	programs map[program]int
}

// An identity is what makes a process that process and no other.
type identity struct {
	pid   int
	start uint64
}

type program struct{ comm, exe, cgroup string }

// Number gives a process its number, 0 if there is no room. likely is one that
// it may have already, for speed. runtime names its kind, and is asked once for
// each state of it.
func (p *Processes) Number(o *owner.Process, likely uint16, runtime func(*owner.Process) string) uint16 {
	if q := p.At(likely); q != nil && q.Process == o {
		q.used = true
		return likely
	}
	if n, ok := p.pointers[o]; ok {
		p.all[n-1].used = true
		return n
	}
	if p.numbers == nil {
		p.numbers, p.pointers = make(map[identity]uint16), make(map[*owner.Process]uint16)
		p.programs = make(map[program]int)
	}
	id := identity{o.PID, o.Start}
	n, known := p.numbers[id]
	switch {
	case known: // and has changed: it runs another program now, say
		delete(p.pointers, p.all[n-1].Process)
	case len(p.free) > 0:
		n = p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
	case len(p.all) < MaxProcesses:
		p.all = append(p.all, Process{})
		n = uint16(len(p.all))
	default:
		return 0
	}
	p.numbers[id], p.pointers[o] = n, n
	p.all[n-1] = Process{Process: o, Program: p.program(o), Runtime: runtime(o), used: true}
	return n
}

func (p *Processes) program(o *owner.Process) int {
	key := program{o.Comm, o.Exe, o.Cgroup}
	n, ok := p.programs[key]
	if !ok {
		n = len(p.programs) + 1
		p.programs[key] = n
	}
	return n
}

// At gives the process of a number, nil for 0 and numbers that nobody has. It
// is valid until the next Number or Keep, its [owner.Process] for ever.
func (p *Processes) At(n uint16) *Process {
	if n == 0 || int(n) > len(p.all) || p.all[n-1].Process == nil {
		return nil
	}
	return &p.all[n-1]
}

// Numbers yields the numbers that are given out.
func (p *Processes) Numbers(yield func(uint16) bool) {
	for i := range p.all {
		if p.all[i].Process != nil && !yield(uint16(i+1)) {
			return
		}
	}
}

// Len is how many processes have a number.
func (p *Processes) Len() int { return len(p.numbers) }

// Keep forgets all processes but those whose numbers are given and those that
// were asked for since the last Keep.
func (p *Processes) Keep(numbers func(yield func(uint16) bool)) {
	var keep [MaxProcesses + 1]bool
	for n := range numbers {
		keep[n] = true
	}
	forgot := false
	for i := range p.all {
		q := &p.all[i]
		if q.Process == nil {
			continue
		}
		if !q.used && !keep[i+1] {
			delete(p.pointers, q.Process)
			delete(p.numbers, identity{q.PID, q.Start})
			*q = Process{}
			p.free = append(p.free, uint16(i+1))
			forgot = true
			continue
		}
		q.used = false
	}
	if !forgot {
		return
	}
	clear(p.programs)
	for i := range p.all {
		if q := &p.all[i]; q.Process != nil {
			q.Program = p.program(q.Process)
		}
	}
}
