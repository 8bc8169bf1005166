//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/ledger"
)

// machine is where it was measured.
type machine struct{ cpu, kernel, goVersion string }

func thisMachine() machine {
	m := machine{cpu: "unknown CPU", goVersion: runtime.Version()}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	}
	return m
}

// series are values of one quantity, one of each turn.
type series []float64

func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is the median with the least and the greatest value.
func (s series) spread(decimals int) string {
	if len(s) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", decimals, s.median(), decimals, slices.Min(s), decimals, slices.Max(s))
}

// ratios are a ÷ b, turn by turn.
func ratios(a, b []int64) (s series) {
	for i := range a {
		s = append(s, float64(a[i])/float64(b[i]))
	}
	return s
}

func milliseconds(ns []int64) (s series) {
	for _, v := range ns {
		s = append(s, float64(v)/1e6)
	}
	return s
}

func sum(ns []int64) (total float64) {
	for _, v := range ns {
		total += float64(v)
	}
	return total
}

// over is what a pass costs over the floor in milliseconds, and the same without
// the walk for bound sockets, where the passes had it.
func (p *passes) over() (with, without series) {
	for i := range p.PassNS {
		extra := p.PassNS[i] - p.FloorNS[i]
		with = append(with, float64(extra)/1e6)
		if p.BoundSeen {
			extra -= p.BoundNS[i]
		}
		without = append(without, float64(extra)/1e6)
	}
	return with, without
}

// target is a promise and what became of it.
type target struct {
	what, limit, measured string
	met                   bool
}

// Targets.
const (
	ratioFew     = 1.2
	ratioSingle  = 1.6
	overSmall    = 1.0 // ms
	ratioOwners  = 1.2
	memoryMiB    = 48
	check100k    = 1.0 / 4
	check1M      = 1.0 / 5
	largeTable   = 100_000
	largestTable = 1_000_000
)

func (r *results) targets() (list []target) {
	for _, t := range r.tables {
		ratio := ratios(t.passes.PassNS, t.passes.FloorNS).median()
		name := fmt.Sprintf("one pass, %s sockets, %s", thousands(t.rows), remotes(t.single))
		_, without := t.passes.over()
		switch {
		case t.rows >= largeTable && t.single:
			list = append(list, target{name, fmt.Sprintf("≤ %.1f × floor", ratioSingle), fmt.Sprintf("%.2f ×", ratio), ratio <= ratioSingle})
		case t.rows >= largeTable:
			list = append(list, target{name, fmt.Sprintf("≤ %.1f × floor", ratioFew), fmt.Sprintf("%.2f ×", ratio), ratio <= ratioFew})
		case !t.single:
			over := without.median()
			list = append(list, target{name, fmt.Sprintf("≤ floor + %.0f ms", overSmall), fmt.Sprintf("+ %.2f ms", over), over <= overSmall})
		}
		for _, c := range t.commands {
			limit := check100k
			if t.rows >= largestTable {
				limit = check1M
			}
			if t.rows >= largeTable && strings.HasPrefix(c.name, "twwatch check") {
				ratio := ratios(c.ns, c.ssNS).median()
				list = append(list, target{
					fmt.Sprintf("`%s`, %s sockets", c.name, thousands(t.rows)),
					fmt.Sprintf("≤ 1/%.0f of `%s`", 1/limit, theSS), fmt.Sprintf("1/%.1f", 1/ratio), ratio <= limit,
				})
			}
		}
	}
	return append(append(list, r.otherTargets()...), r.scrapeTargets()...)
}

func (r *results) otherTargets() (list []target) {
	var many []float64
	for _, m := range r.mallocs {
		if m.flows >= manyRemotes && !m.bound {
			many = append(many, float64(m.mallocs))
		}
	}
	if len(many) > 1 {
		least, most := slices.Min(many), slices.Max(many)
		list = append(list, target{
			"allocations of a pass", "the same for any number of sockets",
			fmt.Sprintf("%.0f to %.0f", least, most), most <= least*1.02,
		})
	}
	if o := r.owners; o != nil {
		ratio := ratios(o.WithNS, o.WithoutNS).median()
		list = append(list, target{
			fmt.Sprintf("one pass that knows every socket's process, %s sockets beside %s processes", thousands(o.Rows), thousands(o.Processes)),
			fmt.Sprintf("≤ %.1f × one that doesn't look", ratioOwners), fmt.Sprintf("%.2f ×", ratio), ratio <= ratioOwners,
		})
	}
	if m := r.memory; m != nil {
		list = append(list,
			target{
				fmt.Sprintf("`twwatch serve`, %s sockets, %s remotes: resident at its peak", thousands(m.rows), thousands(m.remotes)),
				fmt.Sprintf("≤ %d MiB", memoryMiB), fmt.Sprintf("%.1f MiB", mib(m.peakKiB)), m.peakKiB <= memoryMiB<<10,
			},
			target{
				"remotes of 0.1 % of the sockets each that are reported", fmt.Sprintf("%d of %d", m.heavy, m.heavy),
				fmt.Sprintf("%d of %d", m.found, m.heavy), m.found == m.heavy,
			})
	}
	return append(append(list, r.top.targets()...), r.sweep.targets()...)
}

func mib(kib int) float64 { return float64(kib) / 1024 }

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// page is Markdown under way.
type page struct{ bytes.Buffer }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) row(cells ...string) { p.line("| %s |", strings.Join(cells, " | ")) }

func (p *page) table(head ...string) {
	p.row(head...)
	p.line("|%s", strings.Repeat("---|", len(head)))
}

// markdown is the report.
func (r *results) markdown() []byte {
	p := &page{}
	p.line("# Benchmarks\n")
	p.line("Measured %s on %s, %d cores, Linux %s, %s, in %s. `make bench` measures anew and writes this file; `scripts/bench -quick` only shows, in seconds, that it works.\n",
		r.began.UTC().Format("2006-01-02"), r.machine.cpu, runtime.NumCPU(), r.machine.kernel, r.machine.goVersion, r.took.Round(time.Second))
	p.line("Times depend on the machine and on what else it does: only the ratios say something about twwatch. They are medians over turns, with the least and the greatest in brackets.\n")
	p.line("## Targets\n")
	p.table("what", "target", "measured", "")
	for _, t := range r.targets() {
		verdict := "met"
		if !t.met {
			verdict = "**missed**"
		}
		p.row(t.what, t.limit, t.measured, verdict)
	}
	r.writePasses(p)
	r.writeCommands(p)
	r.writeOwners(p)
	r.writeMallocs(p)
	r.writeMemory(p)
	r.writeScrapes(p)
	r.writeTop(p)
	r.writeSweep(p)
	p.WriteString(method)
	return p.Bytes()
}

func (r *results) writePasses(p *page) {
	p.line("\n## One pass\n")
	p.line("A pass is the dump, grouped into flows, with limits and counters read and the report made. The floor is a loop that receives the same dump and looks at nothing. Process CPU time, in turn, %d turns; *all* is the sum over all turns, so that it has its full share of garbage collection.\n", r.pairs)
	p.table("sockets", "remotes", "floor, ms", "pass ÷ floor", "all ÷ all", "pass − floor, ms", "flows reported")
	for _, t := range r.tables {
		_, without := t.passes.over()
		note := ""
		if t.passes.BoundSeen {
			note = " ¹"
		}
		p.row(thousands(t.rows), remotes(t.single), milliseconds(t.passes.FloorNS).spread(2),
			ratios(t.passes.PassNS, t.passes.FloorNS).spread(2)+note,
			fmt.Sprintf("%.2f", sum(t.passes.PassNS)/sum(t.passes.FloorNS))+note,
			without.spread(2), fmt.Sprint(t.passes.Flows))
	}
	p.line("\n¹ Below 10,000 sockets each pass also looks for bound, unconnected sockets, which is a walk of its own; the ratio includes it, the difference doesn't (the walk is measured by itself in the same turn and subtracted). Above, it is made at most once a minute, and only while some flow uses a quarter of its ports: none does here.\n")
	p.line("What those walks cost by themselves, as a multiple of the floor; the second is made only where a live connection holds a port of the range:\n")
	p.table("sockets", "remotes", "bound, unconnected", "connected after bind()", "pass − floor with the first, ms")
	for _, t := range r.tables {
		n := len(t.passes.BoundNS)
		with := series{}
		for i := range n {
			extra := t.passes.PassNS[i] - t.passes.FloorNS[i]
			if !t.passes.BoundSeen {
				extra += t.passes.BoundNS[i]
			}
			with = append(with, float64(extra)/1e6)
		}
		p.row(thousands(t.rows), remotes(t.single), ratios(t.passes.BoundNS, t.passes.FloorNS[:n]).spread(2),
			ratios(t.passes.BindsNS, t.passes.FloorNS[:n]).spread(2), with.spread(2))
	}
}

func (r *results) writeCommands(p *page) {
	p.line("\n## Whole commands, and other programs\n")
	p.line("CPU time of the whole process, start and end included, output to /dev/null; for node_exporter, which stays, of one scrape. Each round runs them one after the other on the same table; the ratio is to `%s` in the same round. %d rounds of it and of `check --for=0`, %d of the others.\n", theSS, r.pairs, r.few)
	p.table("sockets", "command", "CPU, ms", "÷ `"+theSS+"`")
	for _, t := range r.tables {
		for _, c := range t.commands {
			ratio := ratios(c.ns, c.ssNS)
			cell := fmt.Sprintf("%s = 1/%.1f", ratio.spread(3), 1/ratio.median())
			if ratio.median() >= 1 {
				cell = ratio.spread(2)
			}
			if c.name == theSS {
				cell = "1"
			}
			p.row(thousands(t.rows), "`"+c.name+"`", milliseconds(c.ns).spread(1), cell)
		}
	}
	for _, peer := range r.notFound {
		p.line("\n%s isn't installed here and was left out.", peer)
	}
}

func (r *results) writeOwners(p *page) {
	o := r.owners
	if o == nil {
		return
	}
	p.line("\n## The search for processes\n")
	p.line("%s TIME_WAIT sockets, and beside them %s processes with %d open connections each (both ends here, so %s live sockets), which makes %s descriptors. Two kept Collectors take turns, one of which leaves the search out; process CPU time, %d turns, once every process is known. `scripts/bench -rows %d` repeats it.\n",
		thousands(o.Rows), thousands(o.Processes), crowdConnections, thousands(2*o.Connections),
		thousands(o.Processes*(crowdConnections+crowdOthers)), len(o.WithNS), o.Rows)
	p.table("pass", "CPU, ms", "÷ without", "allocations", "heap it holds, MiB")
	p.row("without the search", milliseconds(o.WithoutNS).spread(1), "1", fmt.Sprint(o.Mallocs[1]), fmt.Sprintf("%.1f", float64(o.HeapBytes[1])/(1<<20)))
	p.row("with it", milliseconds(o.WithNS).spread(1), ratios(o.WithNS, o.WithoutNS).spread(2), fmt.Sprint(o.Mallocs[0]), fmt.Sprintf("%.1f", float64(o.HeapBytes[0])/(1<<20)))
	p.line("\nThe first search is spread: the first pass, which searches for 200 ms at most, took %.0f ms of CPU time, and after %d passes every process was known. A pass does work for 1,000 links at most, and what a process says of itself counts as well.\n", float64(o.FirstNS)/1e6, o.Passes)
	p.line("What the search remembers is bounded: 65,536 live sockets and %s connections, 16 MiB in all, and %s processes that run and as many that have ended, 0.2 to 2.2 KiB each.", thousands(flow.MaxCookies), thousands(ledger.MaxProcesses))
}

func (r *results) writeMallocs(p *page) {
	p.line("\n## Allocations of one pass\n")
	p.line("Objects, to %d remotes (to as many as there are sockets, if less). They depend on the flows reported, not on the sockets.\n", manyRemotes)
	p.table("sockets", "flows", "allocations", "walk for bound sockets")
	for _, m := range r.mallocs {
		bound := "no"
		if m.bound {
			bound = "yes"
		}
		p.row(thousands(m.rows), fmt.Sprint(m.flows), fmt.Sprint(m.mallocs), bound)
	}
}

func (r *results) writeMemory(p *page) {
	m := r.memory
	if m == nil {
		return
	}
	p.line("\n## Memory of the daemon\n")
	p.line("`twwatch serve --interval=%v`, with %s sockets over %s remotes, after %d passes and %d scrapes of metrics and report: %.1f MiB resident, %.1f MiB at its peak.\n",
		r.interval, thousands(m.rows), thousands(m.remotes), m.passes, m.scrapes, mib(m.nowKiB), mib(m.peakKiB))
	p.line("Of the remotes, %d hold %s sockets each. The report, which lists %d flows, has %d of them, %d with their exact number; at most %d sockets of one were missed, and the report said that up to %d might be.",
		m.heavy, thousands(m.share), m.flows, m.found, m.exact, m.missed, m.greatest)
}

const method = `
## Method

- Each table is made in a fresh network namespace: real connections over loopback whose client closes first, so that its TIME_WAIT stays. The kernel's hash table is shared by all namespaces, so sockets elsewhere on the host make every walk dearer, the floor's too.
- TIME_WAIT lives 60 s. What takes longer is kept alive by rearming the rows' timers (an out-of-window ACK each) between measurements. Each program is first checked to see all rows, and a measurement in which a pass saw another number is an error.
- Floor and pass run in turn in a process that does nothing else, on one kept Collector with the memory limit of ` + "`serve`" + `; its CPU time is read by clock_gettime(CLOCK_PROCESS_CPUTIME_ID), so garbage collection and other threads count. getrusage would count short dumps in clock ticks.
- Commands: user and system time that the kernel reports when the process ends. node_exporter: its CPU clock before and after a scrape.
- A ratio is formed turn by turn; the median of these is what counts.
`
