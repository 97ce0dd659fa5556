package traffic

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// A client by SQL alone uses the functions of the lock's schema, as docs/sql.md says. It counts the
// lease from before its call, renews it itself, and stops a margin before the end.

// sqlMargin is what it stops before the end, in parts of a TTL.
const sqlMargin = 5

// sqlLease is a lease of such a client.
type sqlLease struct {
	lock  Spec
	token int64
	// until is when its holder stops. expires and ends are the same end of the lease, by the
	// database's clock and by this process's.
	until, ends time.Time
	expires     time.Time
}

// literal is a text in SQL. The driver sends such a statement as one message, which no pooler
// divides.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// bySQL asks for one row. It takes a connection first: [sql.DB] repeats a statement on another one if
// the driver says that the first is bad, which may be after the statement was run.
func (w *worker) bySQL(ctx context.Context, query string, to ...any) error {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()

	return w.ask(ctx, conn, query, to...)
}

// ask asks for one row on a connection, or in a transaction.
func (w *worker) ask(ctx context.Context, on interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, query string, to ...any,
) error {
	var args []any
	if w.cfg.Driver == DriverPgx {
		args = append(args, pgx.QueryExecModeSimpleProtocol)
	}

	return on.QueryRowContext(ctx, query, args...).Scan(to...)
}

// holdBySQL takes a lock by the functions, holds it, and releases it.
func (w *worker) holdBySQL(ctx context.Context, lock Spec) {
	lease, ok := w.acquireBySQL(ctx, lock)
	if !ok {
		return
	}

	// Its end is told by the deadline, whatever a request does meanwhile.
	holding, end := context.WithCancel(context.WithoutCancel(ctx))
	deadline := time.AfterFunc(time.Until(lease.until), func() {
		w.rec.Note(history.Event{Kind: history.Lost, Lock: lock.ID, Token: lease.token, Detail: "its term is over"})
		end()
	})

	defer end()
	defer deadline.Stop()

	switch n := w.IntN(100); {
	case n < 25:
		w.count(ctx, w.holdingBySQL(holding, lease), lock)
	case n < 40:
		w.writeOutside(w.holdingBySQL(holding, lease), lock)
	case n < 85:
		w.keepBySQL(ctx, holding, &lease, deadline, lock.TTL+w.upTo(lock.TTL))
	default:
		sleep(holding, w.upTo(lock.TTL/8))
	}

	if w.chance(5) {
		<-holding.Done() // it expires

		return
	}

	w.releaseBySQL(ctx, lease)
}

func (w *worker) acquireBySQL(ctx context.Context, lock Spec) (sqlLease, bool) {
	ctx, cancel := w.within(ctx, time.Second)
	defer cancel()

	var (
		acquired  bool
		token     sql.NullInt64
		expires   sql.NullTime
		holder    sql.NullString
		remaining sql.NullFloat64
	)

	sent := time.Now()
	e := w.rec.Invoke(limited(ctx, history.Event{Kind: history.SQL, Lock: lock.ID, TTL: int64(lock.TTL)}))
	err := w.bySQL(ctx, fmt.Sprintf(`
		SELECT r.acquired, r.token, r.expires_at, r.holder, pg_catalog.date_part('epoch'::pg_catalog.text, r.remaining)
		  FROM pglocker.acquire_lock(%s, '%d microseconds', %s) AS r`,
		literal(lock.ID), lock.TTL.Microseconds(), literal(w.cfg.Name)),
		&acquired, &token, &expires, &holder, &remaining)
	e.At = 0

	if err != nil {
		e.Outcome, e.Detail = history.Unknown, err.Error()
		w.rec.Return(e)

		return sqlLease{}, false
	}

	if !acquired {
		// Of the holder's token it tells nothing.
		e.Outcome, e.Owner = history.Busy, holder.String
		w.rec.Return(e)

		return sqlLease{}, false
	}

	e.Outcome, e.Token, e.Owner, e.Expires = history.OK, token.Int64, holder.String, expires.Time.UnixMicro()
	term := min(lock.TTL, time.Duration(remaining.Float64*float64(time.Second)))
	lease := sqlLease{lock: lock, token: token.Int64, ends: sent.Add(term), expires: expires.Time}
	lease.until = lease.ends.Add(-lock.TTL / sqlMargin)

	late := !time.Now().Before(lease.until)
	if late {
		e.Until = history.Now() // it is never believed in
	}

	w.rec.Return(e)

	if late {
		w.releaseBySQL(ctx, lease)
	}

	return lease, !late
}

// keepBySQL renews a lease for some time.
func (w *worker) keepBySQL(ctx, holding context.Context, lease *sqlLease, deadline *time.Timer, d time.Duration) {
	holding, stop := context.WithTimeout(holding, d)
	defer stop()

	defer context.AfterFunc(ctx, stop)()

	for {
		sleep(holding, time.Until(lease.until)/3)

		if holding.Err() != nil {
			return
		}

		sent := time.Now()

		var expires sql.NullTime

		// An attempt has until the deadline, and may be made again.
		err := w.bySQL(holding, fmt.Sprintf(`SELECT pglocker.renew_lock(%s, %d, '%d microseconds')`,
			literal(lease.lock.ID), lease.token, lease.lock.TTL.Microseconds()), &expires)

		switch {
		case err != nil:
			sleep(holding, 5*time.Millisecond)
		case !expires.Valid:
			return // lost, as its deadline will tell
		default:
			w.rec.Note(history.Event{Kind: history.Renewed, Lock: lease.lock.ID, Token: lease.token, Expires: expires.Time.UnixMicro()})

			// The row's lease may be shorter than was asked for.
			ends := lease.ends.Add(expires.Time.Sub(lease.expires))
			if counted := sent.Add(lease.lock.TTL); counted.Before(ends) {
				ends = counted
			}

			until := ends.Add(-lease.lock.TTL / sqlMargin)
			if !deadline.Stop() {
				return // it came too late
			}

			lease.ends, lease.expires, lease.until = ends, expires.Time, until
			deadline.Reset(time.Until(until))
		}
	}
}

// releaseBySQL ends the belief in a lease, and then the lease.
func (w *worker) releaseBySQL(ctx context.Context, lease sqlLease) {
	ctx, cancel := w.within(context.WithoutCancel(ctx), time.Second)
	defer cancel()

	var released bool

	e := w.rec.Invoke(limited(ctx, history.Event{Kind: history.Release, Lock: lease.lock.ID, Generation: lease.token}))
	err := w.bySQL(ctx, fmt.Sprintf(`SELECT pglocker.release_lock(%s, %d)`, literal(lease.lock.ID), lease.token), &released)
	e.At = 0

	switch {
	case err != nil:
		e.Outcome, e.Detail = history.Unknown, err.Error()
	case released:
		e.Outcome = history.OK
	default:
		e.Outcome = history.OutcomeLost
	}

	w.rec.Return(e)
}

// holdingBySQL is guarded by assert_held.
func (w *worker) holdingBySQL(ctx context.Context, lease sqlLease) holding {
	return holding{
		ctx: ctx, token: lease.token, row: lease.lock.ID,
		guard: func(ctx context.Context, tx *sql.Tx) error {
			var nothing sql.NullString

			err := w.ask(ctx, tx, fmt.Sprintf(`SELECT pglocker.assert_held(%s, %d)`, literal(lease.lock.ID), lease.token), &nothing)
			if stateOf(err) == stateLost {
				return errors.Join(pglocker.ErrLockLost, err)
			}

			return err
		},
	}
}

// stateLost is the SQLSTATE of assert_held.
const stateLost = "PL001"

// stateOf is the SQLSTATE of an error, "" if it has none.
func stateOf(err error) string {
	var (
		native *pgconn.PgError
		lib    *pq.Error
	)

	switch {
	case errors.As(err, &native):
		return native.Code
	case errors.As(err, &lib):
		return string(lib.Code)
	}

	return ""
}
