//go:build unix

package main

import (
	"os/signal"
	"syscall"
	"time"
)

// dieOf ends the process as the signal would have, so that a shell that runs the command in a loop stops too.
func dieOf(s syscall.Signal) {
	signal.Reset(s)

	if syscall.Kill(syscall.Getpid(), s) == nil {
		time.Sleep(time.Second) // the signal arrives in another thread, unless it was ignored from the start
	}
}
