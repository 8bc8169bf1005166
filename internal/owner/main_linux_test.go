package owner

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The test binary is also the program that the tests start: with this in its
// environment it does what that says instead of testing.
const role = "TWWATCH_OWNER_TEST_ROLE"

func TestMain(m *testing.M) {
	if r := os.Getenv(role); r != "" {
		if err := play(r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A child is a program that a test started. It ends when its input ends.
type child struct {
	in  io.Writer
	out *bufio.Scanner
}

// start starts a program and reads its first line. It is ended with the test.
func start(t testing.TB, cmd *exec.Cmd) (*child, string) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	c := &child{in, bufio.NewScanner(out)}
	c.out.Buffer(nil, 1<<20)
	if !c.out.Scan() {
		t.Fatalf("%s says nothing: %v", cmd.Path, c.out.Err())
	}
	return c, c.out.Text()
}

// myself is a command that runs this binary in a role.
func myself(what string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+what)
	return cmd
}

// skip skips for want of an ability, unless TWWATCH_REQUIRE asks for it.
func skip(t testing.TB, ability string, why error) {
	t.Helper()
	for want := range strings.SplitSeq(os.Getenv("TWWATCH_REQUIRE"), ",") {
		if want == ability || want == "all" {
			t.Fatalf("%s is required by TWWATCH_REQUIRE: %v", ability, why)
		}
	}
	t.Skipf("needs %s: %v", ability, why)
}
