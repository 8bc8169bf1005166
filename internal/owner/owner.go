package owner

import (
	"errors"
	"io/fs"
	"time"
)

// Config of a Finder. The zero value is right for a host.
type Config struct {
	Proc   string // where procfs is mounted; "" is /proc
	Cgroup string // where cgroup v2 is mounted; "" looks for it in /sys/fs/cgroup

	FirstBudget  time.Duration // the time that the first call may take; 0 is 200 ms
	LinksPerPass int           // how many links later calls may read in vain, 100 at least; 0 is 1,000

	MaxInodes    int // sockets remembered, 27 to 53 bytes each; 0 is 65,536
	MaxProcesses int // processes remembered, about 120 bytes each and 1 KiB if they own sockets; 0 is 8,192
}

// withDefaults fills in what is zero or can't be.
func (c Config) withDefaults() Config {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.FirstBudget <= 0 {
		c.FirstBudget = 200 * time.Millisecond
	}
	if c.LinksPerPass <= 0 {
		c.LinksPerPass = 1000
	}
	c.LinksPerPass = max(c.LinksPerPass, 100)
	if c.MaxInodes <= 0 {
		c.MaxInodes = 1 << 16
	}
	if c.MaxProcesses <= 0 {
		c.MaxProcesses = 1 << 13
	}
	return c
}

// A Process as it was when it was found to own a socket. It is immutable. PID
// and Start together are its identity; the rest is what the process says of
// itself, cut to 256 bytes each (Cgroup to 512) and otherwise raw: control
// characters and invalid UTF-8 included.
type Process struct {
	PID   int
	Start uint64 // clock ticks after boot: field 22 of /proc/PID/stat
	Comm  string // the name of its main thread: /proc/PID/comm
	Exe   string // /proc/PID/exe, which ends in " (deleted)" if the file is gone; "" if it can't be read
	// Cgroup is its cgroup-v2 path, or, where that is "/", the first path of
	// systemd's own hierarchy or another of cgroup v1 that isn't.
	Cgroup string

	// What tells runtimes apart; each "" where it doesn't apply.
	Title    string // the first of its arguments, which nginx and php-fpm overwrite: "nginx: worker process"
	Script   string // what an interpreter runs: "/srv/app.py", or "-m gunicorn"
	JavaMain string // the main class, "module/class", or the jar that java runs
	// GoBuild is the main module of a 64-bit Go executable, or its main package
	// if it has no module; "go" if it says neither, as before Go 1.18.
	GoBuild string

	// Version is the release of what runs the program, as far as the executable
	// tells: that of Go which built it, nginx's own, or the one in the name of
	// an interpreter such as python3.11. Digits and single dots, at most 16
	// bytes; "" if unknown.
	Version string
}

// A Want is a live socket whose process is looked for.
type Want struct {
	Inode  uint32 // 0 (nobody holds it) is passed over
	Cgroup uint64 // the id of its cgroup-v2 directory as a socket dump gives it; 0 if unknown
}

// A Report says what one call of Find did and what it lacks.
type Report struct {
	LinksRead     int // descriptors' links read
	ProcessesSeen int // processes whose descriptors were read, or were to be
	Denied        int // processes known to keep their descriptors from us
	Pending       int // wanted inodes that are still looked for
	Failed        int // wanted inodes that are in no process that may be read
	Dropped       int // wanted inodes beyond Config.MaxInodes, not looked for
	// Swept is set once each process that may be read has been looked at.
	Swept bool
	// Complete is set if each wanted inode was found or looked for everywhere.
	Complete bool
	// Gap is why owners may be missing, the same in each call while that lasts:
	// a *DeniedError, ErrHidden, ErrTooManyProcesses, ErrNested, an *fs.PathError
	// if procfs can't be read, the context's error, or nil.
	Gap error
}

// ErrHidden says that procfs hides other users' processes.
var ErrHidden = errors.New("processes of other users are hidden in /proc")

// ErrTooManyProcesses says that only the first Config.MaxProcesses are searched.
var ErrTooManyProcesses = errors.New("more processes than may be remembered")

// ErrNested says that wanted inodes are in no process that can be seen, and that
// the processes outside of a PID namespace can't be.
var ErrNested = errors.New("processes outside of this PID namespace can't be seen")

// ErrGone says that a process has exited, or that another has its pid now.
var ErrGone = errors.New("the process has exited")

// A DeniedError says that the descriptors of some processes can't be read. It
// is fs.ErrPermission.
type DeniedError struct{}

func (*DeniedError) Error() string {
	return "the descriptors of some processes can't be read"
}

// Unwrap returns fs.ErrPermission.
func (*DeniedError) Unwrap() error { return fs.ErrPermission }

// A Finder finds the processes of sockets. It is made by New, and not to be
// used by two goroutines at once. One is enough for all network namespaces of
// the procfs that it reads.
type Finder struct {
	config Config
	pass   uint32 // counts calls of Find, from 1
	table  inodes
	people people
	turn   sweep
	slow   describer
	poor   []int32 // the pids of those that lack what took too long to read

	groups    map[uint64]string // cgroup id → path below the mount
	groupRoot string            // where cgroup v2 is mounted, "" if nowhere
	rooted    bool              // groupRoot was looked for
	hintTurn  int               // where in the hints the next call begins
	groupTurn int               // the same for the processes of a cgroup

	dirents []byte   // the buffer for directories
	text    []byte   // the buffer for small files
	hits    []hit    // sockets seen in the process that is being visited
	known   []uint32 // descriptors that needn't be read, by process
	heads   []uint32 // where those of a process begin in known
	live    []uint64 // the same of the process that is being visited, as bits
}

// New returns a Finder. It reads nothing yet.
func New(config Config) *Finder {
	f := &Finder{config: config.withDefaults()}
	f.table = newInodes(f.config.MaxInodes)
	f.people = newPeople(f.config.MaxProcesses)
	return f
}

// Owner returns the process that holds a socket, if the last call of Find that
// wanted its inode, or an earlier one, found it. It is remembered after the
// process has exited, for as long as the inode is wanted or asked for.
func (f *Finder) Owner(inode uint32) (*Process, bool) {
	s := f.table.at(inode)
	if s == nil || s.owner >= ownerNone {
		return nil, false
	}
	p := f.people.all[s.owner].process
	if p == nil {
		return nil, false
	}
	s.used = f.pass
	return p, true
}
