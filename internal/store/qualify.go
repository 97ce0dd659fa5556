package store

import "strings"

// What a name means is decided by the search_path, by every schema in it and, for
// operators, by the types of what they stand between: PostgreSQL has no bigint * interval,
// only casts that lead to one, and anybody who may create in a schema of the search_path may
// make one that is called instead, as the locker's role. So nothing is left to a name alone.

// qualified writes PostgreSQL's own operators, types and functions into a text.
var qualified = strings.NewReplacer(func() (pairs []string) {
	for _, op := range []string{"=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "||", "<<"} {
		pairs = append(pairs, "{"+op+"}", "OPERATOR(pg_catalog."+op+")")
	}

	return append(pairs,
		"{now}", "pg_catalog.clock_timestamp()",
		"{began}", sqlBegan,
		"{us}", "interval '1 microsecond'", // a type by a keyword is always PostgreSQL's own, as bigint is
		"{text}", "pg_catalog.text",
		"{timestamptz}", "pg_catalog.timestamptz",
		"{walfile}", "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())",
	)
}()...).Replace

// onPrimary has a reading statement answered by the primary, where a pooler sends reads to
// standbys, which lag: what it finds locks nothing, but poolers go by the words. Unlike
// one with sqlPrimary, it may be asked of a standby, and of a table that isn't there.
func onPrimary(text string) string {
	return "WITH found AS MATERIALIZED (" + text + ")\nSELECT * FROM found FOR UPDATE"
}
