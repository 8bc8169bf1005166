package collector

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

// The test binary is also the programs that the tests start: with this in its
// environment it plays that part, of the name after it, instead of testing.
const part = "TWWATCH_COLLECTOR_TEST_PART"

func TestMain(m *testing.M) {
	if p := os.Getenv(part); p != "" {
		if err := play(p); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func play(p string) error {
	if p == "nobody" {
		return lookAsNobody()
	}
	if err := os.WriteFile("/proc/self/comm", []byte(p), 0); err != nil { // the main thread's
		return err
	}
	return connects(os.Stdin, os.Stdout)
}

// connects holds connections as it is told, one order a line, and answers each
// when it is done: "open ADDRESS COUNT", "close COUNT", "short ADDRESS COUNT".
// It ends with its input.
func connects(in io.Reader, out io.Writer) error {
	var held []net.Conn
	lines := bufio.NewScanner(in)
	fmt.Fprintln(out, os.Getpid())
	for lines.Scan() {
		var what, addr string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &what, &addr, &n); err != nil {
			return err
		}
		for range n {
			if what != "close" {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					return err
				}
				held = append(held, c)
			}
			oldest := 0
			if what == "short" {
				oldest = len(held) - 1
			}
			if what != "open" {
				if err := held[oldest].Close(); err != nil {
					return err
				}
				held = slices.Delete(held, oldest, oldest+1)
			}
		}
		fmt.Fprintln(out, "done")
	}
	return lines.Err()
}

// A program is one that a test started in a namespace.
type program struct {
	t   *testing.T
	pid int
	in  io.Closer
	cmd *exec.Cmd
	out *bufio.Scanner
	say func(format string, args ...any)
}

func start(t *testing.T, ns *lab.Namespace, name string) *program {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), part+"="+name), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, in: in, cmd: cmd, out: bufio.NewScanner(out)}
	p.say = func(format string, args ...any) { fmt.Fprintf(in, format+"\n", args...) }
	p.out.Buffer(nil, 16<<20)
	t.Cleanup(p.exit)
	if name != "nobody" {
		if _, err := fmt.Sscan(p.answer(), &p.pid); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *program) answer() string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("a program says nothing: %v", p.out.Err())
	}
	return p.out.Text()
}

func (p *program) do(format string, args ...any) {
	p.t.Helper()
	p.say(format, args...)
	p.answer()
}

func (p *program) exit() {
	if p.cmd.ProcessState == nil {
		p.in.Close()
		_ = p.cmd.Wait()
	}
}

// lookAsNobody looks twice without any right, and prints the second report.
func lookAsNobody() error {
	const nobody = 65534
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil { // its own /proc is its own again
		return err
	}
	c, err := New(Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Pass(context.Background()); err != nil {
		return err
	}
	r, err := c.Pass(context.Background())
	if err != nil {
		return err
	}
	return snapshot.Encode(os.Stdout, r)
}
