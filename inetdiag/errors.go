package inetdiag

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// What callers branch on, with errors.Is. They arrive inside an [OpError].
var (
	// ErrTruncated: a datagram was longer than the buffer, or the kernel
	// says that it dropped some: rows are lost.
	ErrTruncated = errors.New("data were lost on the way")

	// ErrMalformed: a datagram, a recording or a line of /proc is not of the
	// form that it should have.
	ErrMalformed = errors.New("malformed data")

	// ErrInterrupted: the table changed during the dump in a way that makes
	// it inconsistent (NLM_F_DUMP_INTR). All rows were yielded before.
	ErrInterrupted = errors.New("the dump was interrupted by a change of the table")

	// ErrSequence: a message answers another request than ours.
	ErrSequence = errors.New("a message has the wrong sequence number")

	// ErrForeign: a message is for another socket, or not from the kernel.
	ErrForeign = errors.New("a message is not from the kernel or not for this socket")

	// ErrBusy: a request is under way on this Conn already.
	ErrBusy = errors.New("another request is under way")

	// ErrNotSupported: this system cannot be asked.
	ErrNotSupported = errors.New("not supported by this system")

	// ErrNotFound: there is no such socket (any more).
	ErrNotFound = errors.New("no such socket")

	// ErrSpent: an earlier request on this Conn was left before its end, so
	// that its answers would be mixed with the next one's.
	ErrSpent = errors.New("an earlier request was not read to its end")
)

// OpError is the error of every operation here: what was being done, why it
// failed and, in its message, what to do about it.
type OpError struct {
	// Op is "dial", "dump", "drain", "lookup", "close", "filter", "record",
	// "replay" or "proc".
	Op  string
	Err error
}

// Error is one line: operation, reason, remedy.
func (e *OpError) Error() string {
	return fmt.Sprintf("inetdiag: %s: %v; %s", e.Op, e.Err, remedy(e.Op, e.Err))
}

// Unwrap returns the reason.
func (e *OpError) Unwrap() error { return e.Err }

// remedy says what can be done about err.
func remedy(op string, err error) string {
	switch {
	case op == "filter":
		return "correct or shorten the filter"
	case op == "record":
		return "the rows are good, the recording is incomplete: check the disk and record again"
	case errors.Is(err, context.Canceled):
		return "rows already seen are good"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "allow more time, or ask for fewer states"
	case errors.Is(err, ErrBusy):
		return "finish that one first, or dial another Conn"
	case errors.Is(err, ErrSpent):
		return "close this Conn and dial another"
	case errors.Is(err, ErrTruncated), errors.Is(err, ErrSequence), errors.Is(err, ErrForeign):
		return "rows already seen are good: dial again and repeat"
	case errors.Is(err, ErrInterrupted):
		return "all rows were shown: repeat if every socket must be counted exactly once"
	case errors.Is(err, ErrNotFound):
		return "it has been closed: take it off the list"
	case errors.Is(err, ErrNotSupported):
		return unsupportedRemedy
	case errors.Is(err, ErrMalformed) && op == "replay":
		return "use an undamaged recording, and ask it what was asked when it was made"
	case errors.Is(err, ErrMalformed):
		return "rows already seen are good: repeat, and report it with the kernel's version if it stays"
	case op == "dial" && errors.Is(err, os.ErrPermission):
		return "entering another namespace takes CAP_SYS_ADMIN; in one's own a seccomp or LSM policy forbids " +
			"NETLINK_SOCK_DIAG: allow it, or read /proc/net/tcp and tcp6"
	case op == "proc" && errors.Is(err, os.ErrPermission):
		return "let this user read it"
	case errors.Is(err, os.ErrPermission):
		return "a seccomp or LSM policy forbids it: allow NETLINK_SOCK_DIAG, or read /proc/net/tcp and tcp6"
	case errors.Is(err, os.ErrNotExist):
		return "mount /proc, or name a directory that holds tcp and tcp6"
	case errors.Is(err, os.ErrClosed):
		return "dial another Conn"
	}
	var no *refusal
	if errors.As(err, &no) && no.errno == errnoINVAL {
		return "this kernel knows no such filter: ask without"
	}
	return "dial again and repeat"
}

// Error numbers in NLMSG_ERROR: always Linux's, also when a recording is
// replayed elsewhere.
const (
	errnoPERM           = 1
	errnoNOENT          = 2
	errnoACCES          = 13
	errnoBUSY           = 16
	errnoINVAL          = 22
	errnoPROTONOSUPPORT = 93
	errnoOPNOTSUPP      = 95
	errnoAFNOSUPPORT    = 97
	errnoNOBUFS         = 105
	errnoSTALE          = 116
	maxErrno            = 4095 // MAX_ERRNO, include/linux/err.h
)

// refusal is the kernel's own no to a request: errno in an NLMSG_ERROR or in
// an NLMSG_DONE.
type refusal struct {
	errno int32 // positive
}

func (r *refusal) Error() string {
	if err := systemError(r.errno); err != nil {
		return fmt.Sprintf("the kernel answered %q", err)
	}
	return fmt.Sprintf("the kernel answered with error %d", r.errno)
}

// Is lets a refusal match the sentinel that fits its number, and
// os.ErrPermission.
func (r *refusal) Is(target error) bool {
	switch r.errno {
	case errnoPERM, errnoACCES:
		return target == os.ErrPermission
	case errnoBUSY:
		return target == ErrBusy
	case errnoNOENT: // no handler for that family or protocol
		return target == ErrNotSupported
	case errnoSTALE:
		return target == ErrNotFound
	case errnoNOBUFS:
		return target == ErrTruncated
	case errnoPROTONOSUPPORT, errnoOPNOTSUPP, errnoAFNOSUPPORT:
		return target == ErrNotSupported
	}
	return false
}

// Unwrap gives the system's error number where there is one.
func (r *refusal) Unwrap() error { return systemError(r.errno) }
