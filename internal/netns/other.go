//go:build !linux

package netns

import (
	"errors"
	"fmt"
)

var errLinux = fmt.Errorf("netns: network namespaces need Linux: %w", errors.ErrUnsupported)

type place struct{}

// Watcher can't be made on this operating system.
type Watcher struct{}

// NewWatcher is unsupported on this operating system.
func NewWatcher(Config) (*Watcher, error) { return nil, errLinux }

// Close does nothing.
func (*Watcher) Close() error { return nil }

// Refresh is unsupported on this operating system.
func (*Watcher) Refresh() (Changes, error) { return Changes{}, errLinux }

// List returns nothing.
func (*Watcher) List() []*Namespace { return nil }

// Mounted returns nothing.
func (*Watcher) Mounted(string) *Namespace { return nil }

// Cgroup returns nothing.
func (*Watcher) Cgroup(int) string { return "" }

// Visit is unsupported on this operating system.
func (*Watcher) Visit(*Namespace, func() error) error { return errLinux }

// Pulse is unsupported on this operating system.
func (*Watcher) Pulse(*Namespace) (Pulse, error) { return Pulse{}, errLinux }
