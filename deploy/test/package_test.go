package test

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packageFile is the package for amd64 that scripts/packages made.
func packageFile(t *testing.T, format string) string {
	t.Helper()
	files, err := filepath.Glob(root + "/dist/*" + map[string]string{"deb": "_amd64.deb", "rpm": ".x86_64.rpm"}[format])
	if err != nil || len(files) != 1 {
		t.Fatalf("scripts/packages made %q, want one %s: %v", files, format, err)
	}
	return files[0]
}

// nextPackage makes a later version of a package, whose two files of settings
// have changed.
func nextPackage(t *testing.T, format string) string {
	t.Helper()
	dir := copyTree(t)
	built := filepath.Join(dir, "built")
	command(t, "cp", "-a", filepath.Dir(program(t)), built)
	for _, name := range []string{"twwatch.1.gz", "copyright"} {
		write(t, filepath.Join(built, name), name)
	}
	for _, name := range []string{"deploy/packaging/twwatch.yaml", "deploy/systemd/twwatch.default"} {
		write(t, filepath.Join(dir, name), "# of 9.0.0\n"+read(t, filepath.Join(dir, name)))
	}
	inTree(t, dir, []string{"GOARCH=amd64", "PACKAGE_VERSION=9.0.0", "PACKAGE_DIR=built", "SOURCE_DATE_EPOCH=0"},
		"nfpm", "package", "--config", "deploy/packaging/nfpm.yaml", "--packager", format, "--target", "next."+format)
	return filepath.Join(dir, "next."+format)
}

// copyTree copies what packages are made of, but for the programs.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"deploy/packaging", "deploy/systemd", "scripts", "VERSION", "LICENSE", "NOTICE", "CHANGELOG.md"} {
		to := filepath.Join(dir, filepath.Dir(name))
		command(t, "mkdir", "-p", to)
		command(t, "cp", "-a", filepath.Join(root, name), to)
	}
	return dir
}

func inTree(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// The packages made a second time, elsewhere, have the same bytes.
func TestPackagesAreReproducible(t *testing.T) {
	t.Parallel()
	want := read(t, root+"/dist/SHA256SUMS")
	if n := strings.Count(want, "\n"); n != 6 {
		t.Errorf("%d files in SHA256SUMS, want 6: an archive, a deb and an rpm for two architectures\n%s", n, want)
	}
	dir := copyTree(t)
	command(t, "cp", "-a", root+"/dist", dir)
	command(t, "sh", "-c", "rm "+dir+"/dist/*.deb "+dir+"/dist/*.rpm")
	epoch := strings.TrimSpace(command(t, "git", "-c", "safe.directory=*", "-C", root, "log", "-1", "--format=%ct"))
	inTree(t, dir, []string{"SOURCE_DATE_EPOCH=" + epoch, "TOOLS=" + absolute(t, root+"/.tools")}, "scripts/packages")
	if got := read(t, dir+"/dist/SHA256SUMS"); got != want {
		t.Errorf("made again:\n%swant\n%s", got, want)
	}
}

// A first installation, an upgrade beside changed settings, a removal, a return
// and a purge, in a clean Debian.
func TestDeb(t *testing.T) {
	const config, defaults = "/etc/twwatch/twwatch.yaml", "/etc/default/twwatch"
	const own = "interval: 10s # the operator's\n"
	m := boot(t)
	command(t, "cp", packageFile(t, "deb"), m.path("/root/first.deb"))
	command(t, "cp", nextPackage(t, "deb"), m.path("/root/next.deb"))
	state := func(active, enabled string) {
		t.Helper()
		if got := m.output("systemctl", "is-active", "twwatch"); got != active {
			t.Errorf("it is %s, want %s", got, active)
		}
		if got := m.output("systemctl", "is-enabled", "twwatch"); got != enabled {
			t.Errorf("it is %q, want %q", got, enabled)
		}
	}
	upgrade := func(file string) {
		t.Helper()
		m.run("dpkg", "--force-confdef", "--force-confold", "--install", file)
	}

	m.run("dpkg", "--install", "/root/first.deb")
	m.awaitMetrics()
	state("active", "enabled")
	if status, body, err := m.get("http://127.0.0.1:10060/"); status != http.StatusOK || !strings.Contains(body, "twwatch") {
		t.Errorf("the page: %d %v", status, err)
	}
	contains(t, "man twwatch", m.run("man", "twwatch"), `(?s)NAME\s+twwatch - why TCP connections pile up.*twwatch serve`)
	contains(t, "whatis", m.run("sh", "-c", "mandb -q && whatis twwatch"), `twwatch \(1\)\s+- why TCP`)
	checkCompletion(t, m)

	// The operator's settings stay, untouched files become the new ones.
	write(t, m.path(config), own)
	m.run("systemctl", "restart", "twwatch")
	pid := m.property("twwatch", "MainPID")
	upgrade("/root/next.deb")
	if got := read(t, m.path(config)); got != own {
		t.Errorf("%s became %q", config, got)
	}
	contains(t, "the new settings beside it", read(t, m.path(config+".dpkg-dist")), "^# of 9.0.0\n")
	contains(t, defaults, read(t, m.path(defaults)), "^# of 9.0.0\n")
	m.awaitMetrics()
	state("active", "enabled")
	if got := m.property("twwatch", "MainPID"); got == pid || got == "0" {
		t.Errorf("process %s became %s in the upgrade", pid, got)
	}

	// What is switched off stays off.
	m.run("systemctl", "disable", "--now", "twwatch")
	upgrade("/root/next.deb")
	state("inactive", "disabled")
	m.run("systemctl", "enable", "--now", "twwatch")

	m.run("dpkg", "--remove", "twwatch")
	state("inactive", "")
	if _, err := os.Stat(m.path("/usr/bin/twwatch")); err == nil {
		t.Error("the program is still there")
	}
	if got := read(t, m.path(config)); got != own {
		t.Errorf("the removal made %q of %s", got, config)
	}

	upgrade("/root/first.deb")
	m.awaitMetrics()
	if got := read(t, m.path(config)); got != own {
		t.Errorf("the return made %q of %s", got, config)
	}

	m.run("dpkg", "--purge", "twwatch")
	left := m.run("find", "/etc", "/usr", "/var/lib", "-name", "*twwatch*")
	if left != "" {
		t.Errorf("the purge left %s", left)
	}
	if _, _, err := m.get("http://127.0.0.1:10060/"); err == nil {
		t.Error("something still answers")
	}
}

// checkCompletion presses the Tab key in three shells, after logging in as a
// user would.
func checkCompletion(t *testing.T, m *machine) {
	t.Helper()
	bash := `. /usr/share/bash-completion/bash_completion
try() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}; COMPREPLY=(); _completion_loader twwatch; _twwatch; echo "${COMPREPLY[@]}"; }
try twwatch se; try twwatch serve --log.level = d; try twwatch sockets --state time-`
	if got, want := m.run("bash", "-c", bash), "serve\ndebug\ntime-wait"; got != want {
		t.Errorf("bash: %q, want %q", got, want)
	}
	fish := `for line in "twwatch se" "twwatch serve --log.level=de" "twwatch sockets --state time-"; complete --do-complete $line | string match -v '*/'; end`
	if got, want := m.run("fish", "-c", fish), "serve\n--log.level=debug\ntime-wait"; got != want {
		t.Errorf("fish: %q, want %q", got, want)
	}
	// zsh completes where a person types: in a terminal of its own.
	zsh := `zmodload zsh/zpty
zpty shell 'TERM=dumb zsh -f -i'
zpty -w shell 'autoload -Uz compinit; compinit -u; tell() { print -r -- "<<$BUFFER>>"; BUFFER=; }; zle -N tell; bindkey "^Xt" tell; echo loa""ded'
zpty -r -m shell answer '*loaded*'
for line in "twwatch se" "twwatch serve --log.level=de" "twwatch sockets --state time-"; do
	zpty -w -n shell "$line"$'\t\Cxt'
	zpty -r -m shell answer '*<<*>>*'
	print -r -- ${${answer##*<<}%%>>*}
done`
	if got, want := m.run("zsh", "-f", "-c", zsh), "twwatch serve \ntwwatch serve --log.level=debug \ntwwatch sockets --state time-wait"; got != want {
		t.Errorf("zsh: %q, want %q", got, want)
	}
}

// The rpm has its files and keeps settings, too. Its scripts run in a Debian,
// for want of another system; nothing is started there.
func TestRPM(t *testing.T) {
	t.Parallel()
	dir := debian(t)
	rpm := func(args ...string) {
		t.Helper()
		command(t, "rpm", append([]string{"--root=" + dir, "--nodeps"}, args...)...)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	const config, defaults = "/etc/twwatch/twwatch.yaml", "/etc/default/twwatch"
	const own = "interval: 10s # the operator's\n"

	rpm("--install", packageFile(t, "rpm"))
	if out, err := exec.Command("chroot", dir, "/usr/bin/twwatch", "--version").CombinedOutput(); err != nil || !bytes.Contains(out, []byte(version(t))) {
		t.Errorf("--version: %v %s", err, out)
	}
	wanted := path("/etc/systemd/system/multi-user.target.wants/twwatch.service")
	if _, err := os.Lstat(wanted); err != nil {
		t.Errorf("the presets enable it, and it isn't: %v", err)
	}
	write(t, path(config), own)
	rpm("--upgrade", nextPackage(t, "rpm"))
	if got := read(t, path(config)); got != own {
		t.Errorf("the upgrade made %q of %s", got, config)
	}
	contains(t, "the new settings beside it", read(t, path(config+".rpmnew")), "^# of 9.0.0\n")
	contains(t, defaults, read(t, path(defaults)), "^# of 9.0.0\n")
	rpm("--erase", "twwatch")
	if got := read(t, path(config+".rpmsave")); got != own {
		t.Errorf("the removal made %q of %s", got, config)
	}
	for _, name := range []string{wanted, path("/usr/bin/twwatch"), path("/usr/share/twwatch")} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the removal left %s: %v", name, err)
		}
	}
}

// Both packages of an architecture hold a static program of it.
func TestPackagedPrograms(t *testing.T) {
	t.Parallel()
	for suffix, want := range map[string]elf.Machine{
		"_amd64.deb": elf.EM_X86_64, "_arm64.deb": elf.EM_AARCH64, ".x86_64.rpm": elf.EM_X86_64, ".aarch64.rpm": elf.EM_AARCH64,
	} {
		files, err := filepath.Glob(root + "/dist/*" + suffix)
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %q %v", suffix, files, err)
		}
		dir := t.TempDir()
		if strings.HasSuffix(suffix, "deb") {
			command(t, "dpkg-deb", "--extract", files[0], dir)
		} else {
			command(t, "sh", "-c", fmt.Sprintf("rpm2cpio %q | (cd %q && cpio --quiet --no-absolute-filenames -id)", absolute(t, files[0]), dir))
		}
		f, err := elf.Open(filepath.Join(dir, "usr/bin/twwatch"))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != want {
			t.Errorf("%s holds a program for %v", files[0], f.Machine)
		}
		if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
			t.Errorf("%s: its program needs %q %v", files[0], libraries, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
