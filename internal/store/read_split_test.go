package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"regexp"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// splitter is a connector that does what a pooler does that sends reads to a standby: what
// is a SELECT by its words, and locks or changes nothing by them, goes to another
// server.
type splitter struct {
	driver           driver.Driver
	primary, standby string
}

func (s splitter) Driver() driver.Driver { return s.driver }

func (s splitter) Connect(context.Context) (driver.Conn, error) {
	primary, err := s.driver.Open(s.primary)
	if err != nil {
		return nil, err
	}

	standby, err := s.driver.Open(s.standby)
	if err != nil {
		_ = primary.Close()

		return nil, err
	}

	return splitConn{primary, standby}, nil
}

type splitConn struct {
	driver.Conn // to the primary
	standby     driver.Conn
}

func (c splitConn) Close() error { return errors.Join(c.Conn.Close(), c.standby.Close()) }

func (c splitConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

var (
	reads  = regexp.MustCompile(`^\s*(SELECT|WITH)\b`)
	writes = regexp.MustCompile(`\b(INSERT|UPDATE|DELETE)\b|\bFOR (NO KEY )?(UPDATE|SHARE)\b`)
)

func (c splitConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	on := c.Conn
	if reads.MatchString(text) && !writes.MatchString(text) {
		on = c.standby
	}

	return on.(driver.QueryerContext).QueryContext(ctx, text, args)
}

func (c splitConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, text, args)
}

// TestReadsFromALaggingStandby: nothing is decided by what a standby shows that is behind:
// not whether a lock is held, gone or unknown, nor what the table and the server are like.
func TestReadsFromALaggingStandby(t *testing.T) {
	t.Parallel()

	const other = int64(70) // a generation that only the standby shows

	standbys := map[string]string{
		"without the table": "CREATE TABLE nothing ()",
		"without the rows":  "CREATE SCHEMA pglocker; CREATE TABLE pglocker.lock_statuses (" + contract.ThreeColumns + ")",
		"with old rows": "CREATE SCHEMA pglocker; CREATE TABLE pglocker.lock_statuses (" + contract.ThreeColumns +
			", owner text, acquired_at timestamptz, contended_until timestamptz);" +
			` INSERT INTO pglocker.lock_statuses SELECT id, 70, 'infinity', 'other', '2099-01-01'
				FROM unnest('{held,created,free,renewed,released}'::text[]) AS id`,
	}

	eachDriver(t, func(t *testing.T, driverName string) {
		for what, ddl := range standbys {
			for columns, ddlPrimary := range map[string]string{
				"six": "", "three": "CREATE SCHEMA pglocker; CREATE TABLE pglocker.lock_statuses (" + contract.ThreeColumns + ")",
			} {
				primary, standby := databases.NewDatabase(t).String(), databases.NewDatabase(t).String()
				direct := contract.Open(t, driverName, primary)

				must := func(err error) {
					t.Helper()

					if err != nil {
						t.Fatalf("%s, %s columns: %v", what, columns, err)
					}
				}

				// lib/pq takes several statements in one text.
				contract.Exec(t, contract.Open(t, "postgres", standby), ddl)
				contract.Exec(t, contract.Open(t, "postgres", standby),
					`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)

				db := sql.OpenDB(splitter{direct.Driver(), primary, standby})
				t.Cleanup(func() { must(db.Close()) })

				if ddlPrimary == "" {
					must(store.Migrate(t.Context(), db, table, nil))
				} else {
					contract.Exec(t, contract.Open(t, "postgres", primary), ddlPrimary)
				}

				var (
					ctx = t.Context()
					s   = store.New(db, table, nil)
				)

				verdict := func(verb string, want store.Verdict, res store.Result, err error) {
					t.Helper()

					if err != nil || res.Verdict != want || res.Row.Generation == other {
						t.Errorf("%s, %s columns: %s: %+v, %v, want verdict %d", what, columns, verb, res, err, want)
					}
				}

				held, err := s.Acquire(ctx, "held", "me", time.Hour, margin)
				verdict("Acquire", store.Granted, held, err)

				if s.Full() != (columns == "six") {
					t.Errorf("%s, %s columns: the locker thinks otherwise", what, columns)
				}

				res, err := s.Acquire(ctx, "held", "you", time.Hour, margin)
				verdict("Acquire of what is held", store.Busy, res, err)

				res, err = s.Refresh(ctx, "held", store.State{Generation: other}, "you", time.Hour, margin)
				verdict("Refresh", store.WrongGeneration, res, err)
				res, err = s.Release(ctx, "held", store.State{Generation: other}, 0)
				verdict("Release", store.WrongGeneration, res, err)
				res, err = s.Release(ctx, "unknown", store.State{Generation: 1}, 0)
				verdict("Release", store.NotFound, res, err)

				for range 2 {
					row, err := s.Create(ctx, "created")
					if err != nil || row.Generation != 1 {
						t.Errorf("%s, %s columns: Create: %+v, %v", what, columns, row, err)
					}
				}

				undone, err := s.Undone(ctx, "held", store.State{Generation: held.Row.Generation, Until: held.Row.Now.Add(time.Hour)})
				if undone || err != nil {
					t.Errorf("%s, %s columns: Undone: %t, %v", what, columns, undone, err)
				}

				// A guard, and a renewal beside it.
				renewed, err := s.Acquire(ctx, "renewed", "me", time.Hour, margin)
				verdict("Acquire", store.Granted, renewed, err)

				tx, err := direct.BeginTx(ctx, nil)
				must(err)

				_, err = tx.ExecContext(ctx, s.GuardSQL(), "renewed", renewed.Row.Generation)
				must(err)

				results, _, err := s.Renew(ctx, []store.Renewal{
					{LockID: "renewed", Generation: renewed.Row.Generation, TTL: time.Hour},
					{LockID: "renewed", Generation: other, TTL: time.Hour},
				}, nil)
				if err != nil || results[0].State != store.RenewBusy || results[1].State != store.RenewGone {
					t.Errorf("%s, %s columns: Renew: %+v, %v, want busy and gone", what, columns, results, err)
				}

				must(tx.Rollback())
			}
		}
	})
}

// TestLookCostsNothing: what is read for a decision takes no transaction id, and a standby
// refuses it.
func TestLookCostsNothing(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", newDatabase(t).String())
	if err := store.Migrate(t.Context(), db, store.Table{Schema: "s", Name: "t"}, nil); err != nil {
		t.Fatal(err)
	}

	contract.Exec(t, db, "INSERT INTO s.t VALUES ('a', 1, now())")

	for name, args := range map[string][]any{
		"look":     {"a"},
		"lookMany": {[]string{"a", "b"}},
		"heldMany": {[]string{"a", "b"}, []int64{1, 1}},
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}

		if _, err := tx.ExecContext(t.Context(), store.Texts(true)[name], args...); err != nil {
			t.Errorf("%s: %v", name, err)
		}

		var id sql.NullInt64
		if err := tx.QueryRowContext(t.Context(), "SELECT txid_current_if_assigned()").Scan(&id); err != nil || id.Valid {
			t.Errorf("%s: transaction id %+v, %v, want none", name, id, err)
		}

		if _, err := tx.ExecContext(t.Context(), "SET TRANSACTION READ ONLY"); err != nil {
			t.Fatal(err)
		}

		var server interface{ SQLState() string }
		if _, err := tx.ExecContext(t.Context(), store.Texts(true)[name], args...); !errors.As(err, &server) || server.SQLState() != "25006" {
			t.Errorf("%s in a read-only transaction: %v, want 25006", name, err)
		}

		_ = tx.Rollback() // it failed
	}
}
