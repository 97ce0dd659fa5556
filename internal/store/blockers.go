package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// blocker is a transaction that holds a lock on something.
type blocker struct {
	// pid is its server process, 0 if it is a prepared transaction, which has none and holds its
	// locks until somebody ends it.
	pid         int64
	application string // application_name
	// query is what the process runs or ran last, as far as this role may see it. It is empty
	// for a prepared transaction.
	query string
	// prepared is the prepared transaction's name in pg_prepared_xacts.
	prepared string
}

func (b blocker) String() string {
	if b.pid == 0 {
		return fmt.Sprintf("the prepared transaction %s (see pg_prepared_xacts; ROLLBACK PREPARED ends it)", quoteLiteral(b.prepared)[1:])
	}

	text := fmt.Sprintf("pid %d", b.pid)
	if b.application != "" {
		text += fmt.Sprintf(" (%s)", b.application)
	}

	if b.query != "" && b.query != "<insufficient privilege>" {
		text += fmt.Sprintf(": %q", b.query)
	}

	return text
}

// sqlBlockers lists who holds the locks of pg_locks (k) that {what} chooses, but this session.
// A lock of a prepared transaction has no pid. The transaction also has a lock on its own number
// (own), by which its name is found. Everything is qualified, see sqlTable.
const sqlBlockers = `
SELECT DISTINCT coalesce(k.pid, 0)::pg_catalog.int8,
       coalesce(p.application_name, ''),
       coalesce(pg_catalog."left"(p.query, 100), ''),
       coalesce(x.gid, '')
  FROM pg_catalog.pg_locks AS k
  LEFT JOIN pg_catalog.pg_stat_activity AS p ON p.pid OPERATOR(pg_catalog.=) k.pid
  LEFT JOIN pg_catalog.pg_locks AS own
    ON k.pid IS NULL AND own.pid IS NULL AND own.granted
   AND own.locktype OPERATOR(pg_catalog.=) 'transactionid'
   AND own.virtualtransaction OPERATOR(pg_catalog.=) k.virtualtransaction
  LEFT JOIN pg_catalog.pg_prepared_xacts AS x ON x.transaction OPERATOR(pg_catalog.=) own.transactionid
 WHERE k.granted
   AND k.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
                                           WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
   AND coalesce(k.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid(), true)
   AND ({what})`

const (
	// sqlLocksOfTable are locks on the table $2 of the schema $1, of any strength.
	sqlLocksOfTable = `k.locktype OPERATOR(pg_catalog.=) 'relation'
   AND k.relation OPERATOR(pg_catalog.=) (SELECT c.oid
                                            FROM pg_catalog.pg_class AS c
                                            JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                                           WHERE n.nspname OPERATOR(pg_catalog.=) ($1::pg_catalog.text)::pg_catalog.name
                                             AND c.relname OPERATOR(pg_catalog.=) ($2::pg_catalog.text)::pg_catalog.name)`

	// sqlLocksOfKey are those on the advisory lock of the key $1.
	sqlLocksOfKey = `k.locktype OPERATOR(pg_catalog.=) 'advisory' AND k.objsubid OPERATOR(pg_catalog.=) 1
   AND ((k.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) k.objid::pg_catalog.int8)
       OPERATOR(pg_catalog.=) $1::pg_catalog.int8`
)

func blockersOf(what string) string { return strings.ReplaceAll(sqlBlockers, "{what}", what) }

// blockers asks who holds the locks that a condition on pg_locks chooses. It asks once.
func (s *Store) blockers(ctx context.Context, what string, args []any) ([]blocker, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()

	a := ask(ctx, s, blockersOf(what), args, func(from scanner) (b blocker, err error) {
		err = from.Scan(&b.pid, &b.application, &b.query, &b.prepared)

		return b, err
	})

	return a.rows, a.err
}

// logEvery is how often a migration that goes on waiting says so.
const logEvery = time.Minute

// migrationWait is what a migration is waiting for, and says it.
type migrationWait struct {
	store *Store
	log   *slog.Logger
	since time.Time

	logged   time.Time // zero: never
	waitsFor string
	heldBy   string
}

// note looks up which transactions are in the way, and logs them the first time and then every
// logEvery. When ctx has ended, it looks only if it never did.
func (w *migrationWait) note(ctx context.Context, waitsFor string) {
	if waitsFor == "" || ctx.Err() != nil && w.waitsFor != "" {
		return
	}

	what, args := sqlLocksOfTable, []any{w.store.table.Schema, w.store.table.Name}
	if waitsFor == otherMigration {
		what, args = sqlLocksOfKey, []any{int64(migrationLock)}
	}

	found, err := w.store.blockers(context.WithoutCancel(ctx), what, args)

	w.waitsFor, w.heldBy = waitsFor, "another transaction"

	if err == nil && len(found) > 0 {
		texts := make([]string, len(found))
		for i, b := range found {
			texts[i] = b.String()
		}

		w.heldBy = strings.Join(texts, ", ")
	}

	if w.log == nil || ctx.Err() != nil || !w.logged.IsZero() && time.Since(w.logged) < logEvery {
		return
	}

	w.logged = time.Now()
	w.log.LogAttrs(ctx, slog.LevelWarn, "pglocker: the migration waits, and tries again",
		slog.String("table", w.store.table.String()), slog.String("waits_for", waitsFor),
		slog.String("held_by", w.heldBy), slog.Duration("waited", time.Since(w.since)))
}

// explain adds to an error of a migration what it was waiting for.
func (w *migrationWait) explain(err error) error {
	if w.waitsFor == "" {
		return err
	}

	return fmt.Errorf("it waited for %s, held by %s: %w", w.waitsFor, w.heldBy, err)
}
