package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/cmd/pglocker/internal/child"
)

// TestVerdict: a loss counts more than what became of the program, and that more than a release that failed.
func TestVerdict(t *testing.T) {
	t.Parallel()

	var (
		lost        = fmt.Errorf("%w: a test", pglocker.ErrLockLost)
		notReleased = fmt.Errorf("%w: a test", pglocker.ErrNotReleased)
		notFound    = fmt.Errorf("%w: a test", child.ErrNotFound)
		signalled   = child.SignalError{Signal: syscall.SIGTERM}
		stuck       = errors.New("doesn't end by SIGKILL")
	)

	for _, test := range []struct {
		what                string
		exit                child.Exit
		err, lost, released error
		code                int
		// ends is what the error says, prints what is printed besides.
		ends, prints string
	}{
		{what: "it ended", code: 0},
		{what: "it failed", exit: child.Exit{Code: 3}, code: 3},
		{what: "a signal ended it", exit: child.Exit{Signal: syscall.SIGKILL}, code: 137},
		{what: "it wasn't there", err: notFound, code: exitNotFound, ends: "not found"},
		{what: "a signal came before it", err: signalled, code: 143},
		{what: "it ended, and the lock isn't released", released: notReleased, code: 0, prints: "free when its lease ends, within 30s"},
		{what: "it failed, and the lock isn't released", exit: child.Exit{Code: 3}, released: notReleased, code: 3, prints: "not released"},
		{what: "the lock was lost meanwhile", lost: lost, released: lost, code: exitLost, ends: "lock lost"},
		{what: "the release says so", released: lost, code: exitLost, ends: "lock lost"},
		{what: "it failed, and the lock was lost", exit: child.Exit{Code: 3}, lost: lost, released: lost, code: exitLost, ends: "lock lost"},
		{what: "lost, and not released", lost: lost, released: notReleased, code: exitLost, ends: "lock lost"},
		{what: "lost, and it doesn't end", err: stuck, lost: lost, released: lost, code: exitLost, ends: "SIGKILL"},
		{what: "lost before it began", err: lost, lost: lost, released: lost, code: exitLost, ends: "lock lost"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()

			stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			must(t, err)

			defer stderr.Close() //nolint:errcheck // nothing is written after the test

			r := &run{app: &app{stderr: stderr}, keep: keeping{ttl: days(30 * time.Second)}}
			err = withCode(r.verdict(test.exit, test.err, test.lost, test.released))

			if code := exitCode(err); code != test.code {
				t.Errorf("exit code %d, want %d: %v", code, test.code, err)
			}

			if test.ends != "" && !strings.Contains(r.app.explain(err), test.ends) {
				t.Errorf("the error is %v, without %q", err, test.ends)
			}

			text, err := os.ReadFile(stderr.Name())
			must(t, err)

			if printed := string(text); !strings.Contains(printed, test.prints) || test.prints == "" && printed != "" {
				t.Errorf("it prints %q, want %q", printed, test.prints)
			}
		})
	}
}
