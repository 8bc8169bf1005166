package lab

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Server is a listening socket, and the threads that serve its connections.
type Server struct {
	ns     *Namespace
	fd     int
	addr   netip.AddrPort
	opts   ListenOptions
	waits  []func() error
	stop   int         // eventfd: readable once the server must end
	ending atomic.Bool // for Accept, which polls

	accepted, closed atomic.Int64
	closing          sync.Once

	mu   sync.Mutex
	held []int
	err  error
}

// Listen opens a listening socket in the namespace. Port 0 lets the kernel
// choose one, inside ip_local_port_range; see Server.Addr.
func (ns *Namespace) Listen(addr netip.AddrPort, opts ListenOptions) (*Server, error) {
	if opts.Workers == 0 {
		opts.Workers = 2
	}
	s := &Server{ns: ns, fd: -1, stop: -1, opts: opts}
	err := ns.Do(func() (err error) {
		if s.fd, err = listen(addr, opts); err == nil {
			s.addr, _ = names(s.fd)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(sockStep("make an eventfd", err), closeSocket(s.fd))
	}
	if opts.Mode != Manual {
		for range opts.Workers {
			wait, err := ns.start(s.serve)
			if err != nil {
				return nil, errors.Join(err, s.Close())
			}
			s.waits = append(s.waits, wait)
		}
	}
	if err := ns.keep(s); err != nil {
		return nil, err
	}
	return s, nil
}

func listen(addr netip.AddrPort, opts ListenOptions) (int, error) {
	family, sa, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, sockStep("make a socket", err)
	}
	if err = listenOn(fd, family, sa, opts); err != nil {
		_ = closeSocket(fd)
		return -1, &Error{"listen on " + addr.String(), err, ""}
	}
	return fd, nil
}

func listenOn(fd, family int, sa unix.Sockaddr, opts ListenOptions) error {
	set := func(on bool, level, name int) error {
		if !on {
			return nil
		}
		return unix.SetsockoptInt(fd, level, name, 1)
	}
	err := errors.Join(
		set(true, unix.SOL_SOCKET, unix.SO_REUSEADDR),
		set(opts.ReusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT),
		set(opts.DeferAccept, unix.SOL_TCP, unix.TCP_DEFER_ACCEPT),
		set(family == unix.AF_INET6 && !opts.DualStack, unix.SOL_IPV6, unix.IPV6_V6ONLY))
	if err == nil && opts.Device != "" {
		err = unix.BindToDevice(fd, opts.Device)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	backlog := opts.Backlog
	if backlog == 0 {
		backlog = 4096
	}
	if err == nil {
		err = unix.Listen(fd, max(backlog, 0))
	}
	return err
}

// Addr is where the server listens; for a wildcard address, loopback of that
// family, so that it can be connected to.
func (s *Server) Addr() netip.AddrPort {
	switch {
	case !s.addr.Addr().IsUnspecified():
		return s.addr
	case s.addr.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.addr.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), s.addr.Port())
}

// Accepted counts the connections accepted so far.
func (s *Server) Accepted() int { return int(s.accepted.Load()) }

// Closed counts the connections that the server has closed or reset so far.
func (s *Server) Closed() int { return int(s.closed.Load()) }

// Held counts the connections that a Never server holds.
func (s *Server) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// Release closes the connections that a Never server holds.
func (s *Server) Release() error {
	s.mu.Lock()
	fds := s.held
	s.held = nil
	s.mu.Unlock()
	var errs []error
	for _, fd := range fds {
		errs = append(errs, closeSocket(fd))
		s.closed.Add(1)
	}
	return errors.Join(errs...)
}

// Err is what stopped a thread of the server before its time (too many open
// files); nil otherwise.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Accept takes the next connection from a Manual server's queue, waiting at
// most 5 s for one.
func (s *Server) Accept() (*Conn, error) {
	fd := -1
	err := poll(defaultTimeout, func() (err error) {
		if s.ending.Load() {
			return nil
		}
		fd, _, err = accept(s.fd, 0)
		return err
	})
	if err == nil && fd < 0 {
		err = ErrClosed
	}
	if err != nil {
		return nil, sockStep("accept", err)
	}
	s.accepted.Add(1)
	return s.ns.conn(func() (int, error) { return fd, setTimeout(fd, defaultTimeout) })
}

// Close ends the server: the listening socket and every connection it still
// has. A second Close does nothing.
func (s *Server) Close() error {
	var err error
	s.closing.Do(func() {
		s.ns.drop(s)
		s.ending.Store(true)
		_, werr := unix.Write(s.stop, []byte{0, 0, 0, 0, 0, 0, 0, 1})
		for _, wait := range s.waits {
			werr = errors.Join(werr, wait())
		}
		err = errors.Join(werr, s.Release(), closeSocket(s.fd), unix.Close(s.stop))
	})
	return err
}

// serve is one thread: it accepts and serves until the server ends.
func (s *Server) serve() (err error) {
	defer func() {
		if err != nil {
			s.mu.Lock()
			s.err = errors.Join(s.err, err)
			s.mu.Unlock()
		}
	}()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return sockStep("make an epoll", err)
	}
	w := &serverThread{s: s, ep: ep, open: map[int]bool{}, buf: make([]byte, 16<<10)}
	defer w.end()
	for fd, events := range map[int]uint32{s.fd: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, s.stop: unix.EPOLLIN} {
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
			return sockStep("watch a socket", err)
		}
	}
	return w.loop()
}

// serverThread is one thread's share of the connections; nothing is shared.
type serverThread struct {
	s    *Server
	ep   int
	open map[int]bool
	due  []dueClose // ascending: the delay is the same for all
	head int
	buf  []byte
}

type dueClose struct {
	fd int
	at time.Time
}

func (w *serverThread) end() {
	for fd := range w.open {
		_ = closeSocket(fd)
	}
	for _, d := range w.due[w.head:] {
		_ = closeSocket(d.fd)
	}
	_ = unix.Close(w.ep)
}

func (w *serverThread) loop() error {
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.ep, events, w.timeout())
		if err != nil && err != unix.EINTR {
			return sockStep("wait for sockets", err)
		}
		for _, ev := range events[:max(n, 0)] {
			switch fd := int(ev.Fd); fd {
			case w.s.stop:
				return nil
			case w.s.fd:
				if err := w.accept(); err != nil {
					return err
				}
			default:
				w.read(fd)
			}
		}
		w.closeDue()
	}
}

// timeout until the next connection is due, in milliseconds, rounded up; -1
// for none.
func (w *serverThread) timeout() int {
	if w.head == len(w.due) {
		return -1
	}
	return int(max(0, (time.Until(w.due[w.head].at) + time.Millisecond - 1).Milliseconds()))
}

func (w *serverThread) closeDue() {
	for ; w.head < len(w.due) && time.Until(w.due[w.head].at) <= 0; w.head++ {
		w.finish(w.due[w.head].fd)
	}
	if w.head == len(w.due) {
		w.due, w.head = w.due[:0], 0
	}
}

// accept takes a bounded number of connections, so that reading keeps up.
func (w *serverThread) accept() error {
	for range 64 {
		fd, _, err := accept(w.s.fd, unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return sockStep("accept", err)
		}
		w.s.accepted.Add(1)
		switch w.s.opts.Mode {
		case Never:
			w.s.mu.Lock()
			w.s.held = append(w.s.held, fd)
			w.s.mu.Unlock()
		case CloseByServer, ResetByServer:
			if w.s.opts.After > 0 {
				w.due = append(w.due, dueClose{fd, time.Now().Add(w.s.opts.After)})
				continue
			}
			w.finish(fd)
		default:
			w.read(fd)
		}
	}
	return nil
}

// read takes what is there; at the client's end it closes, else it waits for
// more.
func (w *serverThread) read(fd int) {
	for {
		n, err := unix.Read(fd, w.buf)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if !w.open[fd] {
				w.open[fd] = true
				err = unix.EpollCtl(w.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
			} else {
				err = nil
			}
			if err != nil {
				w.finish(fd)
			}
			return
		case err != nil || n == 0:
			w.finish(fd)
			return
		case w.s.opts.Echo:
			// A client that doesn't read its echo loses the rest of it.
			_, _ = unix.SendmsgN(fd, w.buf[:n], nil, nil, unix.MSG_NOSIGNAL)
		}
	}
}

func (w *serverThread) finish(fd int) {
	if w.s.opts.Mode == ResetByServer {
		_ = lingerReset(fd)
	}
	if w.open[fd] {
		// A forked child may keep the connection, and with it the epoll's
		// entry, beyond close(): its events would then hit the number's next owner.
		_ = unix.EpollCtl(w.ep, unix.EPOLL_CTL_DEL, fd, nil)
		delete(w.open, fd)
	}
	_ = closeSocket(fd)
	w.s.closed.Add(1)
}
