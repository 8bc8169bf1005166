package house

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestDocuments(t *testing.T) {
	fsys := tree(t)
	if _, err := fs.Stat(fsys, "README.md"); err != nil {
		t.Fatal(err)
	}
	for _, complaint := range slices.Concat(checkCommands(t, fsys), checkLinks(t, fsys), checkModules(t, fsys), checkWords(t, fsys), checkCorpora(t, fsys)) {
		t.Error(complaint)
	}
}

// documents lists the Markdown files of a tree that are written for readers.
func documents(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	return slices.DeleteFunc(files(t, fsys), func(name string) bool {
		return path.Ext(name) != ".md" || strings.Contains(name, "testdata/")
	})
}

// checkCommands complains of commands in fenced blocks that can't work:
// targets that the Makefile lacks, and commands that twwatch lacks. The gate
// runs the README's two commands for real.
func checkCommands(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(read(t, fsys, "Makefile"), -1) {
		targets[m[1]] = true
	}
	var command strings.Builder // the sources of cmd/twwatch
	for _, name := range goFiles(t, fsys) {
		if path.Dir(name) == "cmd/twwatch" && !strings.HasSuffix(name, "_test.go") {
			command.WriteString(read(t, fsys, name))
		}
	}
	var complaints []string
	for _, name := range documents(t, fsys) {
		for _, line := range fenced(read(t, fsys, name)) {
			words := strings.Fields(strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "sudo "))
			if len(words) == 0 {
				continue
			}
			args := arguments(words[1:])
			switch words[0] {
			case "make":
				for _, arg := range args {
					if !targets[arg] {
						complaints = append(complaints, fmt.Sprintf("%s: `%s`: the Makefile has no target %q", name, line, arg))
					}
				}
			case "twwatch", "bin/twwatch", "./twwatch":
				if len(args) > 0 && !strings.Contains(command.String(), `"`+args[0]+`"`) {
					complaints = append(complaints, fmt.Sprintf("%s: `%s`: cmd/twwatch has no command %q", name, line, args[0]))
				}
			}
		}
	}
	return complaints
}

// arguments returns the words before a comment or another command, without
// flags and assignments.
func arguments(words []string) []string {
	var args []string
	for _, w := range words {
		if strings.HasPrefix(w, "#") || strings.ContainsAny(w, "|;&>") {
			break
		}
		if !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") {
			args = append(args, w)
		}
	}
	return args
}

// fenced returns the lines of the blocks marked sh, bash or console. In a
// console block only the lines after a prompt are commands.
func fenced(text string) []string {
	var lines []string
	language, in := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			in = !in
			language = strings.TrimPrefix(line, "```")
		case !in:
		case language == "sh" || language == "bash", language == "console" && strings.HasPrefix(line, "$ "):
			lines = append(lines, line)
		}
	}
	return lines
}

// checkLinks complains of links, and of paths in code quotes, that lead nowhere.
func checkLinks(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	var complaints []string
	link := regexp.MustCompile(`\]\(([^)\s]+)(?: "[^"]*")?\)`)
	quotedPath := regexp.MustCompile("`([A-Za-z0-9_.-]+/[A-Za-z0-9_./-]*)`")
	exists := func(name string) bool {
		_, err := fs.Stat(fsys, path.Clean(name))
		return err == nil
	}
	for _, name := range documents(t, fsys) {
		text := read(t, fsys, name)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // another site, or mail
			}
			if target == "" {
				target = name
			} else {
				target = path.Join(path.Dir(name), target)
			}
			switch {
			case !exists(target):
				complaints = append(complaints, fmt.Sprintf("%s: the link to %s leads nowhere", name, m[1]))
			case anchor != "" && path.Ext(target) == ".md" && !slices.Contains(anchors(read(t, fsys, target)), anchor):
				complaints = append(complaints, fmt.Sprintf("%s: %s has no heading for the link to %s", name, target, m[1]))
			}
		}
		for _, m := range quotedPath.FindAllStringSubmatch(text, -1) {
			top, _, _ := strings.Cut(m[1], "/")
			_, planned := levels()[strings.TrimSuffix(m[1], "/")]
			if top != "bin" && top != "dist" && !strings.HasPrefix(top, ".") && exists(top) && !exists(m[1]) && !planned {
				complaints = append(complaints, fmt.Sprintf("%s: there is no %s", name, m[1]))
			}
		}
	}
	return complaints
}

// checkModules complains of modules that docs/architecture.md doesn't say the use
// of, and of those that it names and go.mod doesn't require, or only for others.
func checkModules(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	const document = "docs/architecture.md"
	all := func(pattern, text string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		return found
	}
	required := all(`(?m)^(?:require )?\s*(\S+\.\S+/\S+) v\S+$`, read(t, fsys, "go.mod"))
	named := all(`(?m)^\| ([a-z0-9.-]+\.[a-z]+/\S+) \|`, read(t, fsys, document))
	var complaints []string
	for _, m := range required {
		if !slices.Contains(named, m) {
			complaints = append(complaints, fmt.Sprintf("%s: what is %s for?", document, m))
		}
	}
	for _, m := range named {
		if !slices.Contains(required, m) {
			complaints = append(complaints, fmt.Sprintf("%s: go.mod doesn't require %s for itself", document, m))
		}
	}
	return complaints
}

// anchors returns the names of a document's headings, as GitHub makes them.
func anchors(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		heading := strings.TrimLeft(line, "#")
		if heading == line || !strings.HasPrefix(heading, " ") {
			continue
		}
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(heading)))
	}
	return names
}

// checkWords complains of files that name paths of the machine they were
// written on, or notes that aren't part of the project.
func checkWords(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	// Put together, so that this file passes.
	notes := strings.Join([]string{"KERNEL", "DESIGN", "STYLE", "KNOWLEDGE", "USERS", "TOOLS", "BRIEF"}, "|")
	forbidden := regexp.MustCompile(`/work` + `/(main|shared|\.)|\b(` + notes + `)\.md\b|\bshared/(` + notes + `)\b|/tmp/` + `(brief|bash_jobs)`)
	var complaints []string
	for _, name := range files(t, fsys) {
		text := read(t, fsys, name)
		if strings.ContainsRune(text[:min(len(text), 8000)], 0) {
			continue // binary
		}
		number := 0
		for line := range strings.Lines(text) {
			number++
			if found := forbidden.FindString(line); found != "" {
				complaints = append(complaints, fmt.Sprintf("%s:%d: %q is no part of this project", name, number, found))
			}
		}
	}
	return complaints
}

// checkCorpora complains of fuzz targets without a committed corpus.
func checkCorpora(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	var complaints []string
	for _, name := range goFiles(t, fsys) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, m := range target.FindAllStringSubmatch(read(t, fsys, name), -1) {
			dir := path.Join(path.Dir(name), "testdata/fuzz", m[1])
			if entries, err := fs.ReadDir(fsys, dir); err != nil || len(entries) == 0 {
				complaints = append(complaints, fmt.Sprintf("%s: %s has no corpus in %s", name, m[1], dir))
			}
		}
	}
	return complaints
}
