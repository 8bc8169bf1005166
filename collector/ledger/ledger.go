// Package ledger keeps, for one network namespace, what its next pass has to
// know of the ones before it. A Ledger lives as long as its namespace is
// watched and is bounded; it asks the kernel nothing.
package ledger

// Ledger is one namespace's. The zero value knows nothing. It is for one
// goroutine. All times are nanoseconds on one monotonic clock.
type Ledger struct {
	// LastStart is when the last pass started; 0 before the first.
	LastStart int64
	// LastBound is when bound sockets were last looked for; 0 never.
	LastBound int64

	fin, seen map[uint64]int64 // CLOSE_WAIT: cookie → when the peer's FIN came
}

// FinAt tells when the FIN of the CLOSE_WAIT socket with this cookie came, if
// it was learnt before, and keeps it for the next pass.
func (l *Ledger) FinAt(cookie uint64) (at int64, ok bool) {
	if at, ok = l.fin[cookie]; ok {
		l.Learn(cookie, at)
		return at, ok
	}
	at, ok = l.seen[cookie] // learnt in this pass
	return at, ok
}

// Learn notes when the FIN came.
func (l *Ledger) Learn(cookie uint64, at int64) {
	if l.seen == nil {
		l.seen = make(map[uint64]int64)
	}
	l.seen[cookie] = at
}

// EndPass forgets the CLOSE_WAIT sockets that were not asked for or learnt in
// the pass that ends, so that the ledger holds no more than one pass saw.
func (l *Ledger) EndPass() {
	l.fin, l.seen = l.seen, l.fin
	clear(l.seen)
}
