package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/twwatch/twwatch/collector"
)

// ownNamespace is the word for the network namespace that twwatch runs in.
const ownNamespace = "self"

// namespaceFlags say which network namespaces to look at, and how to name them.
type namespaceFlags struct {
	netns            []string
	include, exclude []string
	podLogs          string
	cri              string
	labels           []string
	names            []collector.Name
}

func (n *namespaceFlags) define(cmd *kingpin.CmdClause) {
	cmd.Flag("netns", `Which network namespaces to look at: self, all, or a pattern of names (default/web-*, blue). Repeatable. Looking into others needs CAP_SYS_ADMIN and CAP_SYS_PTRACE, and for containers the host's process namespace.`).
		Default(ownNamespace).PlaceHolder(ownNamespace).SetValue(&patternsValue{&n.netns, false})
	cmd.Flag("netns.include", "Of these, only those whose name matches, or kind:pod, or a label as in app=web. Repeatable.").
		PlaceHolder("PATTERN").SetValue(&patternsValue{&n.include, false})
	cmd.Flag("netns.exclude", "Of these, not those that match. Repeatable.").
		PlaceHolder("PATTERN").SetValue(&patternsValue{&n.exclude, false})
	cmd.Flag("kubernetes.pod-logs", "The kubelet's directory of pod logs: the names in it name pods. Empty doesn't look.").
		Default(collector.DefaultPodLogs).StringVar(&n.podLogs)
	cmd.Flag("kubernetes.cri", "Ask the container runtime at this socket for the names and labels of pods, as in /run/containerd/containerd.sock. Whoever may use it is as good as root.").
		PlaceHolder("SOCKET").StringVar(&n.cri)
	cmd.Flag("kubernetes.label", "A label of pods to report, if the container runtime is asked. Repeatable.").
		PlaceHolder("KEY").SetValue(&patternsValue{&n.labels, true})
	cmd.Flag("names.file", `YAML file of what remote addresses and networks are called, as in "10.1.0.0/16: batch".`).
		PlaceHolder("FILE").SetValue(&namesValue{names: &n.names})
	cmd.Validate(func(*kingpin.CmdClause) error { return n.check() })
}

// check tells of flags that do nothing without another.
func (n *namespaceFlags) check() error {
	if len(n.labels) > 0 && n.cri == "" {
		return errors.New("--kubernetes.label needs --kubernetes.cri: only the container runtime knows labels")
	}
	return nil
}

// collect completes a collector's configuration.
func (n *namespaceFlags) collect(cfg collector.Config) collector.Config {
	s := &cfg.Namespaces
	for _, name := range n.netns {
		switch name {
		case ownNamespace:
		case "all":
			s.All = true
		default:
			s.Names = append(s.Names, name)
		}
	}
	s.Include, s.Exclude = n.include, n.exclude
	cfg.PodLogs, cfg.CRI, cfg.Labels, cfg.Names = n.podLogs, n.cri, n.labels, n.names
	if cfg.PodLogs == "" {
		cfg.PodLogs = collector.NoPodLogs
	}
	return cfg
}

// A patternsValue is a list of patterns, or of plain words.
type patternsValue struct {
	list  *[]string
	plain bool
}

func (v *patternsValue) Set(s string) error {
	sel := collector.Selection{Names: []string{s}}
	if err := sel.Check(); err != nil {
		return err
	}
	if v.plain && strings.ContainsAny(s, "*?[=") {
		return fmt.Errorf("%q: want a key, such as app.kubernetes.io/name", s)
	}
	if !slices.Contains(*v.list, s) {
		*v.list = append(*v.list, s)
	}
	return nil
}

func (v *patternsValue) String() string     { return strings.Join(*v.list, ",") }
func (v *patternsValue) IsCumulative() bool { return true }
