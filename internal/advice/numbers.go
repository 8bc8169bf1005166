package advice

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/sysctl"
)

// A Situation is what advice is asked for. Strings in it choose entries of the
// library and are never printed; only its numbers, ports and addresses are.
type Situation struct {
	Pattern string // one of Patterns
	// Side is "" for what is not of one flow: then remedies for either fit.
	Side snapshot.Side
	// Service and ServiceBy are of [Library.Service], or a flow's.
	Service, ServiceBy string
	Runtime            string // id of [Library.Runtime], "" if the process is unknown
	RuntimeVersion     string // "1.26.1", of the language where it is one; "" if unknown
	NamespaceKind      string // host, self, named, container, pod, process
	// Remote is the other end: for a client the server's address and port. For
	// a server flow only the port is needed: the one that it listens on.
	Remote netip.AddrPort
	// Local is true where the server is on this host, so that a Unix socket
	// would reach it. A loopback Remote implies it.
	Local   bool
	Numbers Numbers
}

// Numbers are what templates are filled in with. Nil is unknown: text that
// needs it is left out, never printed with a guess.
type Numbers struct {
	Rate      *float64 // connections opened per second at the peak, all processes together
	Lifetime  *float64 // seconds that one is in use; nil where too short to be seen
	Processes *int     // that share the flow

	PortsNow  *int              // range less reserved: what connect() can choose from
	Range     *sysctl.PortRange // ip_local_port_range
	Reserved  *sysctl.PortSet   // ip_local_reserved_ports
	Listeners []uint16          // listening ports of the namespace
	OwnPort   uint16            // twwatch's, 0 if it doesn't listen
	// UnprivilegedStart is ip_unprivileged_port_start; the range stays above.
	UnprivilegedStart *int
	// Kubernetes: this host is a node, whose NodePorts (30000 to 32767) must
	// not be given away.
	Kubernetes bool

	TimeWait     *int // of the flow
	BucketsLimit *int // tcp_max_tw_buckets
	TWReuse      *int
	TWReuseDelay *int // milliseconds
	Timestamps   *int
	FinTimeout   *int // seconds

	Backlog       *int // of the listener
	Somaxconn     *int
	SynBacklog    *int // tcp_max_syn_backlog
	Syncookies    *int
	SynackRetries *int

	Orphans       *int
	OrphansLimit  *int
	OrphanRetries *int

	ConntrackEntries  *int
	ConntrackMax      *int
	ConntrackBuckets  *int
	ConntrackTimeWait *int // seconds

	CloseWaits      *int
	OldestSeconds   *float64
	Descriptors     *int // open in the process
	DescriptorLimit *int
}

// data is what a template sees. A field that is nil is unknown.
type data struct {
	Namespace any // kind
	Addr      any // of the other end, without a zone
	AddrPort  any
	Port      any
	Loopback  any // true if the other end is

	Rate, Lifetime, Processes, PoolSize, PoolTotal, MaxLifetime any

	PortsNow, PortsAfter, RangeNow, RangeLow, RangeHigh, NewLow, NewHigh any
	PortsAtStake                                                         any // false if TIME_WAIT take few of them
	ReservedNow, ReservedUnion                                           any
	CeilingNow, CeilingAfter, CeilingReuse                               any

	TimeWait, TimeWaitAfter, Freed, MemoryLow, MemoryHigh any
	SlowHalf                                              any // true if over half of the ports are taken by TIME_WAIT
	BucketsLimit, BucketsAfter                            any
	TWReuse, ReuseDelay, Timestamps, FinTimeout           any

	Backlog, Somaxconn, SomaxconnAfter, SynBacklog, SynBacklogAfter any
	Syncookies, SynackRetries, HalfOpenLife                         any
	Orphans, OrphansLimit, OrphansAfter, OrphanRetries              any

	ConntrackEntries, ConntrackMax, ConntrackBuckets, ConntrackAfter, ConntrackTimeWait, ConntrackHeld any

	CloseWaits, Oldest, Descriptors, DescriptorLimit any
}

// known unpacks a pointer: nil stays nil.
func known[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// fill computes everything that a template may show.
func (s *Situation) fill() *data {
	n := &s.Numbers
	d := &data{
		MaxLifetime: MaxLifetimeSeconds,
		Rate:        known(n.Rate), Lifetime: known(n.Lifetime), Processes: known(n.Processes),
		PortsNow: known(n.PortsNow), TimeWait: known(n.TimeWait), BucketsLimit: known(n.BucketsLimit),
		TWReuse: known(n.TWReuse), Timestamps: known(n.Timestamps), FinTimeout: known(n.FinTimeout),
		Backlog: known(n.Backlog), Somaxconn: known(n.Somaxconn), SynBacklog: known(n.SynBacklog),
		Syncookies: known(n.Syncookies), SynackRetries: known(n.SynackRetries),
		Orphans: known(n.Orphans), OrphansLimit: known(n.OrphansLimit), OrphanRetries: known(n.OrphanRetries),
		ConntrackEntries: known(n.ConntrackEntries), ConntrackMax: known(n.ConntrackMax), ConntrackBuckets: known(n.ConntrackBuckets), ConntrackTimeWait: known(n.ConntrackTimeWait),
		CloseWaits: known(n.CloseWaits), Oldest: known(n.OldestSeconds), Descriptors: known(n.Descriptors), DescriptorLimit: known(n.DescriptorLimit),
	}
	if kinds := []string{"host", "self", "named", "container", "pod", "process"}; slices.Contains(kinds, s.NamespaceKind) {
		d.Namespace = s.NamespaceKind
	}
	if a := s.Remote.Addr(); a.IsValid() {
		a = a.Unmap().WithZone("") // a zone is a name that the host gave
		d.Addr, d.Loopback = a.String(), a.IsLoopback()
		if s.Remote.Port() != 0 {
			d.AddrPort = netip.AddrPortFrom(a, s.Remote.Port()).String()
		}
	}
	if s.Remote.Port() != 0 {
		d.Port = int(s.Remote.Port())
	}
	s.fillPool(d)
	s.fillPorts(d)
	s.fillLimits(d)
	return d
}

func (s *Situation) fillPool(d *data) {
	n := &s.Numbers
	if n.Rate != nil && *n.Rate > 0 {
		lifetime := 1 / *n.Rate // what is too short to be seen is shorter than that
		if n.Lifetime != nil {
			lifetime = *n.Lifetime
		}
		processes := 1
		if n.Processes != nil {
			processes = max(*n.Processes, 1)
		}
		size := PoolSize(*n.Rate, lifetime, processes, Margin)
		after := TimeWaitAfter(size*processes, MaxLifetimeSeconds)
		d.PoolSize, d.PoolTotal, d.TimeWaitAfter = size, size*processes, after
		if n.TimeWait != nil && !s.reused() { // else they are free already
			d.Freed = PortsFreed(*n.TimeWait, size*processes, after)
		}
	}
	if n.TimeWait != nil {
		d.MemoryLow, d.MemoryHigh = TimeWaitMemory(*n.TimeWait)
		if n.PortsNow != nil && s.Side == snapshot.Client {
			d.SlowHalf = *n.TimeWait > *n.PortsNow/2 && !s.reused()
		}
	}
}

// Where a wider range begins: below the usual one and above most services. A
// Kubernetes node has more of those.
const (
	wideLow     = 10240
	wideLowNode = 15000
	wideHigh    = 65535
)

func (s *Situation) fillPorts(d *data) {
	n := &s.Numbers
	delay := 1000
	if n.TWReuseDelay != nil {
		delay = *n.TWReuseDelay
	}
	d.ReuseDelay = float64(delay) / 1000
	hold := float64(TimeWaitSeconds)
	if s.reused() {
		hold = float64(delay) / 1000
	}
	d.PortsAtStake = true
	if n.PortsNow != nil {
		d.CeilingNow = RateCeiling(*n.PortsNow, hold)
		d.CeilingReuse = RateCeiling(*n.PortsNow, float64(delay)/1000)
		if n.Rate != nil && n.TimeWait != nil && (s.Pattern == NoPool || s.Pattern == PoolTooSmall) {
			least, waiting := fewPorts*float64(*n.PortsNow), float64(*n.TimeWait)
			// A rate of which not a second's closes are here is of closes elsewhere.
			d.PortsAtStake = !s.reused() && waiting >= least || *n.Rate*hold >= least && waiting >= *n.Rate
		}
	}
	if n.Range == nil {
		return
	}
	d.RangeLow, d.RangeHigh = int(n.Range.Low), int(n.Range.High)
	d.RangeNow = fmt.Sprintf("%d %d", n.Range.Low, n.Range.High)
	low := wideLow
	if n.Kubernetes {
		low = wideLowNode
	}
	if n.UnprivilegedStart != nil && *n.UnprivilegedStart > low {
		low = min(*n.UnprivilegedStart+*n.UnprivilegedStart%2, wideHigh-1) // even, so that the ends differ in parity
	}
	wide := sysctl.PortRange{Low: uint16(min(low, int(n.Range.Low))), High: wideHigh}
	if wide.Low%2 != 0 {
		wide.Low++
	}
	d.NewLow, d.NewHigh = int(wide.Low), int(wide.High)
	if n.Reserved == nil {
		return // writing the list without knowing it would lose what is there
	}
	if union, ok := n.reserve(wide); ok {
		d.ReservedNow, d.ReservedUnion = n.Reserved.String(), union.String()
		after := wide.Size() - union.CountIn(wide)
		d.PortsAfter, d.CeilingAfter = after, RateCeiling(after, hold)
	}
}

// fewPorts is the share of the ports below which a load that grows tenfold still
// finds some.
const fewPorts = 0.1

// reused tells whether connect() takes over TIME_WAIT of this flow already.
func (s *Situation) reused() bool {
	n := &s.Numbers
	if n.TWReuse == nil || n.Timestamps != nil && *n.Timestamps == 0 {
		return false
	}
	return *n.TWReuse == 1 || *n.TWReuse == 2 && s.Remote.Addr().Unmap().IsLoopback()
}

// reserve is what ip_local_reserved_ports must hold before the range grows:
// what it holds now, and every port in the range that something listens on.
// Writing the setting replaces the list.
func (n *Numbers) reserve(within sysctl.PortRange) (sysctl.PortSet, bool) {
	list := []string{}
	if now := n.Reserved.String(); now != "" {
		list = append(list, now)
	}
	for _, p := range append(slices.Clone(n.Listeners), n.OwnPort) {
		if p != 0 && within.Contains(p) {
			list = append(list, strconv.Itoa(int(p)))
		}
	}
	if n.Kubernetes {
		list = append(list, "30000-32767")
	}
	set, err := sysctl.ParsePortSet(strings.Join(list, ","))
	return set, err == nil
}

func (s *Situation) fillLimits(d *data) {
	n := &s.Numbers
	twice := func(p *int) any {
		if p == nil || *p <= 0 || *p > 1<<30 {
			return nil
		}
		return *p * 2
	}
	d.BucketsAfter, d.OrphansAfter, d.ConntrackAfter = twice(n.BucketsLimit), twice(n.OrphansLimit), twice(n.ConntrackMax)
	d.SomaxconnAfter, d.SynBacklogAfter = twice(n.Somaxconn), twice(n.SynBacklog)
	if n.SynackRetries != nil {
		d.HalfOpenLife = HandshakeLife(*n.SynackRetries)
	}
	if n.Rate != nil && n.ConntrackTimeWait != nil {
		d.ConntrackHeld = ConntrackEntries(*n.Rate, float64(*n.ConntrackTimeWait))
	}
}
