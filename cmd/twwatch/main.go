// Command twwatch shows why TCP connections pile up in TIME_WAIT and
// CLOSE_WAIT, who makes them, and how near the host is to running out of ports.
//
// This package only wires: one file a command, which reads its flags, asks a
// source for reports and hands them to an output. [run] is a function of the
// world it is given, and its result, the exit status, is part of the
// interface. Nothing here judges, and nothing outlives the process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/internal/sandbox"
)

// Exit statuses. check answers with the first three; every command answers
// statusFailed where it could not do what it was asked: a usage error, a source
// that can't be read, an incomplete look, a panic.
const (
	statusHealthy  = 0
	statusWarning  = 1
	statusCritical = 2
	statusFailed   = 3
)

// An env is the world that run sees.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	// columns is the width of the terminal that w writes to; ok is false if
	// it is none.
	columns func(w io.Writer) (n int, ok bool)
	// hangups delivers SIGHUP until stop is called.
	hangups func() (c <-chan os.Signal, stop func())
	// restrict gives up for good what a daemon has no use for; nil in tests,
	// which go on after it.
	restrict func() error
}

// startPercent lets the heap reach 16 MiB before it is collected for the first
// time: a single look is over by then, and a collection would be a tenth of
// what it costs on a quiet host. The daemon goes back to the runtime's default.
const startPercent = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(startPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(run(ctx, system(), os.Args[1:]))
}

// system is the real world.
func system() env {
	return env{
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		getenv:  os.Getenv,
		columns: terminalColumns,
		hangups: func() (<-chan os.Signal, func()) {
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGHUP)
			return c, func() { signal.Stop(c) }
		},
		restrict: sandbox.Restrict,
	}
}

func terminalColumns(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(size.Col), true
}

// run does what args ask and returns the exit status. An error is one line on
// stderr, whatever its text holds.
func run(ctx context.Context, e env, args []string) (status int) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(e.stderr, "twwatch: internal error: %s (at %s); please report it at %s\n", oneLine(fmt.Sprint(p)), panicPlace(), issuesURL)
			status = statusFailed
		}
	}()
	inv, err := parse(e, args)
	if exit, ok := errors.AsType[exitError](err); ok {
		return int(exit) // --help or --version has been written
	}
	if err != nil {
		return fail(e, err)
	}
	status, err = inv.runner.run(ctx, e, inv.cfg)
	if err != nil {
		return max(status, fail(e, err))
	}
	return status
}

const issuesURL = "https://github.com/twwatch/twwatch/issues"

func fail(e env, err error) int {
	fmt.Fprintln(e.stderr, "twwatch: "+oneLine(err.Error()))
	return statusFailed
}

// oneLine makes a message a single line that controls no terminal: messages
// quote files, names and replies that others wrote.
func oneLine(message string) string {
	lines := strings.FieldsFunc(message, func(r rune) bool { return r == '\n' || r == '\r' })
	return draw.Escape(strings.Join(lines, "; "))
}

// panicPlace is the file and line of this program where a panic began. It is
// called by the deferred function that recovered.
func panicPlace() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)
		}
		if !more {
			return "a place unknown"
		}
	}
}
