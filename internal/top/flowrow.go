package top

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A flowKey tells one flow, or one group of flows, from all others in every
// report.
type flowKey struct {
	inode                 uint64
	side                  snapshot.Side
	device, local, remote string
	port                  uint16
	group                 string // of a group alone
}

func keyOf(ns *snapshot.Namespace, f *snapshot.Flow) flowKey {
	return flowKey{inode: ns.Inode, side: f.Side, device: f.Device, local: f.Local, remote: f.Remote, port: f.Port}
}

// A flowRow is what the table shows of a flow, or of a group of flows: sums,
// and the ports of the tightest.
type flowRow struct {
	key   flowKey
	group string              // the group's name; "" for a flow
	count int                 // flows in the group
	ns    *snapshot.Namespace // of the first
	flow  *snapshot.Flow      // of a group the one with the tightest ports, or the first

	share               float64 // of the ports that connect() can't take; −1: takes none, or unknown
	ports               *snapshot.Ports
	rate                *float64
	rateFloor, sumFloor bool // the rate, the TIME_WAITs are at least that
	timeWait, closeWait uint32
	established         uint32
	lifetime            *float64
	liveTime, liveRate  float64 // for the mean of lifetimes
	process             string
	programs            int
	seconds             []int
	service, nsName     string
}

// rowOf is the row of one flow.
func rowOf(ns *snapshot.Namespace, f *snapshot.Flow) flowRow {
	r := flowRow{
		key: keyOf(ns, f), count: 1, ns: ns, flow: f, share: -1, ports: f.Ports,
		rate: f.CloseRate, rateFloor: f.CloseRateAtLeast || f.SurvivorsOnly, sumFloor: f.MissedAtMost > 0,
		timeWait: f.States.TimeWait, closeWait: f.States.CloseWait, established: f.States.Established,
		lifetime: f.MeanLifetimeSeconds, programs: len(f.Processes), service: f.Service, nsName: ns.Name,
	}
	if f.Ports != nil {
		r.share = portShare(f.Ports)
	}
	if len(f.Processes) > 0 {
		r.process = f.Processes[0].Comm
	}
	if r.rate != nil && r.lifetime != nil {
		r.liveTime, r.liveRate = *r.rate**r.lifetime, *r.rate
	}
	return r
}

// add takes another flow into a group's row.
func (r *flowRow) add(o *flowRow) {
	r.count += o.count
	if o.share > r.share {
		r.share, r.ports, r.flow, r.ns = o.share, o.ports, o.flow, o.ns
	}
	if o.rate != nil {
		sum := *o.rate
		if r.rate != nil {
			sum += *r.rate
		}
		r.rate = &sum
	} else if o.timeWait > 0 {
		r.rateFloor = true
	}
	r.rateFloor, r.sumFloor = r.rateFloor || o.rateFloor, r.sumFloor || o.sumFloor
	r.timeWait += o.timeWait
	r.closeWait += o.closeWait
	r.established += o.established
	r.liveTime, r.liveRate = r.liveTime+o.liveTime, r.liveRate+o.liveRate
	r.lifetime = nil
	if r.liveRate > 0 {
		mean := r.liveTime / r.liveRate
		r.lifetime = &mean
	}
	switch {
	case o.process == "" || o.process == r.process:
	case r.process == "":
		r.process, r.programs = o.process, o.programs
	default:
		r.programs++
	}
}

// timeline is the row's last minute, oldest second first; of a group it is
// summed when it is shown.
func (r *flowRow) timeline() []int {
	if r.group == "" && r.flow != nil {
		return seconds(r.flow.OpenedPerSecond)
	}
	return r.seconds
}

// portShare is the share of a flow's ports that connect() can't take now.
func portShare(ports *snapshot.Ports) float64 {
	usable := ports.Range - ports.Reserved
	if usable <= 0 {
		return 1
	}
	return min(1, max(0, 1-float64(ports.Free)/float64(usable)))
}

func seconds(counts []uint32) []int {
	values := make([]int, len(counts))
	for i, c := range counts {
		values[i] = int(c)
	}
	return values
}

// A grouping joins flows into one row; 0 joins none.
type grouping int

const (
	ungrouped grouping = iota
	byRemote
	byService
	byProcess
	byNamespace
	groupings
)

// Groupings are the names of the ways to group flows, "none" first.
func Groupings() []string { return []string{"none", "remote", "service", "process", "namespace"} }

func (g grouping) String() string { return Groupings()[g] }

// of is the group that a row belongs to.
func (g grouping) of(r *flowRow) string {
	switch g {
	case byRemote:
		return remoteName(r.flow.Remote)
	case byService:
		if r.service == "" {
			return "port " + strconv.Itoa(int(r.flow.Port))
		}
		return r.service
	case byProcess:
		return cmp.Or(r.process, "unknown")
	case byNamespace:
		return r.nsName
	}
	return ""
}

// A sortKey is a column that flows are ordered by.
type sortKey int

const (
	byPorts sortKey = iota
	byRate
	byTimeWait
	byCloseWait
	byLifetime
	byProcessName
	sortKeys
)

// Sorts are the names of the orders of flows, the default first.
func Sorts() []string {
	return []string{"ports", "closes", "time-wait", "close-wait", "lifetime", "process"}
}

// words says what an order puts first.
func (k sortKey) words() string {
	return []string{
		"ports free: the tightest first", "closes per second: the most first", "TIME_WAIT: the most first",
		"CLOSE_WAIT: the most first", "lifetime of a connection: the shortest first", "process: by name",
	}[k]
}

// compare orders two rows by the key alone, the most interesting first. What is
// unknown comes last whichever way round.
func (k sortKey) compare(a, b *flowRow, invert bool) int {
	unknown := func(missingA, missingB bool) (int, bool) {
		switch {
		case missingA && missingB:
			return 0, true
		case missingA:
			return 1, true
		case missingB:
			return -1, true
		}
		return 0, false
	}
	order, known := 0, true
	decide := func(missingA, missingB bool, compare func() int) {
		if o, last := unknown(missingA, missingB); last {
			order, known = o, false
		} else {
			order = compare()
		}
	}
	switch k {
	case byPorts:
		decide(a.share < 0, b.share < 0, func() int { return cmp.Compare(b.share, a.share) })
	case byRate:
		decide(a.rate == nil, b.rate == nil, func() int { return cmp.Compare(*b.rate, *a.rate) })
	case byTimeWait:
		order = cmp.Compare(b.timeWait, a.timeWait)
	case byCloseWait:
		order = cmp.Compare(b.closeWait, a.closeWait)
	case byLifetime:
		decide(a.lifetime == nil, b.lifetime == nil, func() int { return cmp.Compare(*a.lifetime, *b.lifetime) })
	case byProcessName:
		decide(a.process == "", b.process == "", func() int { return cmp.Compare(a.process, b.process) })
	}
	if known && invert {
		return -order
	}
	return order
}

// sortRows orders rows by the key, then by what decides between equals.
func sortRows(rows []flowRow, k sortKey, invert bool) {
	slices.SortStableFunc(rows, func(a, b flowRow) int {
		return cmp.Or(
			k.compare(&a, &b, invert),
			cmp.Compare(b.timeWait, a.timeWait), cmp.Compare(b.closeWait, a.closeWait), cmp.Compare(b.established, a.established),
			cmp.Compare(a.group, b.group), cmp.Compare(a.key.remote, b.key.remote), cmp.Compare(a.key.port, b.key.port),
			cmp.Compare(a.key.local, b.key.local), cmp.Compare(a.key.side, b.key.side), cmp.Compare(a.key.inode, b.key.inode),
		)
	})
}

// name says who is connected to whom, the peer first: "→ 10.0.0.9:6379 redis",
// "← 10.1.2.3 to :8080".
func (r *flowRow) name() string {
	if r.group != "" {
		return r.group + " (" + plural(r.count, "flow") + ")"
	}
	return peer(r.flow)
}

func peer(f *snapshot.Flow) string {
	remote, device := remoteName(f.Remote), ""
	if f.Device != "" {
		device = " %" + f.Device
	}
	service := ""
	if f.Service != "" {
		service = " " + f.Service
	}
	switch f.Side {
	case snapshot.Server:
		return "← " + remote + " to :" + strconv.Itoa(int(f.Port)) + service + device
	case snapshot.Client:
		return "→ " + withPort(remote, f.Port) + service + device
	}
	return "↔ " + withPort(remote, f.Port) + service + device
}

func remoteName(remote string) string {
	switch {
	case remote == "":
		return "the rest"
	case strings.Contains(remote, "/"):
		return "others in " + remote
	}
	return remote
}

// withPort appends a port to an address or to words about one.
func withPort(address string, port uint16) string {
	n := strconv.Itoa(int(port))
	switch _, err := netip.ParseAddr(address); {
	case port == 0:
		return address
	case err != nil:
		return address + " port " + n
	case strings.Contains(address, ":"):
		return "[" + address + "]:" + n
	}
	return address + ":" + n
}
