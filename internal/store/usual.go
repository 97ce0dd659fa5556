package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgtype"
)

// sqlUsual describes the table $1, a quoted name, in a row for each pair of a column and an index. It calls no index
// unique of a table that may need the whole of sqlTable. On a new connection it takes less than a quarter of the time of
// sqlTable and sqlTimeline, since a server that meets a catalog, an operator or a function for the first time reads up on
// it. So to_regclass finds the table: it needs no plan, nor pg_namespace. It refuses a role that may not use the schema,
// and lookUp tells the rest.
var sqlUsual = qualified(`
SELECT a.attname::{text},
       a.atttypid::pg_catalog.int8,
       a.atttypmod,
       a.attnotnull,
       a.attidentity {=} 'a' OR a.attgenerated {<>} '',
       a.attcollation::pg_catalog.int8,
       i.indkey[0] {=} a.attnum
       AND i.indisunique AND i.indisvalid AND i.indimmediate
       AND i.indpred IS NULL
       AND i.indnkeyatts {=} 1
       AND c.relkind {=} 'r' AND c.relpersistence {=} 'p'
       AND NOT c.relhassubclass AND NOT c.relhasrules AND NOT c.relrowsecurity,
       i.indclass[0]::pg_catalog.int8,
       i.indcollation[0]::pg_catalog.int8,
       pg_catalog.substr(pg_catalog.current_setting('DateStyle'), 1, 3) {<>} 'ISO',
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN ` + sqlFloor + ` END AS floor
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid {=} c.oid
  JOIN pg_catalog.pg_index AS i ON i.indrelid {=} c.oid
 WHERE a.attnum {>} 0 AND NOT a.attisdropped
   AND c.oid {=} pg_catalog.to_regclass($1::{text})::pg_catalog.oid`)

// usual returns the form of a table that has one index, that on the id, and nothing else that is special, on a server
// that tells its timeline. Otherwise, and if the request fails, it is false: lookUp finds out why, unless ctx has ended.
func (s *Store) usual(ctx context.Context) (f form, ok bool, err error) {
	d := description{schema: true, table: true}
	a := ask(ctx, s, onPrimary(sqlUsual), []any{s.table.String()}, d.scanUsual)

	if a.err != nil && ctx.Err() != nil {
		return f, false, s.lookingFailed(withContext(ctx, a.err))
	}

	// With a second index each column has two rows.
	if a.err != nil || len(d.with(a.rows).columns) != len(a.rows) || s.usable(d) != nil {
		return f, false, nil
	}

	return d.form(true), true, nil
}

// scanUsual reads one row of sqlUsual.
func (d *description) scanUsual(from scanner) (c column, err error) {
	var (
		collation, indexCollation, class int64
		floor                            pgtype.Int8
	)

	err = from.Scan(&c.name, &c.oid, &c.typmod, &c.notNull, &c.generated, &collation, &c.unique, &class, &indexCollation,
		&d.datesOdd, &floor)

	c.coarse = !plainCollation(collation)
	c.unique = c.unique && plainCollation(indexCollation) && class < firstOwnOID

	return c, err
}

// firstOwnOID is the least that a database gives to what its users create.
const firstOwnOID = 16384

// plainCollation reports whether the collation is none, the database's default, or "C". These are deterministic.
func plainCollation(oid int64) bool { return oid == 0 || oid == 100 || oid == 950 }
