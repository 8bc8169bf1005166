package dashboards

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/twwatch/twwatch/internal/lab"
)

// leakEnv has this test's program be a program that forgets to close.
const leakEnv = "TWWATCH_TEST_LEAK"

const (
	leakName  = "leaky-app"
	leaked    = 85
	leakLimit = 100 // descriptors
)

func TestMain(m *testing.M) {
	if address := os.Getenv(leakEnv); address != "" {
		fmt.Fprintln(os.Stderr, leak(address))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// leak accepts connections, reads them to their end and holds them, until it is
// killed or something fails.
func leak(address string) error {
	if err := os.WriteFile("/proc/self/comm", []byte(leakName), 0); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: leakLimit, Max: leakLimit}); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	held := map[net.Conn]bool{} // else they are collected, and closed
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		held[c] = true
		if _, err := c.Read(make([]byte, 1)); err == nil {
			return fmt.Errorf("data came from %s", c.RemoteAddr())
		}
	}
}

// An incident is a namespace with real traffic, watched by a real twwatch.
type incident struct {
	name    string
	sysctls []string // pairs
	traffic func(t *testing.T, ns *lab.Namespace)
	wrap    []string // programs that start twwatch
	flags   []string // more of its flags
	down    bool     // nothing is served
	raises  []string // sorted

	ns      *lab.Namespace
	address string           // of twwatch
	output  func() string    // ends twwatch and gives what it wrote
	raised  map[string]alert // by name
}

func incidents() []*incident {
	return []*incident{
		{name: "quiet"},
		{
			name:    "storm",
			sysctls: []string{"net.ipv4.ip_local_port_range", "20000 20999", "net.ipv4.tcp_tw_reuse", "0"},
			traffic: storm("127.0.0.1:6379", 60),
			raises:  []string{"TwwatchEphemeralPortDemandHigh", "TwwatchEphemeralPortsRunningOut", "TwwatchEphemeralPortsSlow", "TwwatchShortConnections"},
		},
		{
			name:    "storm on a port that is no known service's",
			sysctls: []string{"net.ipv4.ip_local_port_range", "20000 29999", "net.ipv4.tcp_tw_reuse", "0"},
			traffic: storm("127.0.0.1:4242", 70),
			raises:  []string{"TwwatchFindingWarning"},
		},
		{
			name:    "buckets",
			sysctls: []string{"net.ipv4.tcp_max_tw_buckets", "20"},
			traffic: storm("127.0.0.1:4242", 5),
			raises:  []string{"TwwatchTimeWaitBucketsNearLimit", "TwwatchTimeWaitBucketsOverflow"},
		},
		{name: "leak", traffic: leakSockets, raises: []string{"TwwatchCloseWaitLeak", "TwwatchCloseWaitNearFileLimit"}},
		{name: "accept queue", traffic: fillQueue, raises: []string{"TwwatchFindingCritical"}},
		{name: "no limits to read", wrap: []string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /proc/sys/net && exec "$@"`, "sh"}, raises: []string{"TwwatchCollectErrors"}},
		{name: "never looked", flags: []string{"--source=http://127.0.0.1:9"}, raises: []string{"TwwatchStale"}},
		{name: "down", down: true, raises: []string{"TwwatchDown"}},
	}
}

// storm opens and closes so many connections a second to a server, until the
// test ends. There are more than enough.
func storm(server string, rate float64) func(*testing.T, *lab.Namespace) {
	return func(t *testing.T, ns *lab.Namespace) {
		t.Helper()
		to := netip.MustParseAddrPort(server)
		must[*lab.Server](t)(ns.Listen(to, lab.ListenOptions{}))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = ns.Run(ctx, lab.Storm{Remotes: []netip.AddrPort{to}, Rate: rate, Count: 60_000}) // ends by stop
		}()
		t.Cleanup(func() { stop(); <-done })
	}
}

// leakSockets has a program hold sockets whose peers have closed.
func leakSockets(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	const address = "127.0.0.1:8080"
	cmd := exec.Command(must[string](t)(os.Executable()))
	cmd.Env = append(os.Environ(), leakEnv+"="+address)
	startIn(t, ns, cmd)
	for range leaked {
		lab.Eventually(t, 2*time.Minute, func() error {
			c, err := ns.Open(netip.MustParseAddrPort(address), lab.ConnOptions{})
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
}

// fillQueue opens connections to a server that accepts none, until the test ends.
func fillQueue(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	to := netip.MustParseAddrPort("127.0.0.1:8443")
	must[*lab.Server](t)(ns.Listen(to, lab.ListenOptions{Mode: lab.Manual, Backlog: 1}))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_, _ = ns.Open(to, lab.ConnOptions{NoWait: true}) // held until the namespace is closed
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

// start makes the incident's namespace, the n-th beside Prometheus's, and all
// that is in it; target is the part of the configuration that scrapes it, with
// the labels that the Prometheus Operator attaches.
func (i *incident) start(t *testing.T, beside *lab.Namespace, n int, twwatch, config string) (target string) {
	t.Helper()
	i.ns, i.raised = lab.NewT(t), map[string]alert{}
	there, here := fmt.Sprintf("10.99.%d.1/30", n), fmt.Sprintf("10.99.%d.2", n)
	if err := beside.AddVeth(fmt.Sprint("to", n), netip.MustParsePrefix(there), i.ns, "up0", netip.MustParsePrefix(here+"/30")); err != nil {
		t.Fatal(err)
	}
	for s := 0; s < len(i.sysctls); s += 2 {
		if err := i.ns.Sysctl(i.sysctls[s], i.sysctls[s+1]); err != nil {
			t.Fatal(err)
		}
	}
	if i.traffic != nil {
		i.traffic(t, i.ns)
	}
	i.address = here + ":10060"
	if !i.down {
		args := slices.Concat(i.wrap, []string{twwatch, "serve", "--config.file=" + config, "--web.listen-address=" + i.address}, i.flags)
		i.output = startIn(t, i.ns, exec.Command(args[0], args[1:]...))
	}
	return fmt.Sprintf("  - targets: [%q]\n    labels: {service: twwatch, namespace: monitoring, pod: twwatch-%d, container: twwatch, endpoint: metrics}\n", i.address, n)
}

// Real Prometheus scrapes real twwatches during real incidents: each raises its
// alerts and no other, with the labels of its target and an explanation that is
// there, and every panel of both dashboards has data.
func TestLive(t *testing.T) {
	t.Parallel()
	path := lab.Tool(t, "prometheus")
	lab.Require(t, "veth")
	dir := t.TempDir()
	twwatch, config := filepath.Join(dir, "twwatch"), filepath.Join(dir, "twwatch.yml")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", twwatch, root+"cmd/twwatch").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(config, []byte("interval: 1s\nweb.enable-api: true\nthresholds:\n  close_wait_seconds: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ns, all := lab.NewT(t), incidents()
	scrapes := "- job_name: monitoring/twwatch\n  static_configs:\n"
	for n, i := range all {
		scrapes += i.start(t, ns, n, twwatch, config)
	}
	const global = "  scrape_interval: 2s\n  scrape_timeout: 2s\n  evaluation_interval: 1s\n"
	p := startPrometheus(t, ns, path, 60, global, scrapes)
	without := startPrometheus(t, lab.NewT(t), path, 60, global, "")

	absent := &incident{name: "no target", raises: []string{"TwwatchAbsent"}, raised: map[string]alert{}}
	lab.Eventually(t, 3*time.Minute, func() error {
		absent.note(without.alerts(t))
		firing := p.alerts(t)
		missing := absent.missing()
		for _, i := range all {
			i.note(firing)
			missing = append(missing, i.missing()...)
		}
		if len(missing) > 0 {
			return fmt.Errorf("not raised: %s", strings.Join(missing, ", "))
		}
		return nil
	})
	known := map[string]bool{}
	for _, i := range append(all, absent) {
		got := slices.Sorted(maps.Keys(i.raised))
		if diff := cmp.Diff(i.raises, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: alerts (-want +got):\n%s", i.name, diff)
		}
		for name, a := range i.raised {
			known[name] = true
			checkTexts(t, a)
			if i != absent && (a.Labels["service"] != "twwatch" || a.Labels["namespace"] != "monitoring" || a.Labels["pod"] == "") {
				t.Errorf("%s: the labels of the target are not the alert's: %v", i.name, a.Labels)
			}
			if page, onHost := a.Annotations["explain_url"]; onHost {
				if _, err := fetch(p.client, page); err != nil {
					t.Errorf("%s: explain_url: %v", name, err)
				}
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert != "" && !known[r.Alert] {
			t.Errorf("no incident raises %s", r.Alert)
		}
	}

	lab.Eventually(t, 2*time.Minute, func() error { return p.checkPanels(Fleet(), fleetVariables(), nil) })
	for _, i := range all {
		variables := map[string]string{"job": "monitoring/twwatch", "instance": i.address, "netns": ".*", "service": ".*", "__rate_interval": "1m"}
		lab.Eventually(t, 2*time.Minute, func() error {
			return p.checkPanels(Host(), variables, func(panel, query string) bool { return incidentOf(panel, query) == i.name })
		})
	}
	if n := p.one(t, `twwatch_close_wait_process_sockets{process="`+leakName+`"}`); n != leaked {
		t.Errorf("the program that leaks holds %v sockets in the metrics, and %d in fact", n, leaked)
	}
	if said := all[0].output(); strings.Contains(said, "too slow") {
		t.Errorf("nobody reads a stream, and a reader is too slow:\n%s", said)
	}
}

// incidentOf is where a question of the host's dashboard has an answer.
func incidentOf(panel, query string) string {
	switch {
	case strings.HasPrefix(panel, "Age of the oldest CLOSE_WAIT"):
		return "leak" // a storm's sockets are closed by both ends
	case panel == "Connection tracking" && query == "B":
		return "" // the limit is the host's, not a namespace's: TestFleet asks
	}
	return "storm"
}

// note keeps what this incident raises. Alerts of namespaces beside its own are
// those of other tests.
func (i *incident) note(firing []alert) {
	for _, a := range firing {
		if ns := a.Labels["netns"]; a.Labels["instance"] == i.address && (ns == "" || ns == "self") {
			i.raised[a.Labels["alertname"]] = a
		}
	}
}

func (i *incident) missing() []string {
	var all []string
	for _, name := range i.raises {
		if _, ok := i.raised[name]; !ok {
			all = append(all, i.name+": "+name)
		}
	}
	return all
}
