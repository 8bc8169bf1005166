//go:build linux

package lab

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// verdict is a TB that keeps how a test would have ended.
type verdict struct {
	TB
	said string
}

func (v *verdict) Helper() {}

func (v *verdict) Skipf(format string, args ...any) {
	v.said = "skip: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.said = "fatal: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func judge(fn func(t TB)) string {
	v := &verdict{said: "passed"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(v)
	}()
	<-done
	return v.said
}

func TestRequire(t *testing.T) {
	absent := func(string) error { return errors.New("no such luck") }
	for env, want := range map[string]string{
		"":              `skip: needs "veth": no such luck`,
		"ss,netns":      `skip: needs "veth": no such luck`,
		"netns, veth":   `fatal: TWWATCH_REQUIRE names "veth", which this machine lacks: no such luck`,
		"all":           `fatal: TWWATCH_REQUIRE names "veth", which this machine lacks: no such luck`,
		"veth-and-more": `skip: needs "veth": no such luck`,
	} {
		t.Setenv(requireEnv, env)
		must(t, equal(env, want, judge(func(t TB) { require(t, absent, "veth") })))
	}
	must(t, equal("nothing named", "passed", judge(func(t TB) { Require(t) })))
	t.Setenv(requireEnv, "")
	must(t, equal("a misspelt ability", `fatal: no such ability: "netsn"`, judge(func(t TB) { Require(t, "netsn") })))
}

func TestTool(t *testing.T) {
	t.Setenv(requireEnv, "no-such-tool")
	must(t, equal("missing", `fatal: TWWATCH_REQUIRE names "no-such-tool", which this machine lacks: exec: "no-such-tool": executable file not found in $PATH`,
		judge(func(t TB) { Tool(t, "no-such-tool") })))
	must(t, equal("there", "passed", judge(func(t TB) { Tool(t, "sh") })))
}

// An ability that is there must not be found missing.
func TestRequireFindsWhatIsThere(t *testing.T) {
	Require(t, "netns", "veth", "ss", "userns")
}

func TestEventually(t *testing.T) {
	calls := 0
	third := func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	if got := judge(func(t TB) { Eventually(t, time.Minute, third) }); got != "passed" || calls != 3 {
		t.Errorf("%s after %d calls", got, calls)
	}
	start := time.Now()
	got := judge(func(t TB) { Eventually(t, 20*time.Millisecond, func() error { return errors.New("never") }) })
	if !strings.HasPrefix(got, "fatal: ") || !strings.Contains(got, "never") || time.Since(start) < 20*time.Millisecond {
		t.Errorf("after %v: %s", time.Since(start), got)
	}
}

func TestErrorNamesThePackageOnce(t *testing.T) {
	err := &Error{"listen", &Error{"bind", ErrClosed, "open it"}, "or don't"}
	must(t, equal("text", "lab: listen: bind: already closed (open it) (or don't)", err.Error()))
	err.Err = fmt.Errorf("with more: %w", ErrClosed)
	must(t, equal("text", "lab: listen: with more: already closed (or don't)", err.Error()))
	if !errors.Is(err, ErrClosed) {
		t.Error("the cause is lost")
	}
}
