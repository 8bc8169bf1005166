package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// behind is how long after its Duration a storm may still catch up.
const behind = time.Second

// Run runs the storm and returns when its last connection is closed. A
// connection's failure is counted in the Result and no error; the error is for
// a storm that can't run, and for a context that ended it, with the Result so
// far.
//
// A Rate holds to an absolute schedule: connection i starts i/Rate after Start,
// and a delay is caught up.
func (ns *Namespace) Run(ctx context.Context, s Storm) (Result, error) {
	if err := s.check(); err != nil {
		return Result{}, err
	}
	if s.Workers == 0 {
		s.Workers = 2
		if s.Rate > 0 {
			s.Workers = 8 // one that must wait doesn't delay the others
		}
	}
	r := &running{Storm: s, start: time.Now()}
	parts := make([]stormThread, s.Workers)
	waits := make([]func() error, s.Workers)
	for i := range parts {
		waits[i] = ns.Go(func() error { return parts[i].run(ctx, r) })
	}
	var err error
	for _, wait := range waits {
		if werr := wait(); err == nil {
			err = werr
		}
	}
	return merge(r.start, parts), err
}

func (s *Storm) check() error {
	why := ""
	switch {
	case len(s.Remotes) == 0:
		why = "no Remotes"
	case s.Count <= 0 && s.Duration <= 0:
		why = "neither Count nor Duration: it would never end"
	case s.Rate < 0 || s.Workers < 0:
		why = "a negative Rate or number of Workers"
	case s.LocalPorts[0] > s.LocalPorts[1]:
		why = fmt.Sprintf("LocalPorts end before they begin: %v", s.LocalPorts)
	case s.LocalPorts[0] != 0 && !s.Local.IsValid():
		why = "LocalPorts without a Local address"
	}
	if why == "" {
		return nil
	}
	return &Error{"run a storm", ErrBadRequest, why}
}

// running is a storm under way; its threads share only the next number.
type running struct {
	Storm
	start time.Time
	next  atomic.Int64
}

// take returns the next attempt's number and when it is to start; false when
// the storm has no more.
func (r *running) take() (i int, at time.Duration, ok bool) {
	now := time.Since(r.start)
	i = int(r.next.Add(1) - 1)
	if r.Rate > 0 {
		at = time.Duration(float64(i) / r.Rate * float64(time.Second))
	}
	switch {
	case r.Count > 0 && i >= r.Count:
	case r.Duration > 0 && (at >= r.Duration || r.Rate == 0 && now >= r.Duration || now >= r.Duration+behind):
	default:
		return i, at, true
	}
	return 0, 0, false
}

// options of attempt i's socket.
func (r *running) options(i int) ConnOptions {
	o := ConnOptions{Bind: r.Bind, ReuseAddr: r.ReuseAddr, Device: r.Device, Timeout: r.Timeout}
	if r.Local.IsValid() {
		port := uint16(0)
		if r.LocalPorts[0] != 0 {
			port = r.LocalPorts[0] + uint16(i%(int(r.LocalPorts[1])-int(r.LocalPorts[0])+1))
		}
		o.Local = netip.AddrPortFrom(r.Local, port)
	}
	return o
}

// stormThread is one thread's connections and its part of the result.
type stormThread struct {
	Result
	firstAt time.Time // of FirstError
	open    []openConn
	head    int // open[:head] are closed; the rest closes in order
	buf     []byte
}

type openConn struct {
	fd int
	at time.Duration // to be closed, since the start
}

func (t *stormThread) run(ctx context.Context, r *running) error {
	t.Failed, t.buf = map[syscall.Errno]int{}, make([]byte, 4096)
	defer t.abandon()
	timer := time.NewTimer(0)
	defer timer.Stop()
	i, at, more := r.take()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Since(r.start)
		due, what := at, more
		if t.head < len(t.open) && (!more || t.open[t.head].at < at || t.open[t.head].at <= now) {
			due, what = t.open[t.head].at, true
		}
		switch {
		case !what:
			return nil
		case due > now:
			timer.Reset(due - now)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		case t.head < len(t.open) && t.open[t.head].at <= now:
			t.closeNext(r)
		default:
			if r.Rate > 0 {
				t.MaxLate = max(t.MaxLate, now-at)
			}
			t.connect(r, i)
			i, at, more = r.take()
		}
	}
}

func (t *stormThread) connect(r *running, i int) {
	fd, err := dial(r.Remotes[i%len(r.Remotes)], r.options(i))
	if err != nil {
		t.fail(err)
		return
	}
	t.Opened++
	t.open = append(t.open, openConn{fd, time.Since(r.start) + r.Hold})
	if r.Hold == 0 {
		t.closeNext(r)
	}
}

func (t *stormThread) closeNext(r *running) {
	fd := t.open[t.head].fd
	t.head++
	if t.head == len(t.open) {
		t.open, t.head = t.open[:0], 0
	}
	err := t.hangUp(r, fd)
	err = errors.Join(err, closeSocket(fd))
	if err != nil {
		t.fail(err)
		return
	}
	t.count(time.Since(r.start), r.Times)
}

// hangUp is everything before close().
func (t *stormThread) hangUp(r *running, fd int) error {
	switch {
	case r.Closer == Reset:
		return sockStep("set SO_LINGER", lingerReset(fd))
	case r.Closer == Client && r.Orphan:
		return nil
	case r.Closer == Client:
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return sockStep("shutdown", err)
		}
	}
	_, err := drain(fd, t.buf)
	return err
}

func (t *stormThread) count(at time.Duration, keep bool) {
	t.Closed++
	t.Elapsed = at
	second := int(at / time.Second)
	for len(t.PerSecond) <= second {
		t.PerSecond = append(t.PerSecond, 0)
	}
	t.PerSecond[second]++
	if keep {
		t.Times = append(t.Times, at)
	}
}

func (t *stormThread) fail(err error) {
	t.Failed[errnoOf(err)]++
	if t.FirstError == nil {
		t.FirstError, t.firstAt = err, time.Now()
	}
}

// abandon resets what a cancelled storm left open.
func (t *stormThread) abandon() {
	for _, c := range t.open[t.head:] {
		_ = lingerReset(c.fd)
		_ = closeSocket(c.fd)
	}
}

func merge(start time.Time, parts []stormThread) Result {
	sum := Result{Start: start, Failed: map[syscall.Errno]int{}}
	var firstAt time.Time
	for _, p := range parts {
		sum.Opened += p.Opened
		sum.Closed += p.Closed
		sum.Elapsed = max(sum.Elapsed, p.Elapsed)
		sum.MaxLate = max(sum.MaxLate, p.MaxLate)
		for errno, n := range p.Failed {
			sum.Failed[errno] += n
		}
		if p.FirstError != nil && (sum.FirstError == nil || p.firstAt.Before(firstAt)) {
			sum.FirstError, firstAt = p.FirstError, p.firstAt
			sum.FirstFailure = firstAt.Sub(start)
		}
		for second, n := range p.PerSecond {
			for len(sum.PerSecond) <= second {
				sum.PerSecond = append(sum.PerSecond, 0)
			}
			sum.PerSecond[second] += n
		}
		sum.Times = append(sum.Times, p.Times...)
	}
	slices.Sort(sum.Times)
	return sum
}
