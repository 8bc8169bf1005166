package flow

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
)

func synRecv(port int, remote string) row {
	return row{state: inetdiag.SynRecv, src: fmt.Sprintf("192.168.0.1:%d", port), dst: remote}
}

func TestHalfOpen(t *testing.T) {
	rows := []row{
		{state: inetdiag.Listen, src: "0.0.0.0:443", dst: "0.0.0.0:0"},
		synRecv(443, "10.1.2.3:40000"), synRecv(443, "10.1.2.99:40000"), synRecv(443, "10.1.3.3:40000"), synRecv(80, "10.1.2.3:40000"),
		{state: inetdiag.SynRecv, src: "[2001:db8::1]:443", dst: "[2001:db8:1:2:3::4]:5"},
		{state: inetdiag.SynRecv, src: "[2001:db8::1]:443", dst: "[2001:db8:1:2:4::4]:5"},
		{state: inetdiag.SynRecv, src: "[2001:db8::1]:443", dst: "[2001:db8:1:2:5::4]:5"},
		established("192.168.0.1:443", "10.1.2.3:40001"),
	}
	want := []snapshot.HalfOpen{
		{Port: 443, Remote: "2001:db8:1:2::/64", Sockets: 3},
		{Port: 443, Remote: "10.1.2.0/24", Sockets: 2},
		{Port: 80, Remote: "10.1.2.0/24", Sockets: 1},
		{Port: 443, Remote: "10.1.3.0/24", Sockets: 1},
	}
	table := NewTable()
	for range 2 { // the second look begins anew
		if diff := cmp.Diff(want, look(t, table, config(), rows).HalfOpen); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got := look(t, table, config(), rows[:1]).HalfOpen; got != nil {
		t.Errorf("without a handshake: %+v", got)
	}
}

// However many addresses are forged, the table is bounded, the list too, and
// their sum is that of the sockets.
func TestHalfOpenFlood(t *testing.T) {
	for _, ports := range []int{1, 5, 40} {
		var rows []row
		for i := range 20_000 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 7})
			rows = append(rows, synRecv(443+i%ports, a.String()+":50000"))
		}
		for range 30 {
			rows = append(rows, synRecv(22, "10.0.0.9:50000")) // late, and beyond the table
		}
		table := NewTable()
		n := look(t, table, config(), rows)
		sum, rest := 0, 0
		for i, h := range n.HalfOpen {
			sum += int(h.Sockets)
			if h.Remote == "" {
				rest++
			}
			if i > 0 && n.HalfOpen[i-1].Sockets < h.Sockets {
				t.Errorf("%d ports: row %d has more than the one before", ports, i)
			}
		}
		if sum != len(rows) || len(n.HalfOpen) > snapshot.MaxHalfOpen || rest == 0 || len(table.halfOpen.networks) != 0 || cap(table.halfOpen.networks) > 2*maxHalfOpen {
			t.Errorf("%d ports: %d rows, %d of them without a network, sum up to %d of %d", ports, len(n.HalfOpen), rest, sum, len(rows))
		}
		if ports == 1 && n.HalfOpen[0] != (snapshot.HalfOpen{Port: 443, Sockets: uint32(20_000 - ownRows)}) {
			t.Errorf("first %+v", n.HalfOpen[0])
		}
	}
}
