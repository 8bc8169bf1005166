package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/lab"
	"github.com/twwatch/twwatch/internal/report"
)

const demoHelp = `Make a storm of short connections in a private network namespace, and diagnose it live. Clients connect to a stand-in for Redis, ask nothing and close, until their port range runs dry; twwatch tells what happens as it does on a real host.

Nothing leaves this machine and no setting of it changes. Root is not needed where the kernel lets users make namespaces. The exit status is 0 if the demonstration went as told.`

// demoServer is where the storm's clients connect to.
var demoServer = netip.MustParseAddrPort("127.0.0.1:6379")

type demoFlags struct {
	ports int
	rate  int
	limit time.Duration
}

func demoCommand() command {
	return command{
		name: "demo", summary: "make a storm in a private namespace, and diagnose it live", help: demoHelp,
		examples: `
  twwatch demo                        about half a minute
  twwatch demo --ports=200 --rate=20  another size`,
		define: func(cmd *kingpin.CmdClause) runner {
			f := &demoFlags{}
			cmd.Flag("ports", "Ports that the clients may use.").Default("1000").SetValue(intValue{&f.ports, 10, 20000})
			cmd.Flag("rate", "Connections per second.").Default("50").SetValue(intValue{&f.rate, 1, 2000})
			cmd.Flag("for", "The longest that the storm lasts.").Default("45s").SetValue(durationValue{&f.limit, time.Second, 5 * time.Minute})
			return f
		},
	}
}

// run starts this program again in a namespace of its own, where it comes back
// here.
func (f *demoFlags) run(ctx context.Context, e env, cfg configuration) (int, error) {
	if !lab.Inside() {
		fmt.Fprintf(e.stdout, "In a private network namespace, clients open %d connections a second to\n"+
			"%v and close them at once; they have %s ports.\nNothing leaves this machine.\n\n",
			f.rate, demoServer, draw.Count(int64(f.ports)))
		return lab.InPrivateNamespace(ctx, cfg.args, lab.Stdio{In: os.Stdin, Out: e.stdout, Err: e.stderr})
	}
	if err := lab.Prepare(); err != nil {
		return statusFailed, fmt.Errorf("demo: %w", err)
	}
	ns, err := lab.New(lab.Options{Sysctls: map[string]string{
		"net.ipv4.ip_local_port_range": fmt.Sprintf("32768 %d", 32768+f.ports-1),
		"net.ipv4.tcp_tw_reuse":        "0", // as between two hosts: 2, the default, spares loopback
		"net.ipv4.tcp_rfc1337":         "1", // else a late RST takes one or the other TIME_WAIT away
	}})
	if err != nil {
		return statusFailed, fmt.Errorf("demo: %w", err)
	}
	defer ns.Close()
	if _, err := ns.Listen(demoServer, lab.ListenOptions{}); err != nil {
		return statusFailed, fmt.Errorf("demo: %w", err)
	}
	return f.storm(ctx, e, cfg, ns)
}

// storm lets the clients loose and watches until connect() fails, or the time
// is over.
func (f *demoFlags) storm(ctx context.Context, e env, cfg configuration, ns *lab.Namespace) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, f.limit)
	defer cancel()
	type outcome struct {
		lab.Result
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		res, err := ns.Run(ctx, lab.Storm{Remotes: []netip.AddrPort{demoServer}, Rate: float64(f.rate), Duration: f.limit})
		ended <- outcome{res, err}
	}()
	library, err := advice.Load()
	if err != nil {
		return statusFailed, fmt.Errorf("demo: %w", err)
	}
	d := &demonstration{w: e.stdout, judge: newJudge(cfg.thresholds, library), style: draw.Detect(isTerminal(e), e.getenv)}
	err = ns.Do(func() error { return d.watch(ctx) })
	cancel()
	out := <-ended
	if err == nil && out.err != nil && !errors.Is(out.err, context.Canceled) && !errors.Is(out.err, context.DeadlineExceeded) {
		err = out.err
	}
	if err != nil {
		return statusFailed, fmt.Errorf("demo: %w", err)
	}
	if d.last == nil {
		return statusFailed, errors.New("demo: ended before the first look")
	}
	fmt.Fprintf(e.stdout, "\nThis is what `twwatch check` says now:\n\n")
	if err := report.Text(e.stdout, d.last, e.textOptions(5, false)); err != nil {
		return statusFailed, fmt.Errorf("writing the report: %w", err)
	}
	fmt.Fprintf(e.stdout, "\nThe clients say: %s connections made, %s refused with\n%q. On your own host: twwatch check\n",
		draw.Count(int64(out.Opened)), draw.Count(int64(out.Failed[syscall.EADDRNOTAVAIL])), syscall.EADDRNOTAVAIL.Error())
	return statusHealthy, nil
}

func isTerminal(e env) bool {
	_, ok := e.columns(e.stdout)
	return ok
}

// A demonstration watches the storm, a line a look.
type demonstration struct {
	w      io.Writer
	judge  *judge
	style  draw.Style
	window []*snapshot.Report
	last   *snapshot.Report
}

// watch runs on a thread of the storm's namespace.
func (d *demonstration) watch(ctx context.Context) error {
	c, err := collector.New(collector.Config{Interval: 2 * time.Second, CPUBudget: 1, Version: programVersion()})
	if err != nil {
		return err
	}
	defer c.Close()
	start, exhausted := time.Now(), 0
	for r, err := range c.Reports(ctx) {
		if err != nil {
			return err
		}
		before := d.last
		d.last = r
		d.window = hub.Keep(d.window, r, hub.DefaultKeep)
		d.judge.judge(d.window)
		d.tell(time.Since(start), before)
		if r.Verdict == snapshot.Critical && r.Namespaces[0].Flows[0].Ports.Free == 0 {
			exhausted++
		}
		if exhausted == 2 {
			return nil
		}
	}
	return nil
}

// tell writes a line on where the storm stands, and one on each finding that
// is new.
func (d *demonstration) tell(at time.Duration, before *snapshot.Report) {
	n := d.last.Namespaces[0]
	for i := range n.Flows {
		f := &n.Flows[i]
		if f.Ports == nil {
			continue
		}
		left := ""
		if s := f.Ports.SecondsToExhaustion; s != nil && f.Ports.Free > 0 {
			left = ", none in " + draw.Duration(float64(*s))
		}
		rate := "–"
		if f.CloseRate != nil {
			rate = draw.Rate(*f.CloseRate)
		}
		fmt.Fprintf(d.w, "%5s %6s TIME_WAIT %8s closed %6s of %s ports free%s\n", draw.Duration(at.Truncate(time.Second).Seconds()),
			draw.Count(int64(f.States.TimeWait)), rate, draw.Count(int64(f.Ports.Free)), draw.Count(int64(f.Ports.Range-f.Ports.Reserved)), left)
		break
	}
	for _, f := range d.last.Findings {
		if before == nil || !has(before.Findings, f.ID) {
			paint := d.style.Yellow
			if f.Severity == snapshot.Critical {
				paint = d.style.Red
			}
			fmt.Fprintf(d.w, "       %s\n", paint(f.ID))
		}
	}
}

func has(findings []snapshot.Finding, id string) bool {
	for _, f := range findings {
		if f.ID == id {
			return true
		}
	}
	return false
}
