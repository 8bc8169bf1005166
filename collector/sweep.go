package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/netns"
)

const (
	// seenWithin is how old what is known of a namespace that moved may become,
	// so that each TIME_WAIT, which lives 60 s, is seen once.
	seenWithin = 55 * time.Second
	// busySockets is from how many sockets on, and busyPorts from what share of
	// the range that one flow uses or all sockets together could use, a namespace
	// that moves is dumped in every pass, as far as the budget goes.
	busySockets = 1000
	busyPorts   = 0.25
)

// A sweep watches the namespaces beside the Collector's own. In every pass it
// reads two small files of each, and dumps the sockets of those that moved: a
// dump costs a walk through the sockets of all namespaces, however few are of
// the one that is asked for. What it keeps holds no namespace alive.
type sweep struct {
	watcher *netns.Watcher
	chosen  Selection
	names   namer
	home    other             // the Collector's own, which is read by itself
	others  map[uint64]*other // by serial
	// dumpCost is the CPU time that a dump took of late.
	dumpCost time.Duration
	order    []*other // scratch
}

// other is one of these namespaces.
type other struct {
	view
	*netns.Namespace
	named
	pulse  netns.Pulse // as of felt
	felt   int64
	feltAt time.Time // the same time
	dumpAt int64     // when its sockets were last read; 0 never
	// dumpPulse was the pulse just before that, and found what was read.
	dumpPulse netns.Pulse
	found     *snapshot.Namespace
	moved     bool // since then, or that isn't known
	fresh     bool // read in this pass
}

// How pressing a dump is.
const (
	pressing = iota // what is known is old, or nothing is
	useful          // it moves, and much happens in it
	needless
)

// urgency tells how pressing one is now, where the next pass begins at next.
func (o *other) urgency(next int64) int {
	switch {
	case o.found == nil, o.moved && next-o.dumpAt >= int64(seenWithin):
		return pressing
	case o.moved && (o.Kind == netns.KindHost || o.busy()):
		return useful
	}
	return needless
}

func (o *other) busy() bool {
	sockets := o.pulse.TimeWait + o.pulse.InUse
	if sockets >= busySockets || o.found.States.CloseWait > 0 {
		return true
	}
	// A small range runs out within seconds of the last dump.
	if r := o.found.Limits.IPLocalPortRange; r != nil && float64(sockets) >= busyPorts*float64(r.Size()) {
		return true
	}
	for i := range o.found.Flows {
		if p := o.found.Flows[i].Ports; p != nil && float64(p.Used) >= busyPorts*float64(p.Range-p.Reserved) {
			return true
		}
	}
	return false
}

// run looks at the other namespaces, and returns the CPU time that this took on
// another thread. home is what the Collector's own namespace
// takes of the budget.
func (s *sweep) run(ctx context.Context, c *Collector, r *snapshot.Report, home time.Duration) (dumps time.Duration) {
	began, visited := threadCPU(), s.visitorCPU(c)
	s.follow(ctx, c, r)
	s.feel(r)
	next := inetdiag.Now() + int64(c.stretched())
	slices.SortFunc(s.order, func(a, b *other) int {
		return cmp.Or(cmp.Compare(a.urgency(next), b.urgency(next)), cmp.Compare(a.dumpAt, b.dumpAt),
			cmp.Compare(b.pulse.TimeWait+b.pulse.InUse, a.pulse.TimeWait+a.pulse.InUse), cmp.Compare(a.Serial, b.Serial))
	})
	budget, most := c.allowance(c.cfg.Interval), c.allowance(MaxInterval)
	unseen, late := 0, 0
	for _, o := range s.order {
		urgency := o.urgency(next)
		if urgency == needless || ctx.Err() != nil {
			break
		}
		cost := home + threadCPU() - began + dumps + s.dumpCost
		if cost > budget && urgency != pressing || cost > most && dumps > 0 { // at least one comes to its turn
			switch {
			case o.found == nil:
				unseen++
			case urgency == pressing:
				late++
			}
			continue
		}
		used := s.dump(ctx, c, o, r)
		dumps += used
		if s.dumpCost == 0 {
			s.dumpCost = used
		}
		s.dumpCost = (3*s.dumpCost + used) / 4
	}
	s.show(r)
	if unseen > 0 {
		r.Limited = append(r.Limited, snapshot.Gap{
			Stage: stageNamespaces, Error: fmt.Sprintf("%d of %d namespaces wait for their first look: the CPU budget is used up", unseen, len(s.others)),
			Lost: "what is in them", Fix: "wait for the next passes, or raise --cpu-budget",
		})
	}
	if late > 0 {
		r.Limited = append(r.Limited, snapshot.Gap{
			Stage: stageNamespaces, Error: fmt.Sprintf("%d of %d namespaces moved, and wait to be read again: the CPU budget is used up", late, len(s.others)),
			Lost: "what happened in them since", Fix: "raise --cpu-budget, or leave some out with --netns.exclude",
		})
	}
	return max(dumps, s.visitorCPU(c)-visited) // some pulses are taken there, too
}

// visitorCPU is the CPU time that the thread which enters namespaces has used.
func (s *sweep) visitorCPU(c *Collector) (cpu time.Duration) {
	if home := s.own(c); home != nil {
		_ = s.watcher.Visit(home, func() error { cpu = threadCPU(); return nil })
	}
	return cpu
}

// own is the Collector's own namespace as the watcher lists it, nil if it doesn't.
func (s *sweep) own(c *Collector) *netns.Namespace {
	for _, n := range s.watcher.List() {
		if n.Inode == c.home.id.inode {
			return n
		}
	}
	return nil
}

// allowance is the CPU time that a pass may take where the next one follows
// after an interval.
func (c *Collector) allowance(interval time.Duration) time.Duration {
	if c.cfg.CPUBudget >= 1 {
		return 1 << 62
	}
	return time.Duration(c.cfg.CPUBudget * float64(interval))
}

// countersOnly reads what a later look needs to know growth.
func (s *sweep) countersOnly(ctx context.Context, c *Collector, r *snapshot.Report) {
	s.follow(ctx, c, r)
	for _, o := range s.others {
		if o.Trouble != nil || ctx.Err() != nil {
			continue
		}
		p := c.begin(&o.view, r)
		err := s.watcher.Visit(o.Namespace, func() error {
			p.readCounters()
			p.readLimits()
			p.remember()
			return o.view.Close()
		})
		if err == nil { // else the look itself will tell
			r.Namespaces = append(r.Namespaces, p.ns)
		}
	}
}

// follow learns which namespaces there are.
func (s *sweep) follow(ctx context.Context, c *Collector, r *snapshot.Report) {
	changes, err := s.watcher.Refresh()
	if err != nil && ctx.Err() == nil {
		s.gap(stageNamespaces, r, "", err, "namespaces that are new or gone", "check that proc is mounted and readable")
	}
	for _, n := range changes.Gone {
		if o := s.others[n.Serial]; o != nil {
			_ = o.view.Close() // it was only read from
			delete(s.others, n.Serial)
		}
	}
	s.names.refresh(ctx, r)
	for _, n := range s.watcher.List() {
		if n.Inode == c.home.id.inode {
			continue
		}
		o := s.others[n.Serial]
		if o == nil {
			o = &other{Namespace: n}
		}
		s.names.name(o)
		if !s.chosen.wants(&o.named) {
			delete(s.others, n.Serial)
			continue
		}
		o.id = identity{name: o.named.name, kind: o.kind, host: n.Kind == netns.KindHost, inode: n.Inode, cookie: n.Cookie}
		s.others[n.Serial] = o
	}
	s.tell(r, &changes)
}

// tell says what of the namespaces isn't looked at.
func (s *sweep) tell(r *snapshot.Report, changes *netns.Changes) {
	limited := func(why, lost, fix string) {
		r.Limited = append(r.Limited, snapshot.Gap{Stage: stageNamespaces, Error: why, Lost: lost, Fix: fix})
	}
	if changes.Gap != nil {
		fix := "check that proc is mounted and readable"
		if _, ok := errors.AsType[*netns.DeniedError](changes.Gap); ok {
			fix = "run as root, or grant CAP_SYS_PTRACE"
		}
		limited(strings.ReplaceAll(changes.Gap.Error(), "\n", "; "), "the namespaces of some processes", fix)
	}
	if n := changes.OverAll; n > 0 {
		limited(fmt.Sprintf("%d namespaces are more than the %d that are watched", n, netns.DefaultMaxNamespaces), "what is in them",
			"nothing: the bound holds the memory and the work of a look")
	}
	if n := changes.OverGroup; n > 0 {
		limited(fmt.Sprintf("%d namespaces are of a cgroup that has %d others", n, netns.DefaultMaxPerGroup), "what is in them",
			"give those that matter a name (ip netns attach NAME PID): what is mounted isn't counted")
	}
	closed, why := 0, error(nil)
	for _, o := range s.others {
		if o.Trouble != nil {
			closed, why = closed+1, o.Trouble
		}
	}
	if closed > 0 {
		limited(fmt.Sprintf("%d of %d namespaces can't be entered (%v)", closed, len(s.others), why), "what is in them", "run as root, or grant CAP_SYS_ADMIN and CAP_SYS_PTRACE")
	}
}

// feel reads each namespace's pulse, and puts those that can be dumped in order.
func (s *sweep) feel(r *snapshot.Report) {
	s.order = s.order[:0]
	failed, why := 0, error(nil)
	for _, o := range s.others {
		o.fresh = false
		if o.Trouble != nil {
			continue
		}
		// Where it is gone the next pass knows another way to it, or that it is dead.
		if err := o.feel(s.watcher); err != nil && !errors.Is(err, netns.ErrGone) {
			failed, why = failed+1, err
		}
		s.order = append(s.order, o)
	}
	if failed > 0 {
		s.gap(stageNamespaces, r, "", fmt.Errorf("%d namespaces: %w", failed, why), "whether anything moved in them", "look again")
	}
}

// feel reads the pulse, and tells by it whether something moved.
func (o *other) feel(w *netns.Watcher) error {
	pulse, err := w.Pulse(o.Namespace)
	o.felt, o.feltAt = inetdiag.Now(), time.Now()
	if err != nil {
		o.moved = true
		return err
	}
	o.pulse = pulse
	o.moved = o.found != nil && movedSince(&o.dumpPulse, &pulse, &o.found.States)
	return nil
}

// keep keeps what was found after the last pulse.
func (o *other) keep(found *snapshot.Namespace, start int64) {
	o.found, o.dumpAt, o.dumpPulse, o.fresh, o.moved = found, start, o.pulse, true, false
}

// still tells whether what was last found in the Collector's own namespace is
// there unmoved. What is asked of its sockets one by one needs a dump.
func (s *sweep) still(c *Collector) bool {
	h := &s.home
	if h.Namespace = s.own(c); h.Namespace == nil {
		return false
	}
	h.named = named{name: c.home.id.name, kind: c.home.id.kind}
	err := h.feel(s.watcher)
	return err == nil && h.found != nil && !h.moved && c.reservoir == nil && c.cfg.LiveEvery == 0
}

// movedSince tells whether anything but the age of TIME_WAIT sockets can be
// other than it was when those states were found. Where their number alone falls
// they have expired; what else a timer ends shows in no counter, or, of IPv6, in
// none that is read.
func movedSince(before, now *netns.Pulse, found *snapshot.States) bool {
	if now.InSegs != before.InSegs || now.OutSegs != before.OutSegs || now.InUse != before.InUse || now.TimeWait > before.TimeWait {
		return true
	}
	if found.SynSent+found.SynRecv+found.FinWait1+found.LastAck+found.Closing > 0 {
		return true
	}
	return found.FinWait2 > 0 && now.TimeWait < before.TimeWait
}

// dump reads a namespace's sockets.
func (s *sweep) dump(ctx context.Context, c *Collector, o *other, r *snapshot.Report) (used time.Duration) {
	var p *pass
	err := s.watcher.Visit(o.Namespace, func() error {
		cpu := threadCPU()
		p = c.begin(&o.view, r)
		p.interval = MaxInterval
		err := p.run(ctx)
		p.ns.Addresses = addresses()
		// An open socket of it would keep the namespace alive; the settings'
		// files wouldn't, but they are 30 for each.
		err = errors.Join(err, o.view.Close())
		used = threadCPU() - cpu
		return err
	})
	switch {
	case err == nil:
		p.ns.Workload = o.workload
		o.keep(p.ns, p.start)
	case errors.Is(err, netns.ErrGone), ctx.Err() != nil:
	default:
		s.gap(stageDump, r, o.named.name, err, "what is in the namespace", "look again; if it stays, report it")
	}
	return used
}

// only is the one namespace that is chosen.
func (s *sweep) only(ctx context.Context, c *Collector) (*other, error) {
	const most = 8 // names in an error
	r := c.newReport()
	s.follow(ctx, c, r)
	var names []string
	for _, o := range s.others {
		names = append(names, o.named.name)
	}
	slices.Sort(names)
	switch {
	case len(names) > 1:
		return nil, fmt.Errorf("%d namespaces match, of which one is wanted: %q", len(names), names[:min(len(names), most)])
	case len(names) == 0 && len(r.Limited)+len(r.Incomplete) > 0:
		g := append(r.Incomplete, r.Limited...)[0]
		return nil, fmt.Errorf("no such network namespace can be seen: %s: %s", g.Error, g.Fix)
	}
	for _, o := range s.others {
		return o, nil
	}
	return nil, errors.New("there is no such network namespace: check --netns=all lists those that are there")
}

func (s *sweep) gap(stage string, r *snapshot.Report, namespace string, err error, lost, fix string) {
	r.Incomplete = append(r.Incomplete, snapshot.Gap{Stage: stage, Namespace: namespace, Error: err.Error(), Lost: lost, Fix: fix})
}

func (s *sweep) close() error { return errors.Join(s.names.close(), s.watcher.Close()) }
