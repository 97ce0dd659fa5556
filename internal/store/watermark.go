package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// A row that is deleted takes its generation with it. The row [WatermarkID] remembers the largest
// generation that was ever deleted, and the first grant of a lock that has no row continues above it.
//
// Why no first grant can miss it, and what that has to do with isolation levels, is in
// docs/adr/0009-pruning.md. In short:
//
//  1. The watermark is raised, and that is committed, before the row is deleted.
//  2. A statement that inserts a row has the watermark locked FOR SHARE until the commit. So raising it waits
//     for all who read it before. They have ended when the row is deleted, and found it there.
//  3. A statement that reads it afterwards is given the new value: FOR SHARE waits, and reads the newest
//     version, or fails with 40001 in the stricter levels.
//  4. A locking read finds no row that its snapshot doesn't show. So nothing is deleted until every
//     transaction has ended that was open when the row was made.

// WatermarkID is the id of the row that is the watermark.
const WatermarkID = "pglocker:watermark"

const (
	sqlWatermarkID = `'` + WatermarkID + `'`

	// sqlAboveOne and sqlAboveMany are the generation above the watermark, NULL where there is none.
	// They lock its row until the end of the transaction.
	sqlAboveOne = `(SELECT w.generation {+} 1
          FROM {table} AS w
         WHERE w.lock_id {=} ` + sqlWatermarkID + `
           FOR SHARE)`
	sqlAboveMany = `(SELECT w.above FROM w)`

	// sqlWatermark is read once for several requests.
	sqlWatermark = `w AS MATERIALIZED (
    SELECT w.generation {+} 1 AS above
      FROM {table} AS w
     WHERE w.lock_id {=} ` + sqlWatermarkID + `
       FOR SHARE
)`

	// sqlShyly keeps a statement from waiting for a lock for long, and its commit from waiting for the
	// disk: what comes later in the log brings it along.
	sqlShyly = `pg_catalog.set_config('lock_timeout', '50ms', true) AS patience,
               pg_catalog.set_config('synchronous_commit', 'off', true) AS lazy`

	// sqlMakeWatermark makes the watermark, with a generation that says that it isn't ready.
	sqlMakeWatermark = `
INSERT INTO {table} AS l (lock_id, generation, expires_at)
SELECT ` + sqlWatermarkID + `, 0, {now}
  FROM (SELECT ` + sqlShyly + ` OFFSET 0) AS c
ON CONFLICT DO NOTHING
RETURNING l.generation`

	// sqlReadWatermark has the primary answer.
	sqlReadWatermark = sqlPrimary + `
SELECT w.generation FROM {table} AS w WHERE w.lock_id {=} ` + sqlWatermarkID

	// sqlRaiseWatermark raises the watermark to $1, at least. It waits for all who have read it.
	sqlRaiseWatermark = `
UPDATE {table} AS l
   SET generation = greatest(l.generation, $1::bigint),
       expires_at = {now}
  FROM (SELECT ` + sqlShyly + ` OFFSET 0) AS c
 WHERE l.lock_id {=} ` + sqlWatermarkID + `
RETURNING l.generation`
)

// sqlOpenTransactions are the transactions of this database that are open now, but for this one and
// those of autovacuum, with their process. No privilege is needed to see them.
var sqlOpenTransactions = qualified(`
SELECT k.virtualxid, k.pid::bigint
  FROM pg_catalog.pg_locks AS k
  JOIN pg_catalog.pg_stat_activity AS p ON p.pid {=} k.pid
 WHERE k.locktype {=} 'virtualxid' AND k.granted
   AND k.mode {=} 'ExclusiveLock'
   AND k.pid {<>} pg_catalog.pg_backend_pid()
   AND p.datname {=} pg_catalog.current_database()
   AND p.usename IS NOT NULL`)

// openTransaction is one, by its virtual number, which no other has until the server restarts.
type openTransaction struct {
	number string
	pid    int64
}

func scanOpenTransaction(from scanner) (t openTransaction, err error) {
	err = from.Scan(&t.number, &t.pid)

	return t, err
}

// watermark returns the generation of the watermark. It makes its row if there is none, and returns
// when every first grant sees it.
func (p *pruning) watermark(ctx context.Context) (int64, error) {
	found, err := read(ctx, p.store, p.texts().readWatermark, nil, scanOne[int64])
	if err == nil && len(found) == 0 {
		if _, err = patiently(ctx, p.store, p.texts().makeWatermark, nil, scanOne[pgtype.Int8]); err == nil {
			found = []int64{0}
		}
	}

	if err != nil {
		return 0, err
	}

	if found[0] > 0 {
		return found[0], nil
	}

	// A statement that began before the row was there may not see it. It has begun its transaction.
	if err := p.store.awaitOthers(ctx); err != nil {
		return 0, err
	}

	return p.raise(ctx, 1)
}

// raise raises the watermark to a generation.
func (p *pruning) raise(ctx context.Context, to int64) (int64, error) {
	raised, err := patiently(ctx, p.store, p.texts().raiseWatermark, []any{to}, scanOne[int64])
	if err == nil && len(raised) == 0 {
		err = fmt.Errorf("pglocker: the row %q of %s was deleted", WatermarkID, p.store.table)
	}

	if err != nil {
		return 0, err
	}

	return raised[0], nil
}

// roundsUntilLogged take about two seconds.
const roundsUntilLogged = 16

// awaitOthers waits until the transactions of this database have ended that are open now.
func (s *Store) awaitOthers(ctx context.Context) error {
	waits, err := read(ctx, s, onPrimary(sqlOpenTransactions), nil, scanOpenTransaction)

	for n := 1; err == nil && len(waits) > 0; n++ {
		pids := strings.Join(valuesOf(waits, func(t *openTransaction) string { return fmt.Sprint("pid ", t.pid) }), ", ")

		if n == roundsUntilLogged {
			s.log.Info("pglocker: the first prune waits for the transactions that are open", "table", s.table.String(), "held_by", pids)
		}

		backOff(ctx, n) // if ctx has ended, the next look says so

		var open []openTransaction

		if open, err = read(ctx, s, onPrimary(sqlOpenTransactions), nil, scanOpenTransaction); err != nil {
			return fmt.Errorf("pglocker: the first prune of a table waits for the transactions that were open when it began (%s): %w",
				pids, err)
		}

		waits = slices.DeleteFunc(waits, func(t openTransaction) bool { return !slices.Contains(open, t) })
	}

	return err
}
