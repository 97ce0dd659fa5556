package child

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"
	"time"
)

var (
	// ErrNotFound: there is no such program.
	ErrNotFound = errors.New("program not found")
	// ErrNotExecutable: there is such a file, but it can't be executed.
	ErrNotExecutable = errors.New("program can't be executed")
	// ErrNoTerminal: the program wanted the terminal, in the background, where no shell would have given it to it.
	ErrNoTerminal = errors.New("the program was ended: it wanted the terminal, in the background of a shell that has ended")
)

// Command is what to run.
type Command struct {
	// Path is the program's file, see [Find]. Args begin with its name. Env is its whole environment.
	Path string
	Args []string
	Env  []string
	// Foreground: the command gets the terminal's foreground at once, see the package. It gets it otherwise
	// when it asks.
	Foreground bool
	// Grace is the time between TERM and KILL when the context ends.
	Grace time.Duration
}

// Find looks a program up as execvp does. Errors: [ErrNotFound], [ErrNotExecutable].
func Find(name string) (path string, err error) {
	path, err = exec.LookPath(name)

	switch {
	case err == nil || errors.Is(err, exec.ErrDot): // PATH has the current folder: so be it
		return path, nil
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: %s", ErrNotFound, name)
	default:
		return "", fmt.Errorf("%w: %w", ErrNotExecutable, err)
	}
}

// Exit is how a command ended.
type Exit struct {
	Code int
	// Signal is what ended the command, 0 if it ended by itself.
	Signal syscall.Signal
}

// Status is the exit code as shells write it: 128 + n for signal n.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}

	return e.Code
}

// SignalError is the cause of a context that a signal has ended.
type SignalError struct{ Signal syscall.Signal }

func (e SignalError) Error() string { return "ended by the signal " + e.Signal.String() }
