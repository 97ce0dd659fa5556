package store

// PostgreSQL looks a name up in every schema of the search_path, and picks an operator by the types
// of its operands. It has no bigint * interval: another role could make that operator in a schema
// of the search_path, and have it called as the Locker's role. So every name has its schema. For
// IN, BETWEEN, LIKE, CASE x WHEN and IS DISTINCT FROM there is no such spelling, so no text has
// them. Operators bind alike, from the left: hence the parentheses.

// qualified writes PostgreSQL's own operators, types and functions into a text.
func qualified(text string) string { return with(text, ofPostgres...) }

var ofPostgres = func() (pairs []string) {
	for _, op := range []string{"=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "||", "|", "<<", "~", "->>"} {
		pairs = append(pairs, "{"+op+"}", "OPERATOR(pg_catalog."+op+")")
	}

	return append(pairs,
		"{now}", "pg_catalog.clock_timestamp()",
		"{began}", "pg_catalog.statement_timestamp()",
		"{us}", "interval '1 microsecond'", // a type by a keyword is always PostgreSQL's own, as bigint is
		"{text}", "pg_catalog.text",
		"{tid}", "pg_catalog.tid",
		"{timestamptz}", "pg_catalog.timestamptz",
		"{walfile}", "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())",
	)
}()

// onPrimary has the primary answer a statement that reads. Poolers go by the words FOR UPDATE. It
// locks nothing. Unlike sqlPrimary, it works on a standby, and for a table that isn't there.
func onPrimary(text string) string {
	return "WITH found AS MATERIALIZED (" + text + ")\nSELECT * FROM found FOR UPDATE"
}
