package record

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A file system that is really full, in a mount namespace of the test's own.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	var setup, werr error
	var wrote int
	var names []string
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if setup = tinyFileSystem(dir); setup != nil {
			return
		}
		for _, name := range []string{"a", "b.gz"} {
			w, err := Create(filepath.Join(dir, name), Options{})
			if err != nil {
				werr = err
				return
			}
			for wrote, err = 0, nil; err == nil && wrote < 10000; wrote++ {
				err = w.Write(report(wrote))
			}
			wrote--
			werr = errors.Join(werr, err)
			_ = w.Close() // says the same
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				werr = err
				return
			}
			count := 0
			for r, err := range ReportsFrom(bytes.NewReader(data), name)(t.Context()) {
				if r != nil {
					count++
				} else if !strings.HasSuffix(name, ".gz") { // whose end mark is missing
					werr = errors.Join(werr, err)
				}
			}
			if count != w.Reports() || count != wrote {
				names = append(names, name)
			}
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				werr = err
				return
			}
		}
	}()
	<-done
	if setup != nil {
		skip(t, "mount", setup)
	}
	if !errors.Is(werr, syscall.ENOSPC) || strings.Count(werr.Error(), "no space left on device") != 2 {
		t.Errorf("got %v, want ENOSPC twice", werr)
	}
	if len(names) > 0 {
		t.Errorf("%v: not as many reports are whole as the error says", names)
	}
	if leaked, _ := os.ReadDir(dir); len(leaked) > 0 {
		t.Errorf("the mount was seen outside: %v", leaked)
	}
}

func tinyFileSystem(dir string) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32k")
}

// skip skips for want of an ability, unless TWWATCH_REQUIRE asks for it.
func skip(t *testing.T, ability string, why error) {
	t.Helper()
	for want := range strings.SplitSeq(os.Getenv("TWWATCH_REQUIRE"), ",") {
		if want == ability || want == "all" {
			t.Fatalf("%s is required by TWWATCH_REQUIRE: %v", ability, why)
		}
	}
	t.Skipf("needs %s: %v", ability, why)
}
