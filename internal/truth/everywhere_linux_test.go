package truth

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// An outer is a network namespace as `ip netns` makes it. Nothing of this process
// holds it.
type outer struct {
	t    *testing.T
	name string
}

func newOuter(t *testing.T, name string) *outer {
	t.Helper()
	lab.Require(t, "netns", "ss")
	o := &outer{t, fmt.Sprintf("tww-%d-%s", os.Getpid(), name)}
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", o.name).CombinedOutput(); err != nil {
		lab.Lacks(t, "netns", fmt.Errorf("ip netns add: %w: %s", err, out))
	}
	t.Cleanup(o.remove)
	o.run("ip", "link", "set", "lo", "up")
	return o
}

// remove takes its name away; the test may have done so.
func (o *outer) remove() { _ = exec.Command("ip", "netns", "del", o.name).Run() }

// in is a command line that runs in it.
func (o *outer) in(args ...string) []string {
	return append([]string{"ip", "netns", "exec", o.name}, args...)
}

func (o *outer) run(args ...string) string {
	o.t.Helper()
	args = o.in(args...)
	out, err := exec.CommandContext(o.t.Context(), args[0], args[1:]...).Output()
	if err != nil {
		o.t.Fatalf("%s: %v", args, err)
	}
	return string(out)
}

// start runs a program in it until end.
func (o *outer) start(args ...string) (end func()) {
	o.t.Helper()
	args = o.in(args...)
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	o.t.Cleanup(end)
	return end
}

// timeWaits counts with ss.
func (o *outer) timeWaits() int {
	o.t.Helper()
	return strings.Count(o.run("ss", "-Htan", "state", "time-wait"), "\n")
}

// witness tells whether the namespace has died: its settings are gone then, and
// an open file of them holds nothing alive.
func (o *outer) witness() (died func() error) {
	o.t.Helper()
	file := make(chan *os.File, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with this
		defer close(file)
		ns, err := os.Open(filepath.Join("/run/netns", o.name))
		if err != nil {
			return
		}
		defer ns.Close()
		if unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) != nil {
			return
		}
		if f, err := os.Open("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
			file <- f
		}
	}()
	f := <-file
	if f == nil {
		o.t.Fatalf("no way into %s", o.name)
	}
	o.t.Cleanup(func() { f.Close() })
	return func() error {
		if _, err := f.ReadAt(make([]byte, 8), 0); !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s lives: %w", o.name, err)
		}
		return nil
	}
}

// serve runs Redis until it listens.
func (o *outer) serve() {
	o.t.Helper()
	o.start(lab.Tool(o.t, "redis-server"), "--port", "6379", "--bind", "127.0.0.1", "--save", "", "--dir", o.t.TempDir())
	lab.Eventually(o.t, 30*time.Second, func() error {
		if o.run("ss", "-Htln") == "" {
			return errors.New("Redis doesn't listen")
		}
		return nil
	})
}

// load opens some 600 connections a second to it.
func (o *outer) load() (end func()) {
	o.t.Helper()
	return o.start(lab.Tool(o.t, "redis-benchmark"), "-h", "127.0.0.1", "-k", "0", "-c", "60", "-n", "100000000", "BLPOP", "none", "0.005")
}

// checked is what a check of these namespaces finds.
func checked(t *testing.T, ns *lab.Namespace, args ...string) *snapshot.Report {
	t.Helper()
	var r snapshot.Report
	cmd := exec.CommandContext(t.Context(), args[0], append(args[1:], "--output=json")...)
	var out []byte
	err := ns.Do(func() (err error) { out, err = cmd.Output(); return err })
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() < 3) {
		t.Fatalf("%s: %v", args, err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func namespaceOf(r *snapshot.Report, name string) *snapshot.Namespace {
	for _, n := range r.Namespaces {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Two namespaces with a storm in one: each is seen by its name with its own
// settings and counts, by the daemon and by single commands; and one that is
// deleted in mid-storm dies, and leaves neither series nor noise.
func TestEveryNamespace(t *testing.T) {
	t.Parallel()
	bin := program(t)
	stormy, still := newOuter(t, "stormy"), newOuter(t, "still")
	stormy.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 41999")
	still.start("sleep", "600")
	both := fmt.Sprintf("--netns.include=tww-%d-st*", os.Getpid())
	home := lab.NewT(t)
	stop := start(t, home, bin, "serve", "--netns=all", both, "--interval=1s", "--cpu-budget=1", "--web.listen-address=127.0.0.1:10060")
	const at = "http://127.0.0.1:10060"

	stormy.serve()
	endLoad := stormy.load()
	lab.Eventually(t, time.Minute, func() error {
		metrics, err := get(home, at+"/metrics")
		if err != nil {
			return err
		}
		if !regexp.MustCompile(`(?m)^twwatch_finding\{id="(ephemeral-ports|short-connections)[^}]*netns="` + stormy.name + `"`).MatchString(metrics) {
			return errors.New("no finding of the stormy namespace")
		}
		return nil
	})
	var r snapshot.Report
	if err := json.Unmarshal([]byte(must[string](t)(get(home, at+"/api/v1/report"))), &r); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Namespace != stormy.name {
			t.Errorf("%s is said of %s: %s", f.ID, f.Namespace, f.Summary)
		}
	}
	if a, b := namespaceOf(&r, stormy.name), namespaceOf(&r, still.name); a == nil || b == nil || len(r.Namespaces) != 3 {
		t.Fatalf("%d namespaces", len(r.Namespaces))
	} else if a.Ports.Range != 2000 || b.Ports.Range != 28232 || a.States.TimeWait == 0 || b.States.TimeWait != 0 || a.Kind != "named" {
		t.Errorf("%s: %d ports, %+v; %s: %d ports, %+v", a.Name, a.Ports.Range, a.States, b.Name, b.Ports.Range, b.States)
	}

	// check looks at growth in them, too.
	r = *checked(t, home, bin, "check", "--for=1s", "--netns="+stormy.name)
	n := namespaceOf(&r, stormy.name)
	if n == nil || len(r.NotJudged) > 0 && strings.Contains(strings.Join(r.NotJudged, " "), "short-connections-reset") || len(r.Findings) == 0 {
		t.Errorf("%+v; not judged: %q; %s", n, r.NotJudged, said(&r))
	}

	endLoad()
	lab.Eventually(t, 30*time.Second, func() error { // what is left is there for most of a minute
		before := stormy.timeWaits()
		r := checked(t, home, bin, "check", "--for=0", "--netns="+stormy.name, "--netns="+still.name)
		list, err := home.Command(t.Context(), bin, "sockets", "--netns="+stormy.name, "--state=time-wait", "--limit=100000", "--output=json")
		if err != nil {
			t.Fatal(err)
		}
		var sockets snapshot.SocketList
		if err := json.Unmarshal([]byte(list), &sockets); err != nil {
			t.Fatal(err)
		}
		after := stormy.timeWaits()
		seen, listed := int(namespaceOf(r, stormy.name).States.TimeWait), len(sockets.Sockets)
		if before != after || before != seen || before != listed || before == 0 {
			return fmt.Errorf("ss counts %d and %d, check %d, sockets lists %d", before, after, seen, listed)
		}
		return nil
	})

	died := stormy.witness()
	stormy.load()
	opened := stormy.timeWaits()
	lab.Eventually(t, 30*time.Second, func() error {
		if _, err := get(home, at+"/metrics"); err != nil {
			return err
		}
		if stormy.timeWaits() == opened {
			return errors.New("no storm")
		}
		return nil
	})
	endAll(t, stormy)
	stormy.remove()
	lab.Eventually(t, 30*time.Second, died)
	lab.Eventually(t, 30*time.Second, func() error {
		metrics, err := get(home, at+"/metrics")
		if err != nil {
			return err
		}
		if strings.Contains(metrics, stormy.name) {
			return errors.New("its series are there")
		}
		if !strings.Contains(metrics, `netns="`+still.name+`"`) {
			return errors.New("the other one's aren't")
		}
		return nil
	})
	log, err := stop()
	if err != nil || strings.Contains(string(log), "level=WARN") || strings.Contains(string(log), "level=ERROR") {
		t.Errorf("%v\n%s", err, log)
	}
}

// endAll ends whatever runs in the namespace.
func endAll(t *testing.T, o *outer) {
	t.Helper()
	for pid := range strings.FieldsSeq(string(must[[]byte](t)(exec.CommandContext(t.Context(), "ip", "netns", "pids", o.name).Output()))) {
		var n int
		if _, err := fmt.Sscan(pid, &n); err == nil {
			_ = unix.Kill(n, unix.SIGKILL)
		}
	}
}

// With the three capabilities that looking everywhere takes nothing is lacking;
// without one of them that is said once by each output, and the rest is there.
func TestLostCapabilities(t *testing.T) {
	t.Parallel()
	bin := program(t)
	other := newOuter(t, "other")
	other.start("sleep", "600")
	all := []string{"sys_admin", "sys_ptrace", "dac_read_search"}
	for _, c := range []struct {
		lost, said string
		features   []string // each of which is said once
	}{
		{"", "", nil},
		{"sys_admin", "CAP_SYS_ADMIN", []string{"namespaces"}},
		{"sys_ptrace", "CAP_SYS_PTRACE", []string{"namespaces", "owner"}},
		{"dac_read_search", "CAP_DAC_READ_SEARCH", []string{"owner"}},
	} {
		t.Run("without "+c.lost, func(t *testing.T) {
			t.Parallel()
			home := lab.NewT(t)
			set := "-all"
			for _, cap := range all {
				if cap != c.lost {
					set += ",+" + cap
				}
			}
			// Beside twwatch there is but one process: another user's, with a socket.
			command := func(what ...string) *exec.Cmd {
				what = append(what, "--netns=all", "--netns.include="+other.name)
				script := "mount -t proc proc /proc && { " + strings.Join(append(nobody(), lab.Tool(t, "redis-server")), " ") + ` --port 6379 --bind 127.0.0.1 --save "" --dir / >/dev/null & }
					for i in $(seq 1000); do ss -Htln | grep -q 6379 && break; done
					exec setpriv --bounding-set=` + set + ` --inh-caps=-all --no-new-privs "$0" "$@"`
				cmd := exec.Command("sh", append([]string{"-c", script, bin}, what...)...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
				return cmd
			}

			// check, as text.
			var out strings.Builder
			check := command("check", "--for=0")
			check.Stdout, check.Stderr = &out, os.Stderr
			if err := errors.Join(home.Do(check.Start), check.Wait()); err != nil {
				t.Fatal(err)
			}
			text := strings.Join(strings.Fields(out.String()), " ")
			lacks := 0
			for _, part := range strings.Split(text, "Not shown:")[1:] {
				if strings.Contains(strings.SplitN(part, "Not judged", 2)[0], c.said) || c.said == "" {
					lacks++
				}
			}
			if want := len(c.features); lacks != want {
				t.Errorf("%q is named %d times, want %d: %s", c.said, lacks, want, text)
			}
			if !strings.Contains(text, other.name) && c.lost != "sys_admin" || !strings.Contains(text, "28,232 ports") {
				t.Errorf("the rest isn't there: %s", text)
			}

			// serve, in its log and as a metric.
			serve := command("serve", "--interval=1s", "--cpu-budget=1", "--web.listen-address=127.0.0.1:10060")
			var log strings.Builder
			serve.Stderr = &log
			if err := home.Do(serve.Start); err != nil {
				t.Fatal(err)
			}
			end := func() error {
				_ = serve.Process.Signal(syscall.SIGTERM) // it may have ended
				return serve.Wait()
			}
			t.Cleanup(func() { _ = end() })
			passes := map[string]bool{}
			lab.Eventually(t, 30*time.Second, func() error {
				metrics, err := get(home, "http://127.0.0.1:10060/metrics")
				if err != nil {
					return err
				}
				passes[regexp.MustCompile(`(?m)^twwatch_last_collect_timestamp_seconds .*`).FindString(metrics)] = true
				for _, feature := range []string{"namespaces", "owner", "inet_diag", "limits", "counters"} {
					value := 1
					if slices.Contains(c.features, feature) {
						value = 0
					}
					if want := fmt.Sprintf("twwatch_feature_available{feature=%q} %d\n", feature, value); !strings.Contains(metrics, want) {
						return fmt.Errorf("no %s", want)
					}
				}
				if len(passes) < 3 {
					return errors.New("too few passes")
				}
				return nil
			})
			if err := end(); err != nil {
				t.Fatal(err)
			}
			// Who asks for the metrics is this test, outside of twwatch's PID
			// namespace: a pass that meets the connection says so.
			const ours = `err="processes outside of this PID namespace can't be seen"`
			lines := 0
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "not everything is looked at") && strings.Contains(line, c.said) && !strings.Contains(line, ours) {
					lines++
				}
			}
			if want := len(c.features); lines != want || strings.Contains(log.String(), "level=WARN") {
				t.Errorf("%d lines, want %d:\n%s", lines, want, log.String())
			}
		})
	}
}
