package sysctl

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNetns runs f on a thread of its own in a fresh network namespace. The
// thread, and so its hold on the namespace, ends when f returns.
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

func write(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}

// Files read the namespace they were opened in, from any thread, do not keep
// it alive, and say so when it has died.
func TestFilesFollowTheirNamespace(t *testing.T) {
	host, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	before, err := host.Read()
	if err != nil {
		t.Fatal(err)
	}

	opened := make(chan *Files, 1)
	end := make(chan struct{})
	failed := make(chan string, 1)
	inNetnsUntil(t, end, func() error {
		for name, value := range map[string]string{
			"net/ipv4/ip_local_port_range":     "20001 20200",
			"net/ipv4/ip_local_reserved_ports": "20010-20019,20100",
			"net/ipv4/tcp_max_tw_buckets":      "1234",
			"net/core/somaxconn":               "77",
		} {
			if err := write(name, value); err != nil {
				return err
			}
		}
		files, err := Open("")
		if err != nil {
			return err
		}
		opened <- files
		return nil
	}, failed)
	var files *Files
	select {
	case files = <-opened:
	case why := <-failed:
		t.Fatal(why)
	}
	defer files.Close()

	got, err := files.Read() // on this test's thread, which is in the host's namespace
	if err != nil {
		t.Fatal(err)
	}
	if *got.IPLocalPortRange != (PortRange{20001, 20200}) || got.IPLocalReservedPorts.String() != "20010-20019,20100" ||
		*got.TCPMaxTWBuckets != 1234 || *got.Somaxconn != 77 {
		t.Errorf("read %v, %v, %d, %d: not what was written in the namespace",
			got.IPLocalPortRange, got.IPLocalReservedPorts, *got.TCPMaxTWBuckets, *got.Somaxconn)
	}
	after, err := host.Read()
	if err != nil {
		t.Fatal(err)
	}
	if *after.IPLocalPortRange != *before.IPLocalPortRange || *after.TCPMaxTWBuckets != *before.TCPMaxTWBuckets ||
		*after.IPLocalPortRange == *got.IPLocalPortRange || *after.TCPMaxTWBuckets == *got.TCPMaxTWBuckets {
		t.Errorf("host: %v, %d", after.IPLocalPortRange, *after.TCPMaxTWBuckets)
	}

	close(end)
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		limits, err := files.Read()
		if errors.Is(err, ErrGone) {
			if limits != (Limits{}) {
				t.Errorf("ErrGone came with %+v", limits)
			}
			return
		}
		if err != nil {
			t.Fatalf("while the namespace dies: %v", err)
		}
		select {
		case <-deadline:
			t.Fatal("the namespace did not die within 30 s, or Read did not notice")
		case <-tick.C:
		}
	}
}

// inNetnsUntil is inNetns, but returns when f has, and keeps the thread until
// end is closed.
func inNetnsUntil(t *testing.T, end <-chan struct{}, f func() error, failed chan<- string) {
	t.Helper()
	ready := make(chan error, 1)
	result := make(chan error, 1)
	go enter(result, func() error {
		ready <- f()
		<-end
		return nil
	})
	select {
	case err := <-ready:
		if err != nil {
			failed <- err.Error()
		}
	case err := <-result:
		if errors.Is(err, unix.EPERM) {
			skip(t, "netns", err)
		}
		t.Fatal(err)
	}
}

// The kernel's own formatting of reserved ports, up to its longest.
func TestReservedPortsRoundTrip(t *testing.T) {
	inNetns(t, func() error {
		files, err := Open("")
		if err != nil {
			return err
		}
		defer files.Close()
		for _, in := range []string{"", "0", "1-2,5,6,100-200,0", "65535", "0-65535", "8080,9148-9150", alternating(600), alternating(10000)} {
			set, err := ParsePortSet(in)
			if err != nil {
				return err
			}
			if err := write("net/ipv4/ip_local_reserved_ports", in+"\n"); err != nil {
				return err
			}
			limits, err := files.Read()
			if err != nil {
				return err
			}
			if !limits.IPLocalReservedPorts.Equal(set) {
				t.Errorf("wrote %.40q (%d ports), read %d ports", in, set.Count(), limits.IPLocalReservedPorts.Count())
			}
			text, err := readWhole("/proc/sys/net/ipv4/ip_local_reserved_ports")
			if err != nil {
				return err
			}
			if got := set.String() + "\n"; got != text {
				t.Errorf("String() is %.40q, the kernel prints %.40q", got, text)
			}
		}
		return nil
	})
}

// readWhole reads with one large read. os.ReadFile begins with 512 bytes and
// gets no more: the kernel cuts the list at the end of the first read.
func readWhole(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	n, err := f.Read(buf)
	return string(buf[:n]), err
}

// alternating lists n ports, every other one.
func alternating(n int) string {
	var ports []string
	for p := range n {
		ports = append(ports, PortRange{uint16(10000 + 2*p), uint16(10000 + 2*p)}.String())
	}
	return strings.Join(ports, ",")
}

// The settings of the whole host are not to be had elsewhere.
func TestReadHostElsewhere(t *testing.T) {
	inNetns(t, func() error {
		h, err := ReadHost("")
		if err != nil {
			return err
		}
		if h.TCPMaxOrphans != nil || h.TCPMem != nil || h.NFConntrackMax != nil {
			t.Errorf("in a namespace of one's own: %+v, want nil", h)
		}
		return nil
	})
}

// A file that may not be read costs its own value, and every Read says so.
func TestOpenForbidden(t *testing.T) {
	root := fakeRoot(t, map[string]string{"net/core/somaxconn": "1\n", "net/ipv4/tcp_fin_timeout": "60\n"})
	forbidden := filepath.Join(root, "net/core/somaxconn")
	closed := fakeRoot(t, map[string]string{"net/core/somaxconn": "1\n"})
	result := make(chan error, 1)
	go enter(result, func() error {
		if err := errors.Join(
			os.Chmod(filepath.Dir(root), 0o755), // the parent of all of the test's directories
			os.Chmod(forbidden, 0),
			os.Chmod(closed, 0),
		); err != nil {
			return err
		}
		// As nobody, on this thread alone, which ends with the test.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
			return errno
		}
		files, err := Open(root)
		if err != nil {
			return err
		}
		defer files.Close()
		for range 2 {
			limits, err := files.Read()
			if e := (*Error)(nil); !errors.As(err, &e) || e.Path != forbidden || !errors.Is(err, fs.ErrPermission) {
				t.Errorf("error: %v", err)
			}
			if limits.Somaxconn != nil || limits.TCPFinTimeout == nil {
				t.Errorf("limits: %+v", limits)
			}
		}
		if _, err := Open(closed); !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "\n") {
			t.Errorf("a root that may not be entered: %v", err)
		}
		host, err := ReadHost("")
		if err != nil || host.TCPMem != nil {
			t.Errorf("host: %+v, %v", host, err)
		}
		return nil
	})
	if err := <-result; errors.Is(err, unix.EPERM) {
		skip(t, "netns", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// The running kernel: every file, read another way, says the same.
func TestReadReal(t *testing.T) {
	limits, err := read(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if limits.TCPMaxTWBuckets == nil || limits.IPLocalPortRange == nil || limits.IPLocalReservedPorts == nil || limits.Somaxconn == nil {
		t.Error("settings that every kernel has are missing")
	}
	b, err := json.Marshal(limits)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, s := range settings() {
		key := path.Base(s.name)
		text, err := os.ReadFile("/proc/sys/" + s.name)
		if errors.Is(err, fs.ErrNotExist) {
			if _, there := got[key]; there {
				t.Errorf("%s is %v, but the kernel lacks it", key, got[key])
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var shown string
		switch v := got[key].(type) {
		case string:
			shown = v
		default:
			j, _ := json.Marshal(v)
			shown = strings.Join(strings.Split(strings.Trim(string(j), "[]"), ","), "\t")
		}
		if want := strings.TrimSpace(string(text)); shown != want {
			t.Errorf("%s: %q, want %q", key, shown, want)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	files, err := Open("")
	if err != nil {
		b.Fatal(err)
	}
	defer files.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := files.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
