package truth

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// The victim of a flood listens there, with that backlog.
const (
	victimAt      = "192.0.2.1:1000"
	victimBacklog = 16
)

// floodScene is a listener whose answers to half of the world get lost.
func floodScene(t *testing.T, name string) (*scene, *puppet) {
	ns := lab.NewT(t)
	if err := ns.AddSink("sink", netip.MustParsePrefix("192.0.2.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), "sink"); err != nil {
		t.Fatal(err)
	}
	p := newPuppet(t, ns, "victim")
	p.do("listen %s %d", victimAt, victimBacklog)
	return &scene{name: name, ns: ns, load: func() { flood(t, ns, addrPort(victimAt)) }}, p
}

func synFlood(t *testing.T) []*scene {
	s, p := floodScene(t, "SYN flood")
	s.want = []string{"warning half-open-flood"}
	s.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Server, Port: 1000, Process: "victim"}, "half-open-room", "synack-retries")
		checkFlood(t, s.ns, p, f, "SYN cookies sent", "SyncookiesSent")
		must[*lab.Conn](t)(s.ns.Open(addrPort(victimAt), lab.ConnOptions{})) // real clients still get in, as is said
	}
	return []*scene{s}
}

func synFloodWithoutCookies(t *testing.T) []*scene {
	s, p := floodScene(t, "SYN flood, cookies off")
	sysctls(t, s.ns, "net.ipv4.tcp_syncookies", "0")
	s.want = []string{"critical half-open-flood"}
	s.check = func(t *testing.T, r *snapshot.Report) {
		f := about(t, r, snapshot.Subject{Side: snapshot.Server, Port: 1000, Process: "victim"}, "syn-cookies-on", "half-open-room", "syn-backlog", "synack-retries")
		checkFlood(t, s.ns, p, f, "SYNs dropped", "TCPReqQFullDrop")
	}
	return []*scene{s}
}

// checkFlood holds the finding against the kernel's counter, which goes on, and
// against the queue's size, which the kernel lets be by one too much.
func checkFlood(t *testing.T, ns *lab.Namespace, p *puppet, f *snapshot.Finding, what, counter string) {
	t.Helper()
	if n, now := evidence(t, f, what), must[int64](t)(ns.Counter("TcpExt", counter)); n < 1000 || n > float64(now) {
		t.Errorf("%s: %v, the kernel says %d by now", what, n, now)
	}
	if n := evidence(t, f, "half-open handshakes"); n < victimBacklog/2 || n > victimBacklog+1 {
		t.Errorf("%v half-open handshakes in a queue of %d", n, victimBacklog)
	}
	for _, want := range []string{fmt.Sprintf("port 1000 (victim, pid %d)", p.pid), "198.51.100.0/24, which may be forged"} {
		if !strings.Contains(f.Summary, want) {
			t.Errorf("no %q: %s", want, f.Summary)
		}
	}
}

// flood sends SYNs from addresses that nobody has, some hundred a second.
func flood(t *testing.T, ns *lab.Namespace, to netip.AddrPort) {
	t.Helper()
	fd := -1
	if err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	sent := 0
	each(t, ns, 100*time.Millisecond, func() error {
		for range 30 {
			sent++
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(sent)}), uint16(1024+sent%60_000))
			if err := unix.Sendto(fd, syn(from, to), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// syn is an IPv4 packet with a SYN (RFC 9293, section 3.1).
func syn(from, to netip.AddrPort) []byte {
	p := make([]byte, 40)
	src, dst := from.Addr().As4(), to.Addr().As4()
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP // the kernel fills in length and checksum
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	tcp := p[20:]
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	tcp[12], tcp[13], tcp[14] = 5<<4, 2, 0xff
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for i := 12; i < len(p); i += 2 { // both addresses, then the segment
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return p
}

// smallBacklog is that of the listeners whose accept queues overflow.
const smallBacklog = 5

// queueScene is a listener that doesn't accept. Its queue takes one connection
// more than its backlog, and clients that come then stay outside.
func queueScene(t *testing.T, name, program string) (*scene, *puppet) {
	ns := lab.NewT(t)
	p := newPuppet(t, ns, program)
	p.do("listen 127.0.0.1:1000 %d", smallBacklog)
	load := func() {
		openAll(t, ns, "127.0.0.1:1000", smallBacklog+1)
		each(t, ns, 300*time.Millisecond, func() error {
			_, err := ns.Open(addrPort("127.0.0.1:1000"), lab.ConnOptions{NoWait: true})
			return err
		})
	}
	// A look between the last connection that fits and the first that doesn't
	// finds a full queue, and nobody refused.
	return &scene{name: name, ns: ns, load: load, want: []string{"critical accept-queue-overflow"}, also: []string{"warning accept-queue-overflow"}}, p
}

func checkQueue(t *testing.T, p *puppet, r *snapshot.Report) *snapshot.Finding {
	t.Helper()
	f := about(t, r, snapshot.Subject{Side: snapshot.Server, Local: "127.0.0.1", Port: 1000, Process: p.name}, "accept-faster", "raise-backlog")
	want := fmt.Sprintf("port 1000 (%s, pid %d) overflows: %d wait where the limit is %d", p.name, p.pid, smallBacklog+1, smallBacklog)
	if !strings.Contains(f.Summary, want) {
		t.Errorf("no %q: %s", want, f.Summary)
	}
	return f
}

func acceptQueue(t *testing.T) []*scene {
	s, p := queueScene(t, "accept queue", "sleepy")
	s.check = func(t *testing.T, r *snapshot.Report) {
		if f := checkQueue(t, p, r); strings.Contains(f.Summary, "descriptor") {
			t.Errorf("it has descriptors: %s", f.Summary)
		}
	}
	return []*scene{s}
}

// starvedListener: accept() fails, since the process has no descriptor left.
func starvedListener(t *testing.T) []*scene {
	const limit = 64
	s, p := queueScene(t, "accept queue of a process without descriptors", "starved")
	p.do("limit %d", limit)
	fill := s.load
	s.load = func() {
		fill()
		if how := p.do("starve"); how != unix.EMFILE.Error() {
			t.Fatalf("accept: %s", how)
		}
	}
	s.check = func(t *testing.T, r *snapshot.Report) {
		f := checkQueue(t, p, r)
		if evidence(t, f, "open descriptors") != limit || evidence(t, f, "limit of descriptors") != limit || !strings.Contains(f.Summary, "all of its 64 descriptors are open") {
			t.Errorf("why isn't said: %s %+v", f.Summary, f.Evidence)
		}
	}
	return []*scene{s}
}
