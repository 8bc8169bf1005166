package house

import "testing"

// Each rule of the sources is broken once, and must be noticed.
func TestSourcesComplaints(t *testing.T) {
	const doc = "// Package p owns nothing.\n"
	for _, tc := range []struct {
		name string
		tree []string
		want []string
	}{
		{
			name: "in order",
			tree: []string{
				"inetdiag/a.go", doc + "package inetdiag\nimport _ \"unsafe\"\n",
				"inetdiag/a_test.go", "package inetdiag_test\nimport (\n_ \"" + module + "/inetdiag\"\n_ \"os/exec\"\n)\n",
				"collector/a.go", doc + "package collector\nimport _ \"" + module + "/inetdiag\"\nfunc (t) init() {}\ntype t struct{}\n",
				"internal/truth/a_test.go", doc + "package truth\nimport _ \"" + module + "/collector\"\n",
				"collector/testdata/broken.go", "not Go",
				"_scratch/broken.go", "not Go",
				"bin/broken.go", "not Go",
			},
		},
		{
			name: "not Go",
			tree: []string{"sysctl/a.go", "pakage sysctl\n"},
			want: []string{"sysctl/a.go:1:1: expected 'package'"},
		},
		{
			name: "unknown package",
			tree: []string{"internal/util/a.go", doc + "package util\n"},
			want: []string{"internal/util: has no level"},
		},
		{
			name: "package at the root",
			tree: []string{"a.go", doc + "package twwatch\n"},
			want: []string{".: has no level"},
		},
		{
			name: "import of an unknown package",
			tree: []string{"collector/a.go", doc + "package collector\nimport _ \"" + module + "/internal/util\"\n"},
			want: []string{`collector/a.go:3: imports "internal/util", which has no level`},
		},
		{
			name: "import of the root",
			tree: []string{"collector/a.go", doc + "package collector\nimport _ \"" + module + "\"\n"},
			want: []string{`collector/a.go:3: imports "", which has no level`},
		},
		{
			name: "import upwards",
			tree: []string{"sysctl/a.go", doc + "package sysctl\nimport up \"" + module + "/collector\"\n"},
			want: []string{"sysctl (level 0) imports collector (level 3)"},
		},
		{
			name: "import of a sibling",
			tree: []string{"sysctl/a.go", doc + "package sysctl\nimport _ \"" + module + "/inetdiag\"\n"},
			want: []string{"sysctl (level 0) imports inetdiag (level 0)"},
		},
		{
			name: "import of a sibling by a test",
			tree: []string{
				"sysctl/a.go", doc + "package sysctl\n",
				"sysctl/a_test.go", "package sysctl_test\nimport _ \"" + module + "/inetdiag\"\n",
			},
			want: []string{"sysctl/a_test.go:2: sysctl (level 0) imports inetdiag (level 0)"},
		},
		{
			name: "no package comment",
			tree: []string{
				"sysctl/a.go", "// A licence, say.\n\npackage sysctl\n",
				"sysctl/a_test.go", doc + "package sysctl\n",
			},
			want: []string{"sysctl: no package comment"},
		},
		{
			name: "no package comment on tests alone",
			tree: []string{"internal/truth/a_test.go", "package truth\n"},
			want: []string{"internal/truth: no package comment"},
		},
		{
			name: "two package comments",
			tree: []string{
				"sysctl/a.go", doc + "package sysctl\n",
				"sysctl/b_linux.go", doc + "package sysctl\n",
			},
			want: []string{"sysctl: 2 package comments, want one: a.go, b_linux.go"},
		},
		{
			name: "os/exec",
			tree: []string{"internal/web/a.go", doc + "package web\nimport \"os/exec\"\n"},
			want: []string{"internal/web/a.go:3: os/exec may be imported only by internal/lab"},
		},
		{
			name: "unsafe",
			tree: []string{"sysctl/a.go", doc + "package sysctl\nimport _ \"unsafe\"\n"},
			want: []string{"unsafe may be imported only by inetdiag, internal/sandbox"},
		},
		{
			name: "init",
			tree: []string{"sysctl/a.go", doc + "package sysctl\nfunc init() {}\n"},
			want: []string{"sysctl/a.go:3: func init"},
		},
		{
			name: "sleep in a test, under another name too",
			tree: []string{
				"sysctl/a.go", doc + "package sysctl\nimport \"time\"\nfunc f() { time.Sleep(1) }\n",
				"sysctl/a_test.go", "package sysctl\nimport \"time\"\nfunc g() { time.Sleep(1) }\n",
				"sysctl/b_test.go", "package sysctl\nimport clock \"time\"\nfunc h() { clock.Sleep(1) }\n",
			},
			want: []string{"sysctl/a_test.go:3: time.Sleep in a test", "sysctl/b_test.go:3: time.Sleep in a test"},
		},
		{
			name: "sleep in a bubble",
			tree: []string{
				"sysctl/a.go", doc + "package sysctl\n",
				"sysctl/a_test.go", "package sysctl\nimport (\n\"testing/synctest\"\n\"time\"\n)\n" +
					"func g() {\nsynctest.Test(nil, func() { time.Sleep(1) })\ntime.Sleep(2)\n}\n",
			},
			want: []string{"sysctl/a_test.go:8: time.Sleep in a test"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect(t, checkSources(t, memory(tc.tree...)), tc.want...)
		})
	}
}

func TestLevelsTableComplaints(t *testing.T) {
	var table string
	for name, level := range levels() {
		if name != "sysctl" && name != "collector" {
			table += "| " + string(rune('0'+level)) + " | `" + name + "` | text |\n"
		}
	}
	expect(t, checkLevelsTable(table+"| 0 | `sysctl/` `internal/util` | text |\n| 4 | `collector` | text |\n"),
		"collector has level 4 there, and 3 in",
		"internal/util has no level")
	expect(t, checkLevelsTable(table+"| 3 | `collector` | text |\n"), "sysctl is not in the table")
}
