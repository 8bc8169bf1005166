package collector

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

// A row is what a list of sockets tells of one: a copy, for as long as it is
// wanted.
type row struct {
	id                           inetdiag.ID
	state                        inetdiag.State
	timer                        uint8
	mini                         bool
	expires, rqueue, wqueue, uid uint32
	inode                        uint32
}

func rowOf(s *inetdiag.Socket) row {
	return row{
		id: s.ID(), state: s.State(), timer: s.Timer(), mini: s.Mini(), expires: s.Expires(),
		rqueue: s.RQueue(), wqueue: s.WQueue(), uid: s.UID(), inode: s.Inode(),
	}
}

// A reservoir is a uniform random sample of a stream of sockets, of which
// nobody knows the length: after n sockets each of them is in it with the same
// probability. Neighbours in the kernel's table are of one flow, so nothing
// less would do.
//
// It is Li's algorithm L: once the sample is full, it is drawn how many sockets
// pass before the next one is taken, so that most cost one comparison. It
// belongs to one Collector and is used again in every pass; its rows are all
// that it allocates.
type reservoir struct {
	rng  *rand.Rand
	rows []row // as many as its capacity, once full
	seen int   // sockets that have a remote end
	next int   // the value of seen at which a row is taken next
	w    float64
}

// newReservoir makes one of n rows, n > 0. The sample is fixed by the seeds
// and the stream.
func newReservoir(n int, seed1, seed2 uint64) *reservoir {
	return &reservoir{rng: rand.New(rand.NewPCG(seed1, seed2)), rows: make([]row, 0, n)}
}

// begin forgets the stream before.
func (r *reservoir) begin() { r.rows, r.seen, r.next, r.w = r.rows[:0], 0, 0, 1 }

// add shows the next socket. Listening and merely bound ones are no 4-tuples.
func (r *reservoir) add(s *inetdiag.Socket) {
	if s.DstPort() == 0 {
		return
	}
	if i := r.place(); i >= 0 {
		r.rows[i] = rowOf(s)
	}
}

// place is where the next socket goes, −1 if nowhere.
func (r *reservoir) place() int {
	r.seen++
	n := len(r.rows)
	switch {
	case n < cap(r.rows):
		r.rows = r.rows[:n+1]
		if n+1 == cap(r.rows) {
			r.skip()
		}
		return n
	case r.seen == r.next:
		r.skip()
		return r.rng.IntN(n)
	}
	return -1
}

// skip draws the next socket to take. Give each socket a random number and keep
// the sockets with the smallest: w is then the largest number kept, and the
// gap until a smaller one comes is geometric.
func (r *reservoir) skip() {
	r.w *= math.Exp(math.Log(1-r.rng.Float64()) / float64(cap(r.rows)))
	gap := math.Log(1-r.rng.Float64()) / math.Log1p(-r.w)
	const never = 1 << 40 // more than a kernel holds
	if !(gap < never) {   // NaN, too
		gap = never
	}
	r.next = r.seen + 1 + int(gap)
}

// taker is what takes the rows of the ordinary dump.
func (p *pass) taker() func(*inetdiag.Socket) {
	r := p.reservoir
	if r == nil || p.view != p.home {
		return p.table.Add
	}
	r.begin()
	return func(s *inetdiag.Socket) {
		r.add(s)
		p.table.Add(s)
	}
}

// fillSample writes the sample, if one was asked for, into the report.
func (p *pass) fillSample(ctx context.Context) {
	r := p.reservoir
	if r == nil || p.view != p.home {
		return
	}
	length, names := timeWaitOf(p.ns.Limits), deviceNames()
	of := r.seen // the reservoir will be used again
	p.ns.Sockets, p.ns.SocketsOf = make([]snapshot.Socket, 0, len(r.rows)), &of
	var failed error
	for i := range r.rows {
		s := &r.rows[i]
		d := s.describe(names)
		d.PID, d.Comm = p.ownerOf(s.inode)
		switch {
		case s.state == inetdiag.TimeWait:
			d.AgeSeconds = seconds(timeWaitAge(s.expires, length))
		case s.state == inetdiag.CloseWait && p.ns.Source == sourceDiag && failed == nil:
			failed = p.sinceFin(ctx, s.id, &d)
		}
		p.ns.Sockets = append(p.ns.Sockets, d)
	}
	if failed != nil {
		p.hangUp()
		p.gap(stageCloseWait, failed, "the age of some CLOSE_WAIT sockets in the sample", "look again")
	}
	snapshot.SortSockets(p.ns.Sockets)
}

// sinceFin tells how long ago the peer's FIN came: remembered, else asked for.
func (p *pass) sinceFin(ctx context.Context, id inetdiag.ID, d *snapshot.Socket) error {
	fin, known := p.ledger.Fin(id.Cookie())
	if !known {
		if p.conn == nil {
			return nil // hung up after a trouble that is told already
		}
		var err error
		if fin, err = p.askFin(ctx, id); errors.Is(err, inetdiag.ErrNotFound) {
			return nil // closed since
		} else if err != nil {
			return err
		}
	}
	p.ageOf(fin).Tell(d)
	return nil
}
