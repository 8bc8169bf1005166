package report

import (
	"bytes"
	"testing"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

func TestSockets(t *testing.T) {
	short := []snapshot.Socket{
		{State: "time_wait", Local: "10.0.0.5:43212", Remote: "10.0.0.9:6379", AgeSeconds: new(12.3)},
		{State: "close_wait", Local: "10.0.0.5:443", Remote: "10.0.7.2:51022", AgeSeconds: new(7812.0), AgeAtLeast: true, RecvQ: 1, UID: new(uint32(33)), Inode: 918273},
		{State: "established", Local: "10.0.0.5:443", Remote: "10.0.7.2:51023", Timer: "keepalive", TimerSeconds: new(7200.0), SendQ: 1448, UID: new(uint32(33)), Inode: 918274, PID: 77, Comm: "nginx"},
		{State: "listen", Local: "0.0.0.0:443", UID: new(uint32(0)), Inode: 7},
		{State: "close_wait", Local: "10.0.0.5:443", Remote: "10.0.7.3:51023", RecvQ: 312, UID: new(uint32(0))},
	}
	long := append(short[:2:2], snapshot.Socket{
		State: "time_wait", Local: "[2001:db8:1111:2222:3333:4444:5555:6666]:43212", Remote: "[2001:db8:1111:2222:3333:4444:5555:6667]:27017",
		Device: "eth0\x1b[2J", AgeSeconds: new(59.9),
	})
	for _, test := range []struct {
		name      string
		rows      []snapshot.Socket
		truncated bool
		options   Options
	}{
		{"sockets-narrow", short, false, Options{}},
		{"sockets-wide", short, false, Options{Width: 110}},
		{"sockets-ipv6", long, true, Options{}},
		{"sockets-ascii", short, true, Options{Style: draw.Style{ASCII: true}}},
		{"sockets-none", nil, false, Options{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Sockets(&b, test.rows, test.truncated, test.options); err != nil {
				t.Fatal(err)
			}
			if fault := faults(b.String(), test.options.withDefaults()); fault != "" {
				t.Error(fault)
			}
			golden(t, test.name, b.String())
		})
	}
}
