package store

import (
	"context"
	"fmt"
)

// identity is how the table tells one lock_id from another, and what may refer to it.
type identity struct {
	// equal is the operator that the unique index compares by, as SQL: that of text, unless
	// the index has an operator class of another schema.
	equal string
	// kind is the type that it compares, quoted and with its schema.
	kind string
	// keyed: a unique index, to which a foreign key may refer, has other columns than
	// lock_id; expiryKeyed: it has expires_at.
	keyed, expiryKeyed bool
	// datesOdd: the role's DateStyle is one that drivers can't read where times come as text.
	// pgx takes times as text when statements have no names, as behind a pooler.
	datesOdd bool
}

// textIdentity is that of a lock_id that is text.
var textIdentity = identity{equal: "OPERATOR(pg_catalog.=)", kind: "pg_catalog.text"}

// rowLock is what a batch locks its rows by. A foreign key that refers to a row doesn't conflict
// with FOR NO KEY UPDATE, nor with an UPDATE of columns that no foreign key can refer to. An
// UPDATE of other columns needs FOR UPDATE. With a weaker row lock it would wait for the row.
func rowLock(keyed bool) string {
	if keyed {
		return "FOR UPDATE"
	}

	return "FOR NO KEY UPDATE"
}

// sqlIdentity finds the [identity] of the table $1: the operator = (number 3 of
// every btree's operator family) of a unique index on lock_id, the primary key's first.
var sqlIdentity = qualified(`
SELECT pg_catalog.quote_ident(s.nspname), o.oprname::{text},
       pg_catalog.quote_ident(ts.nspname), pg_catalog.quote_ident(t.typname),
       EXISTS (SELECT
                 FROM pg_catalog.pg_index AS i
                WHERE i.indrelid {=} a.attrelid
                  AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
                  AND NOT (i.indnkeyatts {=} 1 AND i.indkey[0] {=} a.attnum)),
       EXISTS (SELECT
                 FROM pg_catalog.pg_index AS i
                 JOIN pg_catalog.pg_attribute AS e ON e.attrelid {=} i.indrelid AND e.attname {=} 'expires_at'
                WHERE i.indrelid {=} a.attrelid
                  AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
                  AND e.attnum {=} ANY (i.indkey)),
       pg_catalog.substr(pg_catalog.current_setting('DateStyle'), 1, 3) {<>} 'ISO'
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_index AS i ON i.indrelid {=} a.attrelid
  JOIN pg_catalog.pg_opclass AS c ON c.oid {=} i.indclass[0]
  JOIN pg_catalog.pg_amop AS m ON m.amopfamily {=} c.opcfamily
   AND m.amoplefttype {=} c.opcintype AND m.amoprighttype {=} c.opcintype AND m.amopstrategy {=} 3
  JOIN pg_catalog.pg_operator AS o ON o.oid {=} m.amopopr
  JOIN pg_catalog.pg_namespace AS s ON s.oid {=} o.oprnamespace
  JOIN pg_catalog.pg_type AS t ON t.oid {=} c.opcintype
  JOIN pg_catalog.pg_namespace AS ts ON ts.oid {=} t.typnamespace
 WHERE a.attrelid {=} pg_catalog.to_regclass($1::{text})
   AND a.attname {=} 'lock_id'
   AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
   AND i.indnkeyatts {=} 1 AND i.indkey[0] {=} a.attnum
 ORDER BY i.indisprimary DESC, i.indexrelid
 LIMIT 1`)

// identify looks the identity up. The table has a unique index on lock_id.
func (s *Store) identify(ctx context.Context) (identity, error) {
	found, err := read(ctx, s, onPrimary(sqlIdentity), []any{s.table.String()}, func(from scanner) (id identity, err error) {
		var schema, operator, kindSchema, kind string

		err = from.Scan(&schema, &operator, &kindSchema, &kind, &id.keyed, &id.expiryKeyed, &id.datesOdd)
		id.equal = "OPERATOR(" + schema + "." + operator + ")"
		id.kind = kindSchema + "." + kind

		return id, err
	})
	if err != nil {
		return identity{}, fmt.Errorf("pglocker: looking up how %s compares ids: %w", s.table, err)
	}

	return append(found, textIdentity)[0], nil
}
