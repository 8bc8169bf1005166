package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
)

// versionText is several lines: version, revision, Go, platform.
func versionText() string { return strings.TrimRight(version.Print("twwatch"), "\n") }

// programVersion stands in reports; a plain `go build` has none.
func programVersion() string {
	if version.Version == "" {
		return "devel"
	}
	return version.Version
}

func versionCommand() command {
	return command{
		name: "version", summary: "show version, revision and platform",
		help:     "Show version, revision and platform.",
		examples: "  twwatch version",
		define: func(*kingpin.CmdClause) runner {
			return plainRunner(func(_ context.Context, e env, _ configuration) (int, error) {
				_, err := fmt.Fprintln(e.stdout, versionText())
				return statusHealthy, err
			})
		},
	}
}
