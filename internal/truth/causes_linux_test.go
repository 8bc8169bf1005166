package truth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/lab"
)

// storm runs one in the background until the test's end.
func (b *bench) storm(s lab.Storm) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		res, err := b.ns.Run(ctx, s)
		if err == nil || ctx.Err() != nil {
			err = res.FirstError
		}
		done <- err
	}()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("the load itself: %v", err)
		}
	})
}

func eachSecond() collector.Config { return collector.Config{Interval: time.Second} }

// headlines are what was found.
func headlines(r *snapshot.Report) []string {
	list := []string{}
	for i := range r.Findings {
		list = append(list, headline(&r.Findings[i]))
	}
	return list
}

// closedBy is how many connections a storm had closed after so long.
func closedBy(storm *lab.Result, at time.Duration) int {
	n, _ := slices.BinarySearch(storm.Times, at)
	return n
}

// steady tells whether a storm kept its rate in the ten seconds up to a time,
// from which rates are told: on a busy machine it may fall behind and catch up.
func steady(storm *lab.Result, until time.Duration, rate int) bool {
	last := min(len(storm.PerSecond), int(until.Seconds()))
	for _, n := range storm.PerSecond[max(0, last-10):last] {
		if n < rate*3/4 || n > rate*5/4 {
			return false
		}
	}
	return true
}

// portsFinding is the finding about the ports of a flow, nil if there is none.
func portsFinding(r *snapshot.Report, port uint16) *snapshot.Finding {
	return found(r, port, diagnose.PortsSlow, diagnose.PortsRunningOut, diagnose.PortsExhausted)
}

// A range that runs dry at a steady rate: slow, running out and exhausted come
// one after the other, each when the storm's own record says so, and so does the
// second for which the end is predicted.
func TestRangeRunsDry(t *testing.T) {
	const ports, perSecond = 400, 20
	b := newBench(t, "net.ipv4.ip_local_port_range", "40000 40399")
	b.serve(server)
	w := newWatch(t, b.ns, eachSecond(), nil)
	w.looks(t, 1)
	storm, err := b.ns.Run(t.Context(), lab.Storm{Remotes: remotes(server), Rate: perSecond, Duration: 24 * time.Second, Times: true})
	if err != nil || !errors.Is(storm.FirstError, syscall.EADDRNOTAVAIL) || storm.Closed != ports {
		t.Fatalf("%d closed: %v, %v", storm.Closed, err, storm.FirstError)
	}
	end := storm.FirstFailure.Seconds()
	story := []string{}
	predictions := 0
	for _, r := range w.all() {
		at := r.Namespaces[0].SampledAt.Sub(storm.Start)
		// The pass read its rows within the time that it took.
		least := closedBy(&storm, at-25*time.Millisecond)
		most := closedBy(&storm, at+25*time.Millisecond+time.Duration(r.TookSeconds*float64(time.Second)))
		id := ""
		if f := portsFinding(r, 1000); f != nil {
			id = f.ID
			if f.BecauseOf != diagnose.ShortClient {
				t.Errorf("at %v: %s follows from %q", at, id, f.BecauseOf)
			}
		}
		var inTime bool
		switch id {
		case "":
			inTime = least <= ports/2
		case diagnose.PortsSlow:
			inTime = most > ports/2 && least < ports*4/5
		case diagnose.PortsRunningOut: // or little time is left, and it was slow before
			inTime = least < ports && (most >= ports*4/5 || slices.Contains(story, diagnose.PortsSlow) && end-at.Seconds() < 15+1)
		case diagnose.PortsExhausted:
			inTime = most == ports
		}
		if !inTime {
			t.Errorf("at %v, with %d to %d of %d ports held: %q", at, least, most, ports, id)
		}
		if id != "" && !slices.Contains(story, id) {
			story = append(story, id)
		}
		f := flow(r.Namespaces[0], snapshot.Client, "127.0.0.1", 1000)
		if f == nil || f.Ports.SecondsToExhaustion == nil || f.Ports.Free == 0 || !steady(&storm, at, perSecond) {
			continue
		}
		predictions++
		if said := at.Seconds() + float64(*f.Ports.SecondsToExhaustion); math.Abs(said-end) > 0.1*end {
			t.Errorf("at %v the end is predicted for second %v, and came at %v", at, said, end)
		}
	}
	want := []string{diagnose.PortsSlow, diagnose.PortsRunningOut, diagnose.PortsExhausted}
	if diff := cmp.Diff(want, story); diff != "" || predictions == 0 {
		t.Errorf("%d predictions; (-want +got):\n%s", predictions, diff)
	}
	_, cause := w.finds(t, 1000, "", diagnose.ShortClient)
	effect := regexp.MustCompile(`^About 2 connections instead of \d+(\.\d)?/s, and at most 1 TIME_WAIT if each is renewed after 3 min; ` +
		`397 ports and up to 257 KiB of kernel memory come back; connect\(\) leaves its slow half, where it takes 100 to 200 times as long `)
	if said := advised(t, cause, "reuse-connections").Effect; !effect.MatchString(said) {
		t.Errorf("effect: %s", said)
	}
}

// A server that closes first keeps the TIME_WAIT. On its listening port they take
// nothing from anybody.
func TestServerClosesFirst(t *testing.T) {
	b := newBench(t, "net.ipv4.ip_local_port_range", "32768 60999")
	must[*lab.Server](t)(b.ns.Listen(addrPort("0.0.0.0:1000"), lab.ListenOptions{Mode: lab.CloseByServer}))
	storm := lab.Storm{Closer: lab.ServerEnd}
	for i := range 8 { // so that no port comes again, which takes a TIME_WAIT over
		storm.Remotes = append(storm.Remotes, addrPort(fmt.Sprintf("127.0.0.%d:1000", i+1)))
	}
	b.churn(5000, storm)
	lab.Eventually(t, 10*time.Second, func() error { // the last FIN is on its way
		states := must[map[int]int](t)(b.ns.States())
		if others := states[unix.BPF_TCP_FIN_WAIT1] + states[unix.BPF_TCP_FIN_WAIT2] + states[unix.BPF_TCP_LAST_ACK]; others > 0 {
			return fmt.Errorf("%d sockets still close", others)
		}
		return nil
	})
	held := must[int](t)(b.ns.TimeWaits())
	r := newWatch(t, b.ns, eachSecond(), nil).looks(t, 1)[0]
	f := found(r, 0, diagnose.Harmless)
	if f == nil || len(r.Findings) != 1 || r.Verdict != snapshot.Healthy {
		t.Fatalf("found: %s", said(r))
	}
	if n := int(evidence(t, f, "of these a server's")); n != held || n < 4950 || !strings.Contains(f.Summary, "all are a server's, which take no ports") {
		t.Errorf("%d a server's, the kernel has %d: %s", n, held, f.Summary)
	}
	advised(t, f, "nothing-to-do")
}

// A server that closes first under a load that goes on is told how to keep its
// connections, and is healthy at every look, with clients on another host or on
// its own.
func TestServerClosesFirstSteadily(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, address string
		want          []string
	}{
		{"clients elsewhere", near, []string{
			"info short-connections-server", "info time-wait-harmless short-connections-server",
		}},
		{"clients here", "127.0.0.1", []string{
			"info short-connections-client", "info short-connections-server short-connections-client",
			"info time-wait-harmless short-connections-client",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "net.ipv4.ip_local_port_range", "32768 60999")
			clients := b
			if tt.address == near {
				lab.Require(t, "veth")
				b, clients = &bench{T: t}, &bench{T: t}
				b.ns, clients.ns = hosts(t)
			}
			must[*lab.Server](t)(b.ns.Listen(addrPort("0.0.0.0:1000"), lab.ListenOptions{Mode: lab.CloseByServer, After: 20 * time.Millisecond}))
			w := newWatch(t, b.ns, eachSecond(), nil)
			clients.storm(lab.Storm{Remotes: remotes(tt.address + ":1000"), Closer: lab.ServerEnd, Rate: 80, Duration: 3 * time.Minute})
			w.finds(t, 1000, "truth.test", diagnose.ShortServer)
			for _, r := range w.all() {
				if r.Verdict != snapshot.Healthy {
					t.Errorf("found: %s", said(r))
				}
			}
			all := w.all()
			if diff := cmp.Diff(tt.want, headlines(all[len(all)-1])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// bind() before connect() takes a port from every destination. Who does so is
// named, also once its connections are in TIME_WAIT, and that another's
// destination is slow follows from it.
func TestBindBeforeConnect(t *testing.T) {
	b := newBench(t)
	second, third := "127.0.0.2:1000", "127.0.0.3:1000"
	for _, a := range []string{server, second, third} {
		b.serve(a)
	}
	w := newWatch(t, b.ns, eachSecond(), nil)
	w.looks(t, 1) // how the ports came to be taken is known from the beginning
	bound := b.open(70, server, lab.ConnOptions{Local: addrPort("127.0.0.1:0"), Bind: lab.BindAddrPort0})
	b.open(35, second, lab.ConnOptions{})
	check := func(waiting uint32) {
		t.Helper()
		r := w.until(t, 60*time.Second, func(r *snapshot.Report) error {
			if n := r.Namespaces[0].States.TimeWait; n != waiting {
				return fmt.Errorf("%d in TIME_WAIT", n)
			}
			if f := found(r, 0, diagnose.BindFirst); f == nil || f.Subject.Process != "truth.test" {
				return errors.New("nobody binds")
			}
			return nil
		})
		if diff := cmp.Diff([]string{"warning bind-before-connect", "warning ephemeral-ports-slow bind-before-connect"}, headlines(r)); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, said(r))
		}
		f := found(r, 0, diagnose.BindFirst)
		const want = "truth.test binds before connect(), which takes each port for every destination at once: 70 of 200 ports (35 %) are lost that way."
		if f.Summary != want {
			t.Error(f.Summary)
		}
		advised(t, f, "bind-no-port")
		if f := found(r, 1000, diagnose.PortsSlow); f != nil && f.Subject.Remote != "127.0.0.2" {
			t.Errorf("%+v: %s", f.Subject, f.Summary)
		}
		for to, free := range map[string]int{server: 130, second: 95, third: 130} {
			if f := b.compare(r.Namespaces[0], to, lab.ConnOptions{}, false); f != nil && f.Ports.Free != free {
				t.Errorf("%s: %d free, want %d", to, f.Ports.Free, free)
			}
		}
	}
	check(0)
	for _, c := range bound {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	check(70)
}

// With IP_BIND_ADDRESS_NO_PORT the same takes nothing from anybody else.
func TestBindWithoutAPort(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.serve("127.0.0.2:1000")
	w := newWatch(t, b.ns, eachSecond(), nil)
	w.looks(t, 1)
	b.open(70, server, lab.ConnOptions{Local: addrPort("127.0.0.1:0")})
	r := w.until(t, 60*time.Second, func(r *snapshot.Report) error {
		if n := r.Namespaces[0].States.Established; n != 140 {
			return fmt.Errorf("%d established", n)
		}
		return nil
	})
	if len(r.Findings) > 0 {
		t.Errorf("found: %s", said(r))
	}
	b.compare(r.Namespaces[0], "127.0.0.2:1000", lab.ConnOptions{}, false)
}

// A host that does a little of everything has no finding, at any look, and check
// says so.
func TestQuietHost(t *testing.T) {
	bin := program(t)
	b := newBench(t, "net.ipv4.ip_local_port_range", "32768 60999", "net.ipv4.tcp_tw_reuse", "2", "net.ipv4.tcp_rfc1337", "0")
	b.serve(server)
	b.open(20, server, lab.ConnOptions{})
	b.churn(50, lab.Storm{Remotes: remotes(server)})
	b.storm(lab.Storm{Remotes: remotes(server), Rate: 2, Duration: time.Minute})
	w := newWatch(t, b.ns, eachSecond(), nil)
	out, err := b.ns.Command(t.Context(), bin, "check")
	if err != nil || !strings.HasPrefix(out, "HEALTHY: ") {
		t.Errorf("check: %v\n%s", err, out)
	}
	for _, r := range w.looks(t, 10) {
		if len(r.Findings) > 0 || r.Verdict != snapshot.Healthy {
			t.Errorf("found: %s", said(r))
		}
	}
}

// Two causes at once are two findings, neither more nor less.
func TestTwoCauses(t *testing.T) {
	t.Parallel()
	t.Run("short connections, and connections that nobody accepts", func(t *testing.T) {
		b := newBench(t, "net.ipv4.ip_local_port_range", "32768 60999")
		b.serve(server)
		must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:1001"), lab.ListenOptions{Mode: lab.Manual}))
		for _, c := range b.open(8, "127.0.0.1:1001", lab.ConnOptions{}) {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		b.storm(lab.Storm{Remotes: remotes(server), Rate: 30, Duration: 2 * time.Minute, Hold: 50 * time.Millisecond})
		b.two(diagnose.CloseWaitNotAccepted, diagnose.ShortClient)
	})
	t.Run("short connections, and another's binds", func(t *testing.T) {
		b := newBench(t, "net.ipv4.ip_local_port_range", "40000 43999")
		b.serve(server)
		b.hold("127.0.0.2:1000")
		b.storm(lab.Storm{Remotes: remotes(server), Rate: 15, Duration: 2 * time.Minute, Hold: 50 * time.Millisecond})
		b.open(300, "127.0.0.2:1000", lab.ConnOptions{Local: addrPort("127.0.0.1:0"), Bind: lab.BindAddrPort0})
		b.two(diagnose.BindFirst, diagnose.ShortClient)
	})
}

// two waits until both are found and holds the looks after that to these two.
func (b *bench) two(one, other string) {
	t := b.T
	t.Helper()
	w := newWatch(t, b.ns, eachSecond(), nil)
	w.until(t, 60*time.Second, func(r *snapshot.Report) error {
		if len(r.Findings) < 2 {
			return errors.New("not two findings")
		}
		return nil
	})
	n := len(w.all())
	for _, r := range w.looks(t, n+3)[n-1:] {
		var found []string
		for _, f := range r.Findings {
			found = append(found, f.ID)
			if f.BecauseOf != "" || len(f.Recommendations) == 0 {
				t.Errorf("%s: because of %q, advice %v", f.ID, f.BecauseOf, recommended(&f))
			}
		}
		slices.Sort(found)
		if diff := cmp.Diff([]string{one, other}, found); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, said(r))
		}
	}
}

// A user without rights sees a service by its port alone: then it is only
// "usually" that, and no setting of it is given.
func TestServiceByItsPortAlone(t *testing.T) {
	bin := program(t)
	b := newBench(t, "net.ipv4.ip_local_port_range", "32768 60999")
	b.serve("127.0.0.1:6379")
	b.storm(lab.Storm{Remotes: remotes("127.0.0.1:6379"), Rate: 40, Duration: 2 * time.Minute, Hold: 20 * time.Millisecond})
	lab.Eventually(t, 60*time.Second, func() error {
		out, err := b.ns.Command(t.Context(), "setpriv", append(nobody()[1:], bin, "check", "--for=1s", "--output=json")...)
		r, err2 := snapshot.Decode([]byte(out))
		if err2 != nil {
			return errors.Join(err, err2)
		}
		f := found(r, 6379, diagnose.ShortClient)
		if f == nil {
			return fmt.Errorf("found: %s", said(r))
		}
		if !strings.HasPrefix(f.Summary, "A client at 127.0.0.1 opens a new connection to 127.0.0.1 (port 6379, usually redis) for every request (") || f.Severity != snapshot.Info {
			t.Errorf("%s: %s", f.Severity, f.Summary)
		}
		if do := advised(t, f, "one-client-per-process").Do; !strings.HasPrefix(do, "Port 6379 is usually Redis; nothing else tells so here. ") {
			t.Error(do)
		}
		for _, r := range f.Recommendations {
			if r.Snippet != "" {
				t.Errorf("%s has a snippet: %s", r.ID, r.Snippet)
			}
		}
		return nil
	})
}
