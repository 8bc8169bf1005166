package workload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mkdir(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// age makes a directory one that hasn't changed for some time.
func age(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(dir, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "pods")
	l := NewLogs(root)
	refresh := func() {
		t.Helper()
		if err := l.Refresh(); err != nil {
			t.Error(err)
		}
	}
	known := func(uid string, want Pod) {
		t.Helper()
		got, ok := l.Pod(uid)
		if diff := cmp.Diff(want, got); diff != "" || ok != (want.UID != "") {
			t.Errorf("pod %s: %v (-want +got):\n%s", uid, ok, diff)
		}
	}
	if err := l.Refresh(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
	mkdir(t, root, "shop_cart-7d9f_"+uid, "app")
	mkdir(t, root, "lost+found")
	known(uid, Pod{})
	refresh()
	cart := Pod{Namespace: "shop", Name: "cart-7d9f", UID: uid, Container: "app"}
	known(uid, cart)

	// A second container comes, the directory of all doesn't change.
	mkdir(t, root, "shop_cart-7d9f_"+uid, "proxy")
	refresh()
	cart.Container = ""
	known(uid, cart)

	// A new pod within the same tick of the clock is seen all the same.
	at, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := mkdir(t, root, "a_b_c")
	if err := os.Chtimes(root, at.ModTime(), at.ModTime()); err != nil {
		t.Fatal(err)
	}
	refresh()
	known("c", Pod{Namespace: "a", Name: "b", UID: "c"})

	// One that hasn't changed for long isn't read again.
	age(t, root, time.Hour)
	if at, err = os.Stat(root); err != nil {
		t.Fatal(err)
	}
	refresh()
	if err := errors.Join(os.Remove(dir), os.Chtimes(root, at.ModTime(), at.ModTime())); err != nil {
		t.Fatal(err)
	}
	refresh()
	known("c", Pod{Namespace: "a", Name: "b", UID: "c"})
	age(t, root, time.Minute)
	refresh()
	known("c", Pod{})

	// It goes, and what was known stays.
	if err := os.Rename(root, root+"-"); err != nil {
		t.Fatal(err)
	}
	if err := l.Refresh(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the directory: %v", err)
	}
	known(uid, cart)
}

func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for i := range 12 {
		if err := os.Mkdir(filepath.Join(root, fmt.Sprintf("a_b_%d", i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l := NewLogs(root)
	l.most = 10
	if err := l.Refresh(); err == nil || len(l.pods) != 10 {
		t.Errorf("%d pods, %v", len(l.pods), err)
	}
}

func TestParseLogs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Pod{
		"shop_cart-7d9f_" + uid:                 {Namespace: "shop", Name: "cart-7d9f", UID: uid},
		"a_b_c_d":                               {Namespace: "a", Name: "b", UID: "c_d"},
		"a_b.c_" + fixed:                        {Namespace: "a", Name: "b.c", UID: fixed},
		"a_b":                                   {},
		"a__c":                                  {},
		"_b_c":                                  {},
		"a_b_":                                  {},
		"A_b_c":                                 {},
		"a\x1b_b_c":                             {},
		"a_.._c":                                {},
		"a_b_c/d":                               {},
		"":                                      {},
		strings.Repeat("a", maxName+1) + "_b_c": {},
		"a_b_" + strings.Repeat("a", maxID+1):   {},
		"a_" + strings.Repeat("b", maxName) + "_c": {Namespace: "a", Name: strings.Repeat("b", maxName), UID: "c"},
	} {
		got, ok := parseLogs(name)
		if ok != (want.UID != "") || ok && cmp.Diff(want, got) != "" {
			t.Errorf("%q: %+v, %v, want %+v", name, got, ok, want)
		}
	}
}

func FuzzParseLogs(f *testing.F) {
	f.Add("shop_cart-7d9f_" + uid)
	f.Add("a_b_c_d")
	f.Fuzz(func(t *testing.T, name string) {
		if p, ok := parseLogs(name); ok && (p.Namespace+"_"+p.Name+"_"+p.UID != name || !isName(p.Name) || strings.ContainsAny(name, "/\x00\n")) {
			t.Fatalf("%q: %+v", name, p)
		}
	})
}
