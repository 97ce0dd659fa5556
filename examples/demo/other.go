//go:build !unix

// Demo shows the locks at work. It pauses processes by SIGSTOP, and so needs a
// Unix system.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "demo: it pauses processes by SIGSTOP, and so needs a Unix system")
	os.Exit(1)
}
