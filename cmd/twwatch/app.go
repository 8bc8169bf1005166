package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// A command is one verb of the program.
type command struct {
	name     string
	summary  string // for the list of all commands
	help     string
	examples string
	// define adds the command's flags, and returns what runs it once they
	// are set.
	define func(*kingpin.CmdClause) runner
}

// A runner holds a command's flags. run does what they ask and returns the exit
// status; an error is told by the caller, and makes the status statusFailed.
type runner interface {
	run(ctx context.Context, e env, cfg configuration) (status int, err error)
}

// A plainRunner is the runner of a command without flags.
type plainRunner func(ctx context.Context, e env, cfg configuration) (int, error)

func (f plainRunner) run(ctx context.Context, e env, cfg configuration) (int, error) {
	return f(ctx, e, cfg)
}

func commands() []command {
	return []command{
		checkCommand(), topCommand(), serveCommand(), socketsCommand(), recordCommand(), explainCommand(), demoCommand(), versionCommand(),
	}
}

// An exitError ends parsing: what was asked for (--help) has been written.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// An app is the parser of one command line. Parsing fills the variables of its
// flags, so it is used once.
type app struct {
	*kingpin.Application
	configFile string
	byName     map[string]definedCommand
}

type definedCommand struct {
	*kingpin.CmdClause
	runner runner
}

const appHelp = `twwatch shows why TCP connections pile up in TIME_WAIT and CLOSE_WAIT on this host, who makes them, how near the host is to running out of ports, and what to change so that short connections become long ones. It only reads: it never sets a sysctl and never kills a socket.`

const appExamples = `
  twwatch check                      look for 3 seconds, then tell what is wrong
  twwatch top                        the same, live, in a terminal
  twwatch serve                      metrics and API on port 10060
  twwatch sockets --state=close-wait --older=1m
  twwatch help check                 the flags of one command
`

func newApp(e env) *app {
	a := &app{Application: kingpin.New("twwatch", appHelp), byName: map[string]definedCommand{}}
	a.ErrorWriter(e.stderr).UsageWriter(e.stdout)
	// The caller's world ends by a return only. Parsing goes on after
	// --help unless it is stopped, so parse recovers this.
	a.Terminate(func(status int) { panic(exitError(status)) })
	a.Version(versionText())
	a.HelpFlag.Help("Show this help.")
	a.VersionFlag.Help("Show the version.")
	a.Flag("config.file", "YAML file in which every flag can stand under its own name, flat (web.listen-address: :10060) or nested, and thresholds under \"thresholds\". The command line wins. Reread by serve on SIGHUP.").
		PlaceHolder("FILE").StringVar(&a.configFile)
	examples, summaries := map[string]string{"": appExamples}, map[string]string{"help": "show the help of a command"}
	for _, c := range commands() {
		clause := a.Command(c.name, c.help)
		a.byName[c.name] = definedCommand{clause, c.define(clause)}
		for _, f := range clause.Model().Flags {
			if v, ok := f.Value.(interface{ hints() []string }); ok {
				clause.GetFlag(f.Name).HintAction(v.hints)
			}
		}
		examples[c.name], summaries[c.name] = c.examples, c.summary
	}
	a.UsageTemplate(usageTemplate)
	a.UsageFuncs(map[string]any{
		"Examples": func(command string) string { return strings.Trim(examples[command], "\n") },
		"Summary":  func(command string) string { return summaries[command] },
	})
	return a
}

const usageTemplate = `{{define "Arguments"}}{{if .FlagSummary}} {{.FlagSummary}}{{end}}{{range .Args}} {{if not .Required}}[{{end}}<{{.Name}}>{{if not .Required}}]{{end}}{{end}}{{end -}}
{{if .Context.SelectedCommand -}}
usage: {{.App.Name}} {{.Context.SelectedCommand}}{{template "Arguments" .Context.SelectedCommand}}

{{.Context.SelectedCommand.Help|Wrap 0}}
{{else -}}
usage: {{.App.Name}} <command> [<flags>]

{{.App.Help|Wrap 0}}
Commands:
{{range .App.Commands}}{{if not .Hidden}}  {{printf "%-9s" .Name}} {{Summary .Name}}
{{end}}{{end}}
{{end -}}
{{if .Context.Args -}}
Args:
{{.Context.Args|ArgsToTwoColumns|FormatTwoColumns}}
{{end -}}
Flags:
{{.Context.Flags|FlagsToTwoColumns|FormatTwoColumns}}
{{- if .Context.SelectedCommand}}{{with Examples .Context.SelectedCommand.Name}}
Examples:
{{.}}
{{end}}{{else}}
Examples:
{{Examples ""}}
{{end -}}
`

// completionFlag is kingpin's: what could the last of the words that follow be?
const completionFlag = "--completion-bash"

// An invocation is a command line understood.
type invocation struct {
	runner runner
	cfg    configuration
}

// parse reads the command line, and the file that its --config.file names.
func parse(e env, args []string) (inv invocation, err error) {
	defer func() {
		if p := recover(); p != nil {
			exit, ok := p.(exitError)
			if !ok {
				panic(p)
			}
			err = exit
		}
	}()
	first := newApp(e)
	if len(args) > 0 && args[0] == completionFlag {
		_, err := first.Parse(args) // prints and ends, whatever is still wrong with the rest
		return invocation{}, err
	}
	given, err := first.ParseContext(args)
	if err != nil {
		return invocation{}, usageError(args, err)
	}
	var file string
	for _, element := range given.Elements {
		if err := trySet(element); err != nil {
			return invocation{}, err
		}
		if flag, ok := element.Clause.(*kingpin.FlagClause); ok && flag.Model().Name == "config.file" {
			file = *element.Value
		}
	}
	if given.SelectedCommand == nil && (len(given.Elements) == 0 || file != "" && len(given.Elements) == 1) {
		return invocation{}, fmt.Errorf("no command given: want %s; twwatch --help tells more", either(slices.Sorted(maps.Keys(first.byName))))
	}
	cfg := configuration{path: file, args: args}
	if file != "" {
		selected := ""
		if given.SelectedCommand != nil {
			selected = given.SelectedCommand.Model().Name
		}
		if cfg, err = readConfig(e, file, selected); err != nil {
			return invocation{}, err
		}
		cfg.args = args
	}
	return parseWith(e, args, cfg)
}

// parseWith parses anew, with the file's values as defaults.
func parseWith(e env, args []string, cfg configuration) (invocation, error) {
	a := newApp(e)
	for _, s := range cfg.settings {
		for _, flag := range a.flags(s.key) {
			flag.Default(s.values...)
		}
	}
	name, err := a.Parse(args)
	if err != nil {
		return invocation{}, usageError(args, err)
	}
	chosen := a.byName[name]
	cfg.flags = map[string]string{}
	for _, f := range chosen.Model().Flags {
		cfg.flags[f.Name] = f.Value.String()
	}
	return invocation{runner: chosen.runner, cfg: cfg}, nil
}

// flags lists the flags of that name: one command's or several'.
func (a *app) flags(name string) []*kingpin.FlagClause {
	var found []*kingpin.FlagClause
	if f := a.GetFlag(name); f != nil {
		found = append(found, f)
	}
	for _, c := range slices.Sorted(maps.Keys(a.byName)) {
		if f := a.byName[c].GetFlag(name); f != nil {
			found = append(found, f)
		}
	}
	return found
}

// trySet checks a flag's or an argument's value, so that the error can name
// it.
func trySet(element *kingpin.ParseElement) error {
	switch clause := element.Clause.(type) {
	case *kingpin.FlagClause:
		if m := clause.Model(); m.Value != nil && element.Value != nil {
			if err := m.Value.Set(*element.Value); err != nil {
				return fmt.Errorf("--%s: %w", m.Name, err)
			}
		}
	case *kingpin.ArgClause:
		if m := clause.Model(); m.Value != nil && element.Value != nil {
			if err := m.Value.Set(*element.Value); err != nil {
				return fmt.Errorf("<%s>: %w", m.Name, err)
			}
		}
	}
	return nil
}

// usageError adds where help is found.
func usageError(args []string, err error) error {
	help := "twwatch --help"
	for _, c := range commands() {
		if slices.Contains(args, c.name) {
			help = "twwatch " + c.name + " --help"
			break
		}
	}
	return fmt.Errorf("%w; %s tells what is allowed", err, help)
}
