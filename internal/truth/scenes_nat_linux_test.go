package truth

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

func nft(t *testing.T, ns *lab.Namespace, rules string) {
	t.Helper()
	must[string](t)(ns.Command(t.Context(), lab.Tool(t, "nft"), rules))
}

// sourceNAT is a namespace in which conntrack counts, and source NAT has few
// ports for two destinations.
func sourceNAT(t *testing.T) *lab.Namespace {
	t.Helper()
	ns := lab.NewT(t)
	nft(t, ns, `table ip test {
		chain output { type filter hook output priority 0
			ct state new counter
		}
		chain postrouting { type nat hook postrouting priority 100
			ip daddr 127.0.0.9 udp dport 53 snat to 127.0.0.1:5000-5001
			ip daddr 127.0.0.9 tcp dport 80 snat to 127.0.0.1:5000-5003
		}
	}`)
	return ns
}

// question sends a datagram from a socket of its own: all but the first two find
// no port.
func question() error {
	c, err := net.Dial("udp", "127.0.0.9:53")
	if err != nil {
		return err
	}
	_, _ = c.Write([]byte("?")) // conntrack refuses it, and that is what is wanted
	return c.Close()
}

func failedInserts(t *testing.T, r *snapshot.Report) uint64 {
	t.Helper()
	c := r.Namespaces[0].Conntrack
	if c == nil || c.InsertFailed == nil {
		t.Fatal("conntrack's counters are unknown")
	}
	return *c.InsertFailed
}

// udpWithoutPorts: conntrack can't make entries for UDP.
func udpWithoutPorts(t *testing.T) []*scene {
	ns := sourceNAT(t)
	return []*scene{{
		name: "UDP questions without a port", ns: ns,
		load: func() { each(t, ns, 100*time.Millisecond, question) },
		check: func(t *testing.T, r *snapshot.Report) {
			if n := failedInserts(t, r); n < 50 {
				t.Errorf("only %d failed: the scene shows nothing", n)
			}
		},
	}}
}

// deadDestination: the same, and a host is gone to which many connections are
// tried, without any NAT.
func deadDestination(t *testing.T) []*scene {
	ns := sourceNAT(t)
	if err := ns.AddSink("gone", netip.MustParsePrefix("192.0.2.1/24")); err != nil {
		t.Fatal(err)
	}
	tries := newPuppet(t, ns, "tries")
	return []*scene{{
		name: "UDP questions without a port, and a dead host", ns: ns,
		load: func() {
			each(t, ns, time.Second, question)
			tries.do("knock 192.0.2.9:80 4")
		},
		check: func(t *testing.T, r *snapshot.Report) {
			if n, hang := failedInserts(t, r), r.Namespaces[0].States.SynSent; n < 5 || hang < 20 {
				t.Errorf("only %d failed, and %d hang: the scene shows nothing", n, hang)
			}
		},
	}}
}

// snatRunsDry: four connections take all the ports of a source NAT.
func snatRunsDry(t *testing.T) []*scene {
	ns := sourceNAT(t)
	must[*lab.Server](t)(ns.Listen(addrPort("127.0.0.9:80"), lab.ListenOptions{Mode: lab.Never}))
	s := &scene{name: "source NAT without a port", ns: ns, want: []string{"critical snat-exhaustion"}, ready: programNamed}
	p := s.keep(t, "knocks", ns, "127.0.0.1")
	s.load = func() { p.do("knock 127.0.0.9:80 4") }
	s.check = func(t *testing.T, r *snapshot.Report) {
		about(t, r, snapshot.Subject{Side: snapshot.Client, Local: "127.0.0.1", Remote: "127.0.0.9", Port: 80, Service: "http", Process: "knocks"},
			"reuse-connections", "more-addresses", "snat-addresses", "conntrack-shorter-time-wait")
		if n := flow(r.Namespaces[0], snapshot.Client, "127.0.0.9", 80).States.Established; n != 4 {
			t.Errorf("%d connections got a port", n)
		}
	}
	return []*scene{s}
}

// clientsBehindNAT: clients that share an address meet the TIME_WAIT of each
// other at a server, and each has another clock for its timestamps.
func clientsBehindNAT(t *testing.T) []*scene {
	const clients = 20
	inside, gateway, server := lab.NewT(t), lab.NewT(t), lab.NewT(t)
	for _, err := range []error{
		inside.AddVeth("in", netip.MustParsePrefix("10.1.0.1/24"), gateway, "gin", netip.MustParsePrefix("10.1.0.254/24")),
		gateway.AddVeth("gout", netip.MustParsePrefix("10.2.0.254/24"), server, "out", netip.MustParsePrefix("10.2.0.1/24")),
		inside.AddRoute(netip.MustParsePrefix("10.2.0.0/24"), "in"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range clients {
		if err := inside.AddAddressTo("in", netip.MustParsePrefix(fmt.Sprintf("10.1.0.%d/24", 2+i))); err != nil {
			t.Fatal(err)
		}
	}
	nft(t, gateway, `table ip test {
		chain postrouting { type nat hook postrouting priority 100
			oifname gout snat to 10.2.0.254
		}
	}`)
	sysctls(t, gateway, "net.ipv4.ip_forward", "1", "net.ipv4.conf.gin.proxy_arp", "1",
		"net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1") // as gateways do that have few ports
	must[*lab.Server](t)(server.Listen(addrPort("10.2.0.1:1000"), lab.ListenOptions{Mode: lab.CloseByServer}))
	connect := func(client, port int) *lab.Conn {
		from := addrPort(fmt.Sprintf("10.1.0.%d:%d", 1+client, 41000+port))
		return must[*lab.Conn](t)(inside.Open(addrPort("10.2.0.1:1000"), lab.ConnOptions{Local: from, NoWait: true}))
	}
	load := func() {
		var first []*lab.Conn
		for i := range clients {
			first = append(first, connect(0, i))
		}
		lab.Eventually(t, 20*time.Second, func() error {
			if n := must[map[int]int](t)(inside.States())[unix.BPF_TCP_CLOSE_WAIT]; n != clients {
				return fmt.Errorf("the server has closed %d of %d connections", n, clients)
			}
			return nil
		})
		for _, c := range first {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		closed := time.Now()
		lab.Eventually(t, 20*time.Second, func() error { // the gateway gives their ports to others
			if since := time.Since(closed); since < 1500*time.Millisecond {
				return fmt.Errorf("closed %v ago", since)
			}
			return nil
		})
		for i := range clients {
			connect(1+i, i)
		}
	}
	return []*scene{{
		name: "clients behind one address", ns: server, load: load, want: []string{"warning paws-drops"}, once: true,
		check: func(t *testing.T, r *snapshot.Report) {
			about(t, r, snapshot.Subject{}, "paws-one-clock", "never-tw-recycle")
			// A clock is behind or ahead by chance, as that of a coin.
			if refused := must[int64](t)(server.Counter("TcpExt", "PAWSTimewait")); refused < 1 {
				t.Errorf("%d segments were refused: the scene shows nothing", refused)
			}
		},
	}}
}
