package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/sysctl"
)

// Whatever a report holds: no line is too wide, nothing but visible text and
// line ends comes out, ASCII is ASCII, and colour changes nothing else.
func TestAnyReport(t *testing.T) {
	sgr := regexp.MustCompile("\x1b\\[[0-9]+m")
	for seed := range uint64(150) {
		rnd := random{rand.New(rand.NewPCG(seed, 1))}
		r := rnd.report()
		o := Options{Width: 40 + rnd.IntN(120), Flows: rnd.IntN(20), Verbose: rnd.IntN(2) == 0}
		o.Style.ASCII = rnd.IntN(2) == 0
		got := text(t, r, o)
		if fault := faults(got, o); fault != "" {
			t.Fatalf("seed %d, width %d: %s", seed, o.Width, fault)
		}
		if again := text(t, r, o); again != got {
			t.Fatalf("seed %d: the same report gave two texts", seed)
		}
		o.Style.Color = true
		if bare := sgr.ReplaceAllString(text(t, r, o), ""); bare != got {
			t.Fatalf("seed %d: colour changed the text (-want +got):\n%s", seed, cmp.Diff(got, bare))
		}
	}
}

// faults tells what is wrong with a text, "" if nothing is.
func faults(text string, o Options) string {
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		switch {
		case !ended:
			return "the last line has no end"
		case draw.Width(line) > o.Width:
			return fmt.Sprintf("%d columns: %s", draw.Width(line), line)
		case draw.Escape(line) != line:
			return fmt.Sprintf("not escaped: %q", line)
		case strings.TrimRight(line, " ") != line:
			return fmt.Sprintf("spaces at the end: %q", line)
		case o.Style.ASCII && strings.ContainsFunc(line, func(r rune) bool { return r > '~' }):
			return "not ASCII: " + line
		}
	}
	return ""
}

// random makes reports out of odd values.
type random struct{ *rand.Rand }

func (r random) pick(from ...string) string { return from[r.IntN(len(from))] }

func (r random) word() string {
	return r.pick("", "host", "nginx", "10.0.0.1", "2001:db8:1111:2222:3333:4444:5555:6666", "fe80::1%eth0", "10.1.2.0/24",
		"a\x1b]0;x\a", "zwei\nZeilen", "\u202eabc", "日本語のサービス名前", "e\u0301\u0301\u0301", "\xff\xfe", "→≤≥", "👩‍👩‍👧‍👦 \U000e0041",
		strings.Repeat("long", 80), strings.Repeat("many words ", 30), strings.Repeat("字", 60), "tab\tbed  spaces  ")
}

func (r random) count() int {
	switch r.IntN(4) {
	case 0:
		return 0
	case 1:
		return r.IntN(100)
	case 2:
		return r.IntN(60000)
	}
	return r.IntN(math.MaxInt32)
}

func (r random) number() *float64 {
	switch r.IntN(5) {
	case 0:
		return nil
	case 1:
		return new(math.NaN())
	case 2:
		return new(math.Inf(1 - 2*r.IntN(2)))
	}
	return new((r.Float64() - 0.1) * math.Pow10(r.IntN(20)-4))
}

func (r random) seconds() []uint32 {
	counts := make([]uint32, []int{0, 1, 60, 61}[r.IntN(4)])
	for i := range counts {
		counts[i] = uint32(r.count())
	}
	return counts
}

func (r random) states() snapshot.States {
	n := func() uint32 { return uint32(r.count()) }
	return snapshot.States{
		Established: n(), SynSent: n(), SynRecv: n(), FinWait1: n(), FinWait2: n(), TimeWait: n(),
		Close: n(), CloseWait: n(), LastAck: n(), Listen: n(), Closing: n(),
	}
}

func (r random) flow() snapshot.Flow {
	f := snapshot.Flow{
		Side: snapshot.Side(r.pick("client", "server", "unknown", "", r.word())), Device: r.word(), Local: r.word(), Remote: r.word(),
		Port: uint16(r.count()), Service: r.word(), States: r.states(), MissedAtMost: uint32(r.count()),
		CloseRate: r.number(), SurvivorsOnly: r.IntN(2) == 0, MeanLifetimeSeconds: r.number(), OpenedPerSecond: r.seconds(),
		CloseWait: snapshot.CloseWaitCount{Sockets: uint32(r.count()), OldestSeconds: r.number(), Unread: uint32(r.count()), Unaccepted: uint32(r.count())},
	}
	if r.IntN(3) > 0 {
		f.Ports = &snapshot.Ports{Range: r.count(), Reserved: r.count(), Blocked: r.count(), Used: r.count(), Free: r.count() - 5, AtMost: r.IntN(2) == 0}
		if r.IntN(2) == 0 {
			f.Ports.SecondsToExhaustion = new(r.count())
		}
	}
	for range r.IntN(6) {
		f.Processes = append(f.Processes, snapshot.Process{PID: r.count(), Comm: r.word(), Share: r.Float64()})
	}
	return f
}

func (r random) namespace() *snapshot.Namespace {
	if r.IntN(8) == 0 {
		return nil
	}
	ns := &snapshot.Namespace{
		Name: r.word(), Kind: r.word(), States: r.states(),
		TimeWait: snapshot.TimeWait{
			BucketsUsed: r.count(), OpenedPerSecond: r.seconds(), OpenedPerSecondFloor: r.IntN(2) == 0,
			CloseRate: r.number(), CloseRateBy: r.pick("timers", "counter"),
		},
		Omitted: snapshot.Omitted{Flows: r.count() - 1, States: r.states()},
	}
	if r.IntN(2) == 0 {
		ns.TimeWait.BucketsLimit = new(r.count() - 1)
	}
	if r.IntN(2) == 0 {
		ns.Limits.IPLocalPortRange = &sysctl.PortRange{Low: uint16(r.count()), High: uint16(r.count())}
		ns.Ports = &snapshot.PortPool{Range: r.count(), Reserved: r.count(), BlockedListen: r.count(), Blocked: r.count(), BoundSeen: r.IntN(2) == 0}
	}
	for range r.IntN(15) {
		ns.Flows = append(ns.Flows, r.flow())
	}
	return ns
}

func (r random) report() *snapshot.Report {
	rep := &snapshot.Report{
		Host: r.word(), Kernel: r.word(), TookSeconds: r.Float64(), Time: time.Unix(int64(r.count()), 0),
		Verdict: snapshot.Severity(r.pick("healthy", "warning", "critical", "", r.word())),
	}
	for range r.IntN(4) {
		rep.Namespaces = append(rep.Namespaces, r.namespace())
		rep.NotJudged = append(rep.NotJudged, r.word())
		rep.Incomplete = append(rep.Incomplete, snapshot.Gap{Stage: r.word(), Namespace: r.word(), Error: r.word(), Lost: r.word(), Fix: r.word()})
	}
	for range r.IntN(25) {
		f := snapshot.Finding{
			ID: r.word(), Severity: snapshot.Severity(r.pick("info", "warning", "critical", r.word())), Namespace: r.word(),
			Summary: r.word(), BecauseOf: r.word(), Since: time.Unix(int64(r.count()), 0),
		}
		for range r.IntN(4) {
			value := 1.5
			if v := r.number(); v != nil {
				value = *v
			}
			f.Evidence = append(f.Evidence, snapshot.Evidence{What: r.word(), Value: value, Unit: r.pick("s", "ratio", "%", "1/s", "ports", r.word()), Source: r.word()})
			f.Recommendations = append(f.Recommendations, snapshot.Recommendation{
				Title: r.word(), Do: r.word(), Snippet: r.word(), Effect: r.word(), Caveats: []string{r.word()}, References: []string{r.word()},
			})
		}
		rep.Findings = append(rep.Findings, f)
	}
	return rep
}
