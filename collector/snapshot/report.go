// Package snapshot is the model: what one look at the host's sockets found,
// and its one encoding.
//
// A Report is immutable once published: readers share it and never write. It
// is bounded whatever the host holds (at most [MaxFlows] flows and
// [MaxCloseWaits] CLOSE_WAIT rows a namespace, and [MaxSampledSockets] sockets
// where a sample of them was asked for). The same object is a line of a
// recording, an answer of the API and the output of --output=json; the names
// of its keys are a contract, to which keys are added but from which none is
// taken. The package holds no judgement and asks the kernel nothing.
package snapshot

import (
	"time"

	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// Schema names the encoding. A reader accepts every minor extension of v1.
const Schema = "twwatch.report/v1"

// Bounds of a report, per namespace.
const (
	MaxFlows      = 1000
	MaxCloseWaits = 256
	MaxListeners  = 256
	MaxOwners     = 64
	MaxHalfOpen   = 64
	// MaxProcesses is the most programs that a flow names, MaxPIDs the most
	// processes that one of these does.
	MaxProcesses = 8
	MaxPIDs      = 32
	// MaxSampledSockets is the most 4-tuples that a namespace's sample holds.
	MaxSampledSockets = 10_000
)

// Report is one pass over every namespace watched, and its findings.
type Report struct {
	Schema  string    `json:"schema"`
	Version string    `json:"version"`
	Host    string    `json:"host"`
	Kernel  string    `json:"kernel"`
	BootID  string    `json:"boot_id,omitempty"`
	Time    time.Time `json:"time"` // when the pass started, wall clock
	// Uptime is seconds since boot when the pass started: it orders reports
	// of one boot even when the wall clock was stepped.
	Uptime      float64 `json:"uptime_seconds,omitempty"`
	TookSeconds float64 `json:"took_seconds"`
	// IntervalSeconds is the poll interval in force; 0 for a single look.
	IntervalSeconds float64 `json:"interval_seconds,omitempty"`

	Verdict    Severity `json:"verdict"`
	Incomplete []Gap    `json:"incomplete"`
	// Limited is what was not looked at for want of a right, or not yet. All
	// else is as complete as it would be with it.
	Limited []Gap `json:"limited,omitempty"`
	// LiveDumps are the looks at live sockets since the report before, if any
	// were asked for.
	LiveDumps  *LiveDumps         `json:"live_dumps,omitempty"`
	NotJudged  []string           `json:"not_judged"` // rule ids that lacked their evidence
	HostLimits *sysctl.HostLimits `json:"host_limits,omitempty"`
	Thresholds map[string]float64 `json:"thresholds,omitempty"` // in force when judged
	Namespaces []*Namespace       `json:"namespaces"`
	Findings   []Finding          `json:"findings"`
	// Redacted is set by a [Redactor]: no address and no name is the host's.
	Redacted bool `json:"redacted,omitempty"`
}

// Gap is something that could not be seen.
type Gap struct {
	Stage     string `json:"stage"`     // dump, limits, counters, close_wait_age, bound, …
	Namespace string `json:"namespace"` // its name; empty when the gap is not of one namespace
	Error     string `json:"error"`
	Lost      string `json:"lost"` // what is missing from the report
	Fix       string `json:"fix"`  // what to do about it
}

// LiveDumps are looks at live sockets between two passes, and their CPU time.
type LiveDumps struct {
	Count      int     `json:"count"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// Namespace is one network namespace as a pass found it.
type Namespace struct {
	Name   string `json:"name"`
	Inode  uint64 `json:"inode"`
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE, 0 where the kernel has none
	Kind   string `json:"kind"`             // host, self, named, container, pod, process
	// Workload is what runs in it; nil: not known, or not asked.
	Workload *Workload `json:"workload,omitempty"`
	// Addresses are those by which others reach it, without loopback and
	// link-local ones, at most 16; looked at only where several namespaces are.
	Addresses []string `json:"addresses,omitempty"`
	// SampledAt is when its sockets were read, or seen not to have moved since
	// they were.
	SampledAt time.Time `json:"sampled_at"`
	// Repeated says that the sockets were not read in this pass: what stands
	// here is what an earlier one found. Where nothing moved, closed
	// connections have grown older since, and Births and CoveredSeconds are 0.
	Repeated bool `json:"repeated,omitempty"`
	// CoveredSeconds is the time since this namespace's previous pass, over
	// which births were counted; 0 for a first look.
	CoveredSeconds float64 `json:"covered_seconds"`
	// Source is "inet_diag", or "proc" where sock_diag could not be had.
	Source string `json:"source"`

	States    States              `json:"states"`
	Limits    sysctl.Limits       `json:"limits"`
	Counters  counters.Set        `json:"counters"` // cumulative since boot of the namespace
	Sockstat  counters.Sockstat   `json:"sockstat"`
	Conntrack *counters.Conntrack `json:"conntrack,omitempty"`

	TimeWait   TimeWait    `json:"time_wait"`
	Flows      []Flow      `json:"flows"`
	Omitted    Omitted     `json:"omitted"`
	Listeners  []Listener  `json:"listeners,omitempty"`
	CloseWaits []CloseWait `json:"close_waits,omitempty"`
	HalfOpen   []HalfOpen  `json:"half_open,omitempty"` // most sockets first
	// Owners are the processes with the most CLOSE_WAIT sockets and connections
	// that they haven't accepted, then with the most others.
	Owners []Owner `json:"owners,omitempty"`
	// Ports is what every client flow of this namespace shares; nil where the
	// kernel's range is unknown.
	Ports *PortPool `json:"ports,omitempty"`
	// Sockets is a random sample of the sockets that have a remote end, each
	// as likely as any other, in the order of [SortSockets]; all of them where
	// there are no more than were asked for. None unless asked for.
	Sockets []Socket `json:"sockets,omitempty"`
	// SocketsOf is how many sockets Sockets was chosen from; nil where no
	// sample was asked for.
	SocketsOf *int `json:"sockets_of,omitempty"`
}

// Workload is what lives in a namespace: a pod, a container, a unit. What isn't
// known is "".
type Workload struct {
	Namespace   string            `json:"namespace,omitempty"` // Kubernetes'
	Pod         string            `json:"pod,omitempty"`
	PodUID      string            `json:"pod_uid,omitempty"`
	Container   string            `json:"container,omitempty"` // its name; of a pod with several, ""
	ContainerID string            `json:"container_id,omitempty"`
	Runtime     string            `json:"runtime,omitempty"` // docker, containerd, cri-o, podman, lxc, nspawn
	Unit        string            `json:"unit,omitempty"`    // systemd's
	Labels      map[string]string `json:"labels,omitempty"`  // those asked for
}

// States counts sockets by TCP state. syn_recv includes the request sockets
// of the SYN queue; fin_wait2 includes the mini-sockets of orphaned closes;
// close counts bound, unconnected sockets, and is known only where
// ports.bound_seen is true: elsewhere they were not asked for, and 0 means
// nothing.
type States struct {
	Established uint32 `json:"established"`
	SynSent     uint32 `json:"syn_sent"`
	SynRecv     uint32 `json:"syn_recv"`
	FinWait1    uint32 `json:"fin_wait1"`
	FinWait2    uint32 `json:"fin_wait2"`
	TimeWait    uint32 `json:"time_wait"`
	Close       uint32 `json:"close"`
	CloseWait   uint32 `json:"close_wait"`
	LastAck     uint32 `json:"last_ack"`
	Listen      uint32 `json:"listen"`
	Closing     uint32 `json:"closing"`
}

// TimeWait compares the namespace's mini-sockets with its limit.
type TimeWait struct {
	// BucketsUsed is TIME_WAIT plus FIN_WAIT2 mini-sockets: what the kernel
	// compares with tcp_max_tw_buckets (sockstat's tw).
	BucketsUsed  int  `json:"buckets_used"`
	BucketsLimit *int `json:"buckets_limit"` // nil: this kernel or source doesn't tell
	// OpenedPerSecond is the last minute, oldest second first; the last ends
	// at the pass's start. It counts the TIME_WAIT rows that are still there.
	OpenedPerSecond []uint32 `json:"opened_per_second"`
	// OpenedPerSecondFloor is true where tcp_tw_reuse recycles sockets, so
	// that seconds older than the delay show only the survivors.
	OpenedPerSecondFloor bool `json:"opened_per_second_floor"`
	// CloseRate is connections per second that now end in TIME_WAIT here;
	// nil if it can't be known.
	CloseRate *float64 `json:"close_rate"`
	// CloseRateBy tells where CloseRate comes from: "timers" (ages of the
	// rows), "counter" (growth of TcpExt TW).
	CloseRateBy string `json:"close_rate_by,omitempty"`
	// Births counts sockets that entered TIME_WAIT in CoveredSeconds; with
	// recycling a floor.
	Births uint64 `json:"births"`
}

// Side is the end that this host plays in a flow.
type Side string

// Sides. Unknown is said, never guessed.
const (
	Client  Side = "client"
	Server  Side = "server"
	Unknown Side = "unknown"
)

// Flow is all sockets of a namespace that differ only in the ephemeral port.
type Flow struct {
	Side   Side   `json:"side"`
	Device string `json:"device"` // bound or link-local device, else empty
	// Local and Remote are canonical addresses; Remote may be a prefix
	// ("10.1.2.0/24") for the sockets there that no flow of their own holds,
	// and Local is empty then.
	Local  string `json:"local"`
	Remote string `json:"remote"`
	// RemoteName is what Remote is known as: another namespace of this host, or
	// as the operator's file says; "" if it isn't.
	RemoteName string `json:"remote_name,omitempty"`
	// Port is the service's: the remote port of a client flow, the local one
	// of a server flow.
	Port      uint16 `json:"port"`
	Service   string `json:"service"`    // "" if unknown
	ServiceBy string `json:"service_by"` // port, process, config; "" with no service

	States States `json:"states"`
	// MissedAtMost bounds the TIME_WAIT sockets of this flow that passed
	// before it was recognised as heavy; 0 where the counts are exact.
	MissedAtMost uint32 `json:"missed_at_most,omitempty"`

	CloseRate *float64 `json:"close_rate"` // closes/s into TIME_WAIT here; nil if it can't be known
	// CloseRateSeconds is the time that CloseRate is the mean of, back from
	// the pass's start.
	CloseRateSeconds float64 `json:"close_rate_seconds,omitempty"`
	// CloseRateAtLeast: more may have closed. A client's SYN takes a server's
	// TIME_WAIT over and no counter tells; only the growth of TcpExt TW shows
	// that it doesn't happen.
	CloseRateAtLeast bool `json:"close_rate_at_least,omitempty"`
	SurvivorsOnly    bool `json:"survivors_only"`
	// MeanLifetimeSeconds is connections open now / CloseRate, by Little's law,
	// with the closes of the other end too where that is in this namespace; nil
	// if either is unknown or 0: then it is less than 1 / CloseRate.
	MeanLifetimeSeconds *float64 `json:"mean_lifetime_seconds"`
	// LongLived is how many of the open connections an earlier look saw, at
	// least half a second before: what a pool keeps. nil: not known.
	LongLived *uint32 `json:"long_lived"`
	// OpenedPerSecond is this flow's share of the namespace's timeline; nil
	// when it closed nothing in the last minute.
	OpenedPerSecond []uint32 `json:"opened_per_second,omitempty"`
	Births          uint64   `json:"births"` // in the namespace's CoveredSeconds

	Ports     *Ports         `json:"ports,omitempty"` // client flows only
	CloseWait CloseWaitCount `json:"close_wait"`
	// Processes are the programs whose sockets these are, most sockets first.
	Processes []Process `json:"processes"`
	// Attributed is the share of the flow's sockets whose process is known,
	// closed ones in TIME_WAIT among them; nil: not looked for.
	Attributed *float64 `json:"attributed"`
}

// Ports is a client flow's ephemeral ports: free = |range − reserved| −
// |blocked ∪ used| + |reusable − blocked|.
type Ports struct {
	Range    int  `json:"range"`    // ports in ip_local_port_range
	Reserved int  `json:"reserved"` // of these in ip_local_reserved_ports
	Blocked  int  `json:"blocked"`  // held by explicit binds for every destination, and not used by this flow
	Used     int  `json:"used"`     // in-range local ports that this flow's sockets hold
	Reusable int  `json:"reusable"` // TIME_WAIT among used that connect() would take over now
	Free     int  `json:"free"`     // connect() calls that succeed now
	AtMost   bool `json:"at_most"`  // Free is an upper bound
	// Bound is how many of Used are known to have been taken by a bind()
	// before connect(): they are lost to every other destination.
	Bound int `json:"bound"`
	// SecondsToExhaustion at the present rate; nil if the rate never fills
	// the range.
	SecondsToExhaustion *int `json:"seconds_to_exhaustion"`
}

// PortPool is the range that all client flows of a namespace draw from.
type PortPool struct {
	Range           int `json:"range"`
	Reserved        int `json:"reserved"`
	BlockedListen   int `json:"blocked_listen"`   // listeners inside the range
	BlockedBound    int `json:"blocked_bound"`    // bound, unconnected sockets
	BlockedExplicit int `json:"blocked_explicit"` // connected after bind(addr, port)
	BlockedParity   int `json:"blocked_parity"`   // connected or TIME_WAIT after bind(addr, 0), known by parity
	Blocked         int `json:"blocked"`          // all of these, each port once
	// BoundSeen is false where bound sockets were not asked for in this pass
	// (or the kernel can't list them): Blocked is then a floor.
	BoundSeen bool `json:"bound_seen"`
	// AtMost: for a destination without a flow, range − reserved − blocked is
	// an upper bound of the ports that connect() would get.
	AtMost bool `json:"at_most"`
}

// CloseWaitCount sums a flow's CLOSE_WAIT sockets.
type CloseWaitCount struct {
	Sockets       uint32   `json:"sockets"`
	OldestSeconds *float64 `json:"oldest_seconds"` // AgeSeconds of the oldest; nil: none, or unknown
	// OldestAtLeast says that a socket of the flow may be older than that.
	OldestAtLeast bool   `json:"oldest_at_least"`
	EOFRead       uint32 `json:"eof_read"`   // sockets whose program has read the end: Recv-Q is 0
	Unread        uint32 `json:"unread"`     // sockets with more than the FIN in Recv-Q
	Unaccepted    uint32 `json:"unaccepted"` // sockets that no accept() has taken yet
}

// CloseWait is one CLOSE_WAIT socket.
//
// The kernel keeps no time of the peer's FIN; two others bound it (tcp_info,
// include/uapi/linux/tcp.h). The last ACK came with the FIN or after it (to
// data that were still sent, or to a keepalive probe), the last data before it.
// All are whole ticks of the kernel's clock, 10 ms at most.
type CloseWait struct {
	Local      string   `json:"local"`  // address:port
	Remote     string   `json:"remote"` // address:port
	Cookie     uint64   `json:"cookie"`
	AgeSeconds *float64 `json:"age_seconds"` // since the peer's FIN, at least; nil: unknown
	// AgeAtLeast says that the socket may be older: the bounds are more than 20 ms apart.
	AgeAtLeast       bool     `json:"age_at_least"`
	AgeAtMostSeconds *float64 `json:"age_at_most_seconds"` // nil: unknown
	RecvQ            uint32   `json:"recv_q"`              // bytes, the FIN counts 1
	SendQ            uint32   `json:"send_q"`
	// LastSentSeconds is when this end last sent data, before the pass's start;
	// nil: not asked, since Recv-Q is not 0.
	LastSentSeconds *float64 `json:"last_sent_seconds"`
	Side            Side     `json:"side"`
	Inode           uint32   `json:"inode"` // 0: not accepted
	UID             uint32   `json:"uid"`
	PID             int      `json:"pid,omitempty"`  // 0: unknown
	Comm            string   `json:"comm,omitempty"` // of that process
}

// HalfOpen counts handshakes in SYN_RECV by listening port and the network that
// they claim to come from: an address may be forged.
type HalfOpen struct {
	Port    uint16 `json:"port"`
	Remote  string `json:"remote"` // a /24 or /64; "" for all that have no row of their own
	Sockets uint32 `json:"sockets"`
}

// Listener is one listening socket.
type Listener struct {
	Local   string `json:"local"` // address:port
	Device  string `json:"device,omitempty"`
	Queue   uint32 `json:"queue"`   // connections waiting for accept()
	Backlog uint32 `json:"backlog"` // the limit of that queue
	Inode   uint32 `json:"inode"`
	UID     uint32 `json:"uid"`
	PID     int    `json:"pid,omitempty"`  // 0: unknown
	Comm    string `json:"comm,omitempty"` // of that process
}

// How it is known that a flow is a process's.
const (
	ByInode    = "inode"    // its live sockets
	ByCookie   = "cookie"   // sockets in TIME_WAIT that were seen while they lived
	ByListener = "listener" // evidence only: the process accepts on the flow's port
)

// Process is a program whose sockets are in a flow: all its processes that have
// the same comm, exe and cgroup.
type Process struct {
	PID            int     `json:"pid"`            // the process with most of the sockets
	PIDs           []int   `json:"pids,omitempty"` // most sockets first; none if there is one
	Count          int     `json:"count"`          // processes
	Comm           string  `json:"comm"`
	Exe            string  `json:"exe"`
	Cgroup         string  `json:"cgroup"`
	Runtime        string  `json:"runtime,omitempty"`         // what kind of program, as in explain; "" if unknown
	RuntimeVersion string  `json:"runtime_version,omitempty"` // "" if unknown
	Sockets        uint32  `json:"sockets"`                   // of the flow, known to be this program's
	Share          float64 `json:"share"`                     // Sockets / all sockets of the flow
	By             string  `json:"by"`                        // how most of them are known: inode, cookie; listener (then Sockets is 0)
}

// Owner is one process.
type Owner struct {
	PID            int    `json:"pid"`
	Start          uint64 `json:"start"` // clock ticks after boot: with PID its identity
	Comm           string `json:"comm"`
	Exe            string `json:"exe"`
	Cgroup         string `json:"cgroup"`
	Runtime        string `json:"runtime,omitempty"`
	RuntimeVersion string `json:"runtime_version,omitempty"`
	Sockets        uint32 `json:"sockets"`    // live ones, CLOSE_WAIT among them
	CloseWait      uint32 `json:"close_wait"` // of these
	// Descriptors are open in the process, of DescriptorLimit (RLIMIT_NOFILE);
	// nil: unknown.
	Descriptors     *int `json:"descriptors"`
	DescriptorLimit *int `json:"descriptor_limit"`
}

// Omitted is what Flows doesn't list. Listening and merely bound sockets
// belong to no flow and are in neither: for every other state, the sum over
// flows plus omitted equals the namespace's count.
type Omitted struct {
	Flows  int    `json:"flows"` // at least so many
	States States `json:"states"`
	Births uint64 `json:"births"`
}

// Severity orders findings and verdicts.
type Severity string

// Severities. Healthy is a verdict only.
const (
	Healthy  Severity = "healthy"
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Finding is a judgement about a subject.
type Finding struct {
	ID              string           `json:"id"`
	Severity        Severity         `json:"severity"`
	Namespace       string           `json:"namespace"`
	Subject         Subject          `json:"subject"`
	Summary         string           `json:"summary"`
	Evidence        []Evidence       `json:"evidence"`
	Recommendations []Recommendation `json:"recommendations"`
	BecauseOf       string           `json:"because_of,omitempty"`
	Since           time.Time        `json:"since,omitzero"` // first raised, carried along while it holds
}

// Subject is what a finding is about; the fields that don't apply are empty.
type Subject struct {
	Side    Side   `json:"side,omitempty"`
	Device  string `json:"device,omitempty"`
	Local   string `json:"local,omitempty"`
	Remote  string `json:"remote,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	Service string `json:"service,omitempty"`
	Process string `json:"process,omitempty"`
	Setting string `json:"setting,omitempty"` // a sysctl's name
}

// Evidence is a number that a reader can check without twwatch.
type Evidence struct {
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Source string  `json:"source"`
}

// Recommendation is something to change.
type Recommendation struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Do         string   `json:"do"`
	Snippet    string   `json:"snippet,omitempty"`
	Effect     string   `json:"effect,omitempty"`
	Caveats    []string `json:"caveats"`
	References []string `json:"references"`
}
