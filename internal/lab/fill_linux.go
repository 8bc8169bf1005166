package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultRemotes  = 64
	defaultFillPort = 1000
	// portsPerRemote: of the 64,512 ports, one remote can't have quite all.
	portsPerRemote = 64000
	// checkEvery is how many rows are made between looks at the context.
	checkEvery = 256
)

// Filled is what FillTimeWait made: rows whose 60 s can be given anew.
type Filled struct {
	Rows    int
	Start   time.Time
	Elapsed time.Duration

	ns   *Namespace
	port uint16
	rows [][]tuple // by thread
}

// tuple is one TIME_WAIT.
type tuple struct {
	local, remote [4]byte
	localPort     uint16
}

// FillTimeWait makes f.Rows TIME_WAITs as fast as it can, at the client's end,
// spread evenly over the remotes. Each thread connects, accepts and closes both
// ends of its own remotes, so nothing waits for another thread and the client
// is always first to close. It first sets the namespace up, unless KeepSysctls.
//
// A TIME_WAIT lives 60 s (up to 62 with the kernel's timer): the oldest row
// leaves then, and the number stands still until then. Filled.Rearm begins the
// 60 s anew. See Fill for the sysctls that it sets.
func (ns *Namespace) FillTimeWait(ctx context.Context, f Fill) (*Filled, error) {
	remotes, err := f.remotes()
	if err != nil {
		return nil, err
	}
	if f.Port == 0 {
		f.Port = defaultFillPort
	}
	if f.Workers == 0 {
		f.Workers = runtime.NumCPU()
	}
	if !f.KeepSysctls {
		if err := ns.prepareFill(f.Rows); err != nil {
			return nil, err
		}
	}
	out := &Filled{Start: time.Now(), ns: ns, port: f.Port, rows: make([][]tuple, f.Workers)}
	listeners, err := ns.fillListeners(f)
	if err == nil {
		err = out.each(func(w int) error { return out.fill(ctx, w, f, listeners[w].fd, remotes) })
	}
	out.Elapsed = time.Since(out.Start)
	for _, rows := range out.rows {
		out.Rows += len(rows)
	}
	for _, s := range listeners {
		err = errors.Join(err, s.Close())
	}
	return out, err
}

// fillListeners makes one listener for each thread, all on one port: a
// connection goes to the thread that threadOf names.
func (ns *Namespace) fillListeners(f Fill) ([]*Server, error) {
	var list []*Server
	for range f.Workers {
		s, err := ns.Listen(netip.AddrPortFrom(netip.IPv4Unspecified(), f.Port), ListenOptions{Mode: Manual, ReusePort: true})
		if err == nil {
			list = append(list, s)
			err = errors.Join(unix.SetNonblock(s.fd, false), setTimeout(s.fd, defaultTimeout))
		}
		if err != nil {
			return list, err
		}
	}
	// The group's n-th socket is the n-th that began to listen.
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfNetOff + 16}, // destination address
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(f.Workers)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	err := unix.SetsockoptSockFprog(list[0].fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	return list, sockStep("attach a program to the listeners", err)
}

// skfNetOff is SKF_NET_OFF: offsets from the network header.
const skfNetOff = 1<<32 - 0x100000

// threadOf is the thread that makes and accepts the connections to a remote.
func threadOf(remote [4]byte, threads int) int {
	return int(binary.BigEndian.Uint32(remote[:]) % uint32(threads))
}

func (f *Fill) remotes() ([][4]byte, error) {
	n := len(f.Destinations)
	if n == 0 {
		n = f.Remotes
	}
	if n == 0 {
		n = defaultRemotes
	}
	n = max(1, min(n, f.Rows))
	if f.Rows/n > portsPerRemote || n > 1<<22 {
		return nil, &Error{
			"fill with TIME_WAITs", ErrBadRequest,
			fmt.Sprintf("%d rows need at least %d remotes, at most %d", f.Rows, f.Rows/portsPerRemote+1, 1<<22),
		}
	}
	list := make([][4]byte, n)
	for i := range list {
		a := RemoteAddr(i)
		if len(f.Destinations) > 0 {
			a = f.Destinations[i]
		}
		if !a.Is4() || !a.IsLoopback() {
			return nil, &Error{"fill with TIME_WAITs", ErrBadRequest, a.String() + " is no IPv4 loopback address"}
		}
		list[i] = a.As4()
	}
	return list, nil
}

// prepareFill: a wide range; no recycling (on by default on loopback); no
// death by a late RST, which takes 1–2 % otherwise; room for the rows.
func (ns *Namespace) prepareFill(rows int) error {
	const buckets = "net.ipv4.tcp_max_tw_buckets"
	now, err := ns.ReadSysctl(buckets)
	if err != nil {
		return err
	}
	limit, err := strconv.Atoi(strings.TrimSpace(now))
	if err != nil {
		return fmt.Errorf("lab: %s: %w", buckets, err)
	}
	for _, set := range [][2]string{
		{"net.ipv4.ip_local_port_range", "1024 65535"},
		{"net.ipv4.tcp_tw_reuse", "0"},
		{"net.ipv4.tcp_rfc1337", "1"},
		{buckets, strconv.Itoa(max(limit, 2*rows))},
	} {
		if err := ns.Sysctl(set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// each runs fn once for every thread's share, all at once, and returns the
// first error.
func (f *Filled) each(fn func(w int) error) error {
	waits := make([]func() error, len(f.rows))
	for w := range waits {
		waits[w] = f.ns.Go(func() error { return fn(w) })
	}
	var err error
	for _, wait := range waits {
		if werr := wait(); err == nil {
			err = werr
		}
	}
	return err
}

// fill makes the rows of a thread's own remotes.
func (f *Filled) fill(ctx context.Context, w int, o Fill, listener int, remotes [][4]byte) error {
	sa := &unix.SockaddrInet4{Port: int(o.Port)}
	rows := make([]tuple, 0, o.Rows/o.Workers+1)
	defer func() { f.rows[w] = rows }()
	for i := range o.Rows {
		sa.Addr = remotes[i%len(remotes)]
		if threadOf(sa.Addr, o.Workers) != w {
			continue
		}
		if len(rows)%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		row, err := oneTimeWait(sa, listener)
		if err != nil {
			return &Error{fmt.Sprintf("make TIME_WAIT %d of %d", i+1, o.Rows), err, ""}
		}
		rows = append(rows, row)
	}
	return nil
}

func oneTimeWait(remote *unix.SockaddrInet4, listener int) (tuple, error) {
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return tuple{}, sockStep("make a socket", err)
	}
	row := tuple{remote: remote.Addr}
	server := -1
	if err = connect(client, remote); err == nil {
		server, _, err = accept(listener, 0)
		err = sockStep("accept", err)
	}
	if sa, nerr := unix.Getsockname(client); nerr == nil {
		if sa4, ok := sa.(*unix.SockaddrInet4); ok {
			row.local, row.localPort = sa4.Addr, uint16(sa4.Port)
		}
	}
	err = errors.Join(err, closeSocket(client))
	if server >= 0 {
		err = errors.Join(err, closeSocket(server))
	}
	return row, err
}

// Rearm begins the 60 s of every row anew, with one out-of-window ACK each
// (RFC 9293: TIME_WAIT restarts its timer), and returns how many it sent. It is
// several times faster than making them, so a table of known size holds for as
// long as a measurement takes: after Rearm, nothing moves for 60 s minus the
// time it took. Rows that have died stay dead; ages begin anew; the kernel
// answers each ACK, which moves counters of segments and resets, not TW.
func (f *Filled) Rearm(ctx context.Context) (int, error) { return f.walk(ctx, 0) }

// Keep rearms the rows one after the other, evenly, until ctx ends, so that
// none dies: a background load of one packet per row every 40 s. Begin within
// 10 s of the fill. The error is nil when ctx ended it.
func (f *Filled) Keep(ctx context.Context) error { return f.keep(ctx, keepRound) }

const keepRound = 40 * time.Second

func (f *Filled) keep(ctx context.Context, round time.Duration) error {
	for {
		if _, err := f.walk(ctx, round); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// walk rearms every row once, spread evenly over a time; 0: at once.
func (f *Filled) walk(ctx context.Context, over time.Duration) (int, error) {
	sent := make([]int, len(f.rows))
	err := f.each(func(w int) (err error) {
		sent[w], err = f.rearm(ctx, f.rows[w], over)
		return err
	})
	total := 0
	for _, n := range sent {
		total += n
	}
	return total, err
}

func (f *Filled) rearm(ctx context.Context, rows []tuple, over time.Duration) (sent int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, &Error{"make a raw socket", err, "needs CAP_NET_RAW in the namespace"}
	}
	defer func() { _ = unix.Close(fd) }()
	to := &unix.SockaddrInet4{}
	var packet [40]byte
	start := time.Now()
	for i, row := range rows {
		if i%checkEvery == 0 {
			if err := sleepUntil(ctx, start.Add(over*time.Duration(i)/time.Duration(len(rows)))); err != nil {
				return sent, err
			}
		}
		to.Addr = row.local
		bareACK(&packet, row, f.port)
		if err := unix.Sendto(fd, packet[:], 0, to); err != nil {
			return sent, sockStep("send an ACK", err)
		}
		sent++
	}
	return sent, sleepUntil(ctx, start.Add(over))
}

// sleepUntil returns the context's error if it ends first, or has ended.
func sleepUntil(ctx context.Context, at time.Time) error {
	left := time.Until(at)
	if left <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bareACK is an IPv4 packet from the row's remote end to its local one: a TCP
// segment with ACK alone, its sequence number out of any window.
func bareACK(p *[40]byte, row tuple, remotePort uint16) {
	*p = [40]byte{0: 0x45, 8: 64, 9: unix.IPPROTO_TCP}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], row.remote[:])
	copy(p[16:], row.local[:])
	binary.BigEndian.PutUint16(p[20:], remotePort)
	binary.BigEndian.PutUint16(p[22:], row.localPort)
	p[32] = 5 << 4 // header of five words
	p[33] = 0x10   // ACK
	sum := uint32(unix.IPPROTO_TCP + 20)
	for i := 12; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[36:], ^uint16(sum))
}
