package lab

import (
	"errors"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is one socket of a namespace. Its methods may be called from any
// thread: only a socket's making depends on the namespace. They are not for
// several goroutines at once, except Close and Reset.
type Conn struct {
	ns     *Namespace
	mu     sync.Mutex
	fd     int // -1 once closed
	local  netip.AddrPort
	remote netip.AddrPort
}

// Open makes a socket in the namespace and connects it to dst: ESTABLISHED when
// Open returns (SYN_SENT with NoWait). It doesn't wait for an accept().
func (ns *Namespace) Open(dst netip.AddrPort, opts ConnOptions) (*Conn, error) {
	return ns.conn(func() (int, error) { return dial(dst, opts) })
}

func dial(dst netip.AddrPort, opts ConnOptions) (int, error) {
	family, sa, err := sockaddr(dst)
	if err != nil {
		return -1, err
	}
	fd, err := newSocket(family, opts)
	if err != nil {
		return -1, err
	}
	if err := connect(fd, sa); err != nil && (!opts.NoWait || !errors.Is(err, unix.EINPROGRESS)) {
		_ = closeSocket(fd)
		return -1, err
	}
	return fd, nil
}

// Bind makes a socket that is bound to addr and neither connected nor
// listening. Port 0 lets the kernel choose one, as bind(addr, 0) does.
func (ns *Namespace) Bind(addr netip.AddrPort, opts ConnOptions) (*Conn, error) {
	opts.Local, opts.Bind = addr, BindAddrPort0
	return ns.conn(func() (int, error) {
		family, _, err := sockaddr(addr)
		if err != nil {
			return -1, err
		}
		return newSocket(family, opts)
	})
}

// conn makes a descriptor on a thread of the namespace and owns it.
func (ns *Namespace) conn(open func() (int, error)) (*Conn, error) {
	c := &Conn{ns: ns, fd: -1}
	err := ns.Do(func() (err error) {
		if c.fd, err = open(); err != nil {
			return err
		}
		c.local, c.remote = names(c.fd)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := ns.keep(c); err != nil {
		return nil, err
	}
	return c, nil
}

func names(fd int) (local, remote netip.AddrPort) {
	if sa, err := unix.Getsockname(fd); err == nil {
		local = addrPort(sa)
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		remote = addrPort(sa)
	}
	return local, remote
}

// Pair is the two ends of one connection.
type Pair struct{ Client, Server *Conn }

// Pair connects to s and accepts the connection; s must be Manual, with an
// empty accept queue.
func (ns *Namespace) Pair(s *Server, opts ConnOptions) (*Pair, error) {
	client, err := ns.Open(s.Addr(), opts)
	if err != nil {
		return nil, err
	}
	server, err := s.Accept()
	if err != nil {
		return nil, errors.Join(err, client.Reset())
	}
	return &Pair{client, server}, nil
}

// FD is the socket's descriptor, owned by the Conn; -1 once closed.
func (c *Conn) FD() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fd
}

// Local is the socket's own address as it was when it was made.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Remote is the peer's address; zero for a bound socket and in SYN_SENT.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Inode is the socket's inode, as in /proc/PID/fd and the inode column of
// /proc/net/tcp.
func (c *Conn) Inode() (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(c.FD(), &st)
	return st.Ino, sockStep("read the inode", err)
}

// Cookie is the kernel's 64-bit name of the socket (SO_COOKIE); asking for it
// makes it, and its TIME_WAIT then bears it too.
func (c *Conn) Cookie() (uint64, error) {
	v, err := unix.GetsockoptUint64(c.FD(), unix.SOL_SOCKET, unix.SO_COOKIE)
	return v, sockStep("read the cookie", err)
}

// State is the kernel's number of the socket's state, as in States: 1
// ESTABLISHED, 5 FIN_WAIT2, 8 CLOSE_WAIT.
func (c *Conn) State() (int, error) {
	info, err := unix.GetsockoptTCPInfo(c.FD(), unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, sockStep("read tcp_info", err)
	}
	return int(info.State), nil
}

// Write sends b whole.
func (c *Conn) Write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.FD(), b, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			return sockStep("write", err)
		}
		b = b[max(n, 0):]
	}
	return nil
}

// ReadFull fills b, or fails at the peer's end with the bytes missing.
func (c *Conn) ReadFull(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(c.FD(), b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return sockStep("read", err)
		case n == 0:
			return &Error{"read", unix.ENODATA, "the peer closed"}
		}
		b = b[n:]
	}
	return nil
}

// Drain reads until the peer's end and returns the number of bytes before it.
func (c *Conn) Drain() (int, error) { return drain(c.FD(), make([]byte, 4096)) }

// Shutdown sends the FIN and keeps the descriptor (SHUT_WR).
func (c *Conn) Shutdown() error { return sockStep("shutdown", unix.Shutdown(c.FD(), unix.SHUT_WR)) }

// Deafen lets the socket drop every segment that reaches it, or ends that: its
// peer then waits in vain for acknowledgements.
func (c *Conn) Deafen(on bool) error {
	if !on {
		return sockStep("detach a filter", unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
	}
	dropAll := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	return sockStep("attach a filter", unix.SetsockoptSockFprog(c.FD(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &dropAll}))
}

// Close is close(): what the connection becomes is the kernel's business. With
// unread bytes that is a reset. A second Close does nothing.
func (c *Conn) Close() error { return c.end(false) }

// Reset closes with SO_LINGER 0: a RST, and nothing stays.
func (c *Conn) Reset() error { return c.end(true) }

func (c *Conn) end(reset bool) error {
	c.ns.drop(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	var err error
	if reset {
		err = lingerReset(c.fd)
	}
	err = errors.Join(err, closeSocket(c.fd))
	c.fd = -1
	return sockStep("close", err)
}

// Connects is the oracle of free ports: it calls connect() to dst until the
// kernel refuses, at most limit times, holding every connection open. granted is
// how many it got; err is the refusal (EADDRNOTAVAIL, or EADDRINUSE where
// bind() comes first), nil if limit was reached. release resets them all, leaving
// no TIME_WAIT; it is never nil, and Close calls it too.
//
// Each needs a descriptor, two if the server accepts; a refused connect() costs
// milliseconds in a large range.
func (ns *Namespace) Connects(dst netip.AddrPort, opts ConnOptions, limit int) (granted int, release func(), err error) {
	h := &held{ns: ns}
	err = ns.Do(func() error {
		for range limit {
			fd, err := dial(dst, opts)
			if err != nil {
				return err
			}
			h.fds = append(h.fds, fd)
		}
		return nil
	})
	granted = len(h.fds)
	if kerr := ns.keep(h); kerr != nil {
		return granted, func() {}, kerr
	}
	return granted, func() { _ = h.Close() }, err
}

// held is a set of descriptors that are reset together.
type held struct {
	ns  *Namespace
	mu  sync.Mutex
	fds []int
}

func (h *held) Close() error {
	h.ns.drop(h)
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, fd := range h.fds {
		errs = append(errs, lingerReset(fd), closeSocket(fd))
	}
	h.fds = nil
	return errors.Join(errs...)
}
