package diagnose

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/sysctl"
)

// growthSeconds is the time over which growth is looked at: long enough for a
// mean, short enough that a finding goes when its reason has.
const growthSeconds = 60

// scene is one namespace in the newest report and what went before.
type scene struct {
	ns   *snapshot.Namespace
	host *sysctl.HostLimits // nil where they are not known
	at   time.Time
	// history is the same namespace in the earlier reports, oldest first.
	history []moment
	// before is what growth is counted from, seconds ago: the newest look that
	// is at least growthSeconds old, or else the oldest. nil with a single look.
	before   *snapshot.Namespace
	seconds  float64
	previous []snapshot.Finding
	settings Settings
	// interval is the seconds between passes; 0 for a single look.
	interval float64
	// found is what the rules before the present one found.
	found []*found
	index *flowIndex // made at the first use
}

// A moment is an earlier look at the namespace.
type moment struct {
	ns  *snapshot.Namespace
	ago float64 // seconds between the two looks
	// findings are those of that look, of all namespaces.
	findings []snapshot.Finding
	flows    map[flowKey]*snapshot.Flow // made at the first use
}

// A flowKey is what makes a flow that flow.
type flowKey struct {
	side                  snapshot.Side
	device, local, remote string
	port                  uint16
}

func keyOf(f *snapshot.Flow) flowKey {
	return flowKey{f.Side, f.Device, f.Local, f.Remote, f.Port}
}

// flow is a flow as it was at that look, nil if it wasn't there. Rules ask for
// each of a thousand flows at each of sixty looks.
func (m *moment) flow(f *snapshot.Flow) *snapshot.Flow {
	if m.flows == nil {
		m.flows = make(map[flowKey]*snapshot.Flow, len(m.ns.Flows))
		for i := range m.ns.Flows {
			m.flows[keyOf(&m.ns.Flows[i])] = &m.ns.Flows[i]
		}
	}
	return m.flows[keyOf(f)]
}

// newScene looks for the namespace in the window's reports of the same boot.
func newScene(window []*snapshot.Report, ns *snapshot.Namespace, previous []snapshot.Finding, settings Settings) *scene {
	last := window[len(window)-1]
	s := &scene{ns: ns, host: last.HostLimits, at: last.Time, previous: previous, settings: settings, interval: last.IntervalSeconds}
	for _, r := range window[:len(window)-1] {
		if r.BootID != last.BootID {
			continue
		}
		for _, old := range r.Namespaces {
			if old.Inode == ns.Inode && old.Cookie == ns.Cookie && old.Name == ns.Name {
				s.note(moment{ns: old, ago: sampled(last, ns) - sampled(r, old), findings: r.Findings})
			}
		}
	}
	for i := range s.history {
		if m := &s.history[i]; i == 0 || m.ago >= growthSeconds {
			s.before, s.seconds = m.ns, m.ago
		}
	}
	return s
}

// sampled is when a namespace of a report was looked at, in seconds since boot.
func sampled(r *snapshot.Report, ns *snapshot.Namespace) float64 {
	if ns.SampledAt.IsZero() {
		return r.Uptime
	}
	return r.Uptime + ns.SampledAt.Sub(r.Time).Seconds()
}

// note adds a look to the history. A report that shows once more what an earlier
// look found is none.
func (s *scene) note(m moment) {
	same := func(a, b *snapshot.Namespace) bool {
		return (a.Repeated || b.Repeated) && a.SampledAt.Equal(b.SampledAt)
	}
	n := len(s.history)
	if same(m.ns, s.ns) || n > 0 && same(m.ns, s.history[n-1].ns) {
		return
	}
	s.history = append(s.history, m)
}

// growth is how much a cumulative counter grew in s.seconds; false if that
// can't be known.
func (s *scene) growth(counter string) (uint64, bool) {
	if s.before == nil {
		return 0, false
	}
	was, ok1 := s.before.Counters[counter]
	is, ok2 := s.ns.Counters[counter]
	return is - was, ok1 && ok2 && is >= was
}

// rate is a counter's growth per second; false if that can't be known.
func (s *scene) rate(counter string) (float64, bool) {
	n, ok := s.growth(counter)
	if !ok || s.seconds <= 0 {
		return 0, false
	}
	return float64(n) / s.seconds, true
}

// lacks tells whether the growth of one of these counters can't be known.
func lacks(counters ...string) func(*scene) bool {
	return func(s *scene) bool {
		return slices.ContainsFunc(counters, func(c string) bool { _, ok := s.rate(c); return !ok })
	}
}

// threshold is the one in force: lower while one of these findings about the
// subject is there already, so that a load which hovers about it doesn't flap.
func (s *scene) threshold(name string, subject snapshot.Subject, ids ...string) float64 {
	return s.settings.Thresholds.of(name, s.held(subject, ids...))
}

// held tells whether one of these findings about the subject was there before.
func (s *scene) held(subject snapshot.Subject, ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return s.earlier(id, subject) != nil })
}

// earlier is the finding as it was judged last time, nil if there was none.
func (s *scene) earlier(id string, subject snapshot.Subject) *snapshot.Finding {
	for i := range s.previous {
		if f := &s.previous[i]; f.ID == id && f.Namespace == s.ns.Name && identity(f.Subject) == identity(subject) {
			return f
		}
	}
	return nil
}

// identity leaves out of a flow's subject what may be found later than the
// trouble itself: whose it is. A process without a flow stays.
func identity(s snapshot.Subject) snapshot.Subject {
	if s.Port != 0 {
		s.Process, s.Service = "", ""
	}
	return s
}

// subject names a flow.
func subject(f *snapshot.Flow) snapshot.Subject {
	subject := snapshot.Subject{Side: f.Side, Device: f.Device, Local: f.Local, Remote: f.Remote, Port: f.Port, Service: f.Service}
	if p := program(f); p != nil {
		subject.Process = p.Comm
	}
	return subject
}

// program is the one that most of a flow's sockets belong to, as far as is
// known; nil: unknown.
func program(f *snapshot.Flow) *snapshot.Process {
	if len(f.Processes) == 0 {
		return nil
	}
	return &f.Processes[0]
}

// folded tells whether a flow stands for the many of a prefix, or for the rest.
func folded(f *snapshot.Flow) bool {
	_, err := netip.ParseAddr(f.Remote)
	return err != nil
}

// owner is what is known of a process, nil if nothing is.
func (s *scene) owner(pid int) *snapshot.Owner {
	i := slices.IndexFunc(s.ns.Owners, func(o snapshot.Owner) bool { return o.PID == pid })
	if i < 0 || pid == 0 {
		return nil
	}
	return &s.ns.Owners[i]
}

// situation is what advice is asked with: all that the report knows of the
// namespace and, unless it is nil, of the flow. Rules add what only they know.
func (s *scene) situation(pattern string, f *snapshot.Flow) advice.Situation {
	l := &s.ns.Limits
	a := advice.Situation{
		Pattern: pattern, NamespaceKind: s.ns.Kind,
		Numbers: advice.Numbers{
			Range: l.IPLocalPortRange, Reserved: l.IPLocalReservedPorts, OwnPort: s.settings.OwnPort, UnprivilegedStart: l.IPUnprivilegedPortStart,
			BucketsLimit: l.TCPMaxTWBuckets, TWReuse: l.TCPTWReuse, TWReuseDelay: l.TCPTWReuseDelay, Timestamps: l.TCPTimestamps,
			FinTimeout: l.TCPFinTimeout, Somaxconn: l.Somaxconn, SynBacklog: l.TCPMaxSynBacklog, Syncookies: l.TCPSyncookies,
			SynackRetries: l.TCPSynackRetries, OrphanRetries: l.TCPOrphanRetries, ConntrackTimeWait: l.NFConntrackTCPTimeoutTimeWait,
			Orphans: s.ns.Sockstat.Orphan, Listeners: s.listening(), Kubernetes: s.node(),
		},
	}
	if s.ns.Ports != nil {
		a.Numbers.PortsNow = new(s.ns.Ports.Range - s.ns.Ports.Reserved)
	}
	if s.host != nil {
		a.Numbers.OrphansLimit, a.Numbers.ConntrackMax, a.Numbers.ConntrackBuckets = s.host.TCPMaxOrphans, s.host.NFConntrackMax, s.host.NFConntrackBuckets
	}
	if c := s.ns.Conntrack; c != nil && c.Entries != nil && *c.Entries < math.MaxInt32 {
		a.Numbers.ConntrackEntries = new(int(*c.Entries))
	}
	if f != nil {
		s.describe(&a, f)
	}
	return a
}

// node tells whether the namespace is a Kubernetes node's own: the kubelet, or
// the proxy of its services, is there.
func (s *scene) node() bool {
	is := func(runtime, comm string) bool {
		return runtime == "kubelet" || comm == "kubelet" || comm == "kube-proxy"
	}
	for i := range s.ns.Owners {
		if is(s.ns.Owners[i].Runtime, s.ns.Owners[i].Comm) {
			return true
		}
	}
	for i := range s.ns.Listeners {
		if is("", s.ns.Listeners[i].Comm) {
			return true
		}
	}
	return slices.ContainsFunc(s.ns.Flows, func(f snapshot.Flow) bool {
		p := program(&f)
		return p != nil && is(p.Runtime, p.Comm)
	})
}

// describe adds what is known of a flow.
func (s *scene) describe(a *advice.Situation, f *snapshot.Flow) {
	a.Side, a.Service, a.ServiceBy = f.Side, f.Service, f.ServiceBy
	if addr, err := netip.ParseAddr(f.Remote); err == nil {
		a.Remote = netip.AddrPortFrom(addr, f.Port)
		a.Local = addr.IsLoopback() || f.Remote == f.Local
	}
	if p := program(f); p != nil {
		a.Runtime, a.RuntimeVersion = p.Runtime, p.RuntimeVersion
	}
	a.Numbers.TimeWait = new(int(f.States.TimeWait))
	a.Numbers.Rate = s.peak(f)
	a.Numbers.Lifetime = lifetime(f)
	if f.Attributed != nil && *f.Attributed >= attributedEnough {
		n := 0
		for i := range f.Processes {
			n += f.Processes[i].Count
		}
		a.Numbers.Processes = new(max(n, 1))
	}
}

// attributedEnough is the share of a flow's sockets whose process must be known
// before the number of its processes is taken for all of them.
const attributedEnough = 0.5

// peak is the highest rate of closes that the window shows of a flow; nil if
// none is known. A pool has to hold it.
func (s *scene) peak(f *snapshot.Flow) *float64 {
	var peak *float64
	see := func(f *snapshot.Flow) {
		if f != nil && f.CloseRate != nil && (peak == nil || *f.CloseRate > *peak) {
			peak = f.CloseRate
		}
	}
	see(f)
	for i := range s.history {
		see(s.history[i].flow(f))
	}
	return peak
}

// lifetime is how many seconds a connection of the flow lives that isn't kept:
// by Little's law, those open now and not seen before / rate. nil: not known;
// where none is open it is less than 1 / rate.
func lifetime(f *snapshot.Flow) *float64 {
	if f.CloseRate == nil || *f.CloseRate <= 0 || f.CloseRateAtLeast {
		return nil
	}
	open := f.States.Established
	if f.LongLived != nil {
		open -= min(open, *f.LongLived)
	}
	if open == 0 {
		return nil
	}
	return new(float64(open) / *f.CloseRate)
}

// listening are the ports of the namespace's listeners.
func (s *scene) listening() []uint16 {
	var ports []uint16
	for i := range s.ns.Listeners {
		if ap, err := netip.ParseAddrPort(s.ns.Listeners[i].Local); err == nil {
			ports = append(ports, ap.Port())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
