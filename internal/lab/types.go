package lab

import (
	"io"
	"net/netip"
	"syscall"
	"time"
)

// Options of New; the zero value is right.
type Options struct {
	// Sysctls are written once loopback is up, sorted by name:
	// {"net.ipv4.ip_local_port_range": "32768 32777"}.
	Sysctls map[string]string
}

// Mode is what a Server does with a connection.
type Mode int

const (
	// CloseByClient reads to the end, then closes: TIME_WAIT stays at the
	// client. The zero value.
	CloseByClient Mode = iota
	// CloseByServer closes After the accept: TIME_WAIT stays at the server,
	// once the client closes too.
	CloseByServer
	// ResetByServer resets the connection After the accept: no TIME_WAIT.
	ResetByServer
	// Never accepts, reads nothing and holds the connection until
	// Server.Release or Close.
	Never
	// Manual accepts nothing by itself: connections wait in the accept queue
	// for Server.Accept.
	Manual
)

// ListenOptions of Namespace.Listen; the zero value is a server on two threads
// that closes after its clients did.
type ListenOptions struct {
	Backlog     int           // accept queue; 0: 4096; negative: a queue of one
	Mode        Mode          //
	After       time.Duration // delay of CloseByServer and ResetByServer
	Echo        bool          // CloseByClient: write back what was read
	Workers     int           // threads; 0: 2; Manual has none
	Device      string        // SO_BINDTODEVICE
	DualStack   bool          // an IPv6 listener that takes IPv4 clients too
	ReusePort   bool          // SO_REUSEPORT
	DeferAccept bool          // TCP_DEFER_ACCEPT: SYN_RECV until the client sends data
}

// Bind is how a socket gets its local address and port before connect().
type Bind int

const (
	// BindAuto is no bind() without a Local address; with one, bind() under
	// IP_BIND_ADDRESS_NO_PORT if its port is 0, else bind(address, port).
	BindAuto Bind = iota
	// BindAddrPort0 is bind(address, 0): the kernel picks a port that is then
	// blocked for all destinations. Without a Local the address is the wildcard.
	BindAddrPort0
)

// ConnOptions of a single socket; the zero value is a plain connect().
type ConnOptions struct {
	Local     netip.AddrPort // zero: the kernel chooses
	Bind      Bind
	ReuseAddr bool          // SO_REUSEADDR before bind()
	Device    string        // SO_BINDTODEVICE
	NoWait    bool          // return while the socket is still in SYN_SENT
	Timeout   time.Duration // of connect() and of reads; 0: 5 s
}

// Closer is the end of a storm's connections that closes first.
type Closer int

const (
	// Client closes first and keeps the TIME_WAIT. The zero value; the server
	// must run CloseByClient.
	Client Closer = iota
	// ServerEnd closes first; the client reads to the end and closes. The server
	// must run CloseByServer.
	ServerEnd
	// Reset is the client closing with SO_LINGER 0, and no TIME_WAIT stays.
	Reset
)

// Storm is many short connections. It ends after Count attempts or after
// Duration, whichever comes first; one of them must be set.
type Storm struct {
	Remotes  []netip.AddrPort // taken in turn
	Rate     float64          // connections per second; 0: as fast as possible
	Count    int              // attempts, failed ones included
	Duration time.Duration    // no attempt starts later than this
	Hold     time.Duration    // between connect() and close()
	Closer   Closer
	Workers  int // threads; 0: 2, or 8 with a Rate

	Local      netip.Addr // as ConnOptions.Local, with port 0
	LocalPorts [2]uint16  // inclusive; set: bind(address, port), ports in turn
	Bind       Bind
	ReuseAddr  bool
	Device     string
	Timeout    time.Duration // of connect() and of the wait for the peer's end; 0: 5 s

	// Orphan: the client closes with close() at once, as most programs do; the
	// connection passes through an orphaned FIN_WAIT2, and nothing holds the
	// storm back when the server is slower. Otherwise the client shuts down,
	// reads the server's EOF and closes: its TIME_WAIT exists when it does. Of
	// orphans' TIME_WAITs 1–2 % die at once by a RST, unless tcp_rfc1337 is 1.
	Orphan bool
	// Times: keep every connection's closing time in Result.Times.
	Times bool
}

// Result of a storm: what really happened.
type Result struct {
	Start   time.Time     // with a monotonic reading (CLOCK_MONOTONIC)
	Elapsed time.Duration // until the last connection was closed
	Opened  int           // connect() succeeded
	Closed  int           // closed in order, as Closer says
	// Failed counts connections that failed at any step, by errno; a wait that
	// timed out counts as ETIMEDOUT.
	Failed     map[syscall.Errno]int
	FirstError error // of the earliest failure seen; nil if none
	// FirstFailure is when that was, since Start; 0 if none.
	FirstFailure time.Duration
	// PerSecond counts Closed by whole seconds since Start.
	PerSecond []int
	// Times are the Closed connections' closing times since Start, ascending;
	// nil unless the storm asked for them.
	Times []time.Duration
	// MaxLate is how far the worst connection started behind its schedule; 0
	// without a Rate.
	MaxLate time.Duration
}

// FailedTotal is the sum over Failed.
func (r *Result) FailedTotal() int {
	n := 0
	for _, c := range r.Failed {
		n += c
	}
	return n
}

// Fill says which TIME_WAITs FillTimeWait makes.
type Fill struct {
	Rows    int
	Remotes int // distinct remote addresses, RemoteAddr(0) on; 0: 64
	// Destinations instead of Remotes; IPv4 loopback addresses.
	Destinations []netip.Addr
	Port         uint16 // the remote port; 0: 1000, below the ephemeral range
	Workers      int    // threads; 0: one per CPU
	// KeepSysctls: leave the namespace's settings alone. Otherwise the port
	// range becomes 1024–65535, tcp_tw_reuse 0, tcp_rfc1337 1, and
	// tcp_max_tw_buckets grows to hold the rows.
	KeepSysctls bool
}

// RemoteAddr is the i-th remote address that a Fill uses, 127.16.0.0 on.
func RemoteAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(16 + i>>16), byte(i >> 8), byte(i)})
}

// Stdio are the standard streams of InPrivateNamespace's process; nil is
// /dev/null.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}
