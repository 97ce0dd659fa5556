package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// guarded is what has guards: a lock, or several that are held as one.
type guarded interface {
	Guard(ctx context.Context, tx *sql.Tx) error
	GuardPgx(ctx context.Context, tx pglocker.PgxTx) error
	GuardTx(ctx context.Context, tx pglocker.Tx) error
}

// ofContext has the guards of the package, of what is held under a context.
type ofContext struct{ held context.Context }

func (o ofContext) Guard(_ context.Context, tx *sql.Tx) error { return pglocker.Guard(o.held, tx) }

func (o ofContext) GuardPgx(_ context.Context, tx pglocker.PgxTx) error {
	return pglocker.GuardPgx(o.held, tx)
}

func (o ofContext) GuardTx(_ context.Context, tx pglocker.Tx) error {
	return pglocker.GuardTx(o.held, tx)
}

// guardedTx is a transaction with one form of the guard.
type guardedTx struct {
	guard         func(guarded) error
	exec          func(text string) error
	commit, leave func() error
}

// Types of libraries, with a transaction in them or without.
type (
	// embedding is as sqlx.Tx and bun.Tx are. Its own method, as bun's, drops the arguments.
	embedding struct{ *sql.Tx }
	// prepared is as gorm's transaction with PrepareStmt is.
	prepared struct{ inner }
	inner    interface {
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
	// opaque shows nothing of what is in it.
	opaque struct{ in inner }
	// both has the handle beside the transaction, and lasting is a transaction that shows a handle alone.
	both struct {
		*handle
		*sql.Tx
	}
	lasting struct {
		*sql.DB
		tx inner
	}
	// handle is as sqlx.DB is, and rewriting as bun.DB: its own method drops the arguments.
	handle    struct{ *sql.DB }
	rewriting struct{ *sql.DB }
	// committing is a pool that passes for a transaction of pgx. opaquePgx hides the connection.
	committing struct{ *pgxpool.Pool }
	opaquePgx  struct{ pglocker.PgxTx }
)

func (committing) Commit(context.Context) error   { return nil }
func (committing) Rollback(context.Context) error { return nil }

func (e embedding) QueryRowContext(ctx context.Context, query string, _ ...any) *sql.Row {
	return e.Tx.QueryRowContext(ctx, query)
}

func (r rewriting) QueryRowContext(ctx context.Context, query string, _ ...any) *sql.Row {
	return r.DB.QueryRowContext(ctx, query)
}

func (b both) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return b.Tx.QueryRowContext(ctx, query, args...)
}

func (l lasting) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return l.tx.QueryRowContext(ctx, query, args...)
}

func (o opaque) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return o.in.QueryRowContext(ctx, query, args...)
}

// begins are all forms: how to begin a transaction at an isolation level, "" for the default.
func begins(t *testing.T, url string) map[string]func(t *testing.T, level string) guardedTx {
	t.Helper()

	forms := make(map[string]func(t *testing.T, level string) guardedTx)

	levels := map[string]sql.IsolationLevel{"": sql.LevelDefault, "repeatable read": sql.LevelRepeatableRead}

	for _, driver := range []string{"pgx", "postgres"} {
		db := contract.Open(t, driver, url)

		for form, guard := range map[string]func(guarded, *sql.Tx) error{
			"Guard":              func(g guarded, tx *sql.Tx) error { return g.Guard(t.Context(), tx) },
			"GuardTx":            func(g guarded, tx *sql.Tx) error { return g.GuardTx(t.Context(), tx) },
			"GuardTx, embedding": func(g guarded, tx *sql.Tx) error { return g.GuardTx(t.Context(), embedding{tx}) },
			"GuardTx, prepared":  func(g guarded, tx *sql.Tx) error { return g.GuardTx(t.Context(), &prepared{tx}) },
			"GuardTx, both":      func(g guarded, tx *sql.Tx) error { return g.GuardTx(t.Context(), both{&handle{db}, tx}) },
			"GuardTx, lasting":   func(g guarded, tx *sql.Tx) error { return g.GuardTx(t.Context(), lasting{db, tx}) },
			"GuardTx, opaque":    func(g guarded, tx *sql.Tx) error { return g.GuardTx(t.Context(), opaque{tx}) },
		} {
			forms[form+", "+driver] = func(t *testing.T, level string) guardedTx {
				t.Helper()

				tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: levels[level]})
				contract.Must(t, err)

				return guardedTx{
					guard: func(g guarded) error { return guard(g, tx) },
					exec: func(text string) error {
						_, err := tx.ExecContext(t.Context(), text)

						return err
					},
					commit: tx.Commit, leave: tx.Rollback,
				}
			}
		}
	}

	for _, mode := range []string{"", "exec", "simple_protocol"} {
		cfg, err := pgxpool.ParseConfig(url)
		contract.Must(t, err)

		switch mode {
		case "exec":
			cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		case "simple_protocol":
			cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		}

		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		contract.Must(t, err)
		t.Cleanup(pool.Close)

		for form, shown := range map[string]func(pgx.Tx) pglocker.PgxTx{
			"GuardPgx":         func(tx pgx.Tx) pglocker.PgxTx { return tx },
			"GuardPgx, opaque": func(tx pgx.Tx) pglocker.PgxTx { return opaquePgx{tx} },
		} {
			forms[form+", "+mode] = func(t *testing.T, level string) guardedTx {
				t.Helper()

				tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.TxIsoLevel(level)})
				contract.Must(t, err)

				return guardedTx{
					guard: func(g guarded) error { return g.GuardPgx(t.Context(), shown(tx)) },
					exec: func(text string) error {
						_, err := tx.Exec(t.Context(), text)

						return err
					},
					commit: func() error { return tx.Commit(t.Context()) },
					leave:  func() error { return tx.Rollback(context.Background()) },
				}
			}
		}
	}

	return forms
}

// takes are all things that have guards. Each takes a lock that isn't renewed during the test, and returns the
// lock id of one of its rows.
func takes(locker *pglocker.Locker) map[string]func(t *testing.T, name string) (held guarded, id string) {
	never := pglocker.WithRelockInterval(time.Hour - time.Minute)

	take := func(t *testing.T, name string) (*pglocker.Lock, string) {
		t.Helper()

		lock, err := locker.TryLock(t.Context(), name, time.Hour, never)
		contract.Must(t, err)

		return lock, name
	}

	return map[string]func(t *testing.T, name string) (guarded, string){
		"Lock": func(t *testing.T, name string) (guarded, string) { return take(t, name) },
		"context": func(t *testing.T, name string) (guarded, string) {
			lock, id := take(t, name)

			return ofContext{lock.Context()}, id
		},
		"MultiLock": func(t *testing.T, name string) (guarded, string) {
			multi, err := locker.TryLockAll(t.Context(), []string{name + `"{,}`, name, name + "3"}, time.Hour, never)
			contract.Must(t, err)

			return multi, name
		},
		"Permit": func(t *testing.T, name string) (guarded, string) {
			s, err := locker.NewSemaphore(name, 3)
			contract.Must(t, err)
			permit, err := s.TryAcquire(t.Context(), time.Hour, never)
			contract.Must(t, err)

			return permit, "pglocker:semaphore:" + name + ":1"
		},
		"Access": func(t *testing.T, name string) (guarded, string) {
			rw, err := locker.NewRWLock(name)
			contract.Must(t, err)
			access, err := rw.TryLock(t.Context(), time.Hour, never)
			contract.Must(t, err)

			return access, "pglocker:rwlock:" + name + ":w"
		},
	}
}

// TestGuardForms: every form of the guard, of everything that has one, lets a holder's transaction commit, keeps
// the row until then, refuses a former holder, and tells a conflict from a loss.
func TestGuardForms(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	db := contract.Open(t, "pgx", url)
	locker := contract.NewLocker(t, "pgx", url)

	contract.Exec(t, db, "CREATE TABLE reports (body TEXT NOT NULL)")

	change := func(id, set string) {
		t.Helper()

		done, err := db.ExecContext(t.Context(), "UPDATE pglocker.lock_statuses SET "+set+" WHERE lock_id = $1", id)
		contract.Must(t, err)

		if n, err := done.RowsAffected(); err != nil || n != 1 {
			t.Fatalf("%d rows of %q, %v", n, id, err)
		}
	}

	written := func() int { return contract.Query[int](t, db, "SELECT count(*) FROM reports") }
	free := func(id string) bool {
		return contract.Query[bool](t, db, `SELECT EXISTS (SELECT FROM pglocker.lock_statuses WHERE lock_id = $1
			FOR NO KEY UPDATE SKIP LOCKED)`, id)
	}

	const write = "INSERT INTO reports VALUES ('')"

	for of, take := range takes(locker) {
		for form, begin := range begins(t, url) {
			t.Run(of+", "+form, func(t *testing.T) {
				held, id := take(t, of+form)

				// Held.
				tx, before := begin(t, ""), written()
				contract.Must(t, tx.guard(held))
				contract.Must(t, tx.exec(write))

				if free(id) {
					t.Error("the guard has not locked the row")
				}

				contract.Must(t, tx.commit())

				if !free(id) || written() != before+1 {
					t.Errorf("after the commit: row free %t, %d rows more", free(id), written()-before)
				}

				// A commit of another writer since the snapshot is no loss.
				tx = begin(t, "repeatable read")
				contract.Must(t, tx.exec("SELECT 1"))
				change(id, "expires_at = expires_at + interval '1 second'")

				if err := tx.guard(held); contract.SQLState(err) != "40001" || errors.Is(err, pglocker.ErrLockLost) {
					t.Errorf("a guard after a renewal: %v, want SQLSTATE 40001 and no loss", err)
				}

				_ = tx.leave()

				// Taken over while the transaction is open.
				tx = begin(t, "")
				contract.Must(t, tx.exec(write))
				change(id, "generation = generation + 1")

				if err := tx.guard(held); !errors.Is(err, pglocker.ErrLockLost) {
					t.Errorf("a guard after a takeover: %v, want ErrLockLost", err)
				}

				contract.Must(t, tx.leave())

				// The lease is over.
				change(id, "generation = generation - 1, expires_at = clock_timestamp()")

				tx = begin(t, "")
				if err := tx.guard(held); !errors.Is(err, pglocker.ErrLockLost) {
					t.Errorf("a guard after the lease: %v, want ErrLockLost", err)
				}

				contract.Must(t, tx.leave())
			})
		}
	}
}

// TestGuardHasNoName: a guard by pgx doesn't go by a prepared statement, which a pooler may have lost. Its transaction
// would fail with it.
func TestGuardHasNoName(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	db := contract.Open(t, "pgx", url)

	locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	pool, err := pgxpool.New(t.Context(), url)
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	others := contract.Open(t, "pgx", url) // not the lock's own

	made, err := pgx.ParseConfig(url)
	contract.Must(t, err)

	connected := stdlib.OpenDB(*made)
	t.Cleanup(func() { contract.Must(t, connected.Close()) })

	for of, take := range takes(locker) {
		t.Run(of, func(t *testing.T) {
			held, _ := take(t, of)

			var txs []*sql.Tx

			for _, db := range []*sql.DB{db, others, connected} {
				tx, err := db.BeginTx(t.Context(), nil)
				contract.Must(t, err)

				defer func() { _ = tx.Rollback() }()

				txs = append(txs, tx)
			}

			pgxTx, err := pool.Begin(t.Context())
			contract.Must(t, err)

			defer func() { _ = pgxTx.Rollback(t.Context()) }()

			for range 2 {
				for _, tx := range txs {
					contract.Must(t, held.Guard(t.Context(), tx))
					contract.Must(t, contract.Second(tx.ExecContext(t.Context(), "DEALLOCATE ALL")))
				}

				contract.Must(t, held.GuardPgx(t.Context(), pgxTx))
				contract.Must(t, contract.Second(pgxTx.Exec(t.Context(), "DEALLOCATE ALL")))
			}
		})
	}
}

// TestGuardOfLostLocks: a guard of several locks that are all lost says so, in a transaction that has written nothing.
func TestGuardOfLostLocks(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	held, _ := takes(contract.NewLocker(t, "pgx", url))["MultiLock"](t, "a")

	contract.Exec(t, contract.Open(t, "pgx", url), "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()")

	for form, begin := range begins(t, url) {
		tx := begin(t, "")

		if err := tx.guard(held); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s: %v, want ErrLockLost", form, err)
		}

		contract.Must(t, tx.leave())
	}
}

// TestGuardOfAnotherDriver: a transaction of any driver guards a lock of pgx, also where pgx may name no statement.
// A library's transaction then gets no arguments, of which its driver could make a named statement.
func TestGuardOfAnotherDriver(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	all := takes(contract.NewLocker(t, "pgx", url+"&default_query_exec_mode=describe_exec"))

	for _, of := range []string{"Lock", "MultiLock"} {
		held, _ := all[of](t, of)

		for form, begin := range begins(t, url) {
			tx := begin(t, "")

			if err := tx.guard(held); err != nil {
				t.Errorf("%s of %s: %v", form, of, err)
			}

			contract.Must(t, tx.leave())
		}

		tx, err := contract.Open(t, "pgx", url).BeginTx(t.Context(), nil)
		contract.Must(t, err)

		given := &arguments{inner: tx}
		contract.Must(t, held.GuardTx(t.Context(), given))

		if given.n > 0 {
			t.Errorf("%s: the transaction was given %d arguments, want none", of, given.n)
		}

		contract.Must(t, tx.Rollback())
	}
}

// arguments counts those that a transaction is given.
type arguments struct {
	inner inner
	n     int
}

func (a *arguments) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	a.n += len(args)

	return a.inner.QueryRowContext(ctx, query, args...)
}

// TestGuardWithoutTransaction: outside of a transaction a guard would prove nothing.
func TestGuardWithoutTransaction(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	pool, err := pgxpool.New(t.Context(), url)
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	ended := func(hide func(pgx.Tx) pglocker.PgxTx) func(guarded) error {
		return func(held guarded) error {
			tx, err := pool.Begin(t.Context())
			contract.Must(t, err)

			defer func() { _ = tx.Rollback(t.Context()) }()

			_, err = tx.Exec(t.Context(), "COMMIT")
			contract.Must(t, err)

			return held.GuardPgx(t.Context(), hide(tx))
		}
	}
	endedPgx := ended(func(tx pgx.Tx) pglocker.PgxTx { return tx })
	endedOpaque := ended(func(tx pgx.Tx) pglocker.PgxTx { return opaquePgx{tx} })

	for _, driver := range []string{"pgx", "postgres"} {
		db := contract.Open(t, driver, url)
		conn, err := db.Conn(t.Context())
		contract.Must(t, err)

		defer func() { contract.Must(t, conn.Close()) }()

		var (
			noPgx *pgxpool.Tx
			noTx  *sql.Tx
		)

		for of, take := range takes(contract.NewLocker(t, driver, url)) {
			held, _ := take(t, of+driver)

			for name, guard := range map[string]func() error{
				"Guard, nil":              func() error { return held.Guard(t.Context(), nil) },
				"GuardPgx, nil":           func() error { return held.GuardPgx(t.Context(), nil) },
				"GuardPgx, typed nil":     func() error { return held.GuardPgx(t.Context(), noPgx) },
				"GuardPgx, a pool":        func() error { return held.GuardPgx(t.Context(), committing{pool}) },
				"GuardPgx, ended":         func() error { return endedPgx(held) },
				"GuardPgx, ended, opaque": func() error { return endedOpaque(held) },
				"GuardTx, nil":            func() error { return held.GuardTx(t.Context(), nil) },
				"GuardTx, typed nil":      func() error { return held.GuardTx(t.Context(), noTx) },
				"GuardTx, nil inside":     func() error { return held.GuardTx(t.Context(), embedding{}) },
				"GuardTx, nothing inside": func() error { return held.GuardTx(t.Context(), &prepared{nil}) },
				"GuardTx, a nil handle":   func() error { return held.GuardTx(t.Context(), handle{}) },
				"GuardTx, *sql.DB":        func() error { return held.GuardTx(t.Context(), db) },
				"GuardTx, *sql.Conn":      func() error { return held.GuardTx(t.Context(), conn) },
				"GuardTx, *sql.DB inside": func() error { return held.GuardTx(t.Context(), handle{db}) },
				"GuardTx, rewriting":      func() error { return held.GuardTx(t.Context(), rewriting{db}) },
				"GuardTx, behind another": func() error { return held.GuardTx(t.Context(), &prepared{db}) },
				"GuardTx, opaque":         func() error { return held.GuardTx(t.Context(), opaque{db}) },
				"GuardTx, opaque conn":    func() error { return held.GuardTx(t.Context(), opaque{conn}) },
			} {
				if err := guard(); !errors.Is(err, pglocker.ErrNoTransaction) {
					t.Errorf("%s, %s of %s: %v, want ErrNoTransaction", driver, name, of, err)
				}
			}
		}
	}

	for _, err := range []error{
		pglocker.Guard(t.Context(), nil), pglocker.GuardPgx(t.Context(), nil), pglocker.GuardTx(t.Context(), nil),
	} {
		if !errors.Is(err, pglocker.ErrNoLock) {
			t.Errorf("a guard without a lock: %v, want ErrNoLock", err)
		}
	}
}

// TestGuardInDoubt: a transaction that is over, and one that has failed, prove nothing.
func TestGuardInDoubt(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	held, _ := takes(contract.NewLocker(t, "pgx", url))["Lock"](t, "a")

	for form, begin := range begins(t, url) {
		tx := begin(t, "")
		contract.Must(t, tx.commit())

		if err := tx.guard(held); err == nil || errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s after the commit: %v", form, err)
		}

		tx = begin(t, "")
		if err := tx.exec("SELECT 1 / 0"); err == nil {
			t.Fatal("the server divides by zero")
		}

		if err := tx.guard(held); err == nil || errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s in a failed transaction: %v", form, err)
		}

		_ = tx.leave()
	}
}
