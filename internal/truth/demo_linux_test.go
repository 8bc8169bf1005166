package truth

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/internal/lab"
)

// The demonstration shows what it promises, as root and as nobody: ports run
// dry, the findings come in their order, and the clients' own count of refused
// connections agrees.
func TestDemo(t *testing.T) {
	lab.Require(t, "netns")
	bin := program(t)
	for name, as := range map[string][]string{"root": nil, "nobody": nobody()} {
		t.Run(name, func(t *testing.T) {
			if as != nil {
				lab.Require(t, "userns")
			}
			t.Parallel()
			args := append(as, bin, "demo", "--ports=200", "--rate=20", "--for=30s")
			out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{
				`(?s)ephemeral-ports-slow.*ephemeral-ports-running-out.*ephemeral-ports-exhausted`,
				`CRITICAL: A client at 127\.0\.0\.1 opens a new connection to 127\.0\.0\.1 \(port 6379,\s+usually redis\) for every request`,
				`so ephemeral-ports-exhausted: No port left from 127\.0\.0\.1 to 127\.0\.0\.1`,
				` 0 of 200 ports free`,
				`The clients say: 200 connections made, [1-9][0-9]* refused`,
			} {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			for line := range strings.Lines(string(out)) {
				if len([]rune(line)) > 81 {
					t.Errorf("wider than 80 columns: %q", line)
				}
			}
		})
	}
}
