package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
)

// asCommand is the environment variable that has the test program behave as the command.
const asCommand = "PGLOCKER_TEST_AS_COMMAND"

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		_ = os.Unsetenv(asCommand) // a program that the command runs is none

		main()

		return
	}

	// Started by nohup, this process would ignore HUP, and so would all that it starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
			return errors.Join(pglocker.MigrateDB(ctx, db, &pglocker.Config{}), pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))
		},
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

// bed is a database with locks, a history among them, and the means to run the command on it as a process.
type bed struct {
	t *testing.T
	// url leads to the database. The command has it in PGLOCKER_DSN.
	url string
	db  *sql.DB
	// locker is that of another program.
	locker *pglocker.Locker
	// env is added to the environment of the command.
	env []string
}

// newBed makes a database of its own for the test.
func newBed(t *testing.T) *bed {
	t.Helper()

	return newBedAt(t, databases.NewDatabase(t).String())
}

// newBedAt is newBed on a database that is there.
func newBedAt(t *testing.T, url string) *bed {
	t.Helper()

	b := &bed{t: t, url: url, db: databases.Open(t, url)}
	b.env = []string{"PGLOCKER_DSN=" + url}

	locker, err := pglocker.New(b.db, &pglocker.Config{Owner: "other"})
	must(t, err)

	b.locker = locker
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()

		_ = b.locker.Close(ctx) // the test may have broken the server
	})

	return b
}

// command is the command as a process that has not started: to be started, signalled, and waited for by the test.
func (b *bed) command(args ...string) *exec.Cmd {
	b.t.Helper()

	cmd := exec.CommandContext(b.t.Context(), testProgram(b.t), args...)
	cmd.Env = append(cleanEnvironment(), asCommand+"=1", "GOCOVERDIR="+b.t.TempDir())
	cmd.Env = append(cmd.Env, b.env...)

	return cmd
}

func testProgram(t *testing.T) string {
	t.Helper()

	path, err := os.Executable()
	must(t, err)

	return path
}

// cleanEnvironment is the test's without what the command reads.
func cleanEnvironment() (env []string) {
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PG") && !strings.HasPrefix(variable, "NO_COLOR=") {
			env = append(env, variable)
		}
	}

	return env
}

// outcome is what a process printed, and how it ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// run runs the command to its end, without a terminal and without input.
func (b *bed) run(args ...string) outcome {
	b.t.Helper()

	return outcomeOf(b.t, b.command(args...))
}

// outcomeOf runs a process to its end.
func outcomeOf(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()

	var stdout, stderr bytes.Buffer

	cmd.Stdout, cmd.Stderr = &stdout, &stderr

	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}

	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs the command, which must succeed, and returns its standard output.
func (b *bed) ok(args ...string) string {
	b.t.Helper()

	o := b.run(args...)
	if o.code != 0 {
		b.t.Fatalf("pglocker %q: exit code %d\n%s%s", args, o.code, o.stdout, o.stderr)
	}

	return o.stdout
}

// fails runs the command, which must end with the exit code and say each of the texts on the standard error.
func (b *bed) fails(code int, says []string, args ...string) outcome {
	b.t.Helper()

	o := b.run(args...)
	if o.code != code {
		b.t.Errorf("pglocker %q: exit code %d, want %d\n%s%s", args, o.code, code, o.stdout, o.stderr)
	}

	for _, text := range says {
		if !strings.Contains(o.stderr, text) {
			b.t.Errorf("pglocker %q doesn't say %q:\n%s", args, text, o.stderr)
		}
	}

	return o
}

// hold has the other program take a lock, until the test ends.
func (b *bed) hold(id string) *pglocker.Lock {
	b.t.Helper()

	lock, err := b.locker.TryLock(b.t.Context(), id, time.Minute)
	must(b.t, err)

	return lock
}

// expire leaves a lock as a holder does that has crashed.
func (b *bed) expire(id string) *pglocker.LockStatus {
	b.t.Helper()

	_, err := b.locker.AcquireLock(b.t.Context(), id, time.Minute)
	must(b.t, err)
	b.exec("UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp() - interval '1 hour' WHERE lock_id = $1", id)

	status, err := b.locker.GetLockStatus(b.t.Context(), id)
	must(b.t, err)

	return status
}

func (b *bed) exec(query string, args ...any) {
	b.t.Helper()

	_, err := b.db.ExecContext(b.t.Context(), query, args...)
	must(b.t, err)
}

// decode reads what -o json printed.
func decode[T any](t *testing.T, text string) (value T) {
	t.Helper()

	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}

	return value
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// awaitBlocked waits until a session of that application waits for a lock of the server.
func (b *bed) awaitBlocked(application string) {
	b.t.Helper()

	b.await(application+" waits for a lock of the server", func() (blocked bool) {
		must(b.t, b.db.QueryRowContext(b.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE application_name = $1 AND datname = current_database() AND wait_event_type = 'Lock')`, application).Scan(&blocked))

		return blocked
	})
}

// await waits until a condition holds.
func (b *bed) await(what string, holds func() bool) {
	b.t.Helper()

	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("in vain: %s", what)
		}
	}
}
