package truth

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/internal/lab"
)

// puppetEnv holds the name of the program that the test binary plays instead of
// testing.
const puppetEnv = "TWWATCH_TRUTH_PUPPET"

// TestPuppet tests nothing: it is what a test starts as a process of its own.
func TestPuppet(*testing.T) {
	name := os.Getenv(puppetEnv)
	if name == "" {
		return
	}
	err := os.WriteFile("/proc/self/comm", []byte(name), 0) // the main thread's
	if err == nil {
		err = (&actor{listener: -1}).play(os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A puppet is a process in a namespace that does what it is told. It ends with
// the test, and is killed by nobody.
type puppet struct {
	t    *testing.T
	name string
	pid  int
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func newPuppet(t *testing.T, ns *lab.Namespace, name string) *puppet {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestPuppet$")
	cmd.Env, cmd.Stderr = append(os.Environ(), puppetEnv+"="+name), os.Stderr
	p := &puppet{t: t, name: name, cmd: cmd, in: must[io.WriteCloser](t)(cmd.StdinPipe())}
	p.out = bufio.NewScanner(must[io.ReadCloser](t)(cmd.StdoutPipe()))
	p.out.Buffer(nil, 16<<20)
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	t.Cleanup(p.exit)
	p.do("hello")
	return p
}

func (p *puppet) exit() {
	if p.cmd.ProcessState == nil {
		p.in.Close()
		_ = p.cmd.Wait()
	}
}

// do gives an order, and waits for its answer.
func (p *puppet) do(format string, args ...any) string {
	p.t.Helper()
	order := fmt.Sprintf(format, args...)
	fmt.Fprintln(p.in, order)
	if !p.out.Scan() {
		p.t.Fatalf("%s has no answer to %q: %v", p.name, order, p.out.Err())
	}
	answer, ok := strings.CutPrefix(p.out.Text(), "done ")
	if !ok {
		p.t.Fatalf("%s: %s: %s", p.name, order, answer)
	}
	return answer
}

// A made is a connection of a traffic: when it was asked for and there,
// when it was asked to close and closed.
type made struct {
	Port                             uint16 // its own
	Dialing, Dialed, Closing, Closed int64  // Unix time, ns
}

// record is what a puppet's load has made, when it has ended.
func (p *puppet) record() []made {
	p.t.Helper()
	var all []made
	if err := json.Unmarshal([]byte(p.do("record")), &all); err != nil {
		p.t.Fatal(err)
	}
	return all
}

// An actor is the puppet's own side. Its sockets are plain descriptors: nothing
// reads or closes one behind its back.
type actor struct {
	listener int
	held     []int
	tls      []*tls.Conn
	tlsMu    sync.Mutex
	leaks    chan []int64
	load     chan []made
}

// play takes orders, one a line, and answers each in a line. It ends with its
// input.
func (a *actor) play(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer, err := a.obey(strings.Fields(lines.Text()))
		if err != nil {
			answer = "failed: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		} else {
			answer = "done " + answer
		}
		fmt.Fprintln(out, answer)
	}
	return lines.Err()
}

func (a *actor) obey(order []string) (answer string, err error) {
	name, args := order[0], order[1:]
	switch name {
	case "hello":
	case "listen": // ADDRESS BACKLOG
		a.listener, err = listenAt(args[0], number(args[1]))
	case "accept": // COUNT
		err = a.hold(number(args[0]), func() (int, error) { fd, _, err := unix.Accept(a.listener); return fd, err })
	case "dial": // ADDRESS COUNT
		err = a.hold(number(args[1]), func() (int, error) { return dial(args[0]) })
	case "knock": // ADDRESS RATE: begin connections, without waiting for an answer
		go knock(args[0], float64(number(args[1])))
	case "starve": // take all descriptors, then accept; answers with how that fails
		err = a.hold(1<<20, func() (int, error) { return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
		if errors.Is(err, unix.EMFILE) {
			_, _, err = unix.Accept(a.listener)
			answer, err = fmt.Sprint(err), nil
		}
	case "end": // read each connection to its end
		err = a.each(readToEnd)
	case "keep": // the connections that it has: later orders aren't about them
		a.held = nil
	case "close":
		err = a.each(unix.Close)
		a.held = nil
	case "trickle": // send a byte on each connection, five times a second
		go a.trickle()
	case "limit": // COUNT: of descriptors; what was inherited above it is closed
		n := uint64(number(args[0]))
		err = errors.Join(unix.CloseRange(uint(n), math.MaxUint32, 0), unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}))
	case "descriptors":
		var files []os.DirEntry
		files, err = os.ReadDir("/proc/self/fd")
		answer = strconv.Itoa(len(files) - 1) // that folder's own
	case "leak": // ADDRESS RATE
		a.leaks = make(chan []int64, 1)
		go func() { a.leaks <- leak(args[0], float64(number(args[1]))) }()
	case "full": // waits until the leak has met the limit; answers with its times
		var b []byte
		b, err = json.Marshal(<-a.leaks)
		answer = string(b)
	case "serve-tls": // ADDRESS VERSION
		err = a.serveTLS(args[0], number(args[1]))
	case "dial-tls": // ADDRESS VERSION COUNT
		err = a.dialTLS(args[0], number(args[1]), number(args[2]))
	case "close-tls":
		a.tlsMu.Lock()
		defer a.tlsMu.Unlock()
		for _, c := range a.tls {
			err = errors.Join(err, c.Close())
		}
	case "serve-rudely": // ADDRESS HOLD: close each connection without a look at what it asks
		err = a.serveRudely(args[0], must1(time.ParseDuration(args[1])))
	case "load": // HOW RATE COUNT HOLD ADDRESS...
		a.load = make(chan []made, 1)
		l := traffic{how: args[0], rate: float64(number(args[1])), count: number(args[2]), hold: must1(time.ParseDuration(args[3])), to: args[4:]}
		go func() { a.load <- l.run() }()
	case "record":
		var b []byte
		b, err = json.Marshal(<-a.load)
		answer = string(b)
	default:
		err = errors.New("no such order")
	}
	return answer, err
}

// must1 and number panic: a mistake in an order is one in the test.
func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func number(s string) int { return must1(strconv.Atoi(s)) }

func (a *actor) hold(n int, open func() (int, error)) error {
	for range n {
		fd, err := open()
		if err != nil {
			return err
		}
		a.held = append(a.held, fd)
	}
	return nil
}

func (a *actor) each(do func(int) error) error {
	for _, fd := range a.held {
		if err := do(fd); err != nil {
			return err
		}
	}
	return nil
}

func (a *actor) trickle() {
	for range time.Tick(200 * time.Millisecond) {
		_ = a.each(func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err })
	}
}

func socketFor(addr string) (int, unix.Sockaddr, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return -1, nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return fd, &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}, err
}

func listenAt(addr string, backlog int) (int, error) {
	fd, sa, err := socketFor(addr)
	if err == nil {
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, sa), unix.Listen(fd, backlog))
	}
	return fd, err
}

func dial(addr string) (int, error) {
	fd, sa, err := socketFor(addr)
	if err != nil {
		return -1, err
	}
	for {
		if err = unix.Connect(fd, sa); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EISCONN) {
		err = nil
	}
	return fd, err
}

func knock(addr string, rate float64) {
	for range time.Tick(time.Duration(1e9 / rate)) {
		fd, sa, err := socketFor(addr)
		if err == nil {
			err = errors.Join(unix.SetNonblock(fd, true), unix.Connect(fd, sa))
		}
		if !errors.Is(err, unix.EINPROGRESS) {
			fmt.Fprintln(os.Stderr, "knock:", addr, err)
			return
		}
	}
}

// readToEnd reads until the peer's FIN; a reset is an end too.
func readToEnd(fd int) error {
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
		case n == 0 || err == unix.ECONNRESET:
			return nil
		case err != nil:
			return err
		}
	}
}

// leak opens connections at a rate, reads each to its end and forgets it, until
// there is no descriptor left. It returns when each was opened, in Unix time in
// ns, and at last when none could be.
func leak(addr string, rate float64) (times []int64) {
	for start, i := time.Now(), 0; ; i++ {
		<-time.After(time.Until(start.Add(time.Duration(float64(i) / rate * 1e9))))
		fd, err := dial(addr)
		times = append(times, time.Now().UnixNano())
		if err != nil {
			return times
		}
		_ = readToEnd(fd)
	}
}

// serveTLS answers one question on each connection, and keeps it until told.
func (a *actor) serveTLS(addr string, version int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", addr, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   uint16(version), MaxVersion: uint16(version),
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var b [4]byte
			if _, err := io.ReadFull(c, b[:]); err == nil {
				_, _ = c.Write([]byte("pong"))
			}
			a.tlsMu.Lock()
			a.tls = append(a.tls, c.(*tls.Conn))
			a.tlsMu.Unlock()
		}
	}()
	return nil
}

// dialTLS makes a pool's connections: each has been used once and is idle.
func (a *actor) dialTLS(addr string, version, n int) error {
	for range n {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MinVersion: uint16(version), MaxVersion: uint16(version)})
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte("ping")); err != nil {
			return err
		}
		var b [4]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return err
		}
		a.tls = append(a.tls, c)
	}
	return nil
}

// serveRudely answers without reading the question, and closes.
func (a *actor) serveRudely(addr string, hold time.Duration) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("pong"))
			time.AfterFunc(hold, func() { c.Close() })
		}
	}()
	return nil
}

// A traffic is connections at a rate, each of which is held for some time.
type traffic struct {
	// how it ends: "close" closes first, "linger" with a RST, "wait" and "ask" when
	// the other end has; only "wait" asks nothing.
	how   string
	rate  float64 // 1/s; each has its place on an absolute schedule
	count int
	hold  time.Duration
	to    []string // taken in turn
}

func (l *traffic) run() []made {
	all := make([]made, l.count)
	var wg sync.WaitGroup
	for start, i := time.Now(), 0; i < l.count; i++ {
		<-time.After(time.Until(start.Add(time.Duration(float64(i) / l.rate * 1e9))))
		wg.Go(func() { all[i] = l.one(l.to[i%len(l.to)]) })
	}
	wg.Wait()
	return all
}

func (l *traffic) one(to string) (m made) {
	m.Dialing = time.Now().UnixNano()
	fd, err := dial(to)
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", to, err)
		_ = unix.Close(fd)
		return m
	}
	m.Dialed = time.Now().UnixNano()
	if sa, err := unix.Getsockname(fd); err == nil {
		m.Port = uint16(sa.(*unix.SockaddrInet4).Port)
	}
	if l.how != "wait" {
		_, _ = unix.Write(fd, []byte("ping"))
	}
	if l.how == "wait" || l.how == "ask" {
		_ = readToEnd(fd)
	} else {
		<-time.After(l.hold)
	}
	m.Closing = time.Now().UnixNano()
	if l.how == "linger" {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = unix.Close(fd)
	m.Closed = time.Now().UnixNano()
	return m
}
