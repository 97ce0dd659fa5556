package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// pruneBatch is how many rows one statement reads, and deletes at most: what bounds for how long it has
// them locked.
const pruneBatch = 1000

const (
	// sqlIdle is a row that may be deleted: of a lock or an election, free for $2 microseconds at least,
	// and without a waiter. The number of a semaphore's slots, or a read-write lock's, is found by
	// walking along them, so those stay. {at} is the database's clock.
	sqlIdle = `(NOT pg_catalog.starts_with(l.lock_id, 'pglocker:')
            OR pg_catalog.starts_with(l.lock_id, 'pglocker:election:'))
       AND l.expires_at {<=} ({at} {-} ($2::bigint {*} {us})){six}
       AND (l.contended_until IS NULL OR l.contended_until {<=} {at}){end}`

	// sqlIdlePage reads the rows behind the id $1, in the order of the index. It returns those that are
	// idle, and the last. It locks nothing, and decides nothing.
	sqlIdlePage = `
WITH c AS MATERIALIZED (SELECT {now} AS now), page AS MATERIALIZED (
    SELECT l.lock_id, l.generation, coalesce({idle}, false) AS idle
      FROM {table} AS l
     WHERE l.lock_id {>} $1::{text}
     ORDER BY l.lock_id
     LIMIT $3::bigint
)
SELECT l.lock_id, l.generation, l.idle
  FROM page AS l
 WHERE l.idle
    OR l.lock_id {=} (SELECT pg_catalog.max(l.lock_id) FROM page AS l)
 ORDER BY l.lock_id`

	// sqlPrune: free -> no row, for the ids $1 that are idle still, up to the generation $3, which the
	// watermark has reached. It passes over locked rows, among them those that a guarded transaction or
	// a foreign key shares. A crash that undoes it brings the rows back.
	sqlPrune = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, ` + sqlShyly + `
), found AS MATERIALIZED (
    SELECT l.part, l.row_version
      FROM c, pg_catalog.unnest((SELECT $1::{text}[])) AS r (lock_id),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {=} r.lock_id
                       AND l.generation {<=} $3::bigint
                       AND {idle}
                       FOR UPDATE SKIP LOCKED) AS l
)
DELETE FROM {table} AS l
 USING found AS r
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING l.generation`
)

// pruneTexts are the statements of a prune.
type pruneTexts struct{ makeWatermark, readWatermark, raiseWatermark, page, prune string }

func (w writer) pruning() pruneTexts {
	idle := func(text, clock string) string { return w.one(nil, with(text, "{idle}", with(sqlIdle, "{at}", clock))) }

	return pruneTexts{
		makeWatermark:  w.one(nil, sqlMakeWatermark),
		readWatermark:  w.one(nil, sqlReadWatermark),
		raiseWatermark: w.one(nil, sqlRaiseWatermark),
		page:           idle(sqlIdlePage, "(SELECT c.now FROM c)"),
		prune:          idle(sqlPrune, "c.now"),
	}
}

// sqlMayPrune says whether this role may delete rows of the table $2 of the schema $1, how it may, and
// whether the rows of other roles may be hidden from it, or the watermark from them.
var sqlMayPrune = qualified(`
SELECT pg_catalog.has_table_privilege(c.oid, 'DELETE'),
       pg_catalog.format('GRANT DELETE ON %I.%I TO %I', n.nspname, c.relname, CURRENT_USER),
       c.relrowsecurity
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
 WHERE n.nspname {=} ($1::{text})::pg_catalog.name
   AND c.relname {=} ($2::{text})::pg_catalog.name`)

type mayPrune struct {
	granted bool
	mend    string
	secured bool
}

// pruning is one call of [Store.Prune].
type pruning struct {
	store *Store
	shape *shape
	idle  int64 // microseconds
	batch int64
	// mark is what the watermark has reached.
	mark int64
}

func (p *pruning) texts() pruneTexts { return p.shape.statements.prune() }

// Prune deletes rows that have been idle for a time, and returns how many, also beside an error.
func (s *Store) Prune(ctx context.Context, idle time.Duration) (removed int64, err error) {
	sh, err := s.probedShape(ctx)
	if err != nil {
		return 0, err
	}

	if sh.plain {
		return 0, s.unsupported("there is no pruning")
	}

	p := &pruning{store: s.planningAnew(), shape: sh, idle: Microseconds(idle), batch: pruneBatch}

	if err = p.permitted(ctx); err == nil {
		p.mark, err = p.watermark(ctx)
	}

	for after := ""; err == nil; {
		var page []idleRow

		page, err = read(ctx, p.store, p.texts().page, []any{after, p.idle, p.batch}, scanIdleRow)
		if err != nil || len(page) == 0 {
			break
		}

		after = page[len(page)-1].id

		var n int64

		n, err = p.prunePage(ctx, page)
		removed += n
	}

	return removed, err
}

func (p *pruning) permitted(ctx context.Context) error {
	s := p.store

	may, err := read(ctx, s, onPrimary(sqlMayPrune), []any{s.table.Schema, s.table.Name}, func(from scanner) (m mayPrune, err error) {
		err = from.Scan(&m.granted, &m.mend, &m.secured)

		return m, err
	})

	switch {
	case err != nil:
		return err
	case len(may) == 0:
		return s.tableNotFound()
	case !may[0].granted:
		return fmt.Errorf("%w: the role lacks for %s: DELETE on the table (%s)", ErrPermissionDenied, s.table, may[0].mend)
	case may[0].secured:
		return fmt.Errorf("%w: %s has row-level security, which may hide the row %q from roles that take locks: "+
			"their tokens would start again", ErrPermissionDenied, s.table, WatermarkID)
	}

	return nil
}

// idleRow is a row of a page.
type idleRow struct {
	id         string
	generation int64
	idle       bool
}

func scanIdleRow(from scanner) (r idleRow, err error) {
	err = from.Scan(&r.id, &r.generation, &r.idle)

	return r, err
}

// prunePage raises the watermark to the generations of the idle rows, and deletes these.
func (p *pruning) prunePage(ctx context.Context, page []idleRow) (removed int64, err error) {
	var (
		ids  []string
		most int64
	)

	for _, r := range page {
		if r.idle {
			ids, most = append(ids, r.id), max(most, r.generation)
		}
	}

	if most > p.mark {
		if p.mark, err = p.raise(ctx, most); err != nil {
			return 0, err
		}
	}

	return p.remove(ctx, ids)
}

// remove deletes rows. One that the table doesn't let go, such as one that a foreign key refers to, stays,
// and keeps no other from being deleted.
func (p *pruning) remove(ctx context.Context, ids []string) (removed int64, err error) {
	if len(ids) == 0 {
		return 0, nil
	}

	rows, err := again(ctx, func() ([]int64, error) {
		return read(ctx, p.store, p.texts().prune, []any{ids, p.idle, p.mark}, scanOne[int64])
	}, retriable)

	kept := hasState(err, "23", codeLockNotAvailable)

	switch {
	case err == nil:
		return int64(len(rows)), nil
	case !kept || ctx.Err() != nil:
		return 0, err
	case len(ids) == 1:
		return 0, nil
	}

	half := len(ids) / 2
	if removed, err = p.remove(ctx, ids[:half]); err == nil {
		var more int64

		more, err = p.remove(ctx, ids[half:])
		removed += more
	}

	return removed, err
}

// patiently runs a statement that may be run again, until others let it.
func patiently[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) ([]T, error) {
	return again(ctx, func() ([]T, error) { return read(ctx, s, text, args, scan) },
		func(err error) bool { return retriable(err) || hasState(err, codeLockNotAvailable) })
}

// again repeats what was refused for the sake of others, until ctx ends.
func again[T any](ctx context.Context, try func() ([]T, error), passing func(error) bool) ([]T, error) {
	for n := 1; ; n++ {
		rows, err := try()
		if err == nil || !passing(err) || !backOff(ctx, n) {
			return rows, withContext(ctx, err)
		}
	}
}

// planningAnew is the Store for statements that read many rows: they are planned each time, for the table as it
// is. Pages need an order that an index has, and plans that were made for an empty table sort.
func (s *Store) planningAnew() *Store {
	on := *s
	on.unnamed = new(atomic.Bool)
	on.unnamed.Store(true)

	return &on
}
