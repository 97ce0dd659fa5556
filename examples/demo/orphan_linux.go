package main

import (
	"runtime"
	"syscall"
)

// The signal of dieWithParent comes when the thread ends that started the
// process. The main goroutine stays on the main thread, which ends with the demo.
func init() { runtime.LockOSThread() }

// dieWithParent makes the system kill a process when the demo ends, in whatever
// way. It must be started from the main goroutine.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
