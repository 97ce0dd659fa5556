package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// journal is a handler that keeps what is logged.
type journal struct {
	mu      sync.Mutex
	entries []entry
}

// entry is one line of a log.
type entry struct {
	level   slog.Level
	message string
	attrs   map[string]slog.Value
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	e := entry{r.Level, r.Message, make(map[string]slog.Value)}
	r.Attrs(func(a slog.Attr) bool {
		e.attrs[a.Key] = a.Value

		return true
	})

	j.mu.Lock()
	defer j.mu.Unlock()

	j.entries = append(j.entries, e)

	return nil
}

// of are the entries of a message that has these words.
func (j *journal) of(words string) (found []entry) {
	j.mu.Lock()
	defer j.mu.Unlock()

	for _, e := range j.entries {
		if strings.Contains(e.message, words) {
			found = append(found, e)
		}
	}

	return found
}

// one is the only entry of a message that has these words, once it is there.
func (j *journal) one(t *testing.T, level slog.Level, words string) entry {
	t.Helper()
	contract.Await(t, words, func() bool { return len(j.of(words)) > 0 })

	found := j.of(words)
	if len(found) != 1 || found[0].level != level {
		t.Fatalf("%s was logged %d times: %+v", words, len(found), found)
	}

	return found[0]
}

// TestLossIsTold: a loss says what was in the way, is no context's error, and is logged with
// the lock, as is the trouble before it, once for all locks, and its end.
func TestLossIsTold(t *testing.T) {
	const ttl = 3 * time.Second

	for name, test := range map[string]struct {
		breaks func(p *proxy)
		says   string
	}{
		// Or "no connection could be opened for", if none was open.
		"silence": {func(p *proxy) { p.onAnswer(func() fate { return mute }) }, " for "},
		"refused": {func(p *proxy) {
			p.refuse(true)
			p.cutAll()
		}, "was acknowledged in time"},
	} {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				databaseURL := newDatabase(t)
				p, through := newProxy(t, databaseURL)
				log := new(journal)
				locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, through),
					&pglocker.Config{Logger: slog.New(log)})
				must(t, err)
				t.Cleanup(func() {
					p.cutAll()
					closeLocker(t, locker)
				})

				var locks []*pglocker.Lock

				for i := range 20 {
					lock, err := locker.TryLock(t.Context(), fmt.Sprint("lock ", i), ttl)
					must(t, err)

					locks = append(locks, lock)
				}

				renewed := locks[19].Status().ExpiresAt

				contract.Await(t, "a renewal", func() bool { return locks[19].Status().ExpiresAt.After(renewed) })

				broken := time.Now()

				test.breaks(p)

				for _, lock := range locks {
					<-lock.Context().Done()

					cause := context.Cause(lock.Context())
					if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
						t.Fatalf("matches a context's error: %v", cause)
					}

					if !errors.Is(cause, pglocker.ErrLockLost) || !strings.Contains(cause.Error(), test.says) ||
						strings.Contains(cause.Error(), "context canceled") {
						t.Fatalf("lost for %v, want %q", cause, test.says)
					}
				}

				took := time.Since(broken)

				contract.Await(t, "all losses are logged", func() bool { return len(log.of("a lock was lost")) == 20 })

				for _, e := range log.of("a lock was lost") {
					ago := e.attrs["last_renewed_ago"].Duration()
					if e.level != slog.LevelError || !strings.HasPrefix(e.attrs["lock"].String(), "lock ") ||
						e.attrs["token"].Int64() < 2 || e.attrs["ttl"].Duration() != ttl || e.attrs["held_for"].Duration() < ttl/2 ||
						ago < ttl*8/10 || ago > ttl || !strings.Contains(e.attrs["error"].String(), test.says) {
						t.Errorf("logged %+v", e)
					}
				}

				begin := log.one(t, slog.LevelWarn, "renewals are in trouble")
				if begin.attrs["locks"].Int64() < 1 || !strings.HasPrefix(begin.attrs["lock"].String(), "lock ") ||
					begin.attrs["error"].String() == "" || begin.attrs["left"].Duration() <= 0 {
					t.Errorf("logged %+v", begin)
				}

				end := log.one(t, slog.LevelInfo, "renewals are no longer in trouble")
				if lasted := end.attrs["lasted"].Duration(); lasted <= 0 || lasted > took || end.attrs["failed_attempts"].Int64() < 1 {
					t.Errorf("logged %+v", end)
				}

				p.onAnswer(nil)
				p.refuse(false)
			})
		})
	}
}

// TestLossKeepsItsCause: the errors of drivers and of the server can be told from a loss.
func TestLossKeepsItsCause(t *testing.T) {
	url := newDatabase(t)
	direct := contract.Open(t, "pgx", url)
	p, through := newProxy(t, url)
	locker := newLocker(t, "pgx", through)

	lock, err := locker.TryLock(t.Context(), "a", time.Second)
	must(t, err)
	contract.Exec(t, direct, "ALTER TABLE pglocker.lock_statuses ADD CHECK (expires_at < 'today') NOT VALID")

	<-lock.Context().Done()

	var refused *pgconn.PgError
	if cause := context.Cause(lock.Context()); !errors.As(cause, &refused) || refused.Code != "23514" {
		t.Errorf("lost for %v, want the server's error", cause)
	}

	contract.Exec(t, direct, "ALTER TABLE pglocker.lock_statuses DROP CONSTRAINT lock_statuses_expires_at_check")
	_ = lock.Unlock(t.Context()) // it is lost

	lock, err = locker.Lock(t.Context(), "a", time.Second)
	must(t, err)

	_ = p.listener.Close() // nobody listens there any more
	p.cutAll()

	<-lock.Context().Done()

	var dial *net.OpError
	if cause := context.Cause(lock.Context()); !errors.As(cause, &dial) {
		t.Errorf("lost for %v, want the network's error", cause)
	}
}

// TestLockedRowIsTold: a lock is lost because another transaction has the row locked. The error
// says so, and names that transaction.
func TestLockedRowIsTold(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []string{"FOR UPDATE", "FOR SHARE", "shared", "prepared"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()

				url := newDatabase(t)
				direct := contract.Open(t, "pgx", url)

				if how == "prepared" && contract.Query[string](t, direct, "SHOW max_prepared_transactions") == "0" {
					t.Skip("max_prepared_transactions is 0")
				}

				log := new(journal)
				locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, url),
					&pglocker.Config{Logger: slog.New(log)})
				must(t, err)
				t.Cleanup(func() { closeLocker(t, locker) })

				lock, err := locker.TryLock(t.Context(), "a", 2*time.Second)
				must(t, err)

				var who []string

				clause, strangers := how, 1

				switch how {
				case "shared":
					clause, strangers = "FOR SHARE", 2
				case "prepared":
					clause = "FOR UPDATE"
				}

				for range strangers {
					conn, err := direct.Conn(t.Context())
					must(t, err)

					defer func() { _ = conn.Close() }() // back to the pool

					var pid int

					must(t, conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))

					for _, text := range []string{"BEGIN", "SELECT FROM pglocker.lock_statuses WHERE lock_id = 'a' " + clause} {
						_, err = conn.ExecContext(t.Context(), text)
						must(t, err)
					}

					end := "ROLLBACK"

					if how == "prepared" {
						_, err = conn.ExecContext(t.Context(), "PREPARE TRANSACTION 'forgotten "+driver+"'")
						must(t, err)

						end = "ROLLBACK PREPARED 'forgotten " + driver + "'"
						who = append(who, `prepared transaction "forgotten `+driver+`"`)
					} else {
						who = append(who, fmt.Sprintf("pid %d", pid))
					}

					defer func() { _, _ = conn.ExecContext(context.WithoutCancel(t.Context()), end) }() // the test has ended
				}

				<-lock.Context().Done()

				texts := []string{
					context.Cause(lock.Context()).Error(),
					log.one(t, slog.LevelError, "a lock was lost").attrs["error"].String(),
					log.one(t, slog.LevelWarn, "renewals are in trouble").attrs["error"].String(),
				}

				for _, text := range texts {
					if !strings.Contains(text, "the row is locked by another transaction (") {
						t.Errorf("it says %q", text)
					}

					for _, name := range who {
						if !strings.Contains(text, name) {
							t.Errorf("it says %q, want %q", text, name)
						}
					}
				}
			})
		}
	})
}

// TestReleaseTroubleIsTold: releases that fail and are repeated are logged once for all, with
// a lock and its token, and so is the end of that.
func TestReleaseTroubleIsTold(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		p, through := newProxy(t, newDatabase(t))
		log := new(journal)
		locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, through),
			&pglocker.Config{Logger: slog.New(log)})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, locker) })

		var locks []*pglocker.Lock

		for i := range 20 {
			lock, err := locker.TryLock(t.Context(), fmt.Sprint("lock ", i), 20*time.Second)
			must(t, err)

			locks = append(locks, lock)
		}

		p.refuse(true)
		p.cutAll()

		var group sync.WaitGroup

		for _, lock := range locks {
			group.Go(func() {
				if err := lock.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}

		begin := log.one(t, slog.LevelWarn, "releases are in trouble")
		if !strings.HasPrefix(begin.attrs["lock"].String(), "lock ") || begin.attrs["token"].Int64() < 2 ||
			begin.attrs["error"].String() == "" {
			t.Errorf("logged %+v", begin)
		}

		p.refuse(false)
		group.Wait()

		end := log.one(t, slog.LevelInfo, "releases are no longer in trouble")
		if end.attrs["lasted"].Duration() <= 0 || end.attrs["failed_attempts"].Int64() < 1 {
			t.Errorf("logged %+v", end)
		}
	})
}
