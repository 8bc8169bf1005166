//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
)

// roleEnv makes this test binary play another part than running tests.
const roleEnv = "LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func listenT(t *testing.T, ns *Namespace, addr netip.AddrPort, opts ListenOptions) *Server {
	t.Helper()
	s, err := ns.Listen(addr, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pair(t *testing.T, ns *Namespace, s *Server) *Pair {
	t.Helper()
	p, err := ns.Pair(s, ConnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func counter(t *testing.T, ns *Namespace, group, name string) int64 {
	t.Helper()
	v, err := ns.Counter(group, name)
	must(t, err)
	return v
}

func equal[T comparable](what string, want, got T) error {
	if want != got {
		return fmt.Errorf("%s: want %v, got %v", what, want, got)
	}
	return nil
}
