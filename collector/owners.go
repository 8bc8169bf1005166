package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/ledger"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/owner"
)

const (
	// maxHints is how many processes that own some of a flow are searched first
	// for the rest of it.
	maxHints = 256
	// maxDescriptors is how many processes with CLOSE_WAIT sockets, or connections
	// that they haven't accepted, have their descriptors counted in a pass, some
	// 50 µs each, and fewDescriptors how many without.
	maxDescriptors = 16
	fewDescriptors = 4
	// keepEvery is how often the processes are forgotten that nobody needs.
	keepEvery = 30 * time.Second
	// maxServices bounds what is remembered of which runtime serves which port.
	maxServices = 4096
)

// owners is what a Collector keeps to find the processes of sockets.
type owners struct {
	finder   *owner.Finder
	searched bool // a socket's process was looked for
	scanned  bool // of every socket wanted, once

	wants    []owner.Want
	hints    []int
	unknown  []bool          // by flow: some live sockets' processes aren't known
	counts   []processCount  // by a process's number
	counted  []uint16        // numbers that have a count
	groups   []group         // scratch of programs
	shares   []share         // scratch of programs
	services map[pair]served // asked for before
}

type processCount struct {
	live, closeWait uint32
	waiting         uint32 // connections that it hasn't accepted
}

// forsaken is what of a process's connections waits for it.
func (c *processCount) forsaken() uint32 { return c.closeWait + c.waiting }

type pair struct {
	port    uint16
	runtime string
}

// served is a service and how it is known.
type served struct{ id, by string }

// findOwners looks for the processes of the sockets that the dump showed and
// of which somebody will want to know whose they are, and counts for each
// process and flow. It reads no descriptor of anybody where no socket is held.
func (p *pass) findOwners(ctx context.Context) {
	live := p.table.Follow()
	p.keepProcesses()
	p.want(live)
	p.find(ctx)
	if p.owners.counts == nil {
		p.owners.counts = make([]processCount, ledger.MaxProcesses+1)
	}
	for _, n := range p.owners.counted {
		p.owners.counts[n] = processCount{}
	}
	p.owners.counted = p.owners.counted[:0]
	for i := range live {
		l := &live[i]
		n := p.table.Attribute(l, p.number(l.Inode, l.Known))
		if n == 0 {
			continue
		}
		c := p.owners.count(n)
		c.live++
		if l.CloseWait() {
			c.closeWait++
		}
	}
	if p.owners.searched {
		p.table.SetSearched()
	}
	p.findListeners()
}

// count is a process's count in this pass.
func (o *owners) count(n uint16) *processCount {
	c := &o.counts[n]
	if *c == (processCount{}) {
		o.counted = append(o.counted, n)
	}
	return c
}

// keepProcesses forgets processes whose connections are forgotten.
func (p *pass) keepProcesses() {
	l := &p.ledger
	if l.Processes.Len() > ledger.MaxProcesses*3/4 || p.start-l.LastKeep >= int64(keepEvery) {
		l.Processes.Keep(p.memory.Processes)
		l.LastKeep = p.start
	}
}

// want makes the list of sockets to find the processes of, the most telling
// first, and of processes that are likely to hold them: those that hold others
// of the same flows, or held them, and then whoever held any. Where connections
// are short each look sees new ones, and nothing else tells where to begin.
func (p *pass) want(live []flow.Live) {
	o := &p.owners
	o.wants, o.hints = o.wants[:0], o.hints[:0]
	for inode := range p.table.CloseWaitInodes {
		o.wants = append(o.wants, owner.Want{Inode: inode})
	}
	for _, inode := range p.table.Listeners {
		if inode != 0 {
			o.wants = append(o.wants, owner.Want{Inode: inode})
		}
	}
	if o.unknown == nil {
		o.unknown = make([]bool, flow.MaxFlows)
	}
	unknown := false
	for i := range live {
		l := &live[i]
		o.wants = append(o.wants, owner.Want{Inode: l.Inode, Cgroup: l.Cgroup})
		if l.Known == 0 {
			o.unknown[l.Flow()], unknown = true, true
		}
	}
	if !unknown {
		return
	}
	seen := make(map[uint16]bool, maxHints)
	hint := func(n uint16) (more bool) {
		if !seen[n] && len(seen) < maxHints {
			seen[n] = true
			o.hints = append(o.hints, p.ledger.Processes.At(n).PID)
		}
		return len(seen) < maxHints
	}
	for i := range live {
		if l := &live[i]; l.Known != 0 && o.unknown[l.Flow()] {
			hint(l.Known)
		}
	}
	for i := range live {
		if l := &live[i]; o.unknown[l.Flow()] {
			o.unknown[l.Flow()] = false
			p.table.ClosedBy(l, hint)
		}
	}
	p.ledger.Processes.Numbers(hint)
}

// find runs the search, and says what it lacks.
func (p *pass) find(ctx context.Context) {
	o := &p.owners
	if len(o.wants) == 0 {
		return
	}
	found, r := o.finder.Find(ctx, o.wants, o.hints)
	o.searched = true
	o.scanned = o.scanned || r.Pending == 0 || r.Swept
	missing := r.Pending + r.Failed + r.Dropped
	if r.Gap != nil && ctx.Err() == nil && missing > 0 {
		p.limited(r.Gap.Error(), "the processes of some sockets", ownerFix(r.Gap))
	}
	if r.Pending > 0 && !o.scanned {
		p.limited(fmt.Sprintf("%d of %d sockets' processes are not found yet: the first search is spread over several looks", r.Pending, found+missing),
			"the processes of these sockets", "look again, or for longer")
	}
}

func (p *pass) limited(why, lost, fix string) {
	p.report.Limited = append(p.report.Limited, snapshot.Gap{
		Stage: stageOwner, Namespace: p.ns.Name, Error: why, Lost: lost, Fix: fix,
	})
}

func ownerFix(err error) string {
	if _, ok := errors.AsType[*owner.DeniedError](err); ok {
		return "run as root, or grant CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE"
	}
	switch {
	case errors.Is(err, owner.ErrHidden):
		return "mount proc without hidepid, or run with CAP_SYS_PTRACE and without ProtectProc"
	case errors.Is(err, owner.ErrNested):
		return "run in the host's PID namespace: hostPID in Kubernetes, --pid=host in a container"
	case errors.Is(err, owner.ErrTooManyProcesses):
		return "nothing: the bound holds the memory and the work of a look"
	}
	return "check that proc is mounted and readable"
}

// number is the number of the process that holds a socket, likely the one it was
// before; 0 if it isn't known.
func (c sight) number(inode uint32, likely uint16) uint16 {
	o, ok := c.owners.finder.Owner(inode)
	if !ok {
		return 0
	}
	return c.ledger.Processes.Number(o, likely, c.runtimeOf)
}

// runtimeOf tells what kind of program a process is.
func (c sight) runtimeOf(o *owner.Process) string {
	id, _ := c.knowledge.Runtime(advice.ProcessHints{
		Comm: o.Comm, Exe: o.Exe, Title: o.Title, GoBuild: o.GoBuild, JavaMain: o.JavaMain, Script: o.Script,
	})
	return id
}

// ownerOf names the process that holds a socket.
func (c sight) ownerOf(inode uint32) (pid int, comm string) {
	if o, ok := c.owners.finder.Owner(inode); ok {
		return o.PID, o.Comm
	}
	return 0, ""
}

// A listening is a listener whose process is known.
type listening struct {
	addr    netip.Addr
	process uint16
}

// findListeners notes who listens, by port.
func (p *pass) findListeners() {
	for at, inode := range p.table.Listeners {
		if n := p.number(inode, 0); n != 0 {
			if p.listening == nil {
				p.listening = make(map[uint16][]listening)
			}
			p.listening[at.Port()] = append(p.listening[at.Port()], listening{at.Addr(), n})
		}
	}
}

// listener is the process that accepts connections to an address, nil if it
// isn't known. An address that isn't valid stands for any.
func (p *pass) listener(a netip.Addr, port uint16) *ledger.Process {
	var wild uint16
	for _, l := range p.listening[port] {
		switch {
		case l.addr == a:
			return p.ledger.Processes.At(l.process)
		case wild == 0 && (!a.IsValid() || l.addr.IsUnspecified() && (l.addr.Is6() || a.Is4())):
			wild = l.process
		}
	}
	return p.ledger.Processes.At(wild)
}

// localServer is the listener at the other end of a client's flow, if that is
// this namespace's own.
func (p *pass) localServer(f *snapshot.Flow) *ledger.Process {
	if len(p.listening[f.Port]) == 0 {
		return nil
	}
	remote, err := netip.ParseAddr(f.Remote)
	if err != nil {
		return nil
	}
	own := remote.IsLoopback() || f.Remote == f.Local ||
		slices.ContainsFunc(p.listening[f.Port], func(l listening) bool { return l.addr == remote })
	if !own {
		return nil
	}
	return p.listener(remote, f.Port)
}

// A group is what one program has of a flow.
type group struct {
	from, to     int // its processes among the shares, the heaviest first
	live, closed uint32
}

func (g *group) sockets() uint32 { return g.live + g.closed }

// owned writes down whose sockets a flow's are, and what service that makes it.
func (p *pass) owned(f *snapshot.Flow, shares []flow.Share) {
	if len(shares) > 0 {
		p.programs(f, shares)
	}
	var server *ledger.Process
	switch f.Side {
	case snapshot.Server:
		local, _ := netip.ParseAddr(f.Local) // a folded flow has none
		server = p.listener(local, f.Port)
		if server != nil && len(f.Processes) == 0 {
			f.Processes = append(f.Processes, describe(server, snapshot.ByListener))
		}
	case snapshot.Client:
		server = p.localServer(f)
	}
	p.service(f, server)
}

// A share is what one process has of a flow, with what orders it.
type share struct {
	flow.Share
	program, pid int32
}

func (s *share) compare(o *share) int {
	return cmp.Or(cmp.Compare(s.program, o.program), cmp.Compare(o.Live+o.Closed, s.Live+s.Closed), cmp.Compare(s.pid, o.pid))
}

// programs fills f.Processes: the shares, merged by program.
func (p *pass) programs(f *snapshot.Flow, shares []flow.Share) {
	o, processes := &p.owners, &p.ledger.Processes
	o.shares, o.groups = o.shares[:0], o.groups[:0]
	for _, s := range shares {
		q := processes.At(s.Process)
		o.shares = append(o.shares, share{s, int32(q.Program), int32(q.PID)})
	}
	slices.SortFunc(o.shares, func(a, b share) int { return a.compare(&b) })
	for i := range o.shares {
		s := &o.shares[i]
		if i == 0 || s.program != o.shares[i-1].program {
			o.groups = append(o.groups, group{from: i})
		}
		g := &o.groups[len(o.groups)-1]
		g.to = i + 1
		g.live += s.Live
		g.closed += s.Closed
	}
	first := func(g *group) *ledger.Process { return processes.At(o.shares[g.from].Process) }
	slices.SortFunc(o.groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(b.sockets(), a.sockets()), cmp.Compare(first(&a).Comm, first(&b).Comm), cmp.Compare(first(&a).PID, first(&b).PID))
	})
	all := float64(max(1, f.States.Total()))
	for _, g := range o.groups[:min(len(o.groups), snapshot.MaxProcesses)] {
		by := snapshot.ByInode
		if g.closed > g.live {
			by = snapshot.ByCookie
		}
		d := describe(first(&g), by)
		d.Sockets, d.Count = g.sockets(), g.to-g.from
		d.Share = float64(d.Sockets) / all
		if d.Count > 1 {
			d.PIDs = make([]int, 0, min(d.Count, snapshot.MaxPIDs))
			for _, s := range o.shares[g.from:min(g.to, g.from+snapshot.MaxPIDs)] {
				d.PIDs = append(d.PIDs, int(s.pid))
			}
		}
		f.Processes = append(f.Processes, d)
	}
}

// describe is a process for readers.
func describe(o *ledger.Process, by string) snapshot.Process {
	d := snapshot.Process{PID: o.PID, Count: 1, Comm: o.Comm, Exe: o.Exe, Cgroup: o.Cgroup, By: by}
	d.Runtime, d.RuntimeVersion = runtimeWithVersion(o)
	return d
}

func runtimeWithVersion(o *ledger.Process) (runtime, version string) {
	if o.Runtime == "" {
		return "", ""
	}
	return o.Runtime, o.Version
}

// service names a flow's service by who serves it, or by who asks, if a
// program speaks nothing else.
func (p *pass) service(f *snapshot.Flow, server *ledger.Process) {
	s := p.serves(f.Port, "")
	if s.by != advice.ByConfig {
		if server != nil && server.Runtime != "" {
			s = p.betterService(s, f.Port, server.Runtime)
		}
		if f.Side != snapshot.Server {
			for i := range f.Processes {
				s = p.betterService(s, f.Port, f.Processes[i].Runtime)
			}
		}
	}
	f.Service, f.ServiceBy = s.id, s.by
}

// betterService is s unless a runtime tells for sure what nothing did so far.
func (p *pass) betterService(s served, port uint16, runtime string) served {
	if s.by == advice.ByProcess || runtime == "" {
		return s
	}
	if by := p.serves(port, runtime); by.by == advice.ByProcess {
		return by
	}
	return s
}

// serves is what a runtime serves, or asks for, on a port.
func (p *pass) serves(port uint16, runtime string) served {
	key := pair{port, runtime}
	s, ok := p.owners.services[key]
	if !ok {
		service, by := p.knowledge.Service(port, runtime)
		s = served{service.ID, by}
		if p.owners.services == nil || len(p.owners.services) == maxServices {
			p.owners.services = make(map[pair]served)
		}
		p.owners.services[key] = s
	}
	return s
}

// fillOwners reports the processes with most CLOSE_WAIT sockets and connections
// that wait for accept(), then those with most others.
func (p *pass) fillOwners() {
	o := &p.owners
	for i := range p.ns.Listeners {
		l := &p.ns.Listeners[i]
		if n := p.number(l.Inode, 0); n != 0 && l.Queue > 0 {
			o.count(n).waiting += l.Queue
		}
	}
	slices.SortFunc(o.counted, func(a, b uint16) int {
		x, y := &o.counts[a], &o.counts[b]
		return cmp.Or(cmp.Compare(y.forsaken(), x.forsaken()), cmp.Compare(y.live, x.live),
			cmp.Compare(p.ledger.Processes.At(a).PID, p.ledger.Processes.At(b).PID))
	})
	for i, n := range o.counted[:min(len(o.counted), snapshot.MaxOwners)] {
		q := p.ledger.Processes.At(n)
		d := snapshot.Owner{
			PID: q.PID, Start: q.Start, Comm: q.Comm, Exe: q.Exe, Cgroup: q.Cgroup,
			Sockets: o.counts[n].live, CloseWait: o.counts[n].closeWait,
		}
		d.Runtime, d.RuntimeVersion = runtimeWithVersion(q)
		if i < fewDescriptors || i < maxDescriptors && o.counts[n].forsaken() > 0 {
			if used, limit, err := o.finder.Descriptors(q.PID, q.Start); err == nil {
				d.Descriptors = &used
				if limit != math.MaxInt { // no limit
					d.DescriptorLimit = &limit
				}
			}
		}
		p.ns.Owners = append(p.ns.Owners, d)
	}
}

// halfClosed asks when the CLOSE_WAIT sockets that will be reported last sent:
// one whose program has read the end and goes on sending isn't forgotten.
func (p *pass) halfClosed(ctx context.Context) {
	var failed error
	p.table.HalfClosed(func(id inetdiag.ID, sent func(ms int64)) {
		if failed != nil || p.conn == nil {
			return
		}
		info, err := p.conn.Lookup(ctx, id)
		switch {
		case errors.Is(err, inetdiag.ErrNotFound): // closed since
		case err != nil:
			failed = err
		default:
			sent((info.LastDataSent - time.Duration(inetdiag.Now()-p.start)).Milliseconds())
		}
	})
	if failed != nil {
		p.hangUp()
		p.gap(stageCloseWait, failed, "when some CLOSE_WAIT sockets last sent data", "look again")
	}
}
