package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of /proc's times, hundredths of a second on every Linux.
const tick = 10 * time.Millisecond

func OwnCPU() time.Duration { return usage(syscall.RUSAGE_SELF) }

// ProgramsCPU is what the programs have used that this process has started and waited for.
func ProgramsCPU() time.Duration { return usage(syscall.RUSAGE_CHILDREN) }

func usage(who int) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(who, &usage); err != nil {
		return 0
	}

	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// processCPU is what a process has used, and its children, those that have ended and were
// waited for included. It returns false without /proc.
func processCPU(pid int) (used time.Duration, ok bool) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, false
	}

	self := strconv.Itoa(pid)

	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}

		// proc(5): the name may contain anything. After it come the state (3), the parent
		// (4), utime (14), stime (15), and cutime and cstime of the children that were
		// waited for.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 15 {
			continue
		}

		ticks := fields[11:13]

		switch {
		case filepath.Base(filepath.Dir(file)) == self:
			ticks, ok = fields[11:15], true
		case string(fields[1]) != self:
			continue
		}

		for _, field := range ticks {
			n, err := strconv.Atoi(string(field))
			if err != nil {
				return 0, false
			}

			used += time.Duration(n) * tick
		}
	}

	return used, ok
}
