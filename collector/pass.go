package collector

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/internal/netns"
	"github.com/twwatch/twwatch/sysctl"
)

const (
	// Up to manySockets, bound sockets are looked for in every pass; above,
	// once a minute and only if a flow uses boundShare of its range: the walk
	// costs a third to a half of the pass itself. Where all namespaces are looked
	// at those in which no client flow holds a port go without.
	manySockets = 10_000
	boundEvery  = time.Minute
	boundShare  = 0.25
	// maxLookups bounds the CLOSE_WAIT sockets asked for one by one in a
	// pass; with more, one walk over all of them is cheaper.
	maxLookups = 1024
)

// What of a pass can fail by itself.
const (
	stageCounters  = "counters"
	stageLimits    = "limits"
	stageDump      = "dump"
	stageBound     = "bound"
	stageCloseWait = "close_wait_age"
	// stageNamespaces is of the way to the other namespaces.
	stageNamespaces = "namespaces"
)

// What a look lacks without being incomplete: see snapshot.Report's Limited.
const (
	stageOwner = "owner"
	stageCRI   = "cri" // names from a container runtime
)

// Pass looks once. Whatever could not be seen is a gap in the report; the
// error is for a look that saw no socket of the Collector's own namespace at
// all, or a cancelled one.
func (c *Collector) Pass(ctx context.Context) (*snapshot.Report, error) {
	runtime.LockOSThread() // its CPU time is the pass's, its /proc/thread-self too
	defer runtime.UnlockOSThread()
	start, cpu := inetdiag.Now(), threadCPU()
	r := c.newReport()
	var elsewhere time.Duration
	if c.sweep != nil { // first, since what comes last is what a glance refers to
		elsewhere = c.sweep.run(ctx, c, r, c.homeCPU)
	}
	before := threadCPU()
	home, err := c.lookHome(ctx, r)
	c.homeCPU = threadCPU() - before
	c.cpu = threadCPU() - cpu + elsewhere
	if err != nil {
		return nil, err
	}
	place := 0
	if len(r.Namespaces) > 0 && r.Namespaces[0].Kind == netns.KindHost {
		place = 1 // twwatch's own matters less than the host's
	}
	r.Namespaces = slices.Insert(r.Namespaces, place, home)
	if c.sweep != nil {
		c.remotes.learn(r.Namespaces)
	}
	c.remotes.name(r.Namespaces)
	r.Limited = once(r.Limited)
	r.LiveDumps = c.takeGlances()
	r.TookSeconds = time.Duration(inetdiag.Now() - start).Seconds()
	return r, nil
}

// lookHome looks at the Collector's own namespace: beside others it isn't read
// either if nothing moved in it.
func (c *Collector) lookHome(ctx context.Context, r *snapshot.Report) (*snapshot.Namespace, error) {
	p := c.begin(c.home, r)
	if c.sweep != nil && c.sweep.still(c) {
		p.readHostLimits()
		return c.sweep.home.repeated(), nil
	}
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	if c.sweep != nil {
		p.ns.Addresses = addresses()
		c.sweep.home.keep(p.ns, p.start)
	}
	return p.ns, nil
}

// once says but once what is lacking in several namespaces, as the first of them
// tells it: there may be other numbers in the others.
func once(gaps []snapshot.Gap) []snapshot.Gap {
	kept := gaps[:0]
	for _, g := range gaps {
		i := slices.IndexFunc(kept, func(k snapshot.Gap) bool {
			same := k.Stage == g.Stage && k.Lost == g.Lost && k.Fix == g.Fix
			return same && (k.Namespace != g.Namespace || k.Error == g.Error)
		})
		if i < 0 {
			kept = append(kept, g)
		} else if kept[i].Namespace != g.Namespace {
			kept[i].Namespace = ""
		}
	}
	return kept
}

// newReport is a report that knows when and where it is made.
func (c *Collector) newReport() *snapshot.Report {
	return &snapshot.Report{
		Schema: snapshot.Schema, Version: c.cfg.Version, Host: hostName(), Kernel: kernelRelease(), BootID: c.home.id.bootID,
		Time: time.Now(), Uptime: uptime().Seconds(), Verdict: snapshot.Healthy,
		Incomplete: []snapshot.Gap{}, NotJudged: []string{}, Findings: []snapshot.Finding{},
	}
}

// pass is one look under way.
type pass struct {
	sight
	start  int64
	report *snapshot.Report
	// interval is the longest time until the next pass over the namespace.
	interval time.Duration
	ns       *snapshot.Namespace
	sample   counters.Sample
	// listening is who listens, by port.
	listening map[uint16][]listening
}

// begin begins a pass over one namespace. What can't be seen is told in r.
func (c *Collector) begin(v *view, r *snapshot.Report) *pass {
	return &pass{
		sight: sight{c, v}, start: inetdiag.Now(), report: r, interval: c.stretched(),
		ns: &snapshot.Namespace{Name: v.id.name, Inode: v.id.inode, Cookie: v.id.cookie, Kind: v.id.kind, SampledAt: time.Now()},
	}
}

func (p *pass) gap(stage string, err error, lost, fix string) {
	p.report.Incomplete = append(p.report.Incomplete, snapshot.Gap{
		Stage: stage, Namespace: p.ns.Name, Error: err.Error(), Lost: lost, Fix: fix,
	})
}

// run looks at the namespace: counters, limits, the dump, then what depends on it.
func (p *pass) run(ctx context.Context) error {
	defer p.ledger.EndPass()
	p.readCounters()
	p.readLimits()
	p.table.Begin(p.flowConfig())
	if err := p.dump(ctx); err != nil {
		return err
	}
	if p.ns.Source == sourceDiag {
		p.bound(ctx)
		p.closeWaitAges(ctx)
		p.halfClosed(ctx)
	}
	if !p.cfg.WithoutOwners {
		p.findOwners(ctx)
	}
	p.table.Fill(p.ns)
	bothEnds(p.ns)
	p.fillOwners()
	p.fillSample(ctx)
	p.compareBuckets()
	p.remember()
	return nil
}

func (p *pass) readCounters() {
	var err error
	if p.sample, err = counters.Read(p.netDir()); err != nil {
		p.gap(stageCounters, err, "some counters of the kernel; rules that need their growth stay silent",
			"check that proc is mounted and readable")
	}
	p.ns.Counters, p.ns.Sockstat, p.ns.Conntrack = p.sample.Counters, p.sample.Sockstat, p.sample.Conntrack
}

func (p *pass) readLimits() {
	var err error
	if p.files == nil {
		if p.files, err = sysctl.Open(p.cfg.Proc + "/sys"); err != nil {
			p.gap(stageLimits, err, "the kernel's limits: ports and buckets can't be compared with anything",
				"check that proc is mounted and that /proc/sys/net is readable")
			return
		}
	}
	if p.ns.Limits, err = p.files.Read(); err != nil {
		p.gap(stageLimits, err, "the settings named", "check that /proc/sys/net is readable")
	}
	p.readHostLimits()
}

func (p *pass) readHostLimits() {
	if !p.id.host {
		return
	}
	host, err := sysctl.ReadHost(p.cfg.Proc + "/sys")
	if err != nil {
		p.gap(stageLimits, err, "limits of the whole host", "check that /proc/sys/net is readable")
	}
	p.report.HostLimits = &host
}

// sockets is about how many rows a dump will have.
func (p *pass) sockets() int {
	n := 0
	for _, v := range []*int{p.sample.Sockstat.InUse, p.sample.Sockstat.TimeWait, p.sample.Sockstat.TCP6InUse} {
		if v != nil {
			n += *v
		}
	}
	return n
}

func (p *pass) flowConfig() flow.Config {
	return flow.Config{
		Limits: p.ns.Limits, Services: p.services.Ports(), ServiceName: p.services.Name, Device: deviceNames(),
		Start: p.start, Since: p.ledger.LastStart, Sockets: p.sockets(), Memory: &p.memory,
		Opened: p.counter("ActiveOpens"), Entered: p.growth("TW"),
		Interval: p.interval, WithoutOwners: p.cfg.WithoutOwners, Owned: p.owned, Owner: p.ownerOf,
	}
}

// counter is a cumulative counter, nil if it can't be read.
func (p *pass) counter(name string) *uint64 {
	if v, ok := p.sample.Counters[name]; ok {
		return &v
	}
	return nil
}

// growth is how much a counter grew since the previous pass, nil if that can't
// be known.
func (p *pass) growth(name string) *uint64 {
	before, known := p.last[name]
	now := p.counter(name)
	if !known || now == nil || *now < before {
		return nil
	}
	*now -= before
	return now
}

// Where the rows come from.
const (
	sourceDiag = "inet_diag"
	sourceProc = "proc"
)

// dump walks the table once, all states, without extensions. Where sock_diag
// can't be had at all, /proc/net/tcp is the poorer source.
func (p *pass) dump(ctx context.Context) error {
	p.ns.Source = sourceDiag
	rows, err := p.walk(ctx, inetdiag.Query{}, p.taker())
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("collector: pass: %w", ctx.Err())
	}
	if rows > 0 {
		p.gap(stageDump, err, fmt.Sprintf("the sockets after the first %d", rows), "look again; if it stays, report it")
		return nil
	}
	return p.dumpProc(ctx, err)
}

func (p *pass) dumpProc(ctx context.Context, why error) error {
	p.ns.Source = sourceProc
	rows, take := 0, p.taker()
	for s, err := range inetdiag.ProcSockets(ctx, p.netDir()) {
		if err != nil {
			if rows == 0 {
				return fmt.Errorf("collector: no socket can be seen: %w; and %w", why, err)
			}
			p.gap(stageDump, err, fmt.Sprintf("the sockets after the first %d", rows), "look again")
			break
		}
		rows++
		take(s)
	}
	if why != nil {
		p.gap(stageDump, why, "devices, bound sockets, and the age of CLOSE_WAIT sockets: /proc/net/tcp was read instead, which costs more",
			"allow NETLINK_SOCK_DIAG sockets (seccomp, gVisor) and load the kernel module tcp_diag")
	}
	return nil
}

// walk runs one dump and gives its rows to take; rows tells how many.
func (c sight) walk(ctx context.Context, q inetdiag.Query, take func(*inetdiag.Socket)) (rows int, err error) {
	if c.cfg.ForceProc {
		return 0, inetdiag.ErrNotSupported
	}
	if c.conn == nil {
		dial := c.dial
		if dial == nil {
			dial = func() (*inetdiag.Conn, error) { return inetdiag.Dial(nil) }
		}
		if c.conn, err = dial(); err != nil {
			return 0, err
		}
	}
	for s, e := range c.conn.Sockets(ctx, q) {
		if e != nil {
			err = e
			break
		}
		rows++
		take(s)
	}
	if err != nil {
		c.hangUp() // it may hold the rest of an answer
		if errors.Is(err, inetdiag.ErrInterrupted) {
			return rows, nil // every row was shown
		}
	}
	return rows, err
}

// hangUp drops the netlink socket; the next walk makes another.
func (c sight) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing was written to it that could be lost
		c.conn = nil
	}
}

// bound looks for sockets that block their port for every destination.
func (p *pass) bound(ctx context.Context) {
	recently := p.ledger.LastBound != 0 && p.start-p.ledger.LastBound < int64(boundEvery)
	switch many, tightest := p.sockets() >= manySockets, p.table.Tightest(); {
	case many && (recently || tightest < boundShare):
		return
	case p.sweep != nil && tightest == 0 && (recently || p.view != p.home): // one walk of so many, and no port is at stake
		return
	}
	if !listsBound(p.report.Kernel) {
		return
	}
	if _, err := p.walk(ctx, inetdiag.Query{States: inetdiag.StatesOf(inetdiag.BoundInactive)}, p.table.Bound); err != nil {
		p.gap(stageBound, err, "sockets that are bound and not connected: free ports are an upper bound", "look again")
		return
	}
	if p.table.LiveInRange() {
		// A TIME_WAIT always passes the filter, so asking for it would tell nothing.
		live := inetdiag.AllStates &^ inetdiag.StatesOf(inetdiag.TimeWait, inetdiag.Listen)
		if _, err := p.walk(ctx, inetdiag.Query{States: live, Filter: inetdiag.ExplicitBind()}, p.table.Bound); err != nil {
			p.gap(stageBound, err, "sockets that were bound before they connected: free ports are an upper bound", "look again")
			return
		}
	}
	p.table.SetBoundSeen()
	p.ledger.LastBound = p.start
}

// closeWaitAges learns since when each CLOSE_WAIT socket waits: see [finOf].
func (p *pass) closeWaitAges(ctx context.Context) {
	lookups := 0
	var failed error
	complete := p.table.CloseWaits(func(id inetdiag.ID, set func(flow.Age)) {
		fin, known := p.ledger.Fin(id.Cookie())
		if !known {
			if lookups++; lookups > maxLookups || failed != nil || p.conn == nil {
				return
			}
			var err error
			if fin, err = p.askFin(ctx, id); errors.Is(err, inetdiag.ErrNotFound) {
				return // closed since
			} else if err != nil {
				failed = err
				return
			}
		}
		set(p.ageOf(fin))
	})
	if failed == nil && (!complete || lookups > maxLookups) {
		failed = p.walkCloseWaits(ctx)
	}
	if failed != nil {
		p.hangUp()
		p.gap(stageCloseWait, failed, "the age of some CLOSE_WAIT sockets", "look again")
	}
}

// walkCloseWaits learns all ages in one walk.
func (p *pass) walkCloseWaits(ctx context.Context) error {
	p.table.ForgetCloseWaits()
	q := inetdiag.Query{States: inetdiag.StatesOf(inetdiag.CloseWait), Info: true}
	_, err := p.walk(ctx, q, func(s *inetdiag.Socket) {
		if info, ok := s.Info(); ok {
			p.table.AddAge(s, p.ageOf(p.ledger.Learn(s.Cookie(), finOf(&info, s.FilledAt(), s.FilledAt()))))
		}
	})
	if err == nil {
		p.table.SetAllAged()
	}
	return err
}

// compareBuckets sets what tcp_max_tw_buckets is compared with: the kernel's
// own count of mini-sockets where it can be read.
func (p *pass) compareBuckets() {
	w := &p.ns.TimeWait
	w.BucketsLimit = p.ns.Limits.TCPMaxTWBuckets
	if tw := p.sample.Sockstat.TimeWait; tw != nil {
		w.BucketsUsed = *tw
	}
	if entered := p.growth("TW"); entered != nil && w.OpenedPerSecondFloor && p.ns.CoveredSeconds > 0 {
		perSecond := float64(*entered) / p.ns.CoveredSeconds
		w.CloseRate, w.CloseRateBy = &perSecond, "counter"
	}
}

// countersOnly reads what costs nothing, so that a pass later knows growth, and
// tells about how many sockets there are in the Collector's own namespace.
func (c *Collector) countersOnly(ctx context.Context) (r *snapshot.Report, sockets int) {
	r = c.newReport()
	if c.sweep != nil {
		c.sweep.countersOnly(ctx, c, r)
	}
	p := c.begin(c.home, r)
	p.readCounters()
	p.readLimits()
	p.remember()
	r.Namespaces = append(r.Namespaces, p.ns)
	return r, p.sockets()
}

// remember hands on to the next pass what this one started from.
func (p *pass) remember() {
	p.ledger.LastStart, p.last = p.start, p.sample.Counters
}
