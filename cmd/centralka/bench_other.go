//go:build !linux

package main

import (
	"fmt"
	"io"
	"runtime"
)

// runBench says that the bench is not to be had: it needs epoll and /proc.
func runBench(_ []string, _, stderr io.Writer) int {
	fmt.Fprintf(stderr, "centralka bench: it runs on Linux only, this is %s\n", runtime.GOOS)
	return exitFailed
}
