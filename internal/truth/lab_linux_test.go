package truth

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// look is one pass in the namespace.
func look(t testing.TB, ns *lab.Namespace) *snapshot.Namespace {
	t.Helper()
	return lookFor(t, ns, 0)
}

func lookFor(t testing.TB, ns *lab.Namespace, d time.Duration) *snapshot.Namespace {
	t.Helper()
	return reportFor(t, ns, d).Namespaces[0]
}

// reportFor is the last report of a look that takes d.
func reportFor(t testing.TB, ns *lab.Namespace, d time.Duration) *snapshot.Report {
	t.Helper()
	var found *snapshot.Report
	err := ns.Do(func() error {
		c, err := collector.New(collector.Config{})
		if err != nil {
			return err
		}
		defer c.Close()
		window, err := c.Look(t.Context(), d)
		if err != nil {
			return err
		}
		found = window[len(window)-1]
		for _, gap := range found.Incomplete {
			t.Errorf("incomplete: %+v", gap)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// flow finds the flow of one side to (client) or on (server) a port, with one
// remote address; nil if there is none.
func flow(n *snapshot.Namespace, side snapshot.Side, remote string, port uint16) *snapshot.Flow {
	for i := range n.Flows {
		if f := &n.Flows[i]; f.Side == side && f.Remote == remote && f.Port == port {
			return f
		}
	}
	return nil
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func sysctls(t testing.TB, ns *lab.Namespace, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if err := ns.Sysctl(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
}

// get fetches a page from a server in the namespace.
func get(ns *lab.Namespace, url string) (string, error) {
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialler(ns)}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// program is twwatch, built, in a folder that every user may enter.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "twwatch")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/twwatch").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// nobody runs what follows as a user without any right.
func nobody() []string {
	return []string{
		"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs",
	}
}

// start runs a program in the namespace until stop, which sends SIGTERM and
// gives what the program wrote and how it ended.
func start(t *testing.T, ns *lab.Namespace, args ...string) (stop func() ([]byte, error)) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return func() ([]byte, error) {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return out.Bytes(), err
		}
		err := <-ended
		return out.Bytes(), err
	}
}
