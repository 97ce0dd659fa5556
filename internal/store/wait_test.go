package store_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestGrantAfterAWait: the expiry of a grant is computed before the statement
// waits for the row. If whoever had locked it only rolls back, the lease has run
// meanwhile; what is returned still runs, and for no shorter than the caller
// believes.
func TestGrantAfterAWait(t *testing.T) {
	t.Parallel()

	const (
		ttl    = 600 * time.Millisecond
		margin = 100 * time.Millisecond
	)

	for name, wait := range map[string]time.Duration{
		"a part of the lease":   ttl / 2,
		"all but the margin":    ttl - margin/2,
		"several times as long": 2*ttl + margin,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				s, db := newStore(t, driver)

				created, err := s.Create(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}

				for verb, grant := range map[string]func(context.Context) (store.Result, error){
					"acquire": func(ctx context.Context) (store.Result, error) { return s.Acquire(ctx, "a", "me", ttl, margin) },
					"refresh": func(ctx context.Context) (store.Result, error) {
						return s.Refresh(ctx, "a", store.State{Generation: created.Generation}, "me", ttl, margin)
					},
				} {
					contract.Exec(t, db, "UPDATE "+table.String()+" SET generation = 1, expires_at = clock_timestamp()")

					stranger := lockRow(t, db, "a")
					let := make(chan time.Time, 1)

					time.AfterFunc(wait, func() {
						var now time.Time

						_ = stranger.QueryRow("SELECT clock_timestamp()").Scan(&now) // checked by what it scanned
						_ = stranger.Rollback()                                      // checked by the grant
						let <- now
					})

					res, err := grant(t.Context())
					if err != nil || res.Verdict != store.Granted {
						t.Fatalf("%s: %+v, %v", verb, res, err)
					}

					if left := res.Row.Remaining(); left <= margin || left > ttl {
						t.Errorf("%s: granted with %s remaining, want more than %s", verb, left, margin)
					}

					// By the clock itself, not by what the statement took for it.
					if now := <-let; now.IsZero() || !res.Row.ExpiresAt.After(now.Add(margin)) {
						t.Errorf("%s: the row was let go at %s, and granted until %s", verb, now, res.Row.ExpiresAt)
					}

					left := contract.Query[float64](t, db,
						"SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM "+table.String())
					believed := ttl - time.Since(res.Sent)

					if believed > time.Duration(left*float64(time.Second)) {
						t.Errorf("%s: the database shows another %f s, the holder may believe in %s", verb, left, believed)
					}
				}
			})
		})
	}
}

// TestLeavingAWait: a caller whose context ends while its statement waits for a
// row returns at once, with any driver, and knows that it knows nothing.
func TestLeavingAWait(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)

		for verb, call := range map[string]func(context.Context) error{
			"acquire": func(ctx context.Context) error {
				_, err := s.Acquire(ctx, "acquire", "me", ttl, margin)

				return err
			},
			"refresh": func(ctx context.Context) error {
				_, err := s.Refresh(ctx, "refresh", store.State{Generation: 1}, "me", ttl, margin)

				return err
			},
			"release": func(ctx context.Context) error {
				_, err := s.Release(ctx, "release", store.State{Generation: 1}, 0)

				return err
			},
		} {
			if _, err := s.Create(t.Context(), verb); err != nil {
				t.Fatal(err)
			}

			stranger := lockRow(t, db, verb)
			cause := errors.New("the caller's own")
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error, 1)

			go func() { done <- call(ctx) }()

			awaitBlocked(t, db)
			cancel(cause)

			err := contract.Receive(t, verb+" returns", done)
			if !errors.Is(err, store.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want ErrUnknownOutcome and context.Canceled", verb, err)
			}

			if err := stranger.Rollback(); err != nil {
				t.Fatal(err)
			}

			s.Wait()
		}
	})
}

// TestRenewPassesOver: a renewal doesn't wait for a row that somebody has locked,
// and tells that from a lease that is gone.
func TestRenewPassesOver(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)
		ids := []string{"z", "busy", "gone", "expired", "free", "a"}
		renewals := make([]store.Renewal, len(ids))

		for i, id := range ids {
			res, err := s.Acquire(ctx, id, "me", ttl, margin)
			if err != nil {
				t.Fatal(err)
			}

			renewals[i] = store.Renewal{LockID: id, Generation: res.Row.Generation, TTL: time.Duration(i+2) * ttl}
		}

		contract.Exec(t, db, "UPDATE "+table.String()+" SET generation = generation + 1 WHERE lock_id = 'gone'")
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() WHERE lock_id = 'expired'")
		contract.Exec(t, db, "DELETE FROM "+table.String()+" WHERE lock_id = 'free'")

		stranger := lockRow(t, db, "busy")
		before := contract.Now(t, db)

		results, sent, err := s.Renew(ctx, renewals, nil)
		if err != nil {
			t.Fatal(err)
		}

		after := contract.Now(t, db)

		if sent.IsZero() || time.Since(sent) < 0 {
			t.Errorf("sent at %s", sent)
		}

		want := []store.RenewState{
			store.Renewed, store.RenewBusy, store.RenewGone, store.RenewGone, store.RenewGone, store.Renewed,
		}
		for i, res := range results {
			if res.State != want[i] {
				t.Errorf("%s: state %d, want %d", ids[i], res.State, want[i])
			}

			if end := res.ExpiresAt; res.State == store.Renewed &&
				(end.Before(before.Add(renewals[i].TTL)) || end.After(after.Add(renewals[i].TTL))) {
				t.Errorf("%s was renewed between %s and %s for %s, until %s", ids[i], before, after, renewals[i].TTL, end)
			}
		}

		if err := stranger.Rollback(); err != nil {
			t.Fatal(err)
		}

		if results, _, err = s.Renew(ctx, renewals, nil); err != nil || results[1].State != store.Renewed {
			t.Errorf("the row that was busy: %+v, %v", results, err)
		}

		revived := contract.Query[int](t, db, "SELECT count(*) FROM "+table.String()+
			" WHERE lock_id = 'expired' AND expires_at > clock_timestamp()")
		if revived != 0 {
			t.Error("a lease that had ended was revived")
		}
	})
}

// TestOverAndOutOfTime: a grant that was over when it was heard of is asked for again. If
// the caller's time is up then, it isn't told that nothing was granted.
func TestOverAndOutOfTime(t *testing.T) {
	t.Parallel()

	const ttl = 50 * time.Millisecond

	eachDriver(t, func(t *testing.T, driver string) {
		for verb, grant := range map[string]func(context.Context, *store.Store) (store.Result, error){
			"acquire": func(ctx context.Context, s *store.Store) (store.Result, error) {
				return s.Acquire(ctx, "a", "me", ttl, time.Millisecond)
			},
			"refresh": func(ctx context.Context, s *store.Store) (store.Result, error) {
				return s.Refresh(ctx, "a", store.State{Generation: 1}, "me", ttl, time.Millisecond)
			},
			"claim": func(ctx context.Context, s *store.Store) (store.Result, error) {
				return s.Claim(ctx, "a", "me", ttl, time.Millisecond, store.Mark{For: time.Second})
			},
		} {
			s, db := newStore(t, driver)
			if _, err := s.Create(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}

			db.SetMaxOpenConns(2) // the stranger's, and one

			stranger, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()

			tell := func(text string) {
				t.Helper()

				if _, err := stranger.ExecContext(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}

			tell("BEGIN")
			tell("SELECT FROM " + table.String() + " FOR UPDATE")

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			done := make(chan error, 1)

			go func() {
				_, err := grant(ctx, s)
				done <- err
			}()

			contract.Await(t, "it waits for the row", func() bool {
				var waiting int

				// A transaction is shown the same activity each time, unless it asks otherwise.
				tell("SELECT pg_stat_clear_snapshot()")

				err := stranger.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)

				return err == nil && waiting == 1
			})

			// Somebody stands in line for the connection before it needs one again.
			taken := make(chan *sql.Conn, 1)

			go func() {
				conn, _ := db.Conn(t.Context()) // nil is found out below
				taken <- conn
			}()

			contract.Await(t, "somebody stands in line", func() bool { return db.Stats().WaitCount == 1 })

			tell("SELECT pg_sleep(0.1)") // twice the TTL
			tell("ROLLBACK")

			conn := <-taken
			if conn == nil {
				t.Fatal("no connection")
			}
			defer conn.Close()

			cancel()

			if err := <-done; !errors.Is(err, store.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want an unknown outcome, since the context ended", verb, err)
			}
		}
	})
}
