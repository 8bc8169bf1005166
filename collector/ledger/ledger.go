// Package ledger keeps, for one network namespace, what its next pass has to
// know of the ones before it. A Ledger lives as long as its namespace is
// watched and is bounded; it asks the kernel nothing.
package ledger

// MaxFins is how many CLOSE_WAIT sockets a Ledger remembers.
const MaxFins = 4096

// Ledger is one namespace's. The zero value knows nothing. It is for one
// goroutine. All times are nanoseconds on one monotonic clock.
type Ledger struct {
	// LastStart is when the last pass started; 0 before the first.
	LastStart int64
	// LastBound is when bound sockets were last looked for; 0 never.
	LastBound int64
	// LastKeep is when the processes that nobody needs were last forgotten; 0
	// never.
	LastKeep int64
	// Processes are those whose connections the namespace's flow.Memory
	// remembers.
	Processes Processes

	fins, seen map[uint64]Fin // CLOSE_WAIT, by cookie
}

// Fin is when the peer's FIN came: not before Earliest and not after Latest.
type Fin struct{ Earliest, Latest int64 }

// Fin tells when the FIN of the CLOSE_WAIT socket with this cookie came, as
// far as it was learnt before, and keeps it for the next pass.
func (l *Ledger) Fin(cookie uint64) (f Fin, ok bool) {
	if f, ok = l.seen[cookie]; ok { // learnt or asked for in this pass
		return f, ok
	}
	if f, ok = l.fins[cookie]; ok {
		l.keep(cookie, f)
	}
	return f, ok
}

// Fins is how many sockets the last pass left in the ledger.
func (l *Ledger) Fins() int { return len(l.fins) }

// Learn narrows what is known of a FIN by another look, and gives the result.
// A cookie is never used again and CLOSE_WAIT is never entered twice, so what
// was true of it stays true. Beyond [MaxFins] sockets, new ones are not kept.
func (l *Ledger) Learn(cookie uint64, f Fin) Fin {
	if before, ok := l.Fin(cookie); ok {
		f.Earliest, f.Latest = max(f.Earliest, before.Earliest), min(f.Latest, before.Latest)
	}
	f.Earliest = min(f.Earliest, f.Latest) // the kernel's clock ticks, ours doesn't
	l.keep(cookie, f)
	return f
}

func (l *Ledger) keep(cookie uint64, f Fin) {
	if l.seen == nil {
		l.seen = make(map[uint64]Fin)
	}
	if _, ok := l.seen[cookie]; ok || len(l.seen) < MaxFins {
		l.seen[cookie] = f
	}
}

// EndPass forgets the CLOSE_WAIT sockets that were not asked for or learnt in
// the pass that ends, so that the ledger holds no more than one pass saw.
func (l *Ledger) EndPass() {
	l.fins, l.seen = l.seen, l.fins
	clear(l.seen)
}
