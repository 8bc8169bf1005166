package collector

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/sysctl"
)

// MaxSockets is the most rows that one list of sockets has.
const MaxSockets = 100_000

// SocketQuery says which sockets are asked for; its fields narrow the answer
// together, and its zero value asks for all.
type SocketQuery struct {
	States inetdiag.States // 0: all
	Remote netip.Prefix    // the remote address is in it; not valid: any
	Port   uint16          // the local or the remote port; 0: any
	Older  time.Duration   // age at least this: TIME_WAIT and CLOSE_WAIT only, since no other age is known
	Limit  int             // rows at most; 0 or more than MaxSockets: MaxSockets
}

// Sockets lists the sockets of the calling thread's namespace, in the
// kernel's order; truncated says that there were more. It uses a socket of its
// own, so it may run beside a pass. Rows come with their error.
func (c *Collector) Sockets(ctx context.Context, q SocketQuery) (sockets []snapshot.Socket, truncated bool, err error) {
	limit := q.Limit
	if limit <= 0 || limit > MaxSockets {
		limit = MaxSockets
	}
	conn, err := inetdiag.Dial(nil)
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	length := timeWaitLength(c.cfg.Proc)
	names := deviceNames()
	sockets = []snapshot.Socket{}
	for s, err := range conn.Sockets(ctx, q.dump()) {
		if err != nil {
			return sockets, truncated, err
		}
		age := socketAge(s, length)
		if q.Older > 0 && (age < 0 || age < q.Older) {
			continue
		}
		if len(sockets) == limit {
			return sockets, true, nil
		}
		sockets = append(sockets, describe(s, age, names))
	}
	return sockets, false, nil
}

// dump lets the kernel do the filtering.
func (q SocketQuery) dump() inetdiag.Query {
	d := inetdiag.Query{States: q.States}
	if d.States == 0 {
		d.States = inetdiag.AllStates | inetdiag.StatesOf(inetdiag.BoundInactive)
	}
	if q.Older > 0 {
		d.States &= inetdiag.StatesOf(inetdiag.TimeWait, inetdiag.CloseWait)
	}
	if d.States.Has(inetdiag.Close) {
		d.States |= inetdiag.StatesOf(inetdiag.BoundInactive) // its rows say CLOSE
	}
	d.Info = d.States.Has(inetdiag.CloseWait) // for its age
	var filters []inetdiag.Filter
	if q.Remote.IsValid() {
		filters = append(filters, inetdiag.Remote(q.Remote))
	}
	if q.Port != 0 {
		filters = append(filters, inetdiag.Or(inetdiag.LocalPort(q.Port), inetdiag.RemotePort(q.Port)))
	}
	if len(filters) > 0 {
		d.Filter = inetdiag.And(filters...)
	}
	return d
}

// socketAge is how long a socket is in TIME_WAIT or CLOSE_WAIT, −1 if that
// can't be known.
func socketAge(s *inetdiag.Socket, timeWait time.Duration) time.Duration {
	switch s.State() {
	case inetdiag.TimeWait:
		return max(0, timeWait-time.Duration(s.Expires())*time.Millisecond)
	case inetdiag.CloseWait:
		if info, ok := s.Info(); ok {
			return info.LastAckRecv
		}
	}
	return -1
}

// timeWaitLength is 60 s on every kernel but Alibaba's.
func timeWaitLength(proc string) time.Duration {
	files, err := sysctl.Open(proc + "/sys")
	if err != nil {
		return time.Minute
	}
	defer files.Close()
	if l, err := files.Read(); err == nil && l.TCPTWTimeout != nil {
		return time.Duration(*l.TCPTWTimeout) * time.Second
	}
	return time.Minute
}

func describe(s *inetdiag.Socket, age time.Duration, device func(uint32) string) snapshot.Socket {
	d := snapshot.Socket{
		State: s.State().String(), Local: s.Src().String(), RecvQ: s.RQueue(), SendQ: s.WQueue(),
		Inode: s.Inode(), Cookie: s.Cookie(),
	}
	if s.DstPort() != 0 {
		d.Remote = s.Dst().String()
	}
	if i := s.Interface(); i != 0 {
		d.Device = device(i)
	}
	if age >= 0 {
		seconds := age.Seconds()
		d.AgeSeconds = &seconds
	}
	if !s.Mini() {
		uid := s.UID()
		d.UID = &uid
	}
	if t := s.Timer(); t != 0 {
		// idiag_timer, include/uapi/linux/inet_diag.h.
		names := []string{"", "retransmit", "keepalive", "time_wait", "probe0"}
		d.Timer = names[min(int(t), len(names)-1)]
		left := float64(s.Expires()) / 1000
		d.TimerSeconds = &left
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
