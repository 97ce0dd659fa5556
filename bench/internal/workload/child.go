package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
)

// ChildArg is the first argument of a process that a workload starts, this program in another role. The second is
// its job.
const ChildArg = "child"

// job is what a child is for.
type job struct {
	Role      string
	URL       string
	Contender string
	Table     contender.Table
	LockID    string
	Hold      time.Duration
	// Limit is when the child ends by itself, however its parent has ended.
	Limit time.Duration
}

var roles = map[string]func(ctx context.Context, j job, in io.Reader, out *json.Encoder) error{
	"cold": coldChild,
	"wait": waitingChild,
}

// childGrace is how long a child may take to end once it should.
const childGrace = 10 * time.Second

// Child does a job. It ends with the job's limit.
func Child(text string, in io.Reader, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("bench: a child's job: %w", err)
	}

	do, ok := roles[j.Role]
	if !ok {
		return fmt.Errorf("bench: no child is for %q", j.Role)
	}

	ctx, cancel := context.WithTimeout(context.Background(), j.Limit)
	defer cancel()

	last := time.AfterFunc(j.Limit+childGrace, func() { os.Exit(2) })
	defer last.Stop()

	return do(ctx, j, in, json.NewEncoder(out))
}

// runChild starts a child, calls each with all that it tells, and returns when it has ended. It is killed if ctx ends
// before.
func runChild[T any](ctx context.Context, j job, in *os.File, each func(T)) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}

	self, err := os.Executable()
	if err != nil {
		return err
	}

	var printed strings.Builder

	cmd := exec.CommandContext(ctx, self, ChildArg, string(text))
	cmd.Stderr = &printed
	cmd.WaitDelay = childGrace
	// An interrupt from the terminal is for this process, which ends the child.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	if in != nil { // a nil *os.File isn't a nil Reader
		cmd.Stdin = in
	}

	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}

	if err := cmd.Start(); err != nil {
		return err
	}

	for lines := json.NewDecoder(out); ; {
		var told T

		if err = lines.Decode(&told); err != nil {
			break
		}

		each(told)
	}

	if errors.Is(err, io.EOF) {
		err = nil
	} else {
		_ = cmd.Process.Kill() // nobody reads what it writes
	}

	if ended := cmd.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("bench: a child: %w\n%s", ended, printed.String()))
	}

	return err
}
