//go:build unix

package pgtesting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
	sigKill = syscall.SIGKILL
	sigQuit = syscall.SIGQUIT
	sigInt  = syscall.SIGINT
	sigTerm = syscall.SIGTERM
)

type process struct {
	pid     int
	stopped bool // by SIGSTOP
}

func (p process) signal(sig syscall.Signal) { _ = syscall.Kill(p.pid, sig) }

// findProcesses returns the processes for whose command line belongs is true. In it a space
// follows each argument.
func findProcesses(belongs func(commandLine string) bool) ([]process, error) {
	if _, err := os.Stat("/proc/self/cmdline"); err == nil {
		return findInProc(belongs)
	}
	return findWithPS(belongs)
}

func findInProc(belongs func(commandLine string) bool) ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, file := range files {
		text, err := os.ReadFile(file)
		// Empty: a zombie or a thread of the kernel.
		if err != nil || len(text) == 0 {
			continue
		}
		if !belongs(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})) + " ") {
			continue
		}
		dir := filepath.Dir(file)
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		// pid (name) state ...; the name may contain anything.
		_, fields, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
		if len(fields) == 0 || bytes.ContainsAny(fields[:1], "ZX") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		found = append(found, process{pid: pid, stopped: fields[0] == 'T'})
	}
	return found, nil
}

func findWithPS(belongs func(commandLine string) bool) ([]process, error) {
	ps := exec.CommandContext(context.Background(), "ps", "-A", "-ww", "-o", "pid=", "-o", "stat=", "-o", "args=")
	out, err := ps.Output()
	if err != nil {
		return nil, fmt.Errorf("pgtesting: ps: %w", err)
	}
	var found []process
	for line := range strings.Lines(string(out)) {
		pidText, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		state, command, _ := strings.Cut(strings.TrimSpace(rest), " ")
		pid, err := strconv.Atoi(pidText)
		if err != nil || strings.HasPrefix(state, "Z") || !belongs(strings.TrimSpace(command)+" ") {
			continue
		}
		found = append(found, process{pid: pid, stopped: strings.HasPrefix(state, "T")})
	}
	return found, nil
}

// removeSharedMemory removes a System V shared memory segment that a killed server left. It
// has 56 bytes; an error is ignored.
func removeSharedMemory(id string) {
	_ = exec.CommandContext(context.Background(), "ipcrm", "-m", id).Run()
}

// isOpenHere reports whether this process has the file open.
func isOpenHere(file os.FileInfo) (bool, error) {
	stat, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return false, errors.ErrUnsupported
	}
	descriptors, err := os.ReadDir("/dev/fd")
	if err != nil {
		return false, err
	}
	for _, descriptor := range descriptors {
		fd, err := strconv.Atoi(descriptor.Name())
		if err != nil {
			continue
		}
		var open syscall.Stat_t
		if syscall.Fstat(fd, &open) == nil && open.Dev == stat.Dev && open.Ino == stat.Ino {
			return true, nil
		}
	}
	return false, nil
}
