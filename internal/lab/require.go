package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// requireEnv lists the abilities, separated by commas, whose lack fails a test
// instead of skipping it; "all" names every one.
const requireEnv = "TWWATCH_REQUIRE"

// Require skips the test unless this machine has every ability named:
//
//	netns   a private network namespace can be made and changed
//	veth    two of them can be joined by a pair of devices
//	ss      iproute2's ss runs
//	userns  a user without rights can make a user and network namespace
//	        (also unprivileged-userns)
//
// Each is tried, not guessed from the user's id. Where TWWATCH_REQUIRE names a
// missing ability, the test fails.
func Require(t TB, abilities ...string) {
	t.Helper()
	require(t, probe, abilities...)
}

// Tool is the path of a program that the set-up of the tests installs, found in
// PATH (make adds .tools/bin). Its lack is that of an ability: see Require.
func Tool(t TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	Lacks(t, name, err)
	return path
}

// Lacks skips the test for want of an ability that only it can try, unless err is
// nil: see Require.
func Lacks(t TB, ability string, err error) {
	t.Helper()
	require(t, func(string) error { return err }, ability)
}

func require(t TB, probe func(ability string) error, abilities ...string) {
	t.Helper()
	required := strings.FieldsFunc(os.Getenv(requireEnv), func(r rune) bool { return r == ',' || r == ' ' })
	for _, ability := range abilities {
		err := probe(ability)
		switch {
		case err == nil:
		case errors.Is(err, errNoSuchAbility):
			t.Fatalf("%v: %q", err, ability)
		case slices.Contains(required, "all") || slices.Contains(required, ability):
			t.Fatalf("%s names %q, which this machine lacks: %v", requireEnv, ability, err)
		default:
			t.Skipf("needs %q: %v", ability, err)
		}
	}
}

// errNoSuchAbility is a mistake in the test, never skipped.
var errNoSuchAbility = errors.New("no such ability")

func probe(ability string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch ability {
	case "netns":
		return withNamespace(func(ns *Namespace) error {
			return ns.Sysctl("net.ipv4.ip_local_port_range", "32768 60999")
		})
	case "veth":
		return probeVeth()
	case "ss":
		return withNamespace(func(ns *Namespace) error {
			_, err := ns.Command(ctx, "ss", "-Htan")
			return err
		})
	case "userns", "unprivileged-userns":
		return userNamespaces(ctx)
	}
	return errNoSuchAbility
}

func withNamespace(fn func(*Namespace) error) error {
	ns, err := New(Options{})
	if err != nil {
		return err
	}
	err = fn(ns)
	if cerr := ns.Close(); err == nil {
		err = cerr
	}
	return err
}

func probeVeth() error {
	return withNamespace(func(a *Namespace) error {
		return withNamespace(func(b *Namespace) error {
			return a.AddVeth("probe0", netip.MustParsePrefix("10.77.0.1/24"), b, "probe0", netip.MustParsePrefix("10.77.0.2/24"))
		})
	})
}

// NewT is a fresh namespace for a test, closed at its end; the test is skipped,
// or fails (see Require), where none can be made.
func NewT(t TB) *Namespace {
	t.Helper()
	ns, err := New(Options{})
	if err != nil {
		Require(t, "netns")
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Logf("close the namespace: %v", err)
		}
	})
	return ns
}
