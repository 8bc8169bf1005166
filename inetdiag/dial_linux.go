package inetdiag

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const unsupportedRemedy = "read /proc/net/tcp and tcp6 instead"

// Dial opens a netlink socket in the namespace that cfg names. A nil cfg is
// the zero Config. No capability is needed in the caller's own namespace.
//
// A system without sock_diag (gVisor) gives [ErrNotSupported]; see
// [ProcSockets].
func Dial(cfg *Config) (*Conn, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	nl, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: cfg.NetNS})
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENOSYS) {
			err = fmt.Errorf("%w: %w", ErrNotSupported, err)
		}
		return nil, &OpError{Op: "dial", Err: err}
	}
	rc, err := nl.SyscallConn()
	if err != nil {
		_ = nl.Close()
		return nil, &OpError{Op: "dial", Err: err}
	}
	return &Conn{nl: nl, recv: newReceiver(rc).recv, tape: newTape(cfg.Tape), buf: make([]byte, bufferSize)}, nil
}

func newTape(w io.Writer) *tapeWriter {
	if w == nil {
		return nil
	}
	return &tapeWriter{w: w}
}

// receiver receives datagrams without allocating: what the system call needs
// lives here, and the function for RawRead is made once. x/sys/unix has no
// way to learn a datagram's sender that doesn't allocate, so the call is
// made by hand.
type receiver struct {
	rc   syscall.RawConn
	once func(fd uintptr) (done bool)

	buf     []byte
	n       int
	errno   unix.Errno
	from    unix.RawSockaddrNetlink
	fromLen uint32
}

func newReceiver(rc syscall.RawConn) *receiver {
	r := &receiver{rc: rc}
	r.once = r.recvfrom
	return r
}

// recv waits for a datagram. n is its true length, which can exceed the
// buffer's; from is the sender's port id, 0 for the kernel.
func (r *receiver) recv(buf []byte) (n int, from uint32, err error) {
	r.buf = buf
	if err := r.rc.Read(r.once); err != nil {
		return 0, 0, err
	}
	if r.errno == unix.ENOBUFS {
		return 0, 0, fmt.Errorf("%w: %w", ErrTruncated, r.errno)
	}
	if r.errno != 0 {
		return 0, 0, r.errno
	}
	if r.fromLen < unix.SizeofSockaddrNetlink || r.from.Family != unix.AF_NETLINK {
		return 0, 0, fmt.Errorf("%w: it has no sender", ErrForeign)
	}
	return r.n, r.from.Pid, nil
}

// recvfrom is one attempt; false means that there is nothing yet.
func (r *receiver) recvfrom(fd uintptr) bool {
	for {
		r.from, r.fromLen = unix.RawSockaddrNetlink{}, unix.SizeofSockaddrNetlink
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(r.buf))), uintptr(len(r.buf)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC,
			uintptr(unsafe.Pointer(&r.from)), uintptr(unsafe.Pointer(&r.fromLen)))
		if errno == unix.EINTR {
			continue
		}
		r.n, r.errno = int(n), errno
		return errno != unix.EAGAIN
	}
}

func systemError(errno int32) error { return unix.Errno(errno) }
