package collector

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/internal/netns"
)

// identify tells which namespace the calling thread is in. It is the host's
// if the settings that only the initial network namespace has are there
// (tcp_max_orphans, net/ipv4/sysctl_net_ipv4.c): that needs no right to look
// at process 1.
func identify(proc string) (identity, error) {
	var id identity
	var st unix.Stat_t
	if err := unix.Stat(proc+"/thread-self/ns/net", &st); err != nil {
		return id, fmt.Errorf("%s/thread-self/ns/net: %w: is proc mounted there?", proc, err)
	}
	id.inode = st.Ino
	_, err := os.Stat(proc + "/sys/net/ipv4/tcp_max_orphans")
	id.host = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	id.name = "self"
	if id.host {
		id.name = "host"
	}
	id.kind = id.name
	if boot, err := os.ReadFile(proc + "/sys/kernel/random/boot_id"); err == nil {
		id.bootID = strings.TrimSpace(string(boot))
	}
	id.cookie = netns.OwnCookie()
	return id, nil
}

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// threadCPU is the CPU time that the calling thread has used.
func threadCPU() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

// uptime is the time since boot, sleep included.
func uptime() time.Duration { return clock(unix.CLOCK_BOOTTIME) }

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
