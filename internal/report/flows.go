package report

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// usualDescriptors is the usual limit of open files of a process (ulimit -n),
// against which CLOSE_WAIT sockets are weighed when flows are ranked.
const usualDescriptors = 1024

// nearest ranks a namespace's flows by how near they are to trouble: the share
// taken of the ports, of the TIME_WAIT buckets or of a usual process'
// descriptors, whichever is greatest.
func nearest(ns *snapshot.Namespace) []*snapshot.Flow {
	flows := make([]*snapshot.Flow, len(ns.Flows))
	for i := range ns.Flows {
		flows[i] = &ns.Flows[i]
	}
	trouble := func(f *snapshot.Flow) float64 {
		t := max(share(int(f.States.TimeWait), ns.TimeWait.BucketsLimit), float64(f.States.CloseWait)/usualDescriptors)
		if f.Ports != nil {
			t = max(t, portShare(f.Ports))
		}
		return t
	}
	slices.SortStableFunc(flows, func(a, b *snapshot.Flow) int {
		return cmp.Or(
			cmp.Compare(trouble(b), trouble(a)),
			cmp.Compare(b.States.TimeWait, a.States.TimeWait),
			cmp.Compare(b.States.Total(), a.States.Total()),
			cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Local, b.Local), cmp.Compare(a.Port, b.Port),
		)
	})
	return flows
}

// The columns of a flow's numbers. Two spaces, or one and a mark, precede the
// sparkline.
const (
	colTimeWait  = 11 // with the margin of 2
	colEstab     = 8
	colCloseWait = 11
	colRate      = 9
	colFree      = 17 // "≤28,232 of 28,232"
	minSpark     = 10
)

// sparkWidth is what is left for a sparkline; 0 if the table doesn't fit.
func (p *page) sparkWidth() int {
	n := p.Width - colTimeWait - colEstab - colCloseWait - colRate - 2 - 1 - colFree
	if p.Style.ASCII {
		n-- // "<=" for "≤"
	}
	if n < minSpark {
		return 0
	}
	// 60 seconds in columns of equally many: 10, 12, 15, 20, 30, 60.
	for _, even := range []int{60, 30, 20, 15, 12} {
		if n >= even {
			return even
		}
	}
	return minSpark
}

// flows writes the table of flows and counts what it doesn't show.
func (p *page) flows(ns *snapshot.Namespace) {
	ranked := nearest(ns)
	if len(ranked) == 0 {
		p.line(plain("  no connections"))
		return
	}
	spark := p.sparkWidth()
	if spark > 0 {
		p.line(span{draw.PadLeft("TIME_WAIT", colTimeWait) + draw.PadLeft("ESTAB", colEstab) + draw.PadLeft("CLOSE_WAIT", colCloseWait) +
			draw.PadLeft("CLOSES/S", colRate) + "  " + draw.PadRight("LAST MINUTE", spark) +
			draw.PadLeft("PORTS FREE", p.Width-colTimeWait-colEstab-colCloseWait-colRate-2-spark), p.Style.Dim})
	}
	for _, f := range ranked[:min(len(ranked), p.Flows)] {
		p.endpoints(f)
		if spark > 0 {
			p.numbers(f, spark)
		} else {
			p.paragraph(4, 2, nil, p.numbersInWords(f))
		}
		if notes := notes(f); notes != "" {
			p.paragraph(4, 2, p.noteColour(f), notes)
		}
	}
	if more := len(ranked) - p.Flows; more > 0 {
		p.paragraph(2, 2, p.Style.Dim, "and "+plural(more, "more flow")+": --flows shows more")
	}
}

// endpoints writes who is connected to whom, in two lines where one is too
// narrow.
func (p *page) endpoints(f *snapshot.Flow) {
	local, arrow, remote := f.Local, "→ ", f.Remote
	switch {
	case remote == "":
		remote = "the rest"
	case strings.Contains(remote, "/"):
		remote = "others in " + remote
	}
	switch f.Side {
	case snapshot.Server:
		arrow = "← "
		local = withPort(local, f.Port)
	case snapshot.Client:
		remote = withPort(remote, f.Port)
	default:
		arrow = "↔ "
		remote = withPort(remote, f.Port)
	}
	if f.Device != "" {
		local += "%" + f.Device
	}
	unknown := ""
	if f.Side != snapshot.Client && f.Side != snapshot.Server {
		unknown = "side unknown"
	}
	what := join(", ", f.Service, f.RemoteName, unknown)
	if what != "" {
		what = " (" + what + ")"
	}
	if local != "" {
		local += " "
	}
	if p.width("  "+local+arrow+remote+what) <= p.Width {
		p.line(plain("  "), span{local + arrow + remote, p.Style.Bold}, plain(what))
		return
	}
	p.line(plain("  "), span{local, p.Style.Bold})
	p.paragraph(4, 2, p.Style.Bold, arrow+remote+what)
}

// withPort appends a port to an address or to words about one.
func withPort(address string, port uint16) string {
	n := strconv.Itoa(int(port))
	switch _, err := netip.ParseAddr(address); {
	case port == 0:
		return address
	case address == "":
		return "port " + n
	case err != nil:
		return address + " port " + n
	case strings.Contains(address, ":"):
		return "[" + address + "]:" + n
	}
	return address + ":" + n
}

// numbers writes a flow's row.
func (p *page) numbers(f *snapshot.Flow, spark int) {
	timeWait := number(int(f.States.TimeWait))
	if f.MissedAtMost > 0 {
		timeWait = "≥" + timeWait
	}
	floor := "  "
	if (f.SurvivorsOnly || f.CloseRateAtLeast) && len(f.OpenedPerSecond) > 0 {
		floor = " ≥"
		if p.Style.ASCII {
			floor = ">="
		}
	}
	closing := ""
	if n := f.States.CloseWait; n > 0 {
		closing = number(int(n))
	}
	row := draw.PadLeft(p.clean(timeWait), colTimeWait) + draw.PadLeft(number(int(f.States.Established)), colEstab)
	line := p.Style.Sparkline(seconds(f.OpenedPerSecond), spark)
	free := draw.PadLeft(p.clean(portsFree(f)), p.Width-colTimeWait-colEstab-colCloseWait-colRate-2-spark)
	p.line(
		plain(row), span{draw.PadLeft(cmp.Or(closing, "0"), colCloseWait), p.when(closing != "", p.Style.Yellow)},
		plain(draw.PadLeft(p.clean(closeRate(f)), colRate)+floor+draw.PadRight(line, spark)),
		span{free, p.portColour(f.Ports)},
	)
}

// numbersInWords is the row where a table is too wide.
func (p *page) numbersInWords(f *snapshot.Flow) string {
	floor := ""
	if f.MissedAtMost > 0 {
		floor = "≥"
	}
	free := ""
	if f.Ports != nil {
		free = portsFree(f) + " ports free"
	}
	return join(", ",
		floor+number(int(f.States.TimeWait))+" TIME_WAIT", number(int(f.States.Established))+" established",
		number(int(f.States.CloseWait))+" CLOSE_WAIT", closeRate(f)+" closes/s", free)
}

// notes says what the columns can't: how long ports last, CLOSE_WAIT's ages,
// the owners.
func notes(f *snapshot.Flow) string {
	var exhausted, blocked, lifetime string
	if ports := f.Ports; ports != nil {
		switch {
		case ports.Free <= 0:
			exhausted = "no port left: connect() fails"
		case ports.SecondsToExhaustion != nil:
			exhausted = "out of ports in " + draw.Duration(float64(*ports.SecondsToExhaustion)) + " at this rate"
		}
		if ports.Blocked*100 >= ports.Range { // fewer stand in the namespace's own line
			blocked = plural(ports.Blocked, "port") + " blocked by others' binds"
		}
	}
	if f.MeanLifetimeSeconds != nil && f.CloseRate != nil && *f.CloseRate >= 1 {
		lifetime = "a connection lives " + draw.Duration(*f.MeanLifetimeSeconds)
	}
	return join("; ", exhausted, closeWaitNote(f), blocked, lifetime, owners(f))
}

// ownersShown is how many programs of a flow are named.
const ownersShown = 3

// owners says whose the flow's sockets are, as far as it is known.
func owners(f *snapshot.Flow) string {
	list := ""
	for i := range f.Processes {
		proc := &f.Processes[i]
		if i == ownersShown {
			list = join(", ", list, "and "+draw.Count(int64(len(f.Processes)-i))+" more")
			break
		}
		who := "pid " + strconv.Itoa(proc.PID)
		if proc.Count > 1 {
			who = plural(proc.Count, "process")
		}
		if proc.By == snapshot.ByListener {
			list = join(", ", list, proc.Comm+" ("+who+") listens")
			continue
		}
		list = join(", ", list, "by "+proc.Comm+" ("+who+", "+draw.Percent(proc.Share)+")")
	}
	return list
}

func closeWaitNote(f *snapshot.Flow) string {
	w := f.CloseWait
	if w.Sockets == 0 {
		return ""
	}
	oldest, read, unread, unaccepted := "age unknown", "", "", ""
	if w.OldestSeconds != nil {
		oldest = "the oldest "
		if w.OldestAtLeast {
			oldest += "≥ "
		}
		oldest += draw.Duration(*w.OldestSeconds)
	}
	if w.EOFRead > 0 {
		read = number(int(w.EOFRead)) + " read to the end and not closed"
	}
	if w.Unread > 0 {
		unread = number(int(w.Unread)) + " with unread data"
	}
	if w.Unaccepted > 0 {
		unaccepted = number(int(w.Unaccepted)) + " never accepted"
	}
	return "CLOSE_WAIT: " + join(", ", oldest, read, unread, unaccepted)
}

func (p *page) noteColour(f *snapshot.Flow) func(string) string {
	if f.Ports != nil && (f.Ports.Free <= 0 || f.Ports.SecondsToExhaustion != nil) {
		return p.Style.Red
	}
	return p.Style.Dim
}

// portColour warns from the half on, where connect() begins to search long.
func (p *page) portColour(ports *snapshot.Ports) func(string) string {
	switch {
	case ports == nil:
		return nil
	case portShare(ports) >= 0.8:
		return p.Style.Red
	case portShare(ports) >= 0.5:
		return p.Style.Yellow
	}
	return nil
}

func (p *page) when(condition bool, paint func(string) string) func(string) string {
	if condition {
		return paint
	}
	return nil
}

// portsFree is "232 of 28,232"; a dash where the flow takes no ephemeral port,
// "unknown" where it does and the range can't be read.
func portsFree(f *snapshot.Flow) string {
	switch {
	case f.Ports == nil && f.Side == snapshot.Client:
		return "unknown"
	case f.Ports == nil:
		return "–"
	}
	bound := ""
	if f.Ports.AtMost {
		bound = "≤"
	}
	return bound + number(max(0, f.Ports.Free)) + " of " + number(max(0, f.Ports.Range-f.Ports.Reserved))
}

// number is a count in at most 9 columns: in full up to 9,999,999.
func number(n int) string {
	if n > 9_999_999 {
		return draw.Short(float64(n))
	}
	return draw.Count(int64(n))
}

// closeRate is closes per second; a dash where that is unknown.
func closeRate(f *snapshot.Flow) string {
	switch {
	case f.CloseRate == nil:
		return "–"
	case f.CloseRateAtLeast:
		return "≥" + draw.Short(*f.CloseRate)
	}
	return draw.Short(*f.CloseRate)
}

func seconds(counts []uint32) []int {
	values := make([]int, len(counts))
	for i, c := range counts {
		values[i] = int(c)
	}
	return values
}
