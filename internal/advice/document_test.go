package advice

import (
	"fmt"
	"strings"
	"testing"
)

// TestDocuments holds docs/advice.md and docs/tcp.md to the data; with -update
// it writes them.
func TestDocuments(t *testing.T) {
	l := loaded(t)
	golden(t, "../../docs/advice.md", adviceDocument(l))
	golden(t, "../../docs/tcp.md", tcpDocument(l))
}

const generated = "<!-- Generated from internal/advice; `make generate` writes it anew. -->\n\n"

func adviceDocument(l *Library) string {
	b := &strings.Builder{}
	b.WriteString("# Advice\n\n" + generated)
	b.WriteString(`What twwatch recommends, for what, and from which source. ` + "`twwatch explain ID`" + ` prints any
of it on a terminal. Snippets are shown with sample numbers: 470 connections a
second, 50 ms each, from 4 processes; twwatch fills in what it measured.

Remedies come in this order: what cures (a pool, keep-alive), a Unix socket for
a server on the same host, more addresses or ports, a wider port range, then
` + "`tcp_tw_reuse`" + ` with its conditions. Never ` + "`tcp_tw_recycle`" + `, and never lower
` + "`tcp_max_tw_buckets`" + `.

An operator's own services and remedies can be added: see
[Files of your own](#files-of-your-own).

## Findings

`)
	writeEntries(b, l, KindFinding, "")
	b.WriteString("## Remedies\n\n")
	writeEntries(b, l, KindRemedy, "")
	b.WriteString("## Services\n\n")
	b.WriteString("A port alone is a hint and no proof: a service known so is called \"usually\".\n\n")
	writeEntries(b, l, KindService, "")
	b.WriteString("## Kinds of programs\n\n")
	writeEntries(b, l, KindRuntime, "")
	b.WriteString("## Sums\n\n")
	for _, name := range []string{"pool-size", "time-wait-count", "time-wait-after", "ports-freed", "rate-ceiling", "time-wait-memory", "conntrack-entries", "handshake-life"} {
		f, _ := formula(name)
		fmt.Fprintf(b, "- %s. For example, %s.\n", markdown(f.Says), markdown(f.Example))
	}
	b.WriteString(ownFiles)
	return b.String()
}

const ownFiles = `
## Files of your own

A YAML file with services and remedies, given by ` + "`--advice.file`" + `, is checked
when it is read; an error names the file, the line, the key and what is expected.

` + "```yaml" + `
services:
  - id: billing
    title: Billing
    like: redis               # optional: its remedies fit as well
    ports: [7777]
    do: Use the pool of the billing library.
    references: [{title: our wiki, url: "https://wiki.example/billing"}]
remedies:
  - id: billing-pool
    title: Turn on the billing library's pool
    order: reuse              # fix, reuse, unix-socket, more-tuples, wider-range, tw-reuse, limit, never
    when: {patterns: [no-pool, pool-too-small], side: client, services: [billing]}
    do: Set pool to {{.PoolSize}}.
    snippet: pool = {{.PoolSize}}
    references: [{title: our wiki, url: "https://wiki.example/billing"}]
` + "```" + `

Texts are templates over numbers and parsed addresses only. One that needs a
number which isn't known is left out.
`

func tcpDocument(l *Library) string {
	b := &strings.Builder{}
	b.WriteString("# TCP, as far as twwatch shows it\n\n" + generated)
	b.WriteString("States, handshakes, ports and limits: what they are, how long they last, and what\nmakes them pile up. `twwatch explain ID` prints each on a terminal, with what this\nhost shows right now.\n\n")
	titles := map[string]string{
		"states": "States", "handshakes": "Handshakes and closes", "ports": "Ports", "limits": "Limits", "practice": "Practice",
	}
	for _, g := range groups() {
		fmt.Fprintf(b, "## %s\n\n", titles[g])
		writeEntries(b, l, KindTopic, g)
	}
	return b.String()
}

func writeEntries(b *strings.Builder, l *Library, kind, group string) {
	for _, i := range l.IDs() {
		if i.Kind != kind || i.Group != group {
			continue
		}
		text := l.Explain(kind + ":" + i.ID)[0]
		fmt.Fprintf(b, "### %s\n\n**%s.** %s\n\n", i.ID, markdown(strings.TrimSuffix(text.Title, ".")), markdown(text.Says))
		if text.Drawing != "" {
			fmt.Fprintf(b, "```text\n%s\n```\n\n", text.Drawing)
		}
		for _, s := range text.Sections {
			writeSection(b, s)
		}
		if len(text.See) > 0 {
			var links []string
			for _, id := range text.See {
				links = append(links, link(l, kind, id))
			}
			fmt.Fprintf(b, "See also: %s.\n\n", strings.Join(links, ", "))
		}
		if len(text.References) > 0 {
			var refs []string
			for _, r := range text.References {
				refs = append(refs, fmt.Sprintf("[%s](%s)", markdown(r.Title), r.URL))
			}
			fmt.Fprintf(b, "Sources: %s.\n\n", strings.Join(refs, "; "))
		}
	}
}

// link leads to an entry from the document in which entries of kind from stand.
func link(l *Library, from, id string) string {
	document := func(kind string) string {
		if kind == KindTopic {
			return "tcp.md"
		}
		return "advice.md"
	}
	target := document(l.Explain(id)[0].Kind)
	if target == document(from) {
		target = ""
	}
	return fmt.Sprintf("[%s](%s#%s)", id, target, id)
}

func writeSection(b *strings.Builder, s TextSection) {
	switch {
	case s.Verbatim:
		fmt.Fprintf(b, "%s:\n\n```text\n%s\n```\n\n", s.Heading, strings.Join(s.Lines, "\n"))
	case len(s.Lines) == 1:
		fmt.Fprintf(b, "*%s:* %s\n\n", s.Heading, markdown(s.Lines[0]))
	default:
		fmt.Fprintf(b, "*%s:*\n\n", s.Heading)
		for _, line := range s.Lines {
			fmt.Fprintf(b, "- %s\n", markdown(line))
		}
		b.WriteByte('\n')
	}
}

// markdown keeps what stands outside of backquotes from being taken for marks.
func markdown(s string) string {
	parts := strings.Split(s, "`")
	for i := range parts {
		if i%2 == 0 {
			parts[i] = strings.NewReplacer("*", `\*`, "<", `\<`, "[", `\[`, "]", `\]`).Replace(parts[i])
		}
	}
	return strings.Join(parts, "`")
}
