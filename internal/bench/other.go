//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: measuring passes over the kernel's socket table needs Linux")
	os.Exit(1)
}
