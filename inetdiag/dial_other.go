//go:build !linux

package inetdiag

import (
	"fmt"
	"runtime"
)

const unsupportedRemedy = "looking at live sockets needs Linux; recordings and remote sources work here"

// Dial fails: there is nothing to ask on this system.
func Dial(*Config) (*Conn, error) {
	return nil, &OpError{Op: "dial", Err: fmt.Errorf("%w: %s has no sock_diag", ErrNotSupported, runtime.GOOS)}
}

// systemError is nil: Linux's numbers mean other errors here.
func systemError(int32) error { return nil }
