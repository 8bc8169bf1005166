package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// A pulse is what procfs reads too; it stays while nothing moves and changes
// when one connection does, through a process as through a mount.
func TestPulse(t *testing.T) {
	inside(t)
	const connections = 7
	w := watch(t, Config{})
	c, _ := inRole(t, fmt.Sprintf("storm %d", connections), unix.CLONE_NEWNET)
	refresh(t, w)
	n := find(t, w, c.inode())
	first, err := w.Pulse(n)
	if err != nil {
		t.Fatal(err)
	}
	if want := ofProcfs(t, c.pid()); first != want {
		t.Errorf("pulse %+v, procfs reads %+v", first, want)
	}
	// 3 segments to open, 2 FIN, 2 ACK, or less where they are put together.
	if first.TimeWait != connections || first.InSegs < 5*connections || first.InSegs > 7*connections || first.InSegs != first.OutSegs || first.InUse != 1 {
		t.Errorf("%+v after %d connections over loopback", first, connections)
	}
	if again, err := w.Pulse(n); err != nil || again != first {
		t.Errorf("%+v, then %+v (%v)", first, again, err)
	}

	mount(t, c, "/run/netns/pulse")
	path := "/run/netns/pulse"
	if err := within(path, connectOnce); err != nil {
		t.Fatal(err)
	}
	moved, err := w.Pulse(n)
	if err != nil || moved == first {
		t.Errorf("%+v after one more connection (%v)", moved, err)
	}
	c.end()
	if _, err := w.Pulse(n); !errors.Is(err, ErrGone) {
		t.Errorf("by a process that ended: %v", err)
	}
	refresh(t, w)
	if p, err := w.Pulse(n); err != nil || n.PID != 0 || p.TimeWait < connections || p.InSegs < moved.InSegs || p.InUse != 0 {
		t.Errorf("by the mount %+v (%v), want it to go on from %+v, without the listener", p, err, moved)
	}
	unmount(path)
	if _, err := w.Pulse(n); !errors.Is(err, ErrGone) {
		t.Errorf("by a mount that is gone: %v", err)
	}
}

func connectOnce() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Connect(s, &unix.SockaddrInet4{Port: 1000, Addr: [4]byte{127, 0, 0, 1}}), unix.Close(s))
}

// ofProcfs reads the same by the other library.
func ofProcfs(t *testing.T, pid int) Pulse {
	t.Helper()
	fsys, err1 := procfs.NewFS(fmt.Sprintf("/proc/%d", pid))
	all, err2 := procfs.NewFS("/proc")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	stat, err1 := fsys.NetSockstat()
	p, err2 := all.Proc(pid)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	snmp, err := p.Snmp()
	if err != nil {
		t.Fatal(err)
	}
	pulse := Pulse{InSegs: uint64(*snmp.Tcp.InSegs), OutSegs: uint64(*snmp.Tcp.OutSegs)}
	for _, of := range stat.Protocols {
		if of.Protocol == "TCP" {
			pulse.InUse, pulse.TimeWait = uint64(of.InUse), uint64(*of.TW)
		}
	}
	return pulse
}

// A process that left its namespace to others: the Refresh after it was missed
// knows another one.
func TestPulseByAnother(t *testing.T) {
	inside(t)
	w := watch(t, Config{})
	a := start(t, exec.Command("sh", "-c", `echo started; read line; exec nsenter --net=/proc/1/ns/net sh -c "echo home; exec cat"`), unix.CLONE_NEWNET)
	a.line()
	b := start(t, exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", a.pid()), "sh", "-c", "echo here; exec cat"), 0)
	b.line()
	refresh(t, w)
	refresh(t, w)
	n := find(t, w, a.inode())
	if _, err := a.in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	a.line()
	if _, err := w.Pulse(n); n.PID != a.pid() || !errors.Is(err, ErrGone) {
		t.Errorf("of process %d: %v", n.PID, err)
	}
	w.turn = a.pid() % rounds // its turn isn't soon
	refresh(t, w)
	if _, err := w.Pulse(n); n.PID != b.pid() || err != nil {
		t.Errorf("of process %d: %v, want process %d", n.PID, err, b.pid())
	}
}

// A file that isn't there is an error, not a pulse of 0.
func TestPulseUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/7/net", 0o755), os.WriteFile(dir+"/7/net/snmp", []byte("Tcp: InSegs OutSegs\nTcp: 1 2\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	proc, err := openTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.close()
	w := Watcher{proc: proc, text: make([]byte, textSize), config: Config{Proc: dir}}
	if p, err := w.readPulse("7/net/"); !errors.Is(err, ErrGone) {
		t.Errorf("%+v, %v", p, err)
	}
	if err := os.WriteFile(dir+"/7/net/sockstat", []byte("sockets: used 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if p, err := w.readPulse("7/net/"); !errors.As(err, &e) || e.Op != "read" || e.Path != dir+"/7/net/sockstat" {
		t.Errorf("%+v, %v", p, err)
	}
}
