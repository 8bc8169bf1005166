package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A file system that is full, in a mount namespace of the test's own, is told
// once.
func TestRecordToFullDisk(t *testing.T) {
	dir := t.TempDir()
	e, _, stderr := testEnv(t)
	var setup error
	status := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if setup = tinyFileSystem(dir); setup == nil {
			status = run(t.Context(), e, []string{"record", "--count=1", filepath.Join(dir, "r.jsonl")})
		}
	}()
	<-done
	if setup != nil {
		for want := range strings.SplitSeq(os.Getenv("TWWATCH_REQUIRE"), ",") {
			if want == "mount" || want == "all" {
				t.Fatalf("mount is required by TWWATCH_REQUIRE: %v", setup)
			}
		}
		t.Skipf("needs mount: %v", setup)
	}
	got := stderr.String()
	if status != statusFailed || strings.Count(got, "no space left on device") != 1 || strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, "0 reports are safe in it; make room") {
		t.Errorf("status %d, stderr %s", status, got)
	}
}

// tinyFileSystem has no page left for a file's data.
func tinyFileSystem(dir string) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "page"), []byte("x"), 0o600)
}
