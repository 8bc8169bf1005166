package truth

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// Where sock_diag can't be had, /proc/net/tcp gives the same states, flows,
// timeline and ports, and what is lost is said.
func TestProcSource(t *testing.T) {
	b := newBench(t)
	b.serve(server)
	b.serve("[::1]:1001")
	b.churn(60, lab.Storm{Remotes: remotes(server)})
	b.churn(20, lab.Storm{Remotes: remotes("[::1]:1001")})
	b.open(5, server, lab.ConnOptions{})
	diag := look(t, b.ns)
	var proc *snapshot.Report
	err := b.ns.Do(func() error {
		c, err := collector.New(collector.Config{ForceProc: true})
		if err != nil {
			return err
		}
		defer c.Close()
		proc, err = c.Pass(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n := proc.Namespaces[0]
	if n.Source != "proc" || len(proc.Incomplete) != 1 || proc.Incomplete[0].Stage != "dump" || proc.Incomplete[0].Fix == "" {
		t.Errorf("source %q, gaps %+v", n.Source, proc.Incomplete)
	}
	if diff := cmp.Diff(named(&diag.States), named(&n.States)); diff != "" {
		t.Errorf("states (-inet_diag +proc):\n%s", diff)
	}
	names := func(n *snapshot.Namespace) map[flowName]string {
		m := map[flowName]string{}
		for _, f := range n.Flows {
			free := 0
			if f.Ports != nil {
				free = f.Ports.Free
			}
			m[flowName{f.Side, f.Local, f.Remote, f.Port}] = fmt.Sprint(named(&f.States), free)
		}
		return m
	}
	if diff := cmp.Diff(names(diag), names(n), cmp.AllowUnexported(flowName{})); diff != "" {
		t.Errorf("flows (-inet_diag +proc):\n%s", diff)
	}
	f := flow(n, snapshot.Client, "127.0.0.1", 1000)
	if !f.Ports.AtMost {
		t.Error("bound sockets can't be seen in /proc/net/tcp, and free is not said to be an upper bound")
	}
}

// The program works as a user without any right.
func TestUnprivileged(t *testing.T) {
	lab.Require(t, "netns")
	bin := program(t)
	b := newBench(t, "net.ipv4.ip_local_port_range", "32768 60999")
	b.serve(server)
	b.churn(50, lab.Storm{Remotes: remotes(server)})
	out, err := b.ns.Command(t.Context(), "setpriv", append(nobody()[1:], bin, "check", "--for=0", "--output=json")...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, err := snapshot.Decode([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Incomplete) != 0 || r.Namespaces[0].States.TimeWait != 50 {
		t.Errorf("gaps %+v, states %+v", r.Incomplete, r.Namespaces[0].States)
	}
	// The daemon, too: it serves the same numbers, and ends well.
	stop := start(t, b.ns, append(nobody(), bin, "serve", "--web.listen-address=127.0.0.1:10060", "--interval=1s", "--cpu-budget=1")...)
	var metrics string
	lab.Eventually(t, 60*time.Second, func() error {
		var err error
		metrics, err = get(b.ns, "http://127.0.0.1:10060/metrics")
		// A flow enters with its second pass.
		if err == nil && !regexp.MustCompile(`twwatch_flow_sockets\{.*port="1000".*side="client",state="time_wait"\} 50\n`).MatchString(metrics) {
			err = fmt.Errorf("no flow with 50 TIME_WAIT in %s", regexp.MustCompile(`(?m)^twwatch_(flow_)?sockets.*$`).FindAllString(metrics, -1))
		}
		return err
	})
	lint := exec.CommandContext(t.Context(), lab.Tool(t, "promtool"), "check", "metrics")
	lint.Stdin = strings.NewReader(metrics)
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	if out, err := stop(); err != nil {
		t.Errorf("serve: %v\n%s", err, out)
	}
}
