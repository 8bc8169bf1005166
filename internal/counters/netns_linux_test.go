package counters

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// inNetns runs f on a thread of its own, in a fresh network namespace with
// loopback up. Thread and namespace end when f returns.
func inNetns(t *testing.T, f func() error) {
	t.Helper()
	result := make(chan error, 1)
	go enter(result, f)
	err := <-result
	if errors.Is(err, unix.EPERM) {
		skip(t, "netns", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func enter(result chan<- error, f func() error) {
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	if unix.Gettid() == unix.Getpid() {
		// The main thread can't be ended. While this goroutine holds it,
		// another one is sure to get another thread.
		defer runtime.UnlockOSThread()
		other := make(chan error, 1)
		go enter(other, f)
		result <- <-other
		return
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		result <- err
		return
	}
	if err := loopbackUp(); err != nil {
		result <- err
		return
	}
	result <- f()
}

// skip skips for want of an ability, unless TWWATCH_REQUIRE asks for it.
func skip(t *testing.T, ability string, why error) {
	t.Helper()
	for want := range strings.SplitSeq(os.Getenv("TWWATCH_REQUIRE"), ",") {
		if want == ability || want == "all" {
			t.Fatalf("%s is required by TWWATCH_REQUIRE: %v", ability, why)
		}
	}
	t.Skipf("needs %s: %v", ability, why)
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// shortConnections makes n connections to a listener of its own, one after the
// other; the client closes first, so n TIME_WAIT stay.
func shortConnections(n int) error {
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ln)
	addr := &unix.SockaddrInet4{Port: 1000, Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(ln, addr), unix.Listen(ln, 8)); err != nil {
		return err
	}
	for range n {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(client, addr); err != nil {
			return errors.Join(err, unix.Close(client))
		}
		server, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
		if err := errors.Join(err, unix.Close(client), unix.Close(server)); err != nil {
			return err
		}
	}
	return nil
}

// The thread's namespace is read, not the process's; what was done there is
// what is counted; procfs's own reading of every file agrees.
func TestReadThreadsNamespace(t *testing.T) {
	const n = 7
	host, err := Read("/proc/self/net")
	if err != nil {
		t.Fatal(err)
	}
	inNetns(t, func() error {
		before, err := Read("")
		if err != nil {
			return err
		}
		if got := before.Counters["ActiveOpens"]; got != 0 || *before.Sockstat.TimeWait != 0 {
			t.Errorf("a fresh namespace has %d ActiveOpens, %d TIME_WAIT", got, *before.Sockstat.TimeWait)
		}
		if err := shortConnections(n); err != nil {
			return err
		}
		files, err := openFiles()
		if err != nil {
			return err
		}
		s, err := Read("")
		if err != nil {
			return err
		}
		if after, err := openFiles(); err != nil || after != files {
			t.Errorf("%d files were open before Read, %d after it (%v)", files, after, err)
		}
		for key, want := range map[string]uint64{
			"ActiveOpens": n, "PassiveOpens": n, "TW": n, "TWKilled": 0, "TWRecycled": 0,
			"TCPTimeWaitOverflow": 0, "AttemptFails": 0, "CurrEstab": 0, "ListenDrops": 0,
		} {
			if got, ok := s.Counters[key]; !ok || got != want {
				t.Errorf("%s = %d, %v, want %d", key, got, ok, want)
			}
		}
		if got := *s.Sockstat.TimeWait; got != n {
			t.Errorf("sockstat tw = %d, want %d", got, n)
		}
		return compareWithProcfs(t, s)
	})
	if host.Counters["InSegs"] == 0 && host.Counters["ActiveOpens"] == 0 {
		t.Log("the host has never had a TCP connection")
	}
}

func openFiles() (int, error) {
	d, err := os.ReadDir("/proc/thread-self/fd")
	return len(d), err
}

// compareWithProcfs reads the same counters through procfs's per-process
// reader, which finds the thread under its number.
func compareWithProcfs(t *testing.T, s Sample) error {
	t.Helper()
	tasks, err := procfs.NewFS("/proc/self/task")
	if err != nil {
		return err
	}
	thread, err := tasks.Proc(unix.Gettid())
	if err != nil {
		return err
	}
	netstat, err := thread.Netstat()
	if err != nil {
		return err
	}
	snmp, err := thread.Snmp()
	if err != nil {
		return err
	}
	checked := 0
	for protocol, values := range map[string]any{"TcpExt": netstat.TcpExt, "Tcp": snmp.Tcp} {
		names := map[string][]string{"TcpExt": tcpExtNames(), "Tcp": tcpNames()}[protocol]
		v := reflect.ValueOf(values)
		for _, name := range names {
			if name == "PAWSTimewait" {
				continue // not known to procfs
			}
			field := v.FieldByName(name)
			if !field.IsValid() {
				return fmt.Errorf("procfs has no %s.%s", protocol, name)
			}
			want, _ := reflect.TypeAssert[*float64](field)
			got, ok := s.Counters[name]
			if ok != (want != nil) || ok && float64(got) != *want {
				t.Errorf("%s: %d (there: %v), procfs says %v", name, got, ok, field)
			}
			checked++
		}
	}
	if checked != len(Names())-1 {
		t.Errorf("%d counters compared", checked)
	}
	return nil
}

func BenchmarkRead(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(""); err != nil {
			b.Fatal(err)
		}
	}
}
