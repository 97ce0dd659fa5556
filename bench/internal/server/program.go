// Package server starts the contenders' servers, each on a free port, in a temporary folder
// and with its default durability, and ends them.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

type Program struct {
	// Address is the host:port for clients.
	Address string
	// Version is what the program prints as its version.
	Version string

	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// start runs a program in a new folder, which args gets. It returns when ready reports
// true.
func start(ctx context.Context, path, address string, args func(dir string) []string, ready func(context.Context) error) (*Program, error) {
	dir, err := os.MkdirTemp("", "pglocker-bench-")
	if err != nil {
		return nil, err
	}

	p := &Program{Address: address, dir: dir, done: make(chan struct{})}

	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer logFile.Close()

	p.cmd = exec.Command(path, args(dir)...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	// Variables of an installation would change what is measured.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	// An interrupt from the terminal is for this process, which stops the server.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}

	go func() {
		defer close(p.done)

		_ = p.cmd.Wait() // Stop ends it
	}()

	if err := p.await(ctx, ready); err != nil {
		text, _ := os.ReadFile(logFile.Name())
		tail := text[max(0, len(text)-2000):]

		return nil, errors.Join(fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, tail), p.Stop())
	}

	return p, nil
}

func (p *Program) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}

		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-p.done:
			return errors.New("it ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// CPU is what the server has used so far. It returns false if the system doesn't tell.
func (p *Program) CPU() (time.Duration, bool) { return processCPU(p.cmd.Process.Pid) }

func (p *Program) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended

	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.done
	}

	return os.RemoveAll(p.dir)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}

	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func versionOf(ctx context.Context, path string) string {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "of unknown version"
	}

	line, _, _ := strings.Cut(string(out), "\n")

	return line
}
