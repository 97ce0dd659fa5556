package traffic

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// CountersSQL makes what [worker.count] writes to: a counter for each lock, and a row for each
// write of it. The writer's update locks the counter until it commits, so the rows are numbered in
// the order in which the writes took effect.
const CountersSQL = `
CREATE TABLE counters (lock_id text COLLATE "C" PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE writes (seq bigserial, lock_id text COLLATE "C" NOT NULL, token bigint NOT NULL,
                     value bigint NOT NULL, client text NOT NULL)`

// GrantSQL lets a role write to them.
func GrantSQL(role string) string {
	return `
GRANT SELECT, INSERT, UPDATE ON counters TO ` + role + `;
GRANT INSERT ON writes TO ` + role + `;
GRANT USAGE ON SEQUENCE writes_seq_seq TO ` + role
}

// count adds one to the lock's counter. It writes what it read, plus one, so a write between
// reading and writing is lost. The transaction doesn't end with the lock: the guard alone keeps a
// stale one from committing.
func (w *worker) count(ctx context.Context, h holding, lock Spec) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()

	// Without the guard nothing else may keep a stale write off, as the stricter levels would.
	level := sql.LevelReadCommitted
	if w.cfg.Fenced {
		level = []sql.IsolationLevel{level, level, sql.LevelRepeatableRead, sql.LevelSerializable}[w.IntN(4)]
	}

	late := lock == lone(w.cfg.Name)
	if late || lock == Holds[0] { // which nothing but the guard protects
		level = sql.LevelReadCommitted
	}

	tx, err := w.db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		return
	}

	defer func() { _ = tx.Rollback() }() // nothing after a commit

	// In READ COMMITTED the guard may come last.
	last := late || level == sql.LevelReadCommitted && w.chance(50)
	if w.cfg.Fenced && !last && w.guard(ctx, tx, h) != nil {
		return
	}

	var value int64

	err = tx.QueryRowContext(ctx, `SELECT value FROM public.counters WHERE lock_id OPERATOR(pg_catalog.=) $1`, lock.ID).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return
	}

	sleep(ctx, w.upTo(w.cfg.Think))
	w.mayStop(lock)

	if late {
		w.pauser.reached(beforeGuard)
	}

	if w.cfg.Fenced && last && w.guard(ctx, tx, h) != nil {
		return
	}

	_, err = tx.ExecContext(ctx, `
		INSERT INTO public.counters AS c VALUES ($1, $2)
		ON CONFLICT (lock_id) DO UPDATE SET value = excluded.value`, lock.ID, value+1)
	if err != nil {
		return
	}

	_, err = tx.ExecContext(ctx, `INSERT INTO public.writes (lock_id, token, value, client) VALUES ($1, $2, $3, $4)`,
		lock.ID, h.token, value+1, w.cfg.Name)
	if err != nil {
		return
	}

	if w.cfg.Fenced { // or else the counter's own row lock would keep the others waiting
		w.mayStop(lock)
	}

	// Whether it was committed, the table tells.
	_ = tx.Commit()
}

// mayStop stops this process if it was told to stop while it writes. It does so under contended
// locks with short leases, so that the pause outlasts the lease and another client writes
// meanwhile.
func (w *worker) mayStop(lock Spec) {
	if lock == Holds[0] || lock == Holds[1] {
		w.pauser.reached(inCritical)
	}
}

func (w *worker) guard(ctx context.Context, tx *sql.Tx, h holding) error {
	e := w.rec.Invoke(history.Event{Kind: history.Guard, Lock: h.row, Family: h.family, Generation: h.token})
	prove := h.guard

	if h.guardSQL != nil && (h.row == lone(w.cfg.Name).ID || w.chance(50)) {
		prove = func(ctx context.Context, tx *sql.Tx) error { return guardBySQL(ctx, tx, h.guardSQL) }
	}

	err := prove(ctx, tx)
	e.At = 0
	w.rec.Return(outcome(e, err))

	return err
}

// guardBySQL is the guard for drivers other than database/sql. It asks only the database, not what
// this process believes.
func guardBySQL(ctx context.Context, tx *sql.Tx, guardSQL func() (string, []any)) error {
	query, args := guardSQL()

	var generation int64

	err := tx.QueryRowContext(ctx, query, args...).Scan(&generation)
	if errors.Is(err, sql.ErrNoRows) {
		return pglocker.ErrLockLost
	}

	return err
}

// holding is what a worker writes under.
type holding struct {
	// ctx ends with it.
	ctx   context.Context
	token int64
	// row has its lease. family is that of a slot, or "".
	row, family string

	guard func(context.Context, *sql.Tx) error
	// guardSQL is nil where there is none.
	guardSQL func() (query string, args []any)
}

func holdingOf(lk *pglocker.Lock) holding {
	return holding{
		ctx: lk.Context(), token: lk.Token(), row: lk.Status().LockID, guard: lk.Guard, guardSQL: lk.GuardSQL,
	}
}
