package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgtype"
)

// sqlPlainTable are the columns of the table $2 of the schema $1, where the server refuses sqlTable. It says
// nothing of unique indexes, policies and rules.
var sqlPlainTable = qualified(`
SELECT c.column_name::{text}, c.data_type::{text}
  FROM information_schema.columns AS c
 WHERE c.table_schema::{text} {=} $1::{text}
   AND c.table_name::{text} {=} $2::{text}`)

// plainTypes are types by their names in the standard. Others can't hold locks.
var plainTypes = map[string]int64{
	"text": pgtype.TextOID, "character varying": pgtype.VarcharOID, "bigint": pgtype.Int8OID,
	"timestamp with time zone": pgtype.TimestamptzOID,
}

// plainDescription is what sqlPlainTable says. It takes it that lock_id is the primary key: without one, ON
// CONFLICT would insert a lock twice.
func (s *Store) plainDescription(ctx context.Context) (description, error) {
	var d description

	columns, err := read(ctx, s, sqlPlainTable, []any{s.table.Schema, s.table.Name}, func(from scanner) (c column, err error) {
		err = from.Scan(&c.name, &c.kind)
		c.base, c.oid, c.typmod, c.unique = c.kind, plainTypes[c.kind], -1, c.name == "lock_id"

		return c, err
	})

	d.table = len(columns) > 0

	return d.with(columns), err
}
