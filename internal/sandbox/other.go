//go:build !linux

package sandbox

import "errors"

// Restrict fails: only Linux has what it needs.
func Restrict() error { return errors.ErrUnsupported }
