package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// The exit codes of all commands. Those of the program that `run` and `elect` run come on top.
const (
	exitFailed      = 1   // what was asked was refused: there is no such lock, its token has changed
	exitUsage       = 64  // a mistake in the command line
	exitUnavailable = 69  // the database can't be reached, or can't be used: no table, no privilege
	exitLost        = 74  // the lock was lost
	exitHeld        = 75  // another holds the lock
	exitNotExec     = 126 // the program can't be executed
	exitNotFound    = 127 // there is no such program
	exitSignal      = 128 // and the number of the signal
)

// exitCodes is the table of the documentation.
var exitCodes = []struct {
	code    string
	meaning string
}{
	{"0", "done"},
	{"1", "refused: there is no such lock, or its token has changed"},
	{"64", "a mistake in the command line or in an environment variable"},
	{"69", "the database can't be reached, or can't be used: no table, no privilege, a standby"},
	{"74", "the lock was lost"},
	{"75", "another holds the lock"},
	{"126", "the program to run can't be executed"},
	{"127", "the program to run was not found"},
	{"128 + n", "signal n ended the command"},
}

// usageError is a mistake in the command line.
type usageError struct {
	error
	command string // whose help says more; may be ""
}

func (e usageError) Unwrap() error { return e.error }

// usagef returns a mistake that a command found in its arguments.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...), ""}
}

// codeError ends the command with an exit code. Its text, if it has one, goes to the standard error.
type codeError struct {
	code int
	err  error // may be nil
}

func (e codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}

	return e.err.Error()
}

func (e codeError) Unwrap() error { return e.err }

// unavailableError says that the database couldn't be reached.
type unavailableError struct{ error }

func (e unavailableError) Unwrap() error { return e.error }

// said is an error in words of its own.
type said struct {
	text string
	err  error
}

func (s said) Error() string { return s.text }

func (s said) Unwrap() error { return s.err }

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "ended by the signal " + e.signal.String() }

// interruptible is the RunE of a subcommand that SIGINT, SIGTERM and SIGHUP end by ending its context. A second
// signal ends the process at once.
func interruptible(run func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return interruptibleTwice(func(ctx, again context.Context, args []string) error {
		defer context.AfterFunc(again, func() {
			if by, ok := errors.AsType[signalError](context.Cause(again)); ok {
				dieOf(by.signal)
			}
		})()

		return run(ctx, args)
	})
}

// interruptibleTwice is interruptible for a subcommand that a second signal ends by ending the context again.
func interruptibleTwice(run func(ctx, again context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)

		again, cancelAgain := context.WithCancelCause(cmd.Context())
		defer cancelAgain(nil)

		signals := make(chan os.Signal, 1)
		defer signal.Stop(signals)

		for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			if !signal.Ignored(s) { // as under nohup
				signal.Notify(signals, s)
			}
		}

		go func() {
			for _, end := range []context.CancelCauseFunc{cancel, cancelAgain} {
				select {
				case s := <-signals:
					number, _ := s.(syscall.Signal)
					end(signalError{number})
				case <-again.Done():
				}
			}
		}()

		err := run(ctx, again, args)
		if by, ok := errors.AsType[signalError](context.Cause(ctx)); ok && err != nil {
			return fmt.Errorf("%w: %w", by, err)
		}

		return err
	}
}

// exitCode is the exit code for what a command returned.
func exitCode(err error) int {
	if err == nil {
		return 0
	}

	if e, ok := errors.AsType[codeError](err); ok {
		return e.code
	}

	if e, ok := errors.AsType[signalError](err); ok {
		return exitSignal + int(e.signal)
	}

	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}

	switch {
	case isAny(err, pglocker.ErrLockLost):
		return exitLost
	case isAny(err, pglocker.ErrAlreadyLocked, pglocker.ErrTooManyReaders):
		return exitHeld
	case isAny(err, mistakes...):
		return exitUsage
	case unavailable(err):
		return exitUnavailable
	}

	return exitFailed
}

// mistakes are errors of the library that say what is wrong with an argument.
var mistakes = []error{
	pglocker.ErrInvalidLockID, pglocker.ErrReservedLockID, pglocker.ErrInvalidName, pglocker.ErrInvalidPermits,
	pglocker.ErrNoLockIDs, pglocker.ErrTooManyLockIDs, pglocker.ErrInvalidTTL, pglocker.ErrInvalidRelockInterval,
	pglocker.ErrInvalidWait, pglocker.ErrInvalidMinHold, pglocker.ErrInvalidIdentifier, pglocker.ErrInvalidOwner,
	pglocker.ErrInvalidFilter, pglocker.ErrInvalidIdle, pglocker.ErrInvalidAge,
}

// states are errors of the library that say that locks don't work in the database as it is.
var states = []error{
	pglocker.ErrTableNotFound, pglocker.ErrInvalidTable, pglocker.ErrPermissionDenied, pglocker.ErrReadOnly,
	pglocker.ErrUnsupportedDriver, pglocker.ErrUnsupportedServer, pglocker.ErrUnsupportedEncoding,
	pglocker.ErrHistoryNotFound, pglocker.ErrNoOwners,
	pglocker.ErrNotReleased, pglocker.ErrUnknownOutcome,
}

// unavailable reports whether an error says that the database can't be reached or used.
func unavailable(err error) bool {
	_, direct := errors.AsType[unavailableError](err)
	_, server := errors.AsType[*pgconn.PgError](err)
	_, connect := errors.AsType[*pgconn.ConnectError](err)

	return direct || server || connect || isAny(err, states...) || pgconn.Timeout(err) || brokenConnection(err)
}

// brokenConnection reports whether the network or the server broke the connection.
func brokenConnection(err error) bool {
	_, network := errors.AsType[*net.OpError](err)

	return network || isAny(err, io.EOF, io.ErrUnexpectedEOF, pgconn.ErrConnClosed, context.DeadlineExceeded)
}

func isAny(err error, names ...error) bool {
	for _, name := range names {
		if errors.Is(err, name) {
			return true
		}
	}

	return false
}

// exit says what went wrong and ends the process.
func (a *app) exit(err error) {
	if e, ok := errors.AsType[signalError](err); ok {
		if errors.Is(err, pglocker.ErrUnknownOutcome) {
			fmt.Fprintln(a.stderr, a.explain(err))
		}

		dieOf(e.signal)
	}

	if text := a.explain(err); text != "" {
		fmt.Fprintln(a.stderr, text)
	}

	os.Exit(exitCode(err))
}

// explain is the text of an error for people: what is wrong, and on the next line what to do.
func (a *app) explain(err error) string {
	if err == nil {
		return ""
	}

	if e, ok := errors.AsType[codeError](err); ok && e.err == nil {
		return ""
	}

	text := "pglocker: " + strings.TrimPrefix(harmless(err), "pglocker: ")

	switch {
	case isAny(err, pglocker.ErrTableNotFound):
		text = fmt.Sprintf("pglocker: there is no table %q in the schema %q of this database", a.connection.table, a.connection.schema)
	case isAny(err, pglocker.ErrHistoryNotFound):
		text = fmt.Sprintf("pglocker: there is no history of the table %q in the schema %q: nobody has begun to write one",
			a.connection.table, a.connection.schema)
	case isAny(err, pglocker.ErrUnsupportedEncoding):
		text = strings.ReplaceAll(text, "Config.Owner", "the owner, see --owner")
	}

	if advice := a.advice(err); advice != "" {
		text += "\n" + advice
	}

	return text
}

// harmless is the text of an error without what others may have put into it for the terminal. They choose the owners
// of locks, and with those may not even begin a line. What the server says may have lines of its own.
func harmless(err error) string {
	text := strings.ReplaceAll(err.Error(), "\t", "  ")

	if isAny(err, pglocker.ErrAlreadyLocked) {
		return printable(text)
	}

	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}

	return strings.Join(lines, "\n")
}

// advice says what to do about an error.
func (a *app) advice(err error) string {
	if e, ok := errors.AsType[usageError](err); ok {
		if e.command == "" {
			return ""
		}

		return "Run `" + e.command + " --help` for what it takes."
	}

	switch {
	case errors.Is(err, pglocker.ErrTableNotFound):
		return "Run `pglocker migrate` to make the table, or name another with --schema and --table."
	case errors.Is(err, pglocker.ErrHistoryNotFound):
		return "Run `pglocker migrate --history` to have the history written from now on."
	case errors.Is(err, pglocker.ErrInvalidTable):
		return "Run `pglocker doctor` to see how the table differs, or name another with --schema and --table."
	case errors.Is(err, pglocker.ErrReadOnly):
		return "Connect to the primary: set PGTARGETSESSIONATTRS=read-write if PGHOST names several servers."
	case errors.Is(err, pglocker.ErrWrongGeneration):
		return "Look again with `pglocker show`: another tenure has begun, or the lock was released."
	case errors.Is(err, pglocker.ErrReservedLockID):
		return "Rows that begin with \"" + pglocker.ReservedPrefix + "\" belong to semaphores, read-write locks and elections."
	}

	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && serverAdvice[refused.Code] != "" {
		return serverAdvice[refused.Code]
	}

	if _, ok := errors.AsType[unavailableError](err); ok {
		return "Check -d, PGHOST, PGPORT, PGUSER, PGDATABASE and PGSERVICE, as for psql."
	}

	return ""
}

// serverAdvice says what to do about an error of the server, by its SQLSTATE.
var serverAdvice = map[string]string{
	"28P01": "Check the password: ~/.pgpass, PGPASSFILE or PGPASSWORD, for this host, port, database and user.",
	"3D000": "Name a database that is there: -d, PGDATABASE or PGSERVICE, as for psql.",
	"53300": "The server has no connection left for this role: `pglocker doctor`, or psql, as a superuser, shows what uses them.",
	"55P03": "A lock_timeout of the role or the database has ended it: `pglocker doctor` shows such settings.",
	"57014": "The server has cancelled it, mostly by a statement_timeout of the role or the database: `pglocker doctor` shows such settings.",
	"57P03": "The server is starting or shutting down: try again.",
}
