package store

import "strings"

// PostgreSQL looks a name up in every schema of the search_path. It picks an operator by the
// types of its operands: it has no bigint * interval, only casts that lead to one. A role that
// may create in a schema of the search_path can make that operator, which is then called
// instead, as the Locker's role. So every name in a statement has its schema.

// qualified writes PostgreSQL's own operators, types and functions into a text.
var qualified = strings.NewReplacer(func() (pairs []string) {
	for _, op := range []string{"=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "||", "|", "<<"} {
		pairs = append(pairs, "{"+op+"}", "OPERATOR(pg_catalog."+op+")")
	}

	return append(pairs,
		"{now}", "pg_catalog.clock_timestamp()",
		"{began}", "pg_catalog.statement_timestamp()",
		"{us}", "interval '1 microsecond'", // a type by a keyword is always PostgreSQL's own, as bigint is
		"{text}", "pg_catalog.text",
		"{timestamptz}", "pg_catalog.timestamptz",
		"{walfile}", "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())",
	)
}()...).Replace

// onPrimary has a reading statement answered by the primary, where a pooler sends reads to
// standbys, which may lag. It locks nothing, but poolers go by the words FOR UPDATE. Unlike a
// statement with sqlPrimary, it works on a standby, and for a table that isn't there.
func onPrimary(text string) string {
	return "WITH found AS MATERIALIZED (" + text + ")\nSELECT * FROM found FOR UPDATE"
}
