package test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

const dropIns = "/etc/systemd/system/twwatch.service.d/"

// use does what the heads of drop-ins tell to do, and adds settings of the
// test's own.
func (m *machine) use(own string, names ...string) {
	m.t.Helper()
	m.run("rm", "-rf", dropIns)
	m.run("mkdir", "-p", dropIns)
	for _, name := range names {
		m.run("ln", "-s", "/usr/share/twwatch/systemd/"+name, dropIns)
	}
	// Restarts are quick here, and more of them are made than on a host.
	write(m.t, m.path(dropIns+"test.conf"), "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=100ms\n"+own)
	m.run("systemctl", "daemon-reload")
}

// install installs the package of this machine's architecture.
func (m *machine) install() {
	m.t.Helper()
	command(m.t, "cp", packageFile(m.t, "deb"), m.path("/root/twwatch.deb"))
	m.run("dpkg", "--install", "/root/twwatch.deb")
}

// The unit in a real systemd.
func TestService(t *testing.T) {
	m := boot(t)
	m.install()
	m.awaitMetrics()
	m.run("systemd-run", "--unit=listener", "--property=User=games", "perl", "-MIO::Socket", "-e",
		`push @s, IO::Socket::INET->new(LocalAddr => "127.0.0.1:7070", Listen => 1) or die; sleep`)

	t.Run("verify", func(t *testing.T) {
		for _, unit := range []string{"twwatch.service", "twwatch.socket"} {
			out, err := m.in(t.Context(), "systemd-analyze", "verify", "/usr/lib/systemd/system/"+unit)
			if err != nil || out != "" {
				t.Errorf("%s: %v %s", unit, err, out)
			}
		}
	})

	// A system call that the filter refuses kills it here, so none is needed.
	t.Run("default", func(t *testing.T) {
		m.use("SystemCallErrorNumber=kill\n")
		m.run("systemctl", "restart", "twwatch")
		m.awaitMetrics()
		checkProcess(t, m, 0)
		checkExposure(t, m, "16")
		checkListener(t, m, `"uid":5}`) // whose process it is can't be seen
		if got := m.property("twwatch", "NRestarts"); got != "0" {
			t.Errorf("%s restarts", got)
		}
	})

	t.Run("all namespaces", func(t *testing.T) {
		m.use("SystemCallErrorNumber=kill\n", "all-namespaces.conf")
		m.run("systemctl", "restart", "twwatch")
		m.awaitMetrics()
		const sysAdmin, sysPtrace, dacReadSearch = 1 << 21, 1 << 19, 1 << 2
		checkProcess(t, m, sysAdmin|sysPtrace|dacReadSearch)
		checkExposure(t, m, "23")
		checkListener(t, m, `"uid":5,"pid":[0-9]+,"comm":"perl"}`)
		checkNamespaces(t, m)
	})

	t.Run("ready after the first pass", func(t *testing.T) {
		// A source that isn't there yet stands for a pass that takes long.
		m.use("")
		write(t, m.path("/etc/default/twwatch"), "TWWATCH_FLAGS=--interval=1s --source=http://127.0.0.1:7\n")
		defer write(t, m.path("/etc/default/twwatch"), "")
		m.run("systemctl", "stop", "twwatch")
		m.run("systemctl", "start", "--no-block", "twwatch")
		eventually(t, "it has looked in vain", func() error {
			if _, body, err := m.get("http://127.0.0.1:10060/-/ready"); err != nil || !strings.Contains(body, "not ready") {
				return fmt.Errorf("%q %w", body, err)
			}
			if log := m.output("journalctl", "--no-pager", "-u", "twwatch"); !strings.Contains(log, "connection refused") {
				return errors.New(log)
			}
			return nil
		})
		if got := m.property("twwatch", "ActiveState"); got != "activating" {
			t.Errorf("before the first pass: %s", got)
		}
		m.run("systemd-run", "--unit=source", "/usr/bin/twwatch", "serve", "--web.listen-address=127.0.0.1:7")
		m.awaitProperty("ActiveState", "active")
		if _, body, err := m.get("http://127.0.0.1:10060/-/ready"); err != nil || body != "ready\n" {
			t.Errorf("active, and /-/ready says %q %v", body, err)
		}
		m.run("systemctl", "stop", "source")
	})

	t.Run("restarts", func(t *testing.T) {
		m.use("WatchdogSec=2\n")
		m.run("systemctl", "restart", "twwatch")
		m.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "twwatch")
		m.awaitProperty("NRestarts", "1")
		m.awaitProperty("ActiveState", "active")
		m.awaitMetrics()
		m.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "twwatch")
		m.awaitProperty("NRestarts", "2")
		m.awaitProperty("ActiveState", "active")
		m.awaitMetrics()
		contains(t, "the journal", m.run("journalctl", "--no-pager", "-u", "twwatch"), `Watchdog timeout`)
	})

	t.Run("reload", func(t *testing.T) {
		m.use("")
		m.run("systemctl", "restart", "twwatch")
		pid := m.property("twwatch", "MainPID")
		write(t, m.path("/etc/twwatch/twwatch.yaml"), "thresholds:\n  ports_slow_ratio: 0.4\n")
		m.run("systemctl", "reload", "twwatch")
		eventually(t, "the journal tells of it", func() error {
			if log := m.run("journalctl", "--no-pager", "-u", "twwatch"); !strings.Contains(log, "msg=Reloaded") {
				return errors.New(tail(log))
			}
			return nil
		})
		if got := m.property("twwatch", "MainPID"); got != pid {
			t.Errorf("process %s became %s", pid, got)
		}
	})

	t.Run("web config", func(t *testing.T) {
		// root's alone, with the password "test".
		write(t, m.path("/etc/twwatch/web.yaml"), "basic_auth_users:\n  alice: $2a$04$ybK68paFa9EgqnXannJFluUOAms1yDPjs/vP7SUCKlZzoErQ.wqlq\n")
		m.run("chmod", "600", "/etc/twwatch/web.yaml")
		m.use("", "web-config.conf")
		m.run("systemctl", "restart", "twwatch")
		if status, body, err := m.get("http://127.0.0.1:10060/metrics"); status != http.StatusUnauthorized {
			t.Errorf("without a password: %d %q %v", status, body, err)
		}
		alice := func(r *http.Request) { r.SetBasicAuth("alice", "test") }
		if status, body, err := m.get("http://127.0.0.1:10060/api/v1/report", alice); status != http.StatusOK {
			t.Errorf("with the password: %d %q %v", status, tail(body), err)
		}
	})

	t.Run("socket", func(t *testing.T) {
		m.use("", "socket.conf")
		m.run("systemctl", "stop", "twwatch")
		m.run("systemctl", "enable", "--now", "twwatch.socket")
		m.run("systemctl", "start", "twwatch")
		m.awaitMetrics()
		// Nobody listens but systemd: the request waits, and starts it.
		m.run("systemctl", "stop", "twwatch")
		if status, body, err := m.get("http://127.0.0.1:10060/-/healthy"); status != http.StatusOK {
			t.Errorf("a request while it is stopped: %d %q %v", status, body, err)
		}
		m.run("systemctl", "disable", "--now", "twwatch.socket")
	})

	t.Run("stop", func(t *testing.T) {
		m.use("")
		m.run("systemctl", "restart", "twwatch")
		m.awaitMetrics()
		m.run("systemctl", "stop", "twwatch")
		for name, want := range map[string]string{"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0", "ExecMainCode": "1"} {
			if got := m.property("twwatch", name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
}

// checkProcess holds the daemon to exactly these capabilities, and to a user and
// filters of its own.
func checkProcess(t *testing.T, m *machine, capabilities uint64) {
	t.Helper()
	status := m.run("cat", "/proc/"+m.property("twwatch", "MainPID")+"/status")
	set := fmt.Sprintf("%016x", capabilities)
	for name, want := range map[string]string{
		"CapInh": set, "CapPrm": set, "CapEff": set, "CapBnd": set, "CapAmb": set,
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		contains(t, "the process", status, `(?m)^`+name+`:\t`+want+`$`)
	}
	// systemd makes users of 61184 to 65519 for DynamicUser.
	contains(t, "the process", status, `(?m)^Uid:\t6[1-5][0-9]{3}\t`)
}

// checkExposure holds systemd's score, in tenths.
func checkExposure(t *testing.T, m *machine, most string) {
	t.Helper()
	out, err := m.in(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold="+most, "twwatch.service")
	if err != nil {
		t.Error(err)
	}
	t.Logf("at most %s allowed: %s", most, regexp.MustCompile(`exposure level .*: ([0-9.]+)`).FindString(out))
}

// checkListener demands what a report says of another user's listener.
func checkListener(t *testing.T, m *machine, want string) {
	t.Helper()
	eventually(t, "the report has "+want, func() error {
		_, body, err := m.get("http://127.0.0.1:10060/api/v1/report")
		if err == nil && !regexp.MustCompile(`"local":"127.0.0.1:7070",[^}]*`+want).MatchString(body) {
			err = errors.New(tail(body))
		}
		return err
	})
}

// checkNamespaces demands a namespace that only a mount holds.
func checkNamespaces(t *testing.T, m *machine) {
	t.Helper()
	m.run("ip", "netns", "add", "blue")
	defer m.run("ip", "netns", "delete", "blue")
	eventually(t, "namespace blue has metrics", func() error {
		if text := m.awaitMetrics(); !strings.Contains(text, `netns="blue"`) {
			return errors.New(tail(text))
		}
		return nil
	})
}
