//go:build !linux

package owner

import (
	"context"
	"errors"
	"fmt"
)

type describer struct{}

type hit struct{}

// Find finds nothing on this operating system, and says so.
func (f *Finder) Find(context.Context, []Want, []int) (int, Report) {
	return 0, Report{Gap: fmt.Errorf("finding the processes of sockets needs Linux: %w", errors.ErrUnsupported)}
}

// Descriptors is unsupported on this operating system.
func (f *Finder) Descriptors(int, uint64) (used, limit int, err error) {
	return 0, 0, errors.ErrUnsupported
}
