package faulttest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestLossIsTold: a loss says what was in the way, is no context's error, and is logged with
// the lock, as is the trouble before it, once for all locks, and its end.
func TestLossIsTold(t *testing.T) {
	t.Parallel()

	const ttl = 3 * time.Second

	for name, test := range map[string]struct {
		breaks func(p *proxy)
		says   string // as a regular expression: all that follows on when the last renewal was
	}{
		// No connection could be opened, if none was open. A driver's error may follow.
		"silence": {
			func(p *proxy) { p.onAnswer(func() fate { return mute }) },
			`(the server has not answered|no connection could be opened) for [0-9.]+m?s(: .+)?`,
		},
		// What a driver says about a connection that was cut or is closed at once.
		"refused": {func(p *proxy) {
			p.refuse(true)
			p.cutAll()
		}, `.*(EOF|reset by peer|broken pipe|bad connection|closed).*`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			says := regexp.MustCompile(`^pglocker: lock lost: no renewal of "lock \d+" was acknowledged in time, ` +
				`the last one [0-9.]+m?s ago: ` + test.says + `$`)

			contract.EachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				p, through := newProxy(t, databaseURL)
				log := new(contract.Journal)
				locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, through),
					&pglocker.Config{Logger: slog.New(log)})
				contract.Must(t, err)
				t.Cleanup(func() {
					p.cutAll()
					contract.CloseLocker(t, locker)
				})

				var locks []*pglocker.Lock

				for i := range 20 {
					lock, err := locker.TryLock(t.Context(), fmt.Sprint("lock ", i), ttl)
					contract.Must(t, err)

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

					if !errors.Is(cause, pglocker.ErrLockLost) || !says.MatchString(cause.Error()) ||
						strings.Contains(cause.Error(), "context canceled") {
						t.Fatalf("lost for %v, want %s", cause, says)
					}
				}

				took := time.Since(broken)

				contract.Await(t, "all losses are logged", func() bool { return len(log.Of("a lock was lost")) == 20 })

				for _, e := range log.Of("a lock was lost") {
					ago := e.Attrs["last_renewed_ago"].Duration()
					if e.Level != slog.LevelError || !strings.HasPrefix(e.Attrs["lock"].String(), "lock ") ||
						e.Attrs["token"].Int64() < 2 || e.Attrs["ttl"].Duration() != ttl || e.Attrs["held_for"].Duration() < ttl/2 ||
						ago < ttl*8/10 || ago > ttl || !says.MatchString(e.Attrs["error"].String()) {
						t.Errorf("logged %+v", e)
					}
				}

				begin := log.One(t, slog.LevelWarn, "renewals are in trouble")
				if begin.Attrs["locks"].Int64() < 1 || !strings.HasPrefix(begin.Attrs["lock"].String(), "lock ") ||
					begin.Attrs["error"].String() == "" || begin.Attrs["left"].Duration() <= 0 {
					t.Errorf("logged %+v", begin)
				}

				end := log.One(t, slog.LevelInfo, "renewals are no longer in trouble")
				if lasted := end.Attrs["lasted"].Duration(); lasted <= 0 || lasted > took || end.Attrs["failed_attempts"].Int64() < 1 {
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
	t.Parallel()

	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	p, through := newProxy(t, url)
	locker := contract.NewLocker(t, "pgx", through)

	lock, err := locker.TryLock(t.Context(), "a", 2*time.Second)
	contract.Must(t, err)

	granted := lock.Status().ExpiresAt // on a busy machine it takes a while to open the renewer's connection
	contract.Await(t, "a renewal", func() bool { return lock.Status().ExpiresAt.After(granted) })
	contract.Exec(t, direct, "ALTER TABLE pglocker.lock_statuses ADD CHECK (expires_at < 'today') NOT VALID")

	<-lock.Context().Done()

	var refused *pgconn.PgError
	if cause := context.Cause(lock.Context()); !errors.As(cause, &refused) || refused.Code != "23514" {
		t.Errorf("lost for %v, want the server's error", cause)
	}

	contract.Exec(t, direct, "ALTER TABLE pglocker.lock_statuses DROP CONSTRAINT lock_statuses_expires_at_check")
	_ = lock.Unlock(t.Context()) // it is lost

	lock, err = locker.Lock(t.Context(), "a", time.Second)
	contract.Must(t, err)

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
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for _, how := range []string{"FOR UPDATE", "FOR SHARE", "shared", "prepared"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()

				url := contract.NewDatabase(t)
				direct := contract.Open(t, "pgx", url)

				if how == "prepared" && contract.Query[string](t, direct, "SHOW max_prepared_transactions") == "0" {
					t.Skip("max_prepared_transactions is 0")
				}

				log := new(contract.Journal)
				locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, url),
					&pglocker.Config{Logger: slog.New(log)})
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, locker) })

				// A slow answer isn't to be taken for none: the patience with it is a seventh of this.
				lock, err := locker.TryLock(t.Context(), "a", 4*time.Second)
				contract.Must(t, err)

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
					contract.Must(t, err)

					defer func() { _ = conn.Close() }() // back to the pool

					var pid int

					contract.Must(t, conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))

					for _, text := range []string{"BEGIN", "SELECT FROM pglocker.lock_statuses WHERE lock_id = 'a' " + clause} {
						_, err = conn.ExecContext(t.Context(), text)
						contract.Must(t, err)
					}

					end := "ROLLBACK"

					if how == "prepared" {
						_, err = conn.ExecContext(t.Context(), "PREPARE TRANSACTION 'forgotten "+driver+"'")
						contract.Must(t, err)

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
					log.One(t, slog.LevelError, "a lock was lost").Attrs["error"].String(),
					log.One(t, slog.LevelWarn, "renewals are in trouble").Attrs["error"].String(),
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
