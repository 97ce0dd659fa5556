//go:build !unix

package pgtesting

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// StartServer fails in serverAccount here. The rest is only to compile.

const (
	sigStop = syscall.Signal(0)
	sigCont = syscall.Signal(0)
	sigKill = syscall.SIGKILL
	sigQuit = syscall.SIGQUIT
	sigInt  = syscall.SIGINT
	sigTerm = syscall.SIGTERM
)

type account struct{}

func serverAccount([]string) (*account, error) {
	return nil, fmt.Errorf("pgtesting: no throwaway servers on this system, give a DatabaseURL: %w", errors.ErrUnsupported)
}

func (*account) String() string                      { return "nobody" }
func (*account) attributes() *syscall.SysProcAttr    { return nil }
func (*account) own(string) error                    { return errors.ErrUnsupported }
func (*account) enter(context.Context, string) error { return errors.ErrUnsupported }

type process struct {
	pid     int
	stopped bool
}

func (process) signal(syscall.Signal) {}

func findProcesses(func(string) bool) ([]process, error) { return nil, nil }

func removeSharedMemory(string) {}

func isOpenHere(os.FileInfo) (bool, error) { return false, errors.ErrUnsupported }
