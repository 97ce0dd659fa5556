package store

import "strings"

// Functions in the lock's schema are for clients in other languages. They make the same transitions as
// the statements of this package, on a table of six columns. docs/sql.md says how to use them, and
// docs/adr/0010-functions-in-sql.md why they are as they are.
//
// A function locks the row, reads the clock after that, and then changes the row. So a wait for the
// row takes nothing from the lease. All that a body names has its schema or the block's label v, so no
// schema of the search_path, no further column of the table and no setting of PL/pgSQL changes what it
// means. The search_path is pinned all the same, for the triggers of the table too. A plan without a scan
// of the whole table is as good when the table has grown, see sqlByIndex.

// function is one of them. Its arguments are an identity: a change of any needs a DROP.
type function struct {
	name    string
	in, out []argument
	// returns is the type of the result where there is no argument in out.
	returns sqlType
	// lockTimeout is how long it waits for a row, in milliseconds, or "".
	lockTimeout string
	// check is when which text about bad input applies, as in CASE.
	check string
	// declare and body are the rest of the block.
	declare, body string
}

// argument is an argument of a function, in or out.
type argument struct {
	name string
	of   sqlType
}

// sqlType is a type: as it is written, and its oid, which every server has alike.
type sqlType struct{ text, oid string }

var (
	typeText     = sqlType{"{text}", "25"}
	typeBigint   = sqlType{"bigint", "20"}
	typeBoolean  = sqlType{"boolean", "16"}
	typeInterval = sqlType{"interval", "1186"}
	typeTime     = sqlType{"TIMESTAMP WITH TIME ZONE", "1184"}
	typeVoid     = sqlType{"pg_catalog.void", "2278"}
	typeRecord   = sqlType{"", "2249"} // of the arguments in out
)

var (
	argID    = argument{"lock_id", typeText}
	argTTL   = argument{"ttl", typeInterval}
	argOwner = argument{"owner", typeText}
	argToken = argument{"token", typeBigint}
)

var functions = []function{acquireLock, renewLock, releaseLock, assertHeld}

const (
	// sqlBlock is the body of a function.
	sqlBlock = `
-- A function of ` + functionMark + `, whose MigrateDB replaces it by a newer one.
<<v>>
DECLARE
    id CONSTANT {text} COLLATE pg_catalog."default" := lock_id;
    wrong CONSTANT {text} := CASE{check}
    END;{declare}
BEGIN
    IF v.wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'pglocker: invalid argument: ' {||} v.wrong;
    END IF;
{body}
END
`
	// functionMark tells these functions from others of the same name.
	functionMark = `github.com/ismurov/pglocker`

	// plainTable is the table whose functions have no prefix.
	plainTable = "lock_statuses"

	sqlFunction = `CREATE OR REPLACE FUNCTION {function}({arguments}){returns}
LANGUAGE plpgsql VOLATILE SECURITY INVOKER{settings}
AS {quote}{body}{quote}`

	sqlDropFunction = `DROP FUNCTION {function}({arguments})`
)

// nameFor is the function's name in the schema of a table. Another table than the default has its own
// name in front. It is false if that is too long for PostgreSQL.
func (f function) nameFor(table Table) (string, bool) {
	if table.Name == plainTable {
		return f.name, true
	}

	name := table.Name + "_" + f.name

	return name, len(name) <= maxIdentifierBytes
}

// settings are those with which the function runs. Its statements are planned as those behind sqlByIndex.
func (f function) settings() [][2]string {
	all := [][2]string{{"search_path", "pg_catalog, pg_temp"}, {"enable_seqscan", "off"}, {"jit", "off"}}
	if f.lockTimeout != "" {
		all = append(all, [2]string{"lock_timeout", f.lockTimeout})
	}

	return all
}

// bodyFor is the function's body for a table, as the catalogs keep it.
func (f function) bodyFor(table Table) string {
	text := with(sqlBlock, "{check}", f.check, "{declare}", f.declare, "{body}", f.body)
	text = with(text, "{until}", "{now}", "{owner}", sqlOwnerBySQL)

	given := func(text string, _ bool) string {
		return with(text, "{lock_id}", "v.id", "{ttl}", "v.microseconds", "{generation}", "v.given")
	}

	return newWriter(table, form{full: true, floor: true}).write(text, "v.now", "v.floor", given)
}

// list writes arguments as a function declares them.
func list(in, out []argument) string {
	var texts []string

	for _, a := range in {
		texts = append(texts, a.name+" "+a.of.text)
	}

	for _, a := range out {
		texts = append(texts, "OUT "+a.name+" "+a.of.text)
	}

	return qualified(strings.Join(texts, ", "))
}

// create is the statement that makes the function for a table, or replaces it.
func (f function) create(table Table) string {
	name, _ := f.nameFor(table)
	body := f.bodyFor(table)

	quote := "$pglocker$"
	for strings.Contains(body, quote) { // the table's name may have anything in it
		quote = "$_" + quote[1:]
	}

	returns := ""
	if f.returns.text != "" {
		returns = " RETURNS " + f.returns.text
	}

	settings := ""
	for _, s := range f.settings() {
		settings += "\nSET " + s[0] + " TO " + s[1]
	}

	return with(sqlFunction, "{function}", quoteIdentifier(table.Schema)+"."+quoteIdentifier(name),
		"{arguments}", list(f.in, f.out), "{returns}", returns, "{settings}", settings, "{quote}", quote, "{body}", body)
}

// drop is the statement that drops an older one of other arguments in out, or another result.
func (f function) drop(table Table) string {
	name, _ := f.nameFor(table)

	return with(sqlDropFunction, "{function}", quoteIdentifier(table.Schema)+"."+quoteIdentifier(name), "{arguments}", list(f.in, nil))
}
