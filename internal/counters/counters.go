// Package counters reads what the kernel counts per network namespace: TcpExt
// and Tcp counters, the sockstat line of TCP, and conntrack's statistics.
//
// It opens the files of one /proc/…/net directory, reads each once and closes
// it at once: an open file there would keep its namespace alive after the
// container has gone. A [Sample] is a copy that belongs to the caller.
//
// The counters are raw and cumulative; differences, rates and judgements are
// others' work. A counter that this kernel lacks is missing, never 0.
//
// sockstat and conntrack are read through prometheus/procfs. netstat and snmp
// are not: procfs v0.23 does not know PAWSTimewait (Linux 6.16, the sign of
// many clients behind one NAT), hands every counter out as a float64, and
// reaches the two files by a numeric process id only, never by thread-self.
package counters

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/procfs"
)

// A Set holds cumulative counters by the kernel's name without its prefix: "TW"
// is TcpExt's TW, "ActiveOpens" is Tcp's. All only grow, except CurrEstab,
// which is a gauge. [Names] lists the keys that can occur; a key that the
// kernel lacks is missing.
type Set map[string]uint64

// A Sockstat is the TCP line of sockstat. Nil is a value that the kernel does
// not print.
type Sockstat struct {
	// InUse is the number of IPv4 sockets of this namespace, not counting
	// TIME_WAIT and FIN_WAIT2 mini-sockets.
	InUse *int `json:"inuse,omitempty"`
	// TimeWait is the number of TIME_WAIT and FIN_WAIT2 mini-sockets of this
	// namespace, IPv4 and IPv6: what tcp_max_tw_buckets is compared with.
	TimeWait *int `json:"tw,omitempty"`
	// TCP6InUse is InUse for IPv6, nil where IPv6 is off.
	TCP6InUse *int `json:"tcp6_inuse,omitempty"`

	// Orphan is the number of sockets without a process, of the whole kernel.
	Orphan *int `json:"orphan,omitempty"`
	// Alloc is the number of TCP sockets allocated, of the whole kernel.
	Alloc *int `json:"alloc,omitempty"`
	// Mem is the memory of all TCP buffers, in pages, of the whole kernel.
	Mem *int `json:"mem,omitempty"`
}

// A Conntrack is net/stat/nf_conntrack. Entries is the present size of this
// namespace's table; the rest are cumulative counters, summed over the CPUs.
type Conntrack struct {
	Entries *uint64 `json:"entries,omitempty"`
	// Found counts packets that met an existing entry (few kernels count it).
	Found *uint64 `json:"found,omitempty"`
	// Invalid counts packets that could not be tracked.
	Invalid *uint64 `json:"invalid,omitempty"`
	// InsertFailed counts entries that could not be made, as when SNAT found
	// no free port.
	InsertFailed *uint64 `json:"insert_failed,omitempty"`
	// Drop counts packets dropped, because the table was full or an entry
	// could not be made.
	Drop *uint64 `json:"drop,omitempty"`
	// EarlyDrop counts entries dropped to make room for new ones.
	EarlyDrop *uint64 `json:"early_drop,omitempty"`
	// SearchRestart counts lookups repeated because the table was resized.
	SearchRestart *uint64 `json:"search_restart,omitempty"`
}

// A Sample is one reading of one namespace.
type Sample struct {
	Counters Set
	Sockstat Sockstat
	// Conntrack is nil where conntrack is not loaded.
	Conntrack *Conntrack
}

// Read reads the files of netDir, a directory named "net". "" is
// /proc/thread-self/net: the calling thread's namespace, so the caller locks
// the thread if that is not the whole process's. No capability is needed.
//
// A file that can't be read or understood costs its own values only: the
// others are returned with the joined error, whose parts name the files.
// Conntrack's and IPv6's absence is no error.
func Read(netDir string) (Sample, error) {
	if netDir == "" {
		netDir = "/proc/thread-self/net"
	}
	netDir = filepath.Clean(netDir)
	s := Sample{Counters: make(Set, len(tcpExtNames())+len(tcpNames()))}
	if filepath.Base(netDir) != "net" {
		return s, fmt.Errorf("counters: %q: want a directory named net, such as /proc/self/net", netDir)
	}
	errs := []error{
		readCounters(s.Counters, filepath.Join(netDir, "netstat"), "TcpExt", tcpExtNames()),
		readCounters(s.Counters, filepath.Join(netDir, "snmp"), "Tcp", tcpNames()),
	}
	proc, err := procfs.NewFS(filepath.Dir(netDir))
	if err != nil {
		return s, errors.Join(append(errs, fmt.Errorf("counters: %w", err))...)
	}
	errs = append(errs, s.Sockstat.read(proc, netDir))
	s.Conntrack, err = readConntrack(proc, netDir)
	return s, errors.Join(append(errs, err)...)
}

func (st *Sockstat) read(proc procfs.FS, netDir string) error {
	v4, err := proc.NetSockstat()
	if err != nil {
		return fmt.Errorf("counters: %s/sockstat: %w", netDir, err)
	}
	for _, p := range v4.Protocols {
		if p.Protocol == "TCP" {
			st.InUse, st.Orphan, st.TimeWait, st.Alloc, st.Mem = &p.InUse, p.Orphan, p.TW, p.Alloc, p.Mem
		}
	}
	if st.TimeWait == nil {
		return fmt.Errorf("counters: %s/sockstat: no TCP line with a tw value", netDir)
	}
	v6, err := proc.NetSockstat6()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("counters: %s/sockstat6: %w", netDir, err)
	}
	for _, p := range v6.Protocols {
		if p.Protocol == "TCP6" {
			st.TCP6InUse = &p.InUse
		}
	}
	return nil
}

func readConntrack(proc procfs.FS, netDir string) (*Conntrack, error) {
	cpus, err := proc.ConntrackStat()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("counters: %s/stat/nf_conntrack: %w", netDir, err)
	}
	if len(cpus) == 0 {
		return nil, fmt.Errorf("counters: %s/stat/nf_conntrack: no line for any CPU", netDir)
	}
	var sum procfs.ConntrackStatEntry
	for _, c := range cpus {
		sum.Found += c.Found
		sum.Invalid += c.Invalid
		sum.InsertFailed += c.InsertFailed
		sum.Drop += c.Drop
		sum.EarlyDrop += c.EarlyDrop
		sum.SearchRestart += c.SearchRestart
	}
	return &Conntrack{
		Entries: &cpus[0].Entries, // the whole table's, repeated on every line
		Found:   &sum.Found, Invalid: &sum.Invalid,
		InsertFailed: &sum.InsertFailed, Drop: &sum.Drop, EarlyDrop: &sum.EarlyDrop,
		SearchRestart: &sum.SearchRestart,
	}, nil
}

// maxFile bounds what is read of one file; netstat is about 4 KiB.
const maxFile = 1 << 20

func readCounters(into Set, path, protocol string, names []string) error {
	b, err := readFile(path)
	if err != nil {
		return fmt.Errorf("counters: %w", err) // an *fs.PathError names the file
	}
	if err := parse(into, string(b), protocol, names); err != nil {
		return fmt.Errorf("counters: %s: %w", path, err)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := bytes.NewBuffer(make([]byte, 0, 8<<10)) // one read for the file, one for its end
	_, err = buf.ReadFrom(io.LimitReader(f, maxFile))
	return buf.Bytes(), err
}
