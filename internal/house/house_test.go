// Package house holds the tests of the source tree itself: that packages keep
// to their level and to the rules of style that a machine can check, and that
// the documents name only what exists. It reads the tree in-process (running
// `go list` would hide its input from the test cache), owns nothing that
// outlives a test, and checks no behaviour: that is the packages' own work.
package house

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/twwatch/twwatch"

// tree is the source tree that this package stands in.
func tree(t *testing.T) fs.FS {
	t.Helper()
	const root = "../.."
	mod, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(mod, []byte("module "+module+"\n")) {
		t.Fatalf("%s/go.mod is not of %s", root, module)
	}
	return os.DirFS(root)
}

// files lists the files of the tree, sorted, without what is built or
// installed in it.
func files(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	notSources := []string{".git", ".tools", "bin", "dist"}
	var names []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(notSources, name):
			return fs.SkipDir
		case d.Type().IsRegular():
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, fsys fs.FS, name string) string {
	t.Helper()
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goFiles lists the Go files that the go command would see.
func goFiles(t *testing.T, fsys fs.FS) []string {
	t.Helper()
	return slices.DeleteFunc(files(t, fsys), func(name string) bool {
		if path.Ext(name) != ".go" {
			return true
		}
		return slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
			return part == "testdata" || part == "vendor" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "_")
		})
	})
}

// memory makes a tree of the given files, name then text, in turn.
func memory(nameText ...string) fs.FS {
	fsys := fstest.MapFS{}
	for pair := range slices.Chunk(nameText, 2) {
		fsys[pair[0]] = &fstest.MapFile{Data: []byte(pair[1])}
	}
	return fsys
}

// expect compares complaints with what must be among them: as many as wanted,
// each containing its wanted text.
func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d complaints, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("complaint %d is %q, want it to say %q", i, got[i], want[i])
		}
	}
}
