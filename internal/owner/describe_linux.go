package owner

import (
	"bytes"
	"cmp"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// describe reads what a process says of itself. What can't be read is "".
func (s *search) describe(i uint32) {
	f, q := s.f, &s.f.people.all[i]
	s.spent += describeCost
	p := &Process{PID: int(q.pid), Start: q.start}
	q.process = p
	if text, err := s.proc.read(s.at(q.pid, "/comm"), f.text); err == nil {
		p.Comm = cut(bytes.TrimSuffix(text, []byte("\n")), maxText)
	}
	if text, err := s.proc.link(s.at(q.pid, "/exe"), f.text); err == nil {
		p.Exe = cut(text, maxText)
	}
	if text, err := s.proc.read(s.at(q.pid, "/cgroup"), f.text); err == nil {
		var v2 string
		v2, p.Cgroup = parseCgroup(text)
		f.learn(v2)
	}
	slow, ok := f.slow.read(f.config.Proc, q.pid, p.Exe)
	if !ok && q.retries < maxRetries {
		q.retries++
		f.poor = append(f.poor, q.pid)
	}
	p.Title, p.Script, p.JavaMain = slow.title, slow.script, slow.javaMain
	p.Version, p.GoBuild = cmp.Or(slow.version, nameVersion(p.Exe)), slow.module
}

// maxRetries is how often a process is asked again for what took it too long to
// tell: a busy host may be the reason, and not the process.
const maxRetries = 3

// again asks one process for what it lacks, unless a read hangs still.
func (s *search) again() {
	f := s.f
	if len(f.poor) == 0 || f.slow.stuck() {
		return
	}
	pid := f.poor[0]
	f.poor = f.poor[1:]
	if i, ok := f.people.byPID[pid]; ok && f.people.all[i].process != nil {
		s.describe(i)
	}
}

// A describer reads the arguments and the executable of processes, in another
// goroutine: a process can make both reads wait for as long as it likes, by a
// file system of its own (FUSE, a dead NFS server) under its memory or its
// executable. While one read hangs, no other is begun, and processes found
// then lack those fields.
type describer struct {
	result chan description // nil before the first use
	hangs  bool
	builds map[file]build // the goroutine's
	buffer []byte         // the goroutine's
}

type description struct {
	command
	build
}

// A build is what an executable tells by its contents.
type build struct {
	version string
	module  string // Go's
}

// A file is an executable in one state of its contents.
type file struct {
	dev, ino    uint64
	size, mtime int64
}

const slowLimit = 100 * time.Millisecond

// stuck tells whether a read hangs still.
func (d *describer) stuck() bool {
	if d.hangs {
		select {
		case <-d.result:
			d.hangs = false
		default:
		}
	}
	return d.hangs
}

// read is false if that took too long, or another read hangs.
func (d *describer) read(proc string, pid int32, exe string) (description, bool) {
	if d.result == nil {
		d.result = make(chan description, 1)
		d.builds = map[file]build{}
		d.buffer = make([]byte, 32<<10)
	}
	if d.stuck() {
		return description{}, false
	}
	go func() { d.result <- d.describe(proc, pid, exe) }()
	timer := time.NewTimer(slowLimit)
	defer timer.Stop()
	select {
	case r := <-d.result:
		return r, true
	case <-timer.C:
		d.hangs = true
		return description{}, false
	}
}

func (d *describer) describe(proc string, pid int32, exe string) description {
	var r description
	t, err := openTree(proc)
	if err != nil {
		return r
	}
	defer t.close()
	at := appendPID(make([]byte, 0, 32), pid)
	if text, err := t.read(append(at, "/cmdline"...), d.buffer); err == nil {
		r.command = parseCommand(text, exe, len(text) < len(d.buffer))
	}
	if fd, err := t.open(append(at, "/exe"...), 0); err == nil {
		r.build = d.inspect(fd, exe)
	}
	return r
}

// inspect reads from an executable what it tells, once for each file.
func (d *describer) inspect(fd int, exe string) build {
	f := os.NewFile(uintptr(fd), "executable")
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return build{}
	}
	key := file{st.Dev, st.Ino, st.Size, st.Mtim.Nano()}
	b, known := d.builds[key]
	if !known {
		const most = 512
		if len(d.builds) == most {
			clear(d.builds)
		}
		b.version, b.module = readBuild(f)
		if b.module == "" && saysVersion(exe) {
			b.version = scanVersion(f)
		}
		d.builds[key] = b
	}
	return b
}
