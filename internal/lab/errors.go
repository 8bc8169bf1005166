package lab

import (
	"errors"
	"strings"
)

var (
	// ErrUnsupported says that this operating system has no network namespaces.
	ErrUnsupported = errors.New("needs Linux")
	// ErrClosed says that the namespace, server or socket was closed before.
	ErrClosed = errors.New("already closed")
	// ErrBadRequest says that the call's own arguments can't work, whatever the kernel.
	ErrBadRequest = errors.New("bad request")
)

// Error is every failure of this package that an operator can do something
// about: which step failed, why, and what to do.
type Error struct {
	Op  string // the step, as in "make a network namespace"
	Err error  // usually a syscall.Errno
	Fix string // likely cause and what to do; may be empty
}

func (e *Error) Error() string {
	// The package's name stands once, however deep the cause lies.
	cause := strings.TrimPrefix(e.Err.Error(), "lab: ")
	s := "lab: " + e.Op + ": " + cause
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

// Unwrap returns the cause, for errors.Is with an errno or a sentinel.
func (e *Error) Unwrap() error { return e.Err }
