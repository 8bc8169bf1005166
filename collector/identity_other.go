//go:build !linux

package collector

import (
	"errors"
	"time"
)

func identify(string) (identity, error) {
	return identity{}, errors.New("looking at this kernel needs Linux: read a recording or another twwatch with --source")
}

func threadCPU() time.Duration { return 0 }
func uptime() time.Duration    { return 0 }
func kernelRelease() string    { return "" }
