package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
)

// Findings about short connections.
const (
	ShortClient       = "short-connections-client"
	ShortServer       = "short-connections-server"
	ShortReset        = "short-connections-reset"
	ShortRemoteCloses = "short-connections-remote-closes"
	ShortCured        = "short-connections-cured"
)

// Evidence that a later judgement reads again.
const (
	evidenceRate = "connections closed"
	evidencePeak = "new connections at the peak"
	evidenceKept = "connections kept open"
	evidenceFar  = "closed first by the other end"

	sourceTimers = "TIME_WAIT timers of inet_diag (ss -tno state time-wait)"
	sourceOpen   = "inet_diag (ss -tn state established)"
)

// How a load is told from a burst.
const (
	recentSeconds = 10 // as the rates of flows look back
	// busySeconds of the last ten must have closes.
	busySeconds = 5
	// holdSeconds is how long a TIME_WAIT holds its port.
	holdSeconds = advice.TimeWaitSeconds
)

func shortRules() []rule {
	return []rule{
		{ids: []string{ShortClient}, judge: judgeClients},
		{ids: []string{ShortServer}, judge: judgeServers},
		{ids: []string{ShortReset}, judge: judgeResets, silent: lacks("TCPAbortOnClose", "TCPAbortOnData")},
		{ids: []string{ShortRemoteCloses}, judge: judgeRemoteCloses, silent: lacks("ActiveOpens", "TW")},
		{ids: []string{ShortCured}, judge: judgeCured, silent: func(s *scene) bool { return s.before == nil && len(s.previous) == 0 }},
	}
}

func shortConsequences() []consequence {
	var all []consequence
	for _, cause := range []string{ShortClient, ShortRemoteCloses} {
		for _, of := range []string{PortsExhausted, PortsRunningOut, PortsSlow} {
			all = append(all, consequence{cause: cause, of: of})
		}
		all = append(all, consequence{cause: cause, of: ShortServer, when: sameConnections})
	}
	for _, of := range []string{BucketsNear, BucketsOverflow, ConntrackNear} {
		all = append(all, consequence{cause: ShortClient, of: of, when: mostTimeWait})
	}
	return append(all,
		consequence{cause: ShortClient, of: Harmless, when: func(*scene, *found, *found) bool { return true }}, // its server's
		consequence{cause: ShortServer, of: Harmless, when: mostTimeWait},
		consequence{cause: ShortCured, of: ShortCured, when: bothEnds})
}

// sameConnections tells whether a server's closes are the other half of a
// client's that is here too: who closes first is a race.
func sameConnections(s *scene, cause, of *found) bool {
	var all, same float64
	for _, f := range of.flows {
		all += present(f)
		if slices.ContainsFunc(cause.all(), func(c *snapshot.Flow) bool { return s.twin(c) == f }) {
			same += present(f)
		}
	}
	return all > 0 && same*2 >= all
}

// bothEnds tells whether a server's connections are a client's that is here too.
func bothEnds(s *scene, cause, of *found) bool {
	return slices.ContainsFunc(cause.all(), func(c *snapshot.Flow) bool {
		o := s.twin(c)
		return o != nil && slices.Contains(of.flows, o)
	})
}

// mostTimeWait tells whether a cause's flows have at least half of the
// namespace's TIME_WAIT.
func mostTimeWait(s *scene, cause, _ *found) bool {
	var n uint64
	for _, f := range cause.all() {
		n += uint64(f.States.TimeWait)
	}
	return n > 0 && n*2 >= uint64(s.ns.States.TimeWait)
}

// all are the flows that a finding is about.
func (f *found) all() []*snapshot.Flow {
	if f.flows == nil && f.flow != nil {
		return []*snapshot.Flow{f.flow}
	}
	return f.flows
}

// churn is what client flows of one program make.
type churn struct {
	group
	own    float64 // closes here, 1/s
	remote float64 // closes by the other end, 1/s
	twin   float64 // of these, by a server on this host
	life   float64 // seconds, at most
	known  bool    // life is not only a bound
	kept   *uint32 // connections that stay; nil: not known
	// spent: the load has ended, but its TIME_WAIT still hold the ports.
	spent bool
}

func (c *churn) all() float64 { return c.own + c.remote }

// served tells whether a server on this host closes nearly all: they take no
// port then, and a handshake on one host is cheap.
func (c *churn) served(least float64) bool { return c.own < least && c.twin >= c.all()/2 }

// judgeClients looks for clients that open a connection for each request.
func judgeClients(s *scene) []*found {
	var flows []*snapshot.Flow
	holds := s.remoteCloses(true)
	for _, f := range s.clients() {
		if c := s.churnOf(group{[]*snapshot.Flow{f}, subject(f)}, holds); s.churns(f, &c) {
			flows = append(flows, f)
		}
	}
	slices.SortStableFunc(flows, func(a, b *snapshot.Flow) int { return cmp.Compare(present(b), present(a)) })
	var all []*found
	far := s.remoteCloses(false) // a load that holds loses so many to the other end just now
	for _, g := range s.fold(flows, ShortClient) {
		c := s.churnOf(g, far)
		all = append(all, s.clientFinding(&c))
	}
	return s.most(append(all, s.healthChecks()...))
}

// clients are the client flows, and those that a finding was about and of which
// nothing is left at this look, since the server here closes first: its flow
// tells of them.
func (s *scene) clients() []*snapshot.Flow {
	var flows []*snapshot.Flow
	for i := range s.ns.Flows {
		if f := &s.ns.Flows[i]; f.Side == snapshot.Client && !folded(f) {
			flows = append(flows, f)
		}
	}
	for i := range s.previous {
		p := &s.previous[i]
		if p.ID != ShortClient || p.Namespace != s.ns.Name {
			continue
		}
		f := &snapshot.Flow{
			Side: snapshot.Client, Device: p.Subject.Device, Local: p.Subject.Local, Remote: p.Subject.Remote, Port: p.Subject.Port,
			Service: p.Subject.Service, LongLived: new(uint32(0)),
		}
		if s.twin(f) == nil || slices.ContainsFunc(flows, func(o *snapshot.Flow) bool { return keyOf(o) == keyOf(f) }) {
			continue
		}
		f.ServiceBy = s.twin(f).ServiceBy
		if comm := p.Subject.Process; comm != "" {
			f.Processes = []snapshot.Process{{Comm: comm}}
			if i := slices.IndexFunc(s.ns.Owners, func(o snapshot.Owner) bool { return o.Comm == comm }); i >= 0 {
				f.Processes[0].Runtime, f.Processes[0].RuntimeVersion = s.ns.Owners[i].Runtime, s.ns.Owners[i].RuntimeVersion
			}
		}
		flows = append(flows, f)
	}
	return flows
}

// churnOf sums a group.
func (s *scene) churnOf(g group, far remoteChurn) churn {
	c := churn{group: g}
	var open, kept uint32
	known := true
	for _, f := range g.flows {
		c.own += present(f)
		c.twin += s.twinRate(f)
		if far.flow == f {
			c.remote += far.rate
		}
		open += f.States.Established
		if f.LongLived == nil {
			known = false
		} else {
			kept += min(*f.LongLived, f.States.Established)
		}
	}
	c.remote += c.twin
	if known && s.steadily(g.flows, kept) {
		c.kept = &kept
	} else if known {
		c.kept = new(uint32(0))
	}
	rate := c.all()
	if minute := s.lastMinute(g.flows) / 60; rate < minute && s.portsSpent(g.flows[0]) {
		c.spent, rate = true, minute
	}
	c.life = life(open-kept, rate)
	c.known = open > kept && rate > 0
	return c
}

// life is the mean lifetime in seconds by Little's law; where none is open it
// is at most that of one.
func life(open uint32, rate float64) float64 {
	if rate <= 0 {
		return math.Inf(1)
	}
	return float64(max(open, 1)) / rate
}

// steadily tells whether connections were kept at every look of the last minute
// that tells: a request that happened to be there at two looks is no pool.
func (s *scene) steadily(flows []*snapshot.Flow, kept uint32) bool {
	if kept == 0 {
		return false
	}
	for i := range s.history {
		m := &s.history[i]
		if m.ago > growthSeconds {
			continue
		}
		var before uint32
		known := true
		for _, f := range flows {
			o := m.flow(f)
			if o == nil || o.LongLived == nil {
				known = false
				break
			}
			before += *o.LongLived
		}
		if known && before == 0 {
			return false
		}
	}
	return true
}

// churns tells whether a flow's connections are short, many and no burst.
func (s *scene) churns(f *snapshot.Flow, c *churn) bool {
	t := &s.settings.Thresholds
	held := s.heldFlow(f, ShortClient)
	limit := t.of(shortLifetime, false)
	if held {
		limit /= leaves
	}
	if c.life >= limit {
		return false
	}
	least := t.of(shortRate, held)
	if c.own+s.twinRate(f) >= least && s.sustained(f, held) {
		return true
	}
	// Its load may have ended, for want of ports even; what it left is the
	// trouble now.
	minute := timelineSum(f, 60, 0)
	return s.portsSpent(f) && minute/60 >= least && busy(f.OpenedPerSecond) >= busySeconds
}

// portsSpent tells whether a flow's TIME_WAIT hold most of the ports that are
// missing, where over half are.
func (s *scene) portsSpent(f *snapshot.Flow) bool {
	held := s.heldFlow(f, PortsSlow, PortsRunningOut, PortsExhausted)
	return usablePorts(f) > 0 && taken(f) > s.settings.Thresholds.of(portsSlow, held) && !lostToBinds(f) &&
		int(f.States.TimeWait)*2 >= usablePorts(f)-f.Ports.Free
}

// sustained tells a load from a burst of some seconds.
func (s *scene) sustained(f *snapshot.Flow, held bool) bool {
	line := f.OpenedPerSecond
	if o := s.twin(f); o != nil {
		line = together(line, o.OpenedPerSecond)
	}
	switch {
	case held, busy(line[max(0, len(line)-recentSeconds):]) >= busySeconds:
		return true
	case !f.SurvivorsOnly:
		return false
	}
	// Where sockets are recycled fast only the last second may be left of any
	// load: then the counter tells, or an earlier look at other seconds.
	least := s.settings.Thresholds.of(shortRate, false)
	for i := range s.history {
		m := &s.history[i]
		if o := m.flow(f); o != nil && m.ago >= max(busySeconds/2, f.CloseRateSeconds) && m.ago <= growthSeconds && present(o) >= least {
			return true
		}
	}
	recycled, known := s.rate("TWRecycled")
	return known && recycled >= least
}

// together sums two timelines, both of which end now.
func together(a, b []uint32) []uint32 {
	if len(a) < len(b) {
		a, b = b, a
	}
	sum := slices.Clone(a)
	for i, n := range b {
		at := len(a) - len(b) + i
		sum[at] = saturate(sum[at], n)
	}
	return sum
}

// busy is how many seconds of a timeline have closes.
func busy(line []uint32) int {
	n := 0
	for _, v := range line {
		if v > 0 {
			n++
		}
	}
	return n
}

// present is the rate at which a flow's connections close now. The flow's own
// is the mean of a minute when the last ten seconds hold too few closes, and
// that of less than a second where sockets are recycled: then these count, of
// which some may be gone.
func present(f *snapshot.Flow) float64 {
	if f.CloseRate == nil {
		return 0
	}
	rate := finite(*f.CloseRate)
	if f.CloseRateSeconds > recentSeconds && len(f.OpenedPerSecond) > 0 {
		rate = min(rate, timelineSum(f, recentSeconds, 0)/recentSeconds)
	}
	if f.SurvivorsOnly {
		rate = max(rate, timelineSum(f, recentSeconds, 0)/recentSeconds)
	}
	return max(0, rate)
}

// timelineSum is the closes of a flow from so many seconds ago on until so many.
func timelineSum(f *snapshot.Flow, since, until int) float64 {
	var sum float64
	line := f.OpenedPerSecond
	for i := max(0, len(line)-since); i < len(line)-until; i++ {
		sum += float64(line[i])
	}
	return sum
}

func (s *scene) lastMinute(flows []*snapshot.Flow) float64 {
	var sum float64
	for _, f := range flows {
		sum += timelineSum(f, 60, 0)
	}
	return sum
}

// twinRate is how many of a client flow's connections the server here closes.
func (s *scene) twinRate(f *snapshot.Flow) float64 {
	if o := s.twin(f); o != nil {
		return present(o)
	}
	return 0
}

func (s *scene) clientFinding(c *churn) *found {
	f := c.flows[0]
	finding := &found{
		Finding: snapshot.Finding{ID: ShortClient, Severity: snapshot.Info, Subject: c.subject},
		flow:    f, flows: c.flows,
	}
	t := &s.settings.Thresholds
	serious := false
	if e := s.earlier(ShortClient, c.subject); e != nil {
		serious = e.Severity != snapshot.Info
	}
	if s.demand(f) >= t.of(shortDemand, serious) || c.all() >= t.of(shortWarningRate, serious) && !c.served(t.of(shortRate, serious)) {
		finding.Severity = snapshot.Warning
	}
	who, there := clientSide(c.flows), destination(c.flows)
	how := c.how(s)
	if c.kept != nil && *c.kept > 0 {
		finding.Summary = fmt.Sprintf("%s keeps %s to %s and opens new ones beside %s (%s): the pool is too small%s.",
			who, number(int(*c.kept), "connection"), there, plural(int(*c.kept), "it", "them"), how, s.effects(c))
	} else {
		finding.Summary = fmt.Sprintf("%s opens a new connection to %s for every request (%s)%s.", who, there, how, s.effects(c))
	}
	finding.Evidence = s.clientEvidence(c)
	finding.situations = s.clientSituations(c)
	return finding
}

// how many, how short, and who closes them.
func (c *churn) how(s *scene) string {
	text := draw.Rate(c.all())
	if c.spent {
		text = draw.Count(int64(s.lastMinute(c.flows))) + " in the last minute"
	}
	if len(c.flows) > 1 {
		text += " in all"
	}
	switch {
	case c.known:
		text += ", each lives " + draw.Duration(c.life)
	case c.life < math.MaxFloat64:
		text += ", each lives less than " + draw.Duration(c.life)
	}
	switch all := c.all(); {
	case all <= 0 || c.remote < all/10:
	case c.own == 0:
		text += ", the other end closes them first"
	default:
		text += ", the other end closes " + share(c.remote/all) + " of them first"
	}
	return text
}

// effects is what the churn of a flow does to its ports.
func (s *scene) effects(c *churn) string {
	f := c.flows[0]
	for _, o := range c.flows {
		if usablePorts(o) > 0 && taken(o) > taken(f) {
			f = o
		}
	}
	if usablePorts(f) == 0 || taken(f) < 0.01 {
		return ""
	}
	to := "to it"
	if len(c.flows) > 1 {
		to = "to the tightest"
	}
	if f.Ports.Free <= 0 {
		return "; no port " + to + " is left, and connect() fails with EADDRNOTAVAIL"
	}
	share := share(taken(f))
	if f.Ports.AtMost {
		share = "at least " + share
	}
	text := fmt.Sprintf("; %s of the ports %s are taken", share, to)
	slow := taken(f) > s.settings.Thresholds.of(portsSlow, s.heldFlow(f, PortsSlow, PortsRunningOut, PortsExhausted))
	const slower = "connect() is slower (about 100 times, measured on Linux 6.18)"
	switch p := f.Ports.SecondsToExhaustion; {
	case slow && p != nil:
		text += fmt.Sprintf(", %s, and none is left in %s", slower, draw.Duration(float64(*p)))
	case slow:
		text += " and " + slower
	case p != nil:
		text += fmt.Sprintf(" and none is left in %s", draw.Duration(float64(*p)))
	}
	return text
}

// hold is how long a close of the flow takes a port, in seconds.
func (s *scene) hold(f *snapshot.Flow) float64 {
	if !f.SurvivorsOnly { // no TIME_WAIT is taken over
		return holdSeconds
	}
	if d := s.ns.Limits.TCPTWReuseDelay; d != nil && *d > 0 {
		return float64(*d) / 1000
	}
	return 1
}

// demand is the share of its ports that a flow's closes hold at the present
// rate; 0 where the ports are not known.
func (s *scene) demand(f *snapshot.Flow) float64 {
	ports := usablePorts(f)
	if ports == 0 {
		return 0
	}
	return present(f) * s.hold(f) / float64(max(1, ports-f.Ports.Blocked))
}

func (s *scene) clientEvidence(c *churn) []snapshot.Evidence {
	f := c.flows[0]
	var open, waiting uint32
	for _, o := range c.flows {
		open, waiting = open+o.States.Established, waiting+o.States.TimeWait
	}
	what := "mean lifetime, at most"
	if c.known {
		what = "mean lifetime"
	}
	e := []snapshot.Evidence{
		{What: evidenceRate, Value: finite(c.own), Unit: "1/s", Source: sourceTimers},
		{What: evidencePeak, Value: finite(s.peakOf(c)), Unit: "1/s", Source: "highest of the looks kept"},
		{What: what, Value: finite(c.life), Unit: "s", Source: "Little's law: connections open and not kept / rate"},
		{What: "open connections", Value: float64(open), Unit: "sockets", Source: sourceOpen},
	}
	if c.kept != nil {
		e = append(e, snapshot.Evidence{What: evidenceKept, Value: float64(*c.kept), Unit: "sockets", Source: "seen at two looks at least, by cookie"})
	} else if open > 0 {
		e[len(e)-1].Source += "; a single look can't tell whether a pool keeps some of them"
	}
	e = append(e, snapshot.Evidence{What: "TIME_WAIT", Value: float64(waiting), Unit: "sockets", Source: "inet_diag (ss -tn state time-wait)"})
	if c.remote > 0 {
		e = append(e, snapshot.Evidence{What: evidenceFar, Value: finite(c.remote), Unit: "1/s", Source: "Tcp ActiveOpens less TcpExt TW, or TIME_WAIT of the server here"})
	}
	if usablePorts(f) > 0 {
		e = append(e,
			snapshot.Evidence{What: "ports needed at this rate", Value: finite(s.demand(f)), Unit: "ratio", Source: fmt.Sprintf("rate x %v s / usable ports", s.hold(f))},
			snapshot.Evidence{What: "ports taken", Value: finite(taken(f)), Unit: "ratio", Source: "inet_diag, ip_local_port_range"},
		)
	}
	if len(c.flows) > 1 {
		e = append(e, snapshot.Evidence{What: "destinations", Value: float64(len(c.flows)), Unit: "", Source: "inet_diag"})
	}
	return e
}

// peakOf is the highest rate seen: now, at the looks kept, or when the finding
// was last made. Where sockets are recycled the rate is that of less than a
// second; each second before, of which some are left, had as many at least.
func (s *scene) peakOf(c *churn) float64 {
	peak := c.all()
	for _, e := range []*snapshot.Finding{s.earlier(ShortClient, c.subject), s.earlier(ShortRemoteCloses, c.subject)} {
		if v, ok := evidence(e, evidencePeak); ok {
			peak = max(peak, v)
		}
	}
	if len(c.flows) == 1 {
		if p := s.peak(c.flows[0]); p != nil {
			peak = max(peak, *p)
		}
		if f := c.flows[0]; f.SurvivorsOnly && len(f.OpenedPerSecond) > 0 {
			peak = max(peak, float64(slices.Max(f.OpenedPerSecond)))
		}
	}
	return peak
}

// evidence is a number that a finding was made with.
func evidence(f *snapshot.Finding, what string) (float64, bool) {
	if f != nil {
		for _, e := range f.Evidence {
			if e.What == what {
				return e.Value, true
			}
		}
	}
	return 0, false
}

// clientSituations tell a missing pool from one that is too small. A single
// look can't: both kinds of advice are then given.
func (s *scene) clientSituations(c *churn) []advice.Situation {
	f := c.flows[0]
	of := func(pattern string) advice.Situation {
		a := s.situation(pattern, f)
		share := 1.0 // of the group's connections that other ends close, f's part
		if len(c.flows) > 1 {
			share = 1 / float64(len(c.flows))
		}
		rate := present(f) + c.remote*share
		if a.Numbers.Rate == nil || *a.Numbers.Rate < rate {
			a.Numbers.Rate = new(rate)
		}
		open := f.States.Established
		if pattern == advice.NoPool && f.LongLived != nil {
			open -= min(open, *f.LongLived)
		}
		if a.Numbers.Lifetime = nil; open > 0 && rate > 0 {
			a.Numbers.Lifetime = new(float64(open) / rate)
		}
		return a
	}
	switch {
	case c.kept != nil && *c.kept > 0:
		return []advice.Situation{of(advice.PoolTooSmall)}
	case c.kept == nil && f.States.Established > 0:
		return []advice.Situation{of(advice.NoPool), of(advice.PoolTooSmall)}
	}
	return []advice.Situation{of(advice.NoPool)}
}

// number is a count with its thing: "1 connection", "2 connections".
func number(n int, thing string) string {
	return draw.Count(int64(n)) + " " + plural(n, thing, thing+"s")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
