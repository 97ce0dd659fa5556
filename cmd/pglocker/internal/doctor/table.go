package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/ismurov/pglocker"
)

// checkTable has the library look at the table, as the first use does, and names what the library accepts and what
// makes locks slow, or is the owner's own doing.
func checkTable(ctx context.Context, p *patient, result *Check) error {
	if p.oid == 0 {
		result.seen("%s isn't there", p.table)
		result.find(Error, "no-table", "There is no table "+p.table+" in the database "+p.database+".",
			"No lock can be taken: ErrTableNotFound. Is it another database, schema or table?",
			"pglocker migrate  # or MigrateDB, or --schema and --table")

		return nil
	}

	if p.locked {
		result.skip("another transaction has the table locked")

		return nil
	}

	result.seen("%s, six columns", p.table)

	if !p.owners {
		result.seen("%s, three columns", p.table)
		result.note("On three columns locks work. Nobody sees who holds one, waiters poll, and a grant whose reply was lost expires.")
	}

	if err := findUnfit(ctx, p, result); err != nil {
		return err
	}

	if p.partitioned {
		result.note("The table is partitioned. That works; set the storage parameters of each partition.")
	}

	for _, find := range []func(context.Context, *patient, *Check) error{findIndexes, findTriggers, findOthers} {
		if err := find(ctx, p, result); err != nil {
			return err
		}
	}

	return nil
}

// probed is an answer of the library, which may be nil.
type probed struct{ err error }

// probe looks at a lock as programs do, once. It finds what the library refuses.
func (p *patient) probe(ctx context.Context) error {
	if p.probed != nil {
		return p.probed.err
	}

	err := p.library(func(db *sql.DB, cfg *pglocker.Config) error {
		locker, err := pglocker.New(db, cfg)
		if err != nil {
			return err
		}

		_, err = locker.GetLockStatus(ctx, "doctor")

		return errors.Join(err, locker.Close(ctx))
	})
	if errors.Is(err, pglocker.ErrLockNotFound) {
		err = nil
	}

	p.probed = &probed{err}

	return err
}

func findUnfit(ctx context.Context, p *patient, result *Check) error {
	err := p.probe(ctx)

	switch {
	case err == nil, errors.Is(err, pglocker.ErrPermissionDenied): // which another check looks at
		return nil
	case !errors.Is(err, pglocker.ErrInvalidTable):
		return err
	}

	mends, mendErr := readList(ctx, p, sqlUnfitMends, p.oid, p.table)
	if len(mends) == 0 {
		mends = []string{"-- See docs/server.md, The table."}
	}

	seen := strings.TrimPrefix(oneLine(err.Error()), "pglocker: ")
	result.seen("%s can't hold locks", p.table)
	result.find(Error, "invalid-table", seen+".", "The table is refused: on it a lock could be granted twice, or never be free again.",
		strings.Join(mends, "\n"))

	return mendErr
}

// sqlUnfitMends writes statements that make the table $1, whose quoted name is $2, fit to hold locks.
const sqlUnfitMends = parts + `
SELECT format('ALTER TABLE %s SET LOGGED;', c.oid::regclass)
  FROM part JOIN pg_class AS c USING (oid) WHERE c.relpersistence = 'u'
 UNION ALL
SELECT format('ALTER TABLE %s NO INHERIT %s;', i.inhrelid::regclass, $2::text)
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhparent WHERE c.oid = $1 AND c.relkind = 'r'
 UNION ALL
SELECT format('DROP RULE %I ON %s;', r.rulename, $2::text)
  FROM pg_rewrite AS r WHERE r.ev_class = $1 AND r.ev_type IN ('2', '3') AND r.ev_enabled <> 'D'
 UNION ALL
SELECT format('ALTER TABLE %s ALTER COLUMN %I TYPE %s%s;', $2::text, w.name, w.type, w.collated)
  FROM (VALUES ('lock_id', 'text', ' COLLATE pg_catalog."C"'), ('generation', 'bigint', ''),
               ('expires_at', 'timestamp with time zone', ''), ('owner', 'text', ' COLLATE pg_catalog."C"'),
               ('acquired_at', 'timestamp with time zone', ''),
               ('contended_until', 'timestamp with time zone', '')) AS w (name, type, collated)
  JOIN pg_attribute AS a ON a.attrelid = $1 AND a.attname = w.name AND NOT a.attisdropped
  LEFT JOIN pg_collation AS o ON o.oid = a.attcollation
 WHERE format_type(a.atttypid, a.atttypmod) NOT IN (w.type, w.type || '(6)', 'timestamp(6) with time zone')
   AND (w.type <> 'text' OR w.name = 'owner' OR a.atttypid <> 'varchar'::regtype)
    OR NOT coalesce(o.collisdeterministic, true)
 UNION ALL
SELECT format('ALTER TABLE %s ADD COLUMN %I %s NOT NULL;', $2::text, w.name, w.type)
  FROM (VALUES ('generation', 'bigint'), ('expires_at', 'timestamp with time zone')) AS w (name, type)
 WHERE NOT EXISTS (SELECT FROM pg_attribute AS a
                    WHERE a.attrelid = $1 AND a.attname = w.name AND NOT a.attisdropped)
 UNION ALL
SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL;', $2::text, a.attname)
  FROM pg_attribute AS a
 WHERE a.attrelid = $1 AND a.attname IN ('owner', 'acquired_at', 'contended_until') AND a.attnotnull AND NOT a.attisdropped
 UNION ALL
SELECT format('DROP INDEX %s;', i.indexrelid::regclass)
  FROM pg_index AS i
 WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion)
   AND NOT EXISTS (SELECT FROM pg_attribute AS a
                    WHERE a.attrelid = $1 AND a.attname = 'lock_id' AND a.attnum = ANY (i.indkey::int2[]))
 UNION ALL
SELECT format('ALTER TABLE %s ADD PRIMARY KEY (lock_id);', $2::text)
 WHERE NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                      AND i.indnkeyatts = 1 AND a.attname = 'lock_id')`

// sqlIndexes lists indexes on a column that a grant, a renewal or a release changes, also in an expression or a
// condition. Since PostgreSQL 16 a BRIN index is no obstacle.
const sqlIndexes = parts + `
SELECT i.indexrelid::regclass::text
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
 WHERE i.indrelid IN (SELECT oid FROM part)
   AND NOT c.relispartition
   AND NOT (m.amname = 'brin' AND current_setting('server_version_num')::int >= 160000)
   AND EXISTS (SELECT
                 FROM pg_attribute AS a
                WHERE a.attrelid = i.indrelid
                  AND a.attname IN ('generation', 'expires_at', 'owner', 'acquired_at', 'contended_until')
                  AND (a.attnum = ANY (i.indkey::int2[])
                       OR EXISTS (SELECT FROM pg_depend AS d
                                   WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                                     AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                                     AND d.refobjsubid = a.attnum)))
 ORDER BY 1`

func findIndexes(ctx context.Context, p *patient, result *Check) error {
	indexes, err := readList(ctx, p, sqlIndexes, p.oid)

	for _, index := range indexes {
		result.find(Warning, "index", "The index "+index+" has a column that grants and renewals change.",
			"No update is HOT any more: each writes to all indexes, and the table and its indexes grow.",
			"DROP INDEX CONCURRENTLY "+index+";")
	}

	return err
}

// sqlTriggers lists triggers that aren't of the history, and not of foreign keys.
const sqlTriggers = `
SELECT quote_ident(t.tgname), t.tgfoid::regproc::text
  FROM pg_trigger AS t
 WHERE t.tgrelid = $1::oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname NOT LIKE 'pglocker\_history\_%'
 ORDER BY 1`

func findTriggers(ctx context.Context, p *patient, result *Check) error {
	type trigger struct{ Name, Function string }

	triggers, err := readRows[trigger](ctx, p, sqlTriggers, p.oid)

	for _, t := range triggers {
		result.find(Warning, "trigger", fmt.Sprintf("The trigger %s calls %s for changes of locks.", t.Name, t.Function),
			"It runs with the privileges of every role that takes locks. It can refuse a grant or a renewal, shorten leases, and "+
				"makes each slower.", fmt.Sprintf("DROP TRIGGER %s ON %s;", t.Name, p.table))
	}

	return err
}

// sqlOthers says whether row-level security is on, and the collation of the column lock_id.
const sqlOthers = `
SELECT c.relrowsecurity,
       coalesce((SELECT o.collname::text FROM pg_attribute AS a JOIN pg_collation AS o ON o.oid = a.attcollation
                  WHERE a.attrelid = c.oid AND a.attname = 'lock_id'), '')
  FROM pg_class AS c WHERE c.oid = $1::oid`

func findOthers(ctx context.Context, p *patient, result *Check) error {
	type others struct {
		Secured   bool
		Collation string
	}

	o, err := readRow[others](ctx, p, sqlOthers, p.oid)
	if err != nil {
		return err
	}

	if o.Secured {
		result.find(Warning, "row-security", "The table has row-level security.",
			"A policy can hide locks from a role, and Prune is refused. Each role needs policies for SELECT, INSERT and UPDATE.",
			fmt.Sprintf("ALTER TABLE %s DISABLE ROW LEVEL SECURITY;", p.table))
	}

	if o.Collation != "C" && o.Collation != "POSIX" && o.Collation != "" {
		result.note("The column lock_id has the collation %q and not C: listing by a prefix reads the whole table.", o.Collation)
	}

	return nil
}

// checkMigrations asks the library what MigrateDB would do.
func checkMigrations(ctx context.Context, p *patient, result *Check) error {
	var pending []string

	err := p.library(func(db *sql.DB, cfg *pglocker.Config) (err error) {
		pending, err = pglocker.PendingMigrations(ctx, db, cfg)

		return err
	})

	switch {
	case errors.Is(err, pglocker.ErrInvalidTable):
		result.skip("the table can't hold locks")

		return nil
	case err != nil:
		return err
	case len(pending) == 0:
		result.seen("columns, storage and functions are those of this version")

		return nil
	}

	var mends []string

	for _, statement := range pending {
		line, rest, _ := strings.Cut(statement, "\n")
		if rest != "" {
			line += " ..."
		}

		mends = append(mends, "--   "+line)
	}

	result.seen("%s pending", many(int64(len(pending)), "statement"))
	result.find(Warning, "migrations", fmt.Sprintf("The schema is older than this pglocker: %s pending.", many(int64(len(pending)), "statement")),
		"Locks work. What the missing parts are for doesn't: owners, waiting without polling, storage that stays small, or SQL clients.",
		"pglocker migrate  # as the table's owner; or MigrateDB. Afterwards restart the programs that use the table. It runs:\n"+
			strings.Join(mends, "\n"))

	return nil
}

// historyName is the name of the table's history.
func (p *patient) historyName() string {
	if p.name == pglocker.DefaultTable {
		return "lock_history"
	}

	return p.name + "_history"
}

// sqlHistory says whether there is a history $3 in the schema $2, how many of its triggers are on, and its size.
const sqlHistory = `
SELECT h.oid IS NOT NULL,
       (SELECT count(*) FROM pg_trigger AS t
         WHERE t.tgrelid = $1::oid AND t.tgname LIKE 'pglocker\_history\_%' AND t.tgenabled IN ('O', 'A'))
  FROM (SELECT) AS one
  LEFT JOIN pg_class AS h ON h.relname = $3::text::name AND h.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2::text::name)`

func checkHistory(ctx context.Context, p *patient, result *Check) error {
	type history struct {
		There    bool
		Triggers int64
	}

	const triggers = 3

	h, err := readRow[history](ctx, p, sqlHistory, p.oid, p.schema, p.historyName())
	if err != nil {
		return err
	}

	switch {
	case !h.There && h.Triggers == 0 && p.managed:
		result.seen("none: Citus takes no triggers on the table")
	case !h.There && h.Triggers == 0:
		result.seen("none; `pglocker migrate --history` makes one")
	case !h.There:
		result.seen("its table is gone, and its triggers are not")
		result.find(Error, "history", fmt.Sprintf("The history %s was dropped, and its triggers were not.", p.history),
			"Every grant and release fails.", fmt.Sprintf("DROP FUNCTION %s() CASCADE;  -- or pglocker migrate --history", p.history))
	case h.Triggers < triggers:
		result.seen("%d of %d triggers are on", h.Triggers, triggers)
		result.find(Warning, "history", fmt.Sprintf("Only %d of %d triggers of the history are on.", h.Triggers, triggers),
			"What happens to locks isn't written down.",
			fmt.Sprintf("ALTER TABLE %s ENABLE TRIGGER USER;  -- or pglocker migrate --history, if they are gone", p.table))
	default:
		result.seen("%s, written", p.history)
	}

	return nil
}
