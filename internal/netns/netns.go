package netns

import (
	"errors"
	"fmt"
	"io/fs"
)

// Kinds of namespaces, as reports name them.
const (
	KindHost    = "host"    // the first of the kernel, in which PID 1 runs
	KindSelf    = "self"    // the one the Watcher was made in, if that isn't the host's
	KindNamed   = "named"   // made by `ip netns add`, or named in the same place
	KindProcess = "process" // any other
)

// Limits of a Watcher whose Config doesn't set others.
const (
	DefaultMaxNamespaces = 1024
	DefaultMaxPerGroup   = 16
	DefaultMaxProcesses  = 1 << 15
)

// Config of a Watcher. The zero value is right for a host.
type Config struct {
	// Proc is where procfs is mounted; "" is /proc.
	Proc string
	// MaxNamespaces bounds how many namespaces are listed, one descriptor each; 0
	// is DefaultMaxNamespaces.
	MaxNamespaces int
	// MaxPerGroup bounds those of one group, since any user can make namespaces by
	// the thousand; 0 is DefaultMaxPerGroup. What is mounted isn't bounded by it:
	// only the superuser can do that.
	MaxPerGroup int
	// MaxProcesses bounds how many processes are looked at, those with the lowest
	// numbers; 0 is DefaultMaxProcesses.
	MaxProcesses int
	// Group gives the part of a cgroup path that one user or workload can't leave;
	// all below it are one group. nil takes the path's first two parts.
	Group func(cgroup string) string
}

func (c Config) withDefaults() Config {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.MaxNamespaces <= 0 {
		c.MaxNamespaces = DefaultMaxNamespaces
	}
	if c.MaxPerGroup <= 0 {
		c.MaxPerGroup = DefaultMaxPerGroup
	}
	if c.MaxProcesses <= 0 {
		c.MaxProcesses = DefaultMaxProcesses
	}
	if c.Group == nil {
		c.Group = func(cgroup string) string { return firstParts(cgroup, 2) }
	}
	return c
}

// A Namespace is one network namespace from its first sight to its death. It is
// the Watcher's, whose Refresh alone changes it. Its strings are raw: escape
// them where they are printed.
type Namespace struct {
	// Serial is this namespace's alone as long as its Watcher lives, whatever
	// inode number it has: the key for what is remembered of it.
	Serial uint64
	Inode  uint64
	// Cookie is SO_NETNS_COOKIE; 0 before Linux 5.14 and where Trouble says why
	// the namespace can't be entered.
	Cookie uint64
	Kind   string
	// Name is "host", "self", what `ip netns` calls it, or "".
	Name string
	// Mounts are paths that hold it, at most 4, sorted ("/run/netns/blue"), as
	// their mount namespace has them.
	Mounts []string
	// PID is a process in it, 0 if only a mount holds it. It is the first that was
	// seen there, as long as it stays.
	PID int
	// Cgroup is the cgroup path of that process, or of the last one that was
	// there; "" if unknown. See [Watcher.Cgroup].
	Cgroup string
	// Trouble is why it can't be entered; nil if it can.
	Trouble error

	token int    // an open /proc/sys file of it, -1 if none
	place *place // nil once it is gone
}

// Changes are what a Refresh found. Its slices belong to the caller.
type Changes struct {
	New  []*Namespace // in the order of List
	Gone []*Namespace // nothing leads to them any more: close what is open into them

	// Namespaces that aren't listed, since there are more than MaxNamespaces, and
	// since their group has more than MaxPerGroup.
	OverAll, OverGroup int

	Processes int // that were listed
	LinksRead int // of them, to learn their namespace
	Denied    int // processes whose namespace this process may not see
	Unread    int // processes beyond MaxProcesses, and mounts beyond 4,096

	// Gap says why something may be missing; nil if nothing is.
	Gap error
}

// ErrGone says that a namespace has died, or that nothing leads to it any more.
var ErrGone = errors.New("the network namespace is gone")

// An Error says what failed on the way to a namespace.
type Error struct {
	Op   string // "open", "enter", "return", "read"
	Path string // unescaped
	Err  error
}

// Error returns one line with the path quoted.
func (e *Error) Error() string {
	text := fmt.Sprintf("netns: %s %q: %v", e.Op, e.Path, e.Err)
	if !errors.Is(e.Err, fs.ErrPermission) {
		return text
	}
	if e.Op == "enter" {
		return text + ": entering a namespace needs CAP_SYS_ADMIN"
	}
	return text + ": looking at other users' processes needs CAP_SYS_PTRACE"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A DeniedError counts the processes whose namespace may not be seen.
type DeniedError struct{ Processes int }

func (e *DeniedError) Error() string {
	return fmt.Sprintf("netns: the network namespaces of %d processes can't be seen: that needs CAP_SYS_PTRACE", e.Processes)
}

// Unwrap makes it an fs.ErrPermission.
func (e *DeniedError) Unwrap() error { return fs.ErrPermission }

// A Pulse is what tells whether the sockets of a namespace moved.
type Pulse struct {
	InSegs, OutSegs uint64 // segments since the namespace began, IPv4 and IPv6: Tcp of net/snmp
	InUse           uint64 // IPv4 sockets: TCP inuse of net/sockstat
	TimeWait        uint64 // TIME_WAIT and FIN_WAIT2 mini-sockets, IPv4 and IPv6: TCP tw of net/sockstat
}
