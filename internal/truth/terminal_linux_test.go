package truth

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twwatch/twwatch/internal/lab"
)

// A terminal is a real one, of tmux, in which one program runs.
type terminal struct {
	*testing.T
	tmux   string
	socket string
	status string // file of the program's exit status
	env    []string
}

// openTerminal starts a program in a terminal of that size, and in that folder;
// in the namespace, unless that is nil.
func openTerminal(t *testing.T, ns *lab.Namespace, folder string, width, height int, env []string, args ...string) *terminal {
	t.Helper()
	dir := t.TempDir()
	term := &terminal{T: t, tmux: lab.Tool(t, "tmux"), socket: filepath.Join(dir, "tmux"), status: filepath.Join(dir, "status")}
	term.env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	term.env = append(term.env, env...)
	settings := filepath.Join(dir, "tmux.conf")
	err := os.WriteFile(settings, []byte("set -g status off\nset -g remain-on-exit on\nset -s escape-time 0\nset -s set-clipboard on\nset -g default-terminal tmux-256color\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := term.command(append([]string{
		"-f", settings, "new-session", "-d", "-c", folder, "-x", strconv.Itoa(width), "-y", strconv.Itoa(height),
		"sh", "-c", `"$@"; echo $? >"$0"`, term.status,
	}, args...)...)
	start := cmd.Run
	if ns != nil {
		start = func() error { return ns.Do(cmd.Run) } // tmux's server is its child
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = term.command("kill-server").Run() })
	return term
}

func (term *terminal) command(args ...string) *exec.Cmd {
	cmd := exec.Command(term.tmux, append([]string{"-S", term.socket}, args...)...)
	cmd.Env = term.env
	return cmd
}

func (term *terminal) do(args ...string) string {
	term.Helper()
	out, err := term.command(args...).CombinedOutput()
	if err != nil {
		term.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// keys presses keys, by tmux's names.
func (term *terminal) keys(names ...string) *terminal {
	term.Helper()
	term.do(append([]string{"send-keys"}, names...)...)
	return term
}

// click sends what a terminal does when the left button goes down and up there,
// counted from 1 (xterm's SGR mouse reports).
func (term *terminal) click(x, y int) *terminal {
	term.Helper()
	for _, end := range []string{"M", "m"} {
		term.do("send-keys", "-l", fmt.Sprintf("\x1b[<0;%d;%d%s", x, y, end))
	}
	return term
}

func (term *terminal) resize(width, height int) *terminal {
	term.Helper()
	term.do("resize-window", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height))
	return term
}

// screen is what is on the screen now.
func (term *terminal) screen() string {
	term.Helper()
	return term.do("capture-pane", "-p")
}

// shows waits until the screen has all of these.
func (term *terminal) shows(patterns ...string) string {
	term.Helper()
	var screen string
	lab.Eventually(term, 30*time.Second, func() error {
		screen = term.screen()
		for _, p := range patterns {
			if !regexp.MustCompile("(?m)" + p).MatchString(screen) {
				return fmt.Errorf("no %q in\n%s", p, screen)
			}
		}
		return nil
	})
	return screen
}

// becomes waits until the screen is exactly this.
func (term *terminal) becomes(what, want string) {
	term.Helper()
	lab.Eventually(term, 30*time.Second, func() error {
		if got := term.screen(); got != want {
			return fmt.Errorf("the screen isn't %s:\n%s\nwant\n%s", what, got, want)
		}
		return nil
	})
}

// ends waits until the program has ended, and demands its status, and that it
// has left the terminal as it found it.
func (term *terminal) ends(status int) {
	term.Helper()
	lab.Eventually(term, 30*time.Second, func() error {
		got, err := os.ReadFile(term.status)
		if err != nil || string(got) != strconv.Itoa(status)+"\n" {
			return fmt.Errorf("status %q, %w", got, err)
		}
		if strings.TrimSpace(term.do("display-message", "-p", "#{alternate_on}#{mouse_any_flag}")) != "00" {
			return errors.New("the alternate screen, or the mouse, is still on")
		}
		return nil
	})
}
