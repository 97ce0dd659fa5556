//go:build linux

package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// taker is a command that takes a lock.
type taker struct {
	row  string
	args []string
}

// keeps is a command that takes the same row, says so, and keeps it.
func (tk taker) keeps() []string {
	if program := len(tk.args) - 2; tk.args[program] == "echo" {
		return append(slices.Clone(tk.args[:program]), "sh", "-c", "echo has it; exec sleep 1000")
	}

	return tk.args
}

// takers are the commands that take a lock, each with the row that it takes and what it prints when it has it.
var takers = map[string]taker{
	"run":       {"x", []string{"run", "x", "echo", "has it"}},
	"several":   {"x", []string{"run", "x", "y", "--", "echo", "has it"}},
	"permit":    {"pglocker:semaphore:x:1", []string{"run", "--permits", "1", "x", "echo", "has it"}},
	"exclusive": {"pglocker:rwlock:x:1", []string{"run", "-x", "x", "echo", "has it"}},
	"elect":     {"pglocker:election:x", []string{"elect", "x", "sh", "-c", "echo has it; exec sleep 1000"}},
	"hold":      {"x", []string{"hold", "x", "--for", "1h", "--reason", "a test"}},
}

// grantText is in the requests by which a lock is granted.
const grantText = "acquired_at = "

// takenBefore is a bed where the taker's rows exist, so that the first request is granted.
func (b *bed) takenBefore(args []string) {
	b.t.Helper()

	p := b.launch(args...)
	p.line()

	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	p.silent()
	<-p.exited
}

// heldRows are the rows that are held by the database's clock.
func (b *bed) heldRows() (rows []string) {
	b.t.Helper()

	for status, err := range b.locker.Locks(b.t.Context(), pglocker.LocksFilter{Held: true}) {
		must(b.t, err)

		rows = append(rows, status.LockID)
	}

	return rows
}

// TestInterruptedAtAnyMoment: whenever a signal comes while a command starts, nothing is held when it has ended, and
// no program is left.
func TestInterruptedAtAnyMoment(t *testing.T) {
	t.Parallel()

	rounds := 40
	if testing.Short() {
		rounds = 10
	}

	for name, taker := range takers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBed(t)
			b.env = append(b.env, "PGCONNECT_TIMEOUT=30")
			began := time.Now()
			b.takenBefore(taker.args)

			longest := time.Since(began)
			random := rand.New(rand.NewPCG(1, 2))
			outcomes := make(map[int]int)

			for round := range rounds {
				signals := [][]syscall.Signal{{syscall.SIGINT}, {syscall.SIGHUP}, {syscall.SIGTERM, syscall.SIGHUP}}[round%3]

				switch {
				case name == "elect" && round%3 == 1: // it leaves HUP to its program
					signals = []syscall.Signal{syscall.SIGQUIT}
				case name == "hold" && round%3 == 2: // HUP comes first, and leaves the window held
					signals = signals[:1]
				}

				cmd := b.command(taker.args...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
				p := startProcess(t, cmd)

				time.Sleep(time.Duration(random.Int64N(int64(longest)))) // the moment is what the test is about

				for _, signal := range signals {
					_ = p.cmd.Process.Signal(signal) // it may have ended
				}

				<-p.exited

				_, began := <-p.lines
				p.silent()

				code := exitStatus(p.cmd.ProcessState)
				outcomes[code]++

				allowed := taker.args[len(taker.args)-2] == "echo" && code == 0
				for _, signal := range signals {
					// Go ends by QUIT in a way of its own, if that comes before the command catches it.
					allowed = allowed || code == 128+int(signal) || signal == syscall.SIGQUIT && code == 2 && strings.Contains(p.stderr.String(), "SIGQUIT")
				}

				if !allowed {
					t.Fatalf("exit code %d after %v\n%s", code, signals, p.stderr)
				}

				if name == "hold" && began && signals[0] == syscall.SIGHUP {
					b.exec("UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()") // it leaves the window held
				}

				switch held := b.heldRows(); {
				case len(held) == 0:
				case strings.Contains(p.stderr.String(), "granted isn't known"):
					t.Logf("on this busy machine it says\n%s", p.stderr)
					b.exec("UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()")
				default:
					t.Fatalf("%q are held after exit code %d, %+v\n%s", held, code, b.status(held[0]), p.stderr)
				}
			}

			t.Logf("exit codes, and how often: %v", outcomes)
		})
	}
}

// TestInterruptedFirstRequest: the signal comes while the reply to the first request is on its way, for longer than
// the library waits for it. Nothing is held when the command has ended.
func TestInterruptedFirstRequest(t *testing.T) {
	t.Parallel()

	for name, taker := range takers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBed(t)
			b.takenBefore(taker.args)
			v := b.behindValve(noReplies, grantText)
			b.env = append(b.env, "PGCONNECT_TIMEOUT=60")
			p := b.launch(taker.args...)
			v.closes(p)
			p.signal(syscall.SIGTERM)
			eventually(t, "it says that it waits", func() bool {
				return strings.Contains(p.stderr.String(), "waiting for the database")
			})
			time.Sleep(2 * time.Second) // the library's patience
			v.open()
			p.ends(143)

			if said, held := p.stderr.String(), b.heldRows(); len(held) > 0 || strings.Contains(said, "isn't known") || strings.Contains(said, "is held") {
				t.Errorf("%q are held, and it says\n%s", held, said)
			}
		})
	}
}

// TestInterruptedWithoutAnswer: the reply doesn't come. The command says what may stay held, and until when, at the
// latest when another signal comes.
func TestInterruptedWithoutAnswer(t *testing.T) {
	t.Parallel()

	for name, taker := range takers {
		for _, signals := range []int{1, 2} {
			t.Run(fmt.Sprint(name, " ", signals), func(t *testing.T) {
				t.Parallel()

				b := newBed(t)
				b.takenBefore(taker.args)
				v := b.behindValve(noReplies, grantText)

				if signals == 1 {
					b.env = append(b.env, "PGCONNECT_TIMEOUT=5")
				} else {
					b.env = append(b.env, "PGCONNECT_TIMEOUT=1000") // half a minute, in effect
				}

				p := b.launch(taker.args...)
				v.closes(p)

				var last time.Time

				for range signals {
					last = time.Now()

					p.signal(syscall.SIGTERM)
					eventually(t, "it says that it waits", func() bool {
						return strings.Contains(p.stderr.String(), "waiting for the database")
					})
				}

				p.ends(143)

				if took := time.Since(last); signals == 2 && took > 25*time.Second {
					t.Errorf("it has ended %s after another signal", took)
				}

				id := strings.TrimSuffix(taker.row, "1")
				want := fmt.Sprintf("whether %s was granted isn't known. If it was, it stays held until 2", id)

				if said := p.stderr.String(); !strings.Contains(said, want) {
					t.Errorf("it doesn't say %q, but %q", want, said)
				}
			})
		}
	}
}

// TestInterruptedWaiter: a command that has only waited says nothing of another's lock, not even where the table or the
// name doesn't tell whose it is.
func TestInterruptedWaiter(t *testing.T) {
	t.Parallel()

	for name, taker := range takers {
		for _, columns := range []int{3, 6} {
			t.Run(fmt.Sprint(name, " ", columns), func(t *testing.T) {
				t.Parallel()

				b := newBed(t)
				b.env = append(b.env, "PGLOCKER_OWNER=batch")

				if columns == 3 {
					b.exec("CREATE TABLE three (lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")
					b.env = append(b.env, "PGLOCKER_SCHEMA=public", "PGLOCKER_TABLE=three")
				}

				b.launch(taker.keeps()...).line()

				b.env = append(b.env, "PGAPPNAME=waiter")
				waiter := b.launch(taker.args...)
				b.await("it was answered", func() (answered bool) {
					// The server shows the first kilobyte of a request: of one for slots, how it walks through them.
					must(t, b.db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'idle'
						AND datname = current_database() AND application_name = 'waiter' AND query ~ 'expires_at|walk AS')`).Scan(&answered))

					return answered
				})

				if columns == 6 { // it was granted after the waiter began
					b.exec("UPDATE pglocker.lock_statuses SET acquired_at = clock_timestamp() WHERE owner IS NOT NULL")
				}

				waiter.signal(syscall.SIGTERM)
				waiter.ends(143)

				if said := waiter.stderr.String(); said != "" {
					t.Errorf("it says %q", said)
				}
			})
		}
	}
}

// keeperOn makes a keeper in this process, on a table of the schema public. said is what it says.
func (b *bed) keeperOn(table string) (k *keeper, said func() string) {
	b.t.Helper()

	stderr, err := os.Create(filepath.Join(b.t.TempDir(), "stderr"))
	must(b.t, err)
	b.t.Cleanup(func() { _ = stderr.Close() })

	a := &app{
		connection: connection{dsn: b.url, schema: pglocker.PublicScheme, table: table},
		stdout:     stderr, stderr: stderr, format: formatText,
	}

	k, err = a.newKeeper(b.t.Context(), b.t.Context(), "test", time.Minute, func(*pglocker.Config, *sql.DB) {})
	must(b.t, err)
	b.t.Cleanup(func() { _ = k.close(context.Background()) })

	return k, func() string {
		text, err := os.ReadFile(stderr.Name())
		must(b.t, err)

		return string(text)
	}
}

// TestInterruptedBound: all that is left to do after a signal has one time in common, which the signal begins.
func TestInterruptedBound(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	k, _ := b.keeperOn(pglocker.DefaultTable)
	signalled, interrupt := context.WithCancel(t.Context())
	k.signalled = signalled

	deadline := func() time.Time {
		ctx, cancel := k.lastly()
		defer cancel()

		at, _ := ctx.Deadline()

		return at
	}

	if first, second := deadline(), deadline(); !second.After(first) {
		t.Errorf("before a signal a request has until %s, and a later one until %s", first, second)
	}

	interrupt()

	if first, second := deadline(), deadline(); first.IsZero() || !second.Equal(first) {
		t.Errorf("after a signal a request has until %s, and a later one until %s", first, second)
	}
}

// released is a tenure whose release returns the error.
type released struct{ err error }

func (r released) Context() context.Context { return context.Background() }

func (r released) Unlock(context.Context) error { return r.err }

// TestInterruptedHolder: what stays held is said only if the release failed, and that it stays for the minimum hold only
// if it didn't.
func TestInterruptedHolder(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		err         error
		says, never string
	}{
		{nil, "x stays locked for 1m, by --min-hold", "Whether"},
		{fmt.Errorf("%w: a test", pglocker.ErrNotReleased), "Whether by this command isn't known: see `pglocker show x`", "--min-hold"},
	} {
		b := newBed(t)
		b.exec("CREATE TABLE three (lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")
		b.exec("INSERT INTO three VALUES ('x', 3, clock_timestamp() + interval '1 hour')")

		k, said := b.keeperOn("three")
		r := &run{app: k.app, minHold: days(time.Minute)}
		r.interrupted(k, released{c.err}, nil, []string{"x"})

		if text := said(); !strings.Contains(text, c.says) || strings.Contains(text, c.never) || strings.Contains(text, "pglocker free") {
			t.Errorf("after %v it says %q", c.err, text)
		}
	}
}

// TestHoldDetachedInterrupted: a signal that comes while the window begins ends the window, but for HUP.
func TestHoldDetachedInterrupted(t *testing.T) {
	t.Parallel()

	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		b := newBed(t)
		b.exec("CREATE TABLE three (lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")

		k, said := b.keeperOn("three")
		h := &hold{keeper: k, app: k.app, window: days(time.Hour), detach: true}

		status, err := k.locker.AcquireLock(t.Context(), "x", time.Hour)
		must(t, err)

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(signalError{s})

		err = h.keep(ctx, status)
		_, taken := k.locker.AcquireLock(t.Context(), "x", time.Hour)

		if ends := s == syscall.SIGINT; ends != (taken == nil) || ends != (exitCode(err) == 128+int(s)) {
			t.Errorf("%v: %v, and then %v\n%s", s, err, taken, said())
		}
	}
}
