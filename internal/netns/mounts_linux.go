package netns

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxMounts   = 4096     // network namespaces that are mounted somewhere
	maxHolding  = 4        // paths told of one
	maxMountTab = 64 << 20 // bytes read of one mountinfo
)

// A mountTable is the mountinfo of one mount namespace. The kernel tells a
// poller that it changed, so it is read only then: a node of many containers has
// some hundred kilobytes of it. Open, it holds a mount namespace (our own and
// PID 1's), no network namespace.
type mountTable struct {
	file   *os.File
	root   string // leads to its root directory: "" or "/proc/1/root"
	points []mountPoint
	over   int  // that were too many
	read   bool // points are right
}

// A mountPoint is a network namespace that is mounted somewhere.
type mountPoint struct {
	inode uint64
	path  string
	way   string // to open it by
}

func openMountTable(path, root string) (*mountTable, error) {
	// Not os.Open: the runtime's poller would take the notice of a change away.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open", Path: path, Err: err}
	}
	return &mountTable{file: os.NewFile(uintptr(fd), path), root: root}, nil
}

// changed tells whether the table isn't what was read.
func (m *mountTable) changed() bool {
	fds := []unix.PollFd{{Fd: int32(m.file.Fd()), Events: unix.POLLPRI}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0 || !m.read
}

func (m *mountTable) load() error {
	m.points, m.over, m.read = m.points[:0], 0, false
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return &Error{Op: "read", Path: m.file.Name(), Err: err}
	}
	r := bufio.NewReaderSize(io.LimitReader(m.file, maxMountTab), 32<<10)
	for {
		line, err := r.ReadSlice('\n')
		if inode, path, ok := parseMount(line); ok {
			if len(m.points) < maxMounts {
				m.points = append(m.points, mountPoint{inode, path, m.root + path})
			} else {
				m.over++
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long line
			_, err = r.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			m.read = true
			return nil
		case err != nil:
			return &Error{Op: "read", Path: m.file.Name(), Err: err}
		}
	}
}

// readMounts notes for each place which mounts hold it.
func (w *Watcher) readMounts(c *Changes) {
	changed := false
	for _, m := range w.tables {
		if m.changed() {
			changed = true
			if err := m.load(); err != nil {
				c.Gap = errors.Join(c.Gap, err)
			}
		}
		c.Unread += m.over
	}
	if !changed {
		return
	}
	for _, p := range w.places {
		p.mounts = nil
	}
	for _, m := range w.tables {
		for _, point := range m.points {
			p := w.placeOf(point.inode)
			p.mounts = append(p.mounts, point)
		}
	}
	for _, p := range w.places {
		slices.SortStableFunc(p.mounts, func(a, b mountPoint) int { return strings.Compare(a.path, b.path) })
		p.mounts = slices.CompactFunc(p.mounts, func(a, b mountPoint) bool { return a.path == b.path })
		p.mounts = p.mounts[:min(len(p.mounts), maxHolding)]
	}
}

// Mounted returns the listed namespace that is mounted at a path of PID 1's
// mount namespace or our own, as container runtimes tell it; nil if none is.
func (w *Watcher) Mounted(path string) *Namespace {
	for _, m := range w.tables {
		for _, point := range m.points {
			if withoutVar(point.path) == withoutVar(path) {
				if p := w.places[point.inode]; p != nil {
					return p.listed
				}
			}
		}
	}
	return nil
}
