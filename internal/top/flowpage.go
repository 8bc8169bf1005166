package top

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// What a flow's page shows of 4-tuples, and asks for: each list is filtered
// once more, since a query knows no local address.
const (
	shownLive     = 100
	shownTimeWait = 100
	askedSockets  = 400
)

// A tupleList is the 4-tuples of a flow as far as they are known.
type tupleList struct {
	live, timeWait []snapshot.Socket
	more           bool // than are listed
	note           string
	err            string
	loading        bool
	at             time.Time // when they were listed; zero: with the report
}

// queries ask for a flow's sockets, live ones first, since a dump shows
// TIME_WAITs before one comes to what still lives. ok is false for a flow that
// has no addresses to ask for.
func queries(f *snapshot.Flow) (live, timeWait snapshot.SocketQuery, ok bool) {
	var q snapshot.SocketQuery
	if f.Remote == "" || f.Port == 0 {
		return q, q, false
	}
	if strings.Contains(f.Remote, "/") {
		p, err := netip.ParsePrefix(f.Remote)
		if err != nil {
			return q, q, false
		}
		q.Remote = p
	} else {
		a, err := netip.ParseAddr(f.Remote)
		if err != nil {
			return q, q, false
		}
		a = a.Unmap().WithZone("")
		q.Remote = netip.PrefixFrom(a, a.BitLen())
	}
	q.Port, q.Limit = f.Port, askedSockets
	live, timeWait = q, q
	for name := range f.States.Named {
		switch name {
		case "time_wait", "listen", "close":
		default:
			live.States = append(live.States, name)
		}
	}
	timeWait.States = []string{"time_wait"}
	return live, timeWait, true
}

// belongs reports whether a socket that a query found is the flow's.
func belongs(f *snapshot.Flow, s *snapshot.Socket) bool {
	localEnd, err1 := netip.ParseAddrPort(s.Local)
	remoteEnd, err2 := netip.ParseAddrPort(s.Remote)
	if err1 != nil || err2 != nil || s.Device != f.Device && f.Device != "" {
		return false
	}
	port := remoteEnd.Port()
	if f.Side == snapshot.Server {
		port = localEnd.Port()
	}
	if port != f.Port {
		return false
	}
	if a, err := netip.ParseAddr(f.Local); err == nil && a.Unmap().WithZone("") != localEnd.Addr().Unmap().WithZone("") {
		return false
	}
	if strings.Contains(f.Remote, "/") {
		p, err := netip.ParsePrefix(f.Remote)
		return err == nil && snapshot.Covers(p, remoteEnd.Addr())
	}
	a, err := netip.ParseAddr(f.Remote)
	return err == nil && a.Unmap().WithZone("") == remoteEnd.Addr().Unmap().WithZone("")
}

// take adds a list's sockets of the flow to those known.
func (t *tupleList) take(f *snapshot.Flow, list *snapshot.SocketList) {
	for i := range list.Sockets {
		s := &list.Sockets[i]
		if !belongs(f, s) {
			continue
		}
		switch {
		case s.State != "time_wait" && len(t.live) < shownLive:
			t.live = append(t.live, *s)
		case s.State == "time_wait" && len(t.timeWait) < shownTimeWait:
			t.timeWait = append(t.timeWait, *s)
		default:
			t.more = true
		}
	}
	t.more = t.more || list.Truncated
	t.note = join("; ", t.note, list.Lost)
}

// sampled is what a recorded namespace's sample has of a flow.
func sampled(ns *snapshot.Namespace, f *snapshot.Flow) tupleList {
	var t tupleList
	if ns.SocketsOf == nil && len(ns.Sockets) == 0 {
		t.note = "the recording holds no single sockets: record --sockets=N adds a sample of them"
		return t
	}
	t.take(f, &snapshot.SocketList{Sockets: ns.Sockets})
	if of := ns.SocketsOf; of != nil && *of > len(ns.Sockets) {
		t.note = "from a random sample of " + draw.Count(int64(len(ns.Sockets))) + " of the " + plural(*of, "socket")
	}
	return t
}

// flowPage tells all of a flow.
func flowPage(p *writer, ns *snapshot.Namespace, f *snapshot.Flow, r *snapshot.Report, tuples *tupleList) {
	side := "side unknown: neither a listener nor the ephemeral range tells which end connected"
	switch f.Side {
	case snapshot.Client:
		side = "this host connects"
	case snapshot.Server:
		side = "this host is the server"
	}
	p.head(peer(f))
	p.field("from", join(", ", f.Local, f.Device, "namespace "+ns.Name))
	p.field("side", side)
	if f.Service != "" {
		p.field("service", join(" ", f.Service, byWords(f.ServiceBy)))
	}
	p.field("states", states(&f.States))
	ratesOf(p, f)
	portsOf(p, f.Ports)
	closeWaitsOf(p, f)
	timelineOf(p, f)
	processesOf(p, f)
	p.related(r, func(fi *snapshot.Finding) bool {
		s := &fi.Subject
		return fi.Namespace == ns.Name && s.Remote == f.Remote && s.Port == f.Port && (s.Local == "" || s.Local == f.Local) && (s.Side == "" || s.Side == f.Side)
	})
	p.blank()
	tuplesOf(p, tuples)
}

func byWords(by string) string {
	if by == "port" {
		return "(by its port: usually so)"
	}
	if by == "" {
		return ""
	}
	return "(known by " + by + ")"
}

func ratesOf(p *writer, f *snapshot.Flow) {
	if f.CloseRate == nil {
		p.field("closes", "not known")
	} else {
		floor, mean := "", ""
		if f.CloseRateAtLeast {
			floor = "at least "
		}
		if f.CloseRateSeconds > 0 {
			mean = "the mean of the last " + draw.Duration(f.CloseRateSeconds)
		}
		p.field("closes", join(", ", floor+draw.Rate(*f.CloseRate)+" into TIME_WAIT here", mean))
	}
	if f.SurvivorsOnly {
		p.field("", "tcp_tw_reuse takes sockets over: the timeline shows those that are left")
	}
	if f.MeanLifetimeSeconds != nil {
		p.field("lifetime", draw.Duration(*f.MeanLifetimeSeconds)+" from connect() to close(), in the mean")
	}
	if f.LongLived != nil && f.States.Established > 0 {
		p.field("long-lived", draw.Count(int64(*f.LongLived))+" of "+draw.Count(int64(f.States.Established))+" open connections were there at an earlier look")
	}
}

func portsOf(p *writer, ports *snapshot.Ports) {
	if ports == nil {
		return
	}
	share := portShare(ports)
	usable := max(0, ports.Range-ports.Reserved)
	bound := ""
	if ports.AtMost {
		bound = "at most "
	}
	p.line(span{draw.PadRight("ports", labelWidth), dim}, span{p.style.Bar(share, max(8, min(40, p.width-50)), slowShare), portLook(share)},
		plain(" "+draw.Percent(share)+" used"))
	p.field("", join(", ", bound+draw.Count(int64(max(0, ports.Free)))+" of "+draw.Count(int64(usable))+" free",
		counted(ports.Used, "used by this flow"), counted(ports.Blocked, "blocked by others' binds"),
		counted(ports.Reusable, "of them reusable now"), counted(ports.Reserved, "reserved")))
	switch {
	case ports.Free <= 0:
		p.field("", "no port is left: connect() fails")
	case ports.SecondsToExhaustion != nil:
		p.field("", "none is left in "+draw.Duration(float64(*ports.SecondsToExhaustion))+" at this rate")
	}
	if share >= slowShare && ports.Free > 0 {
		p.field("", "past the half: connect() has to search, and is slower")
	}
	if ports.Bound > 0 {
		p.field("", plural(ports.Bound, "port")+" taken by bind() before connect(), lost to every other destination")
	}
}

func closeWaitsOf(p *writer, f *snapshot.Flow) {
	w := &f.CloseWait
	if w.Sockets == 0 {
		return
	}
	oldest := "age unknown"
	if w.OldestSeconds != nil {
		oldest = "the oldest for " + draw.Duration(*w.OldestSeconds)
		if w.OldestAtLeast {
			oldest = "the oldest for at least " + draw.Duration(*w.OldestSeconds)
		}
	}
	p.field("CLOSE_WAIT", join(", ", draw.Count(int64(w.Sockets)), oldest,
		counted(w.EOFRead, "with the end read"), counted(w.Unread, "with unread data"), counted(w.Unaccepted, "never accepted")))
}

func counted[N int | uint32](n N, words string) string {
	if n == 0 {
		return ""
	}
	return draw.Count(int64(n)) + " " + words
}

func timelineOf(p *writer, f *snapshot.Flow) {
	if len(f.OpenedPerSecond) == 0 {
		return
	}
	values := seconds(f.OpenedPerSecond)
	width := sparkWidth(p.width - labelWidth)
	p.line(span{draw.PadRight("timeline", labelWidth), dim}, plain(p.style.Sparkline(values, width)))
	p.field("", "closes in each second of the last minute, now on the right; the most: "+draw.Count(int64(slices.Max(values))))
}

// sparkWidth is the most columns that 60 seconds divide evenly into.
func sparkWidth(room int) int {
	for _, even := range []int{60, 30, 20, 15, 12} {
		if room >= even {
			return even
		}
	}
	return 10
}

func processesOf(p *writer, f *snapshot.Flow) {
	switch {
	case f.Attributed == nil:
		p.field("processes", "not looked for")
		return
	case len(f.Processes) == 0:
		p.field("processes", "none is known: connections are too short to be seen alive, or the right to look is lacking")
		return
	}
	p.field("processes", "known for "+draw.Percent(*f.Attributed)+" of the sockets")
	for i := range f.Processes {
		q := &f.Processes[i]
		pids := "pid " + strconv.Itoa(q.PID)
		if q.Count > 1 {
			pids = strconv.Itoa(q.Count) + " processes, pid " + strconv.Itoa(q.PID) + " and others"
		}
		share := plural(int(q.Sockets), "socket") + " (" + draw.Percent(q.Share) + ")"
		if q.By == snapshot.ByListener {
			share = "listens there"
		}
		p.paragraph(labelWidth, 2, join(", ", q.Comm+" ("+pids+")", share, "by "+q.By, join(" ", q.Runtime, q.RuntimeVersion)))
		p.paragraph(labelWidth+2, 2, join(", ", q.Exe, q.Cgroup))
	}
}

// tuplesOf lists single sockets.
func tuplesOf(p *writer, t *tupleList) {
	head := "4-tuples"
	if !t.at.IsZero() {
		head += " at " + t.at.UTC().Format("15:04:05") + ": r lists them anew"
	}
	p.head(head)
	switch {
	case t.loading:
		p.paragraph(2, 0, "being listed …")
		return
	case t.err != "":
		p.paragraph(2, 0, "could not be listed: "+t.err)
		return
	}
	if t.note != "" {
		p.paragraph(2, 0, t.note)
	}
	all := slices.Concat(t.live, t.timeWait)
	if len(all) == 0 {
		if t.note == "" {
			p.paragraph(2, 0, "none is left")
		}
		return
	}
	wide, state := 0, 0
	for i := range all {
		wide = max(wide, draw.Width(p.style.Clean(all[i].Local)))
		state = max(state, len(all[i].State))
	}
	for i := range all {
		s := &all[i]
		line := "  " + draw.PadRight(strings.ToUpper(s.State), state) + " " + draw.PadRight(p.style.Clean(s.Local), wide) + " → " + s.Remote
		p.line(plain(line), span{"  " + tupleNotes(s), dim})
	}
	if t.more {
		p.paragraph(2, 0, "and more, not listed: twwatch sockets lists them")
	}
}

func tupleNotes(s *snapshot.Socket) string {
	var age, timer, queues, owner string
	switch {
	case s.AgeSeconds != nil && s.AgeAtLeast:
		age = "≥" + tight(*s.AgeSeconds)
	case s.AgeSeconds != nil:
		age = tight(*s.AgeSeconds)
	case s.Timer != "" && s.TimerSeconds != nil:
		timer = s.Timer + " " + tight(*s.TimerSeconds)
	}
	if s.RecvQ+s.SendQ > 0 {
		queues = "recv-q " + strconv.Itoa(int(s.RecvQ)) + " send-q " + strconv.Itoa(int(s.SendQ))
	}
	if s.PID != 0 {
		owner = s.Comm + " " + strconv.Itoa(s.PID)
	}
	return join(", ", age, timer, queues, owner)
}
