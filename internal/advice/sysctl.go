package advice

import (
	"fmt"
	"strings"

	"github.com/twwatch/twwatch/internal/draw"
)

func countText(v any) string {
	if n, ok := v.(int); ok {
		return draw.Count(int64(n))
	}
	return ""
}

// sysctlFile is where advice puts settings, so that undoing is deleting lines.
const sysctlFile = "/etc/sysctl.d/90-twwatch.conf"

// changes tells whether a setting gets another value than it has, as far as both
// are known.
func (m *Remedy) changes(i int, d *data) bool {
	t := m.texts().sysctls[i]
	value, err := render(t.value, d)
	present, errPresent := render(t.present, d)
	return err == nil && (errPresent != nil || value != present)
}

// sysctlSnippet shows, for each setting: what it is now, the line that makes
// the new value last, and the line that takes it back.
func (m *Remedy) sysctlSnippet(d *data) string {
	var now, lines, undo []string
	texts := m.texts().sysctls
	for i, s := range m.Sysctls {
		if !m.changes(i, d) {
			continue
		}
		value := m.text(texts[i].value, d)
		if present, err := render(texts[i].present, d); err != nil {
			now = append(now, "# now: not known; note what `sysctl "+s.Name+"` shows")
			undo = append(undo, "#   sysctl -w "+s.Name+"=... with the value noted before")
		} else {
			now = append(now, fmt.Sprintf("# now: %s = %s", s.Name, present))
			undo = append(undo, fmt.Sprintf("#   sysctl -w %s=\"%s\"", s.Name, present))
		}
		lines = append(lines, s.Name+" = "+value)
	}
	if len(lines) == 0 {
		return ""
	}
	out := append(now, "# lines of "+sysctlFile+", in this order:")
	out = append(out, lines...)
	out = append(out, "# to apply: sysctl -p "+sysctlFile, "# to undo: delete the lines, then")
	return strings.Join(append(out, undo...), "\n")
}

// sysctlCaveats tell where each setting that changes reaches and what Kubernetes
// makes of it; of all settings if none does, as where an explanation's sample has
// the value already.
func (m *Remedy) sysctlCaveats(d *data) []string {
	var caveats []string
	of := map[string][]string{}
	none := true
	for i := range m.Sysctls {
		none = none && !m.changes(i, d)
	}
	for i, s := range m.Sysctls {
		if !none && !m.changes(i, d) {
			continue
		}
		short := s.Name[strings.LastIndex(s.Name, ".")+1:]
		of["reach "+s.Reach] = append(of["reach "+s.Reach], short)
		if s.KubernetesSince != "" {
			short += " (from version " + s.KubernetesSince + " on)"
		}
		of["k8s "+s.Kubernetes] = append(of["k8s "+s.Kubernetes], short)
	}
	list := func(key string) string { return strings.Join(of[key], " and ") }
	is := func(key, one, many string) string {
		if len(of[key]) > 1 {
			return many
		}
		return one
	}
	if k := "reach namespace"; len(of[k]) > 0 {
		where := ""
		if kind, ok := d.Namespace.(string); ok {
			where = map[string]string{
				"host": ", here the host's", "self": ", here the one that twwatch runs in", "named": ", here a named one (ip netns exec)",
				"container": ", here a container's: the host's sysctl.d files don't reach it", "pod": ", here a pod's: the node's sysctl.d files don't reach it",
				"process": ", here a process's own",
			}[kind]
		}
		caveats = append(caveats, list(k)+is(k, " is", " are")+" of one network namespace"+where+"; every other namespace keeps its own value.")
	}
	if k := "reach host"; len(of[k]) > 0 {
		caveats = append(caveats, list(k)+is(k, " exists", " exist")+" once for the whole kernel: set "+is(k, "it", "them")+" on the host, in the initial network namespace.")
	}
	if k := "k8s safe"; len(of[k]) > 0 {
		caveats = append(caveats, "In Kubernetes a pod may set "+list(k)+", unless it has hostNetwork.")
	}
	if k := "k8s unsafe"; len(of[k]) > 0 {
		caveats = append(caveats, "In Kubernetes "+list(k)+is(k, " is an unsafe sysctl", " are unsafe sysctls")+": without the kubelet's --allowed-unsafe-sysctls the pod is refused.")
	}
	if k := "k8s host"; len(of[k]) > 0 {
		caveats = append(caveats, "In Kubernetes "+list(k)+is(k, " is", " are")+" set on the node, not for a pod.")
	}
	return caveats
}

// oneParagraph joins the lines of a text.
func oneParagraph(s string) string { return strings.Join(strings.Fields(s), " ") }
