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
			args := append(as, bin, "demo", "--ports=100", "--rate=25", "--for=30s")
			out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{
				`(?s)ephemeral-ports-(slow|running-out).*ephemeral-ports-exhausted`,
				`CRITICAL: No port left from 127\.0\.0\.1 to 127\.0\.0\.1:6379`,
				` 0 of 100 ports free`,
				`The clients say: 100 connections made, [1-9][0-9]* refused`,
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
