package sysctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// ErrGone says that the network namespace to which the files belong has died.
// Close them: they will not come back, even if another namespace takes over
// the inode number.
var ErrGone = errors.New("the network namespace is gone")

// An Error says which file could not be read or understood.
type Error struct {
	Path  string // of the file
	Value string // what was there, if it was read; unescaped
	Err   error
}

// Error returns one line; what was in the file is quoted, its control and bidi
// characters escaped, and cut after 64 bytes.
func (e *Error) Error() string {
	err := e.Err
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err // the path is named already
	}
	if e.Value == "" {
		return fmt.Sprintf("sysctl: %s: %v", e.Path, err)
	}
	return fmt.Sprintf("sysctl: %s: %q: %v", e.Path, clip(e.Value), err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Files are the open setting files of one network namespace, 30 or so
// descriptors. Its methods may be called from any thread, also at once.
//
// An open /proc/sys file stays bound to the namespace of the thread that opened
// it, does not keep that namespace alive, and answers ENOENT after its death.
type Files struct {
	mu   sync.Mutex
	open []openFile
	buf  []byte // grows to the longest value seen, at most maxText
}

type openFile struct {
	setting
	path string
	f    *os.File
	err  error // why it could not be opened; every Read tells
}

// Open opens the settings of the calling thread's network namespace, so the
// caller locks the thread if it is not in the namespace of the whole process.
// root is where proc/sys is mounted; "" is /proc/sys.
//
// A file that does not exist is a setting that the kernel lacks, one that may
// not be read is reported by each Read. Settings that appear later, because
// conntrack was loaded, are seen by the next Open only. The error is for a root
// without any setting, and for want of descriptors.
func Open(root string) (*Files, error) {
	if root == "" {
		root = "/proc/sys"
	}
	fl := &Files{buf: make([]byte, 4<<10)}
	var forbidden error // the first
	readable := 0
	for _, s := range settings() {
		path := filepath.Join(root, filepath.FromSlash(s.name))
		f, err := os.Open(path)
		switch {
		case err == nil:
			readable++
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, fs.ErrPermission):
			err = &Error{Path: path, Err: err}
			if forbidden == nil {
				forbidden = err
			}
		default:
			return nil, errors.Join(&Error{Path: path, Err: err}, fl.Close())
		}
		fl.open = append(fl.open, openFile{setting: s, path: path, f: f, err: err})
	}
	if readable == 0 {
		if forbidden != nil {
			return nil, forbidden
		}
		return nil, &Error{Path: filepath.Join(root, "net"), Err: errors.New("no TCP setting found: is this Linux, and is /proc mounted?")}
	}
	return fl, nil
}

// Close closes the files. Read fails afterwards; a second Close does nothing.
func (fl *Files) Close() error {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	var errs []error
	for _, o := range fl.open {
		if o.f != nil {
			errs = append(errs, o.f.Close())
		}
	}
	fl.open = nil
	return errors.Join(errs...)
}

// Read reads every setting anew. A value that can't be read or understood
// leaves its field nil and adds an [*Error] to the joined error; the others are
// returned all the same. Once the namespace is dead the error is [ErrGone] and
// the Limits are empty.
func (fl *Files) Read() (Limits, error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.open == nil {
		return Limits{}, fmt.Errorf("sysctl: read: %w", os.ErrClosed)
	}
	var (
		limits Limits
		errs   []error
	)
	numbers := make([]int, 0, len(fl.open))
	for i := range fl.open {
		o := &fl.open[i]
		if o.err != nil {
			errs = append(errs, o.err)
			continue
		}
		text, err := fl.pread(o.f)
		if errors.Is(err, fs.ErrNotExist) {
			if o.module {
				continue // conntrack was unloaded
			}
			return Limits{}, fmt.Errorf("sysctl: %s: %w", o.path, ErrGone)
		}
		if err != nil {
			errs = append(errs, &Error{Path: o.path, Err: err})
			continue
		}
		if numbers, err = o.store(&limits, text, numbers); err != nil {
			errs = append(errs, &Error{Path: o.path, Value: string(text[:min(len(text), 128)]), Err: err})
		}
	}
	return limits, errors.Join(errs...)
}

// store parses text into the setting's field, and returns numbers with what it
// added. The fields point into numbers, so that all cost one allocation.
func (s *setting) store(l *Limits, text []byte, numbers []int) ([]int, error) {
	switch {
	case s.number != nil:
		n, err := parseInt(text)
		if err != nil {
			return numbers, err
		}
		numbers = append(numbers, n)
		*s.number(l) = &numbers[len(numbers)-1]
	case s.ports != nil:
		r, err := parsePortRange(text)
		if err != nil {
			return numbers, err
		}
		*s.ports(l) = &r
	case s.set != nil:
		set, err := parsePortSet(string(text))
		if err != nil {
			return numbers, err
		}
		*s.set(l) = &set
	}
	return numbers, nil
}

// pread returns the whole value, valid until the next pread. The kernel prints
// a value for a read at offset 0 only and silently cuts it at the buffer's end,
// so a full buffer means: once more, with a larger one.
func (fl *Files) pread(f *os.File) ([]byte, error) {
	for {
		n, err := f.ReadAt(fl.buf, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n < len(fl.buf) {
			return fl.buf[:n], nil
		}
		if len(fl.buf) >= maxText {
			return nil, fmt.Errorf("longer than %d bytes", maxText)
		}
		fl.buf = make([]byte, min(maxText, 8*len(fl.buf)))
	}
}

// ReadHost reads the settings that exist once per kernel, as the calling
// thread's network namespace shows them: call it in the initial one. root and
// errors are as with [Open] and [Files.Read]; no file stays open.
func ReadHost(root string) (HostLimits, error) {
	if root == "" {
		root = "/proc/sys"
	}
	var (
		h    HostLimits
		errs []error
		fl   = Files{buf: make([]byte, 512)}
	)
	read := func(name string, store func([]byte) error) {
		path := filepath.Join(root, filepath.FromSlash(name))
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			errs = append(errs, &Error{Path: path, Err: err})
			return
		}
		defer f.Close()
		text, err := fl.pread(f)
		if err != nil {
			errs = append(errs, &Error{Path: path, Err: err})
			return
		}
		if err := store(text); err != nil {
			errs = append(errs, &Error{Path: path, Value: string(text), Err: err})
		}
	}
	number := func(field **int) func([]byte) error {
		return func(b []byte) error {
			n, err := parseInt(b)
			if err == nil {
				*field = &n
			}
			return err
		}
	}
	read("net/ipv4/tcp_max_orphans", number(&h.TCPMaxOrphans))
	read("net/ipv4/tcp_mem", func(b []byte) error {
		mem, err := parseTriple(b)
		if err == nil {
			h.TCPMem = &mem
		}
		return err
	})
	read("net/nf_conntrack_max", number(&h.NFConntrackMax))
	read("net/netfilter/nf_conntrack_buckets", number(&h.NFConntrackBuckets))
	return h, errors.Join(errs...)
}
