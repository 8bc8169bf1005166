package house

import "testing"

// Each rule of the documents is broken once, and must be noticed.

func TestCommandsComplaints(t *testing.T) {
	got := checkCommands(t, memory(
		"Makefile", "test: ## text\n\tmake nothing\nA := b\n",
		"cmd/twwatch/check.go", "package main\nvar name = \"check\"\n",
		"cmd/twwatch/check_test.go", "package main\nvar name = \"top\"\n",
		"README.md", "make prose\n```sh\nmake test FOO=1 # and more\nmake tset\n$ sudo bin/twwatch --x check\n```\n"+
			"```json\nmake json\n```\n```console\n$ twwatch top | less\nmake output\n```\n",
	))
	expect(t, got, `README.md: `+"`make tset`"+`: the Makefile has no target "tset"`, `cmd/twwatch has no command "top"`)
}

func TestLinksComplaints(t *testing.T) {
	got := checkLinks(t, memory(
		"README.md", "# A title: 1 `x`\n[a](docs/a.md) [b](docs/b.md \"title\") [c](#a-title-1-x) [d](#gone) [e](docs/a.md#deep_er)\n"+
			"![f](https://example.org/gone) [g](docs/a.md#gone)\n`docs/a.md` `docs/gone.md` `elsewhere/gone` `internal/top` `internal/gone/`\n",
		"docs/a.md", "## deep_er\n[up](../README.md) [out](a/README.md)\n",
		"internal/x.go", "",
	))
	expect(t, got,
		"README.md: the link to docs/b.md leads nowhere",
		"README.md: README.md has no heading for the link to #gone",
		"README.md: docs/a.md has no heading for the link to docs/a.md#gone",
		"README.md: there is no docs/gone.md",
		"README.md: there is no internal/gone/",
		"docs/a.md: the link to a/README.md leads nowhere")
}

func TestModulesComplaints(t *testing.T) {
	got := checkModules(t, memory(
		"go.mod", "module example.org/m\n\ngo 1.26\n\nrequire example.org/alone v1.0.0\n\nrequire (\n\texample.org/a v1.2.3\n\texample.org/b/v2 v2.0.0\n)\n\n"+
			"require (\n\texample.org/c v0.1.0 // indirect\n)\n",
		"docs/architecture.md", "| module | for |\n|---|---|\n| example.org/a | this |\n| example.org/c | that |\n| `internal/x` | no module |\n",
	))
	expect(t, got, "what is example.org/alone for?", "what is example.org/b/v2 for?", "go.mod doesn't require example.org/c for itself")
}

func TestWordsComplaints(t *testing.T) {
	got := checkWords(t, memory(
		"a.go", "one\n// see KERNEL"+".md §3\n// net/work/x\n",
		"b.yml", "dir: /work"+"/main/x\n",
		"c.bin", "\x00/work"+"/main",
		".tools/d", "/work"+"/main",
	))
	expect(t, got, `a.go:2: "KERNEL`+`.md" is no part`, "b.yml:1:")
}

func TestCorporaComplaints(t *testing.T) {
	got := checkCorpora(t, memory(
		"sysctl/a_test.go", "package sysctl\nfunc FuzzA(f *testing.F) {}\nfunc FuzzB(f *testing.F) {}\n",
		"sysctl/testdata/fuzz/FuzzA/1", "go test fuzz v1\n",
	))
	expect(t, got, "FuzzB has no corpus in sysctl/testdata/fuzz/FuzzB")
}
