package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const childEnv = "TWWATCH_SANDBOX_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("restricted")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Everything is tried in a process of its own, since there is no way back.
func TestRestrict(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "restricted\n" {
		t.Fatalf("%v: %s", err, out)
	}
}

// child tries before and after what is refused, on a thread that was there
// before and on new ones, and what must go on working.
func child() error {
	thread, stop := otherThread()
	defer stop()
	if err := exec.Command("true").Run(); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	if err := thread(reach); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	if err := Restrict(); err != nil {
		return err
	}
	if err := exec.Command("true").Run(); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("execve: not EPERM: %w", err)
	}
	for name, call := range map[string]func() error{
		"execve": func() error { return unix.Exec("/proc/self/exe", []string{"x"}, nil) },
		"execveat": func() error {
			_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, ^uintptr(0), 0, 0, 0, 0, 0)
			return errno
		},
		"ptrace":           func() error { return unix.PtraceAttach(os.Getppid()) },
		"process_vm_readv": reach,
		"pidfd_getfd": func() error {
			_, err := unix.PidfdGetfd(-1, 0, 0)
			return err
		},
	} {
		if err := thread(call); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s on an older thread: not EPERM: %w", name, err)
		}
		newThread, stop := otherThread()
		err := newThread(call)
		stop()
		if !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s on a newer thread: not EPERM: %w", name, err)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	if !strings.Contains(string(status), "NoNewPrivs:\t1\n") || !strings.Contains(string(status), "Seccomp:\t2\n") {
		return fmt.Errorf("the kernel says\n%s", status)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	return c.Close()
}

// reach reads a byte of this process as if it were another one.
func reach() error {
	from, to := []byte{1}, []byte{0}
	local := []unix.Iovec{{Base: &to[0]}}
	local[0].SetLen(1)
	remote := []unix.RemoteIovec{{Base: reflect.ValueOf(from).Pointer(), Len: 1}}
	_, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
	runtime.KeepAlive(from)
	return err
}

// otherThread returns what runs functions on one thread of its own.
func otherThread() (run func(func() error) error, stop func()) {
	calls, results := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread()
		for call := range calls {
			results <- call()
		}
	}()
	return func(f func() error) error { calls <- f; return <-results }, func() { close(calls) }
}

// Numbers of other architectures must not be a way around: the filter is run on
// calls that this machine can't make.
func TestProgram(t *testing.T) {
	for goarch, arch := range map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64} {
		p, err := program(goarch, []uint32{59, 101, 322})
		if err != nil {
			t.Fatal(err)
		}
		vm := machine(t, p)
		for _, tc := range []struct {
			arch, number uint32
			refused      bool
		}{
			{arch, 0, false},
			{arch, 58, false},
			{arch, 60, false},
			{arch, 321, false},
			{arch, 0x3fffffff, false},
			{arch, 59, true},
			{arch, 101, true},
			{arch, 322, true},
			{arch, 0x40000000 + 520, true},
			{arch, 0xffffffff, true},
			{unix.AUDIT_ARCH_I386, 0, true},
			{unix.AUDIT_ARCH_ARM, 0, true},
		} {
			// What the kernel would show the filter, in the order that bpf.VM reads.
			var data bytes.Buffer
			for _, word := range []uint32{tc.number, tc.arch} {
				data.Write([]byte{byte(word >> 24), byte(word >> 16), byte(word >> 8), byte(word)})
			}
			verdict, err := vm.Run(data.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if refused := uint32(verdict) == unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM); refused != tc.refused {
				t.Errorf("%s: call %#x of architecture %#x: verdict %#x, want refused %v", goarch, tc.number, tc.arch, verdict, tc.refused)
			}
		}
	}
	if _, err := program("s390x", nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("s390x: %v", err)
	}
}

func machine(t *testing.T, p []unix.SockFilter) *bpf.VM {
	t.Helper()
	var filter []bpf.Instruction
	for _, i := range p {
		filter = append(filter, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
	}
	vm, err := bpf.NewVM(filter)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}
