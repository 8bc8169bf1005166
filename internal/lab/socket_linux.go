package lab

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const defaultTimeout = 5 * time.Second

// sockaddr is the kernel's form of an address; family follows the address,
// so "::ffff:127.0.0.1" is an IPv6 socket that speaks IPv4.
func sockaddr(ap netip.AddrPort) (family int, sa unix.Sockaddr, err error) {
	a := ap.Addr()
	switch {
	case a.Is4():
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: a.As4()}, nil
	case a.Is6():
		sa6 := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: a.As16()}
		if zone := a.Zone(); zone != "" {
			// A zone is the device's name; resolved by the caller's namespace.
			idx, err := linkIndex(zone)
			if err != nil {
				return 0, nil, err
			}
			sa6.ZoneId = uint32(idx)
		}
		return unix.AF_INET6, sa6, nil
	}
	return 0, nil, &Error{"use an address", ErrBadRequest, "it is empty"}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sockStep is a failed step of making a socket.
func sockStep(op string, err error) error {
	if err == nil {
		return nil
	}
	fix := ""
	switch {
	case errors.Is(err, unix.EMFILE):
		fix = "too many open files: see ulimit -Hn"
	case errors.Is(err, unix.EADDRNOTAVAIL) && op == "connect":
		fix = "no free port in ip_local_port_range, or no such local address"
	}
	return &Error{op, err, fix}
}

// errnoOf finds the errno that a failure counts under. A blocking call whose
// SO_SNDTIMEO or SO_RCVTIMEO ran out says EAGAIN or EINPROGRESS.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return unix.EINVAL
	}
	if errno == unix.EAGAIN || errno == unix.EINPROGRESS {
		return unix.ETIMEDOUT
	}
	return errno
}

// newSocket makes a TCP socket and, as opts say, binds it.
func newSocket(family int, opts ConnOptions) (fd int, err error) {
	typ := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if opts.NoWait {
		typ |= unix.SOCK_NONBLOCK
	}
	fd, err = unix.Socket(family, typ, 0)
	if err != nil {
		return -1, sockStep("make a socket", err)
	}
	if err := prepare(fd, family, opts); err != nil {
		_ = closeSocket(fd)
		return -1, err
	}
	return fd, nil
}

func prepare(fd, family int, opts ConnOptions) error {
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if err := setTimeout(fd, opts.Timeout); err != nil {
		return err
	}
	if opts.Device != "" {
		if err := unix.BindToDevice(fd, opts.Device); err != nil {
			return sockStep("bind to device "+opts.Device, err)
		}
	}
	if opts.ReuseAddr {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return sockStep("set SO_REUSEADDR", err)
		}
	}
	if !opts.Local.IsValid() && opts.Bind == BindAuto {
		return nil
	}
	return bindTo(fd, family, opts)
}

func bindTo(fd, family int, opts ConnOptions) error {
	local := opts.Local
	switch {
	case !local.IsValid() && family == unix.AF_INET6:
		local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	case !local.IsValid():
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	case family == unix.AF_INET6 && local.Addr().Is4():
		local = netip.AddrPortFrom(netip.AddrFrom16(local.Addr().As16()), local.Port())
	}
	if local.Port() == 0 && opts.Bind == BindAuto {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return sockStep("set IP_BIND_ADDRESS_NO_PORT", err)
		}
	}
	_, sa, err := sockaddr(local)
	if err != nil {
		return err
	}
	return sockStep("bind", unix.Bind(fd, sa))
}

func setTimeout(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	return sockStep("set a timeout", errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)))
}

// connect waits for the handshake unless the socket doesn't block. An
// interrupted connect() goes on by itself; calling it again waits for it.
func connect(fd int, sa unix.Sockaddr) error {
	for {
		err := unix.Connect(fd, sa)
		switch err {
		case unix.EINTR:
			continue
		case unix.EISCONN:
			return nil
		}
		return sockStep("connect", err)
	}
}

// lingerReset makes the next close() send a RST and leave nothing behind.
func lingerReset(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// closeSocket closes a socket at once. While the process forks, the child holds
// a copy of every descriptor until its exec(), and a close() in between would
// take effect only then: the FIN late, perhaps after the peer's own.
func closeSocket(fd int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return unix.Close(fd)
}

// drain reads until the peer's end and returns how many bytes came before it.
func drain(fd int, buf []byte) (int, error) {
	total := 0
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return total, sockStep("wait for the peer's end", err)
		case n == 0:
			return total, nil
		default:
			total += n
		}
	}
}

func accept(fd, flags int) (int, unix.Sockaddr, error) {
	for {
		nfd, sa, err := unix.Accept4(fd, flags|unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		return nfd, sa, err
	}
}
