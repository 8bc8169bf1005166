package lab

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func explainUnshare(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return "needs CAP_SYS_ADMIN: run it with sudo, or inside `unshare -Urn`"
	case errors.Is(err, unix.ENOSPC):
		return "no more namespaces allowed: see user.max_net_namespaces"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "this kernel was built without CONFIG_NET_NS"
	}
	return ""
}

func explainLoopback(err error) string {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return ""
	}
	if kernelSetting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return "kernel.apparmor_restrict_unprivileged_userns=1 lets a user namespace be made, but without its rights: run it with sudo"
	}
	return "needs CAP_NET_ADMIN in the namespace, which a security module may withhold: run it with sudo"
}

func explainSysctl(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return "this kernel or namespace lacks the setting"
	case errors.Is(err, unix.EROFS):
		return "/proc/sys is mounted read-only, as containers do: run it on the host, or in a privileged container"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "needs CAP_NET_ADMIN in the namespace: run it with sudo"
	}
	return ""
}

// explainUserns says why a user namespace could not be made, as far as the
// kernel's own settings tell.
func explainUserns(err error) string {
	const sudo = ": run it with sudo"
	switch {
	case kernelSetting("kernel/unprivileged_userns_clone") == "0":
		return "kernel.unprivileged_userns_clone=0 forbids user namespaces" + sudo
	case kernelSetting("user/max_user_namespaces") == "0":
		return "user.max_user_namespaces=0 forbids user namespaces" + sudo
	case kernelSetting("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "kernel.apparmor_restrict_unprivileged_userns=1 restricts user namespaces" + sudo
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return "too many or too deeply nested: see user.max_user_namespaces and user.max_net_namespaces"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "this kernel was built without CONFIG_USER_NS or CONFIG_NET_NS" + sudo
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "a seccomp filter, as containers have, a chroot or a security module forbids it" + sudo + " on the host"
	}
	return ""
}

// kernelSetting is empty where the setting doesn't exist.
func kernelSetting(path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
