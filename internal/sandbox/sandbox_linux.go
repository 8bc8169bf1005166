package sandbox

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refusedCalls start another program, or read and write another process.
func refusedCalls() []uint32 {
	return []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
	}
}

// Restrict makes execve, execveat, ptrace, process_vm_readv, process_vm_writev
// and pidfd_getfd fail with EPERM from now on, in all threads of this process.
// It also sets no_new_privs. There is no way back. After an error nothing, or
// no_new_privs alone, has changed.
func Restrict() error {
	filter, err := program(runtime.GOARCH, refusedCalls())
	if err != nil {
		return err
	}
	// no_new_privs is a thread's own; the filter takes it to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("sandbox: set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP,
		unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return fmt.Errorf("sandbox: seccomp: %w", errno)
	case thread != 0:
		return fmt.Errorf("sandbox: seccomp: thread %d has filters of its own", thread)
	}
	return nil
}

// The layout of struct seccomp_data, include/uapi/linux/seccomp.h: the number
// of the call, then the architecture whose numbers are meant.
const (
	offsetNumber = 0
	offsetArch   = 4
	// firstX32 is the first number of amd64's second table, which has the same
	// calls again (__X32_SYSCALL_BIT).
	firstX32 = 0x40000000
)

// program refuses the calls, and every call of another architecture's numbers,
// which would be a way around.
func program(goarch string, refused []uint32) ([]unix.SockFilter, error) {
	arch, ok := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[goarch]
	if !ok {
		return nil, fmt.Errorf("sandbox: %s: %w", goarch, errors.ErrUnsupported)
	}
	if len(refused) > math.MaxUint8-8 {
		return nil, errors.New("sandbox: too many calls for one jump")
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		end   = unix.BPF_RET | unix.BPF_K
	)
	p := []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: equal, K: arch, Jt: 1},
		{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: load, K: offsetNumber},
		{Code: least, K: firstX32, Jt: uint8(len(refused) + 1)},
	}
	for i, call := range refused { // to the last instruction but none
		p = append(p, unix.SockFilter{Code: equal, K: call, Jt: uint8(len(refused) - i)})
	}
	return append(p,
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	), nil
}
