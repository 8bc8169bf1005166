package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/google/go-cmp/cmp"
)

//go:generate go test -run=^TestManPage$ -count=1 . -update

// The manual page is what the commands' help says, so that it can't say
// anything else.
func TestManPage(t *testing.T) {
	const path = "../../deploy/packaging/twwatch.1"
	version, err := os.ReadFile("../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	e, _, _ := testEnv(t)
	want := manPage(newApp(e), strings.TrimSpace(string(version)))
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date: make generate (-want +got)\n%s", path, diff)
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		`a-b`:      `a\-b`,
		`\fBx`:     `\efBx`,
		".TH\n'ab": "\\&.TH\n\\&'ab",
	} {
		if got := roff(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// manPage writes the page of all commands in roff, for section 1.
func manPage(a *app, version string) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.\" Generated from the commands' help by make generate.`)
	line(`.TH TWWATCH 1 "" "twwatch %s" "User Commands"`, roff(version))
	line(".nh\n.ad l")
	line(".SH NAME\ntwwatch \\- why TCP connections pile up in TIME_WAIT and CLOSE_WAIT")
	line(".SH SYNOPSIS\n.B twwatch\n.I command\n.RI [ flags ]")
	line(".SH DESCRIPTION\n%s", roff(a.Model().Help))
	line(".SH OPTIONS\nOf every command:")
	manFlags(&b, a.Model().Flags)
	line(".SH COMMANDS")
	for _, c := range commands() {
		m := a.byName[c.name].Model()
		line(".SS twwatch %s%s", roff(c.name), roff(manArguments(m)))
		line("%s", roff(strings.ReplaceAll(m.Help, "\n\n", "\n.PP\n"), ".PP"))
		manFlags(&b, m.Flags)
		if examples := strings.Trim(c.examples, "\n"); examples != "" {
			line(".PP\nExamples:\n.PP\n.nf\n%s\n.fi", roff(examples))
		}
	}
	for _, section := range manSections() {
		line(".SH %s", section.name)
		for _, item := range section.items {
			line(".TP\n.B %s\n%s", roff(item[0]), roff(item[1]))
		}
	}
	line(".SH SEE ALSO\n.BR ss (8),\n.BR tcp (7),\n.BR systemd.service (5)\n.PP\nhttps://github.com/twwatch/twwatch")
	return b.Bytes()
}

func manArguments(m *kingpin.CmdModel) string {
	var s strings.Builder
	for _, arg := range m.Args {
		if arg.Required {
			s.WriteString(" " + arg.Name)
		} else {
			s.WriteString(" [" + arg.Name + "]")
		}
	}
	return s.String()
}

// manFlags writes a list of flags; how to ask for help and the version needs
// no place in it.
func manFlags(b *bytes.Buffer, flags []*kingpin.FlagModel) {
	for _, f := range flags {
		if f.Hidden || slices.Contains([]string{"help", "version"}, f.Name) {
			continue
		}
		name := "--" + f.Name
		if f.IsBoolFlag() {
			name = "--[no-]" + f.Name
		} else if hint := strings.Trim(f.FormatPlaceHolder(), `"`); hint != "" {
			name += "=" + hint
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(f.Help))
	}
}

type manSection struct {
	name  string
	items [][2]string
}

func manSections() []manSection {
	return []manSection{
		{"EXIT STATUS", [][2]string{
			{"0", "The command did what was asked; check: all is well."},
			{"1", "check: a warning."},
			{"2", "check: something is critical."},
			{"3", "The command could not do what was asked, or check's look was incomplete without finding anything critical. A wrong flag is 3, too."},
		}},
		{"FILES", [][2]string{
			{"/etc/twwatch/twwatch.yaml", "The packaged daemon's --config.file: any flag under its own name, and thresholds."},
			{"/etc/default/twwatch", "TWWATCH_FLAGS, which the packaged daemon is started with."},
			{"/usr/share/twwatch/systemd", "Settings for twwatch.service, to be linked from /etc/systemd/system/twwatch.service.d: other network namespaces and processes, a systemd socket."},
		}},
		{"ENVIRONMENT", [][2]string{
			{"GOMEMLIMIT, GOMAXPROCS, GOGC", "Limits of the Go runtime. Where they aren't set, serve sets its own."},
			{"NO_COLOR", "Text has no colour."},
		}},
		{"SIGNALS", [][2]string{
			{"SIGHUP", "serve reads --config.file anew."},
			{"SIGTERM, SIGINT", "The command ends; serve answers what has been asked before."},
		}},
	}
}

// roff escapes text. Lines that are among the requests are left as they are.
func roff(text string, requests ...string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text), "\n")
	for i, l := range lines {
		if (strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'")) && !slices.Contains(requests, l) {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
