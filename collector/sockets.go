package collector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/owner"
	"github.com/twwatch/twwatch/sysctl"
)

// MaxSockets is the most rows that one list of sockets has.
const MaxSockets = 100_000

// Sockets lists the sockets of the calling thread's namespace, in the kernel's
// order, at most MaxSockets. It uses a socket of its own, so it may run beside
// a pass.
//
// The processes of the listed sockets are searched for, in [searchTime] at
// most. Whether all were found is said only where they were asked for.
//
// Where sock_diag can't be had, /proc/net/tcp is read, and the list says what
// is lost by that. A [*snapshot.QueryError] is a question that has no answer;
// with any other error, the list holds the rows before it.
func (c *Collector) Sockets(ctx context.Context, q snapshot.SocketQuery) (*snapshot.SocketList, error) {
	dial := func() (*inetdiag.Conn, error) { return inetdiag.Dial(nil) }
	if c.cfg.ForceProc {
		dial = func() (*inetdiag.Conn, error) { return nil, inetdiag.ErrNotSupported }
	}
	return c.listSockets(ctx, q, dial)
}

// SocketsIn lists as [Collector.Sockets] does, but those of the one namespace
// that Config.Namespaces chooses beside the Collector's own. It may not run beside
// a pass.
func (c *Collector) SocketsIn(ctx context.Context, q snapshot.SocketQuery) (list *snapshot.SocketList, err error) {
	if c.sweep == nil {
		return c.Sockets(ctx, q)
	}
	o, err := c.sweep.only(ctx, c)
	if err != nil {
		return nil, wrapSockets(err)
	}
	err = c.sweep.watcher.Visit(o.Namespace, func() (err error) {
		list, err = c.Sockets(ctx, q)
		return err
	})
	if err != nil {
		err = fmt.Errorf("in namespace %q: %w", o.named.name, err)
	}
	return list, err
}

func (c *Collector) listSockets(ctx context.Context, q snapshot.SocketQuery, dial func() (*inetdiag.Conn, error)) (*snapshot.SocketList, error) {
	w, err := newWanted(q)
	if err != nil {
		return nil, err
	}
	l := listing{wanted: w, length: c.timeWaitLength(), names: deviceNames(), list: &snapshot.SocketList{Sockets: []snapshot.Socket{}}}
	rows, why := l.dump(ctx, dial)
	if why == nil || rows > 0 || ctx.Err() != nil {
		l.findOwners(ctx, c.cfg.Proc)
		return l.list, wrapSockets(why)
	}
	if w.older > 0 && !w.states.Has(inetdiag.TimeWait) {
		return l.list, wrapSockets(fmt.Errorf("the age of CLOSE_WAIT sockets can't be known without sock_diag: %w", why))
	}
	l.list.Lost = fmt.Sprintf("devices, cookies, bound sockets and the age of CLOSE_WAIT sockets: /proc/net/tcp was read, since sock_diag can't be had (%v)", why)
	err = l.proc(ctx, c.netDir())
	l.findOwners(ctx, c.cfg.Proc)
	if err != nil {
		return l.list, wrapSockets(fmt.Errorf("%w; and sock_diag can't be had: %w", err, why))
	}
	return l.list, nil
}

func wrapSockets(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("collector: sockets: %w", err)
}

// wanted is a query as the rows of a dump are held against it.
type wanted struct {
	query  snapshot.SocketQuery
	states inetdiag.States
	remote netip.Prefix
	port   uint16
	older  time.Duration
	limit  int // of what is listed
	most   int // of what may be, before the processes are known
}

func newWanted(q snapshot.SocketQuery) (wanted, error) {
	if err := q.Check(); err != nil {
		return wanted{}, err
	}
	w := wanted{query: q, remote: q.Remote, port: q.Port, older: q.Older, limit: q.Limit}
	if w.limit == 0 || w.limit > MaxSockets {
		w.limit = MaxSockets
	}
	if w.most = w.limit; q.Process != "" {
		w.most = MaxSockets
	}
	for _, name := range q.States {
		state, err := inetdiag.ParseState(name)
		if err != nil { // Check knows the same names
			return wanted{}, &snapshot.QueryError{Field: "state", Reason: err.Error()}
		}
		w.states |= inetdiag.StatesOf(state)
	}
	if w.states == 0 {
		w.states = inetdiag.AllStates
	}
	if w.older > 0 {
		w.states &= inetdiag.StatesOf(inetdiag.TimeWait, inetdiag.CloseWait) // not empty: see Check
	}
	return w, nil
}

// kernelQuery lets the kernel do the filtering.
func (w *wanted) kernelQuery() inetdiag.Query {
	q := inetdiag.Query{States: w.states}
	if q.States.Has(inetdiag.Close) {
		q.States |= inetdiag.StatesOf(inetdiag.BoundInactive) // its rows say CLOSE
	}
	q.Info = q.States.Has(inetdiag.CloseWait) // for its age
	var filters []inetdiag.Filter
	if w.remote.IsValid() {
		filters = append(filters, inetdiag.Remote(w.remote))
	}
	if w.port != 0 {
		filters = append(filters, inetdiag.Or(inetdiag.LocalPort(w.port), inetdiag.RemotePort(w.port)))
	}
	if len(filters) > 0 {
		q.Filter = inetdiag.And(filters...)
	}
	return q
}

// match does the kernel's filtering where it doesn't do it itself.
func (w *wanted) match(s *inetdiag.Socket) bool {
	return w.states.Has(s.State()) &&
		(w.port == 0 || w.port == s.SrcPort() || w.port == s.DstPort()) &&
		(!w.remote.IsValid() || snapshot.Covers(w.remote, s.Dst().Addr()))
}

// A listing is one list under way.
type listing struct {
	wanted
	length time.Duration // of a TIME_WAIT
	names  func(uint32) string
	list   *snapshot.SocketList
}

// dump asks the kernel; rows tells how many it showed.
func (l *listing) dump(ctx context.Context, dial func() (*inetdiag.Conn, error)) (rows int, err error) {
	conn, err := dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	for s, err := range conn.Sockets(ctx, l.kernelQuery()) {
		if errors.Is(err, inetdiag.ErrInterrupted) {
			break // every row was shown
		}
		if err != nil {
			return rows, err
		}
		rows++
		if !l.add(s) {
			break
		}
	}
	return rows, nil
}

func (l *listing) proc(ctx context.Context, netDir string) error {
	for s, err := range inetdiag.ProcSockets(ctx, netDir) {
		if err != nil {
			return err
		}
		if l.match(s) && !l.add(s) {
			break
		}
	}
	return nil
}

// add appends a socket if it may be old enough; false: the list is full.
func (l *listing) add(s *inetdiag.Socket) bool {
	age, known := l.age(s)
	if l.older > 0 && (!known || time.Duration(age.AtMost)*time.Millisecond < l.older) {
		return true
	}
	if l.query.Process != "" && s.Inode() == 0 {
		return true
	}
	if len(l.list.Sockets) == l.most {
		l.list.Truncated = true
		return false
	}
	r := rowOf(s)
	d := r.describe(l.names)
	switch {
	case s.State() == inetdiag.TimeWait:
		d.AgeSeconds = seconds(time.Duration(age.AtLeast) * time.Millisecond)
	case known:
		age.Tell(&d)
	}
	l.list.Sockets = append(l.list.Sockets, d)
	return true
}

// searchTime is how long the search for processes may take: enough for half a
// million descriptors.
const searchTime = 2 * time.Second

// findOwners names the processes of the sockets, and leaves those that are
// asked for.
func (l *listing) findOwners(ctx context.Context, proc string) {
	wants := make([]owner.Want, 0, len(l.list.Sockets))
	for i := range l.list.Sockets {
		if inode := l.list.Sockets[i].Inode; inode != 0 {
			wants = append(wants, owner.Want{Inode: inode})
		}
	}
	if len(wants) == 0 {
		return
	}
	finder := owner.New(owner.Config{Proc: proc, FirstBudget: searchTime, MaxInodes: MaxSockets, MaxProcesses: 1 << 15})
	_, r := finder.Find(ctx, wants, nil)
	for i := range l.list.Sockets {
		s := &l.list.Sockets[i]
		if o, ok := finder.Owner(s.Inode); ok {
			s.PID, s.Comm = o.PID, o.Comm
		}
	}
	if l.query.Process == "" {
		return
	}
	if missing := r.Pending + r.Failed + r.Dropped; missing > 0 {
		why := "their processes were not found"
		if r.Gap != nil {
			why = r.Gap.Error()
		} else if r.Pending > 0 {
			why = fmt.Sprintf("the search takes more than %v", searchTime)
		}
		if l.list.Lost != "" {
			l.list.Lost += "; "
		}
		l.list.Lost += fmt.Sprintf("%d sockets whose process isn't known: %s", missing, why)
	}
	l.list.Sockets = slices.DeleteFunc(l.list.Sockets, func(s snapshot.Socket) bool { return !l.query.MatchProcess(s.PID, s.Comm) })
	if len(l.list.Sockets) > l.limit {
		l.list.Sockets, l.list.Truncated = l.list.Sockets[:l.limit], true
	}
}

// age is how long a socket is in TIME_WAIT, which is exact, or CLOSE_WAIT.
func (l *listing) age(s *inetdiag.Socket) (age flow.Age, known bool) {
	switch s.State() {
	case inetdiag.TimeWait:
		ms := timeWaitAge(s.Expires(), l.length).Milliseconds()
		return flow.Age{AtLeast: ms, AtMost: ms}, true
	case inetdiag.CloseWait:
		if info, ok := s.Info(); ok {
			atLeast, atMost := closeWaitAge(&info)
			return flow.Age{AtLeast: atLeast.Milliseconds(), AtMost: atMost.Milliseconds()}, true
		}
	}
	return flow.Age{}, false
}

// timeWaitAge is how long a mini-socket lives that expires in so many ms.
func timeWaitAge(expires uint32, length time.Duration) time.Duration {
	return max(0, length-time.Duration(expires)*time.Millisecond)
}

func seconds(d time.Duration) *float64 { return new(d.Seconds()) }

// timeWaitLength is 60 s on every kernel but Alibaba's.
func (c *Collector) timeWaitLength() time.Duration {
	files, err := sysctl.Open(c.cfg.Proc + "/sys")
	if err != nil {
		return time.Minute
	}
	defer files.Close()
	limits, _ := files.Read() // the setting is absent almost everywhere
	return timeWaitOf(limits)
}

func timeWaitOf(limits sysctl.Limits) time.Duration {
	if limits.TCPTWTimeout != nil {
		return time.Duration(*limits.TCPTWTimeout) * time.Second
	}
	return time.Minute
}

// describe is the row for readers, without its age.
func (r *row) describe(device func(uint32) string) snapshot.Socket {
	d := snapshot.Socket{
		State: r.state.String(), Local: r.id.Src().String(), RecvQ: r.rqueue, SendQ: r.wqueue,
		Inode: r.inode, Cookie: r.id.Cookie(),
	}
	if dst := r.id.Dst(); dst.Port() != 0 {
		d.Remote = dst.String()
	}
	if i := r.id.Interface(); i != 0 {
		d.Device = device(i)
	}
	if !r.mini {
		d.UID = new(r.uid)
	}
	if r.timer != 0 {
		// idiag_timer, include/uapi/linux/inet_diag.h.
		names := []string{"", "retransmit", "keepalive", "time_wait", "probe0"}
		d.Timer = names[min(int(r.timer), len(names)-1)]
		d.TimerSeconds = new(float64(r.expires) / 1000)
	}
	return d
}

// deviceNames names interfaces by their index, each looked up once.
func deviceNames() func(index uint32) string {
	known := make(map[uint32]string)
	return func(index uint32) string {
		name, ok := known[index]
		if !ok {
			name = "if" + strconv.FormatUint(uint64(index), 10)
			if dev, err := net.InterfaceByIndex(int(index)); err == nil {
				name = dev.Name
			}
			known[index] = name
		}
		return name
	}
}
