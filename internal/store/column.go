package store

import (
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// column is one of the table's columns.
type column struct {
	name string
	// kind is the type as a cast writes it, without its length or precision.
	kind string
	// base is the type under the domain kind, or kind itself, with length or precision: as text,
	// its oid, and its modifier alone.
	base   string
	oid    int64
	typmod int64

	notNull   bool
	generated bool
	// coarse: the collation takes different values for equal.
	coarse bool
	// unique: a unique index on it alone compares by PostgreSQL's own =.
	unique bool
	// key: a unique index, to which a foreign key may refer, has it beside others.
	key bool
	// clash is another unique index that this column is part of, or "".
	clash string
}

const (
	// varcharHeader is what a varchar's modifier is above its length.
	varcharHeader = 4
	// ownerLength is how many characters an owner column must take: Config.Owner and 23 bytes.
	ownerLength = 255
	// microseconds is the default precision of a timestamptz.
	microseconds = 6
)

// described is the column's type and what else may be wrong with it.
func (c column) described() string {
	text := c.base
	if c.kind != c.base && !strings.HasPrefix(c.base, c.kind) {
		text = c.kind + " (" + c.base + ")"
	}

	when := func(is bool, more string) {
		if is {
			text += more
		}
	}

	when(c.coarse, " with a nondeterministic collation")
	when(c.generated, " GENERATED ALWAYS")
	when(c.notNull && c.optional(), " NOT NULL")

	return text
}

// optional reports whether a table may lack the column. It is NULL in a lock that is free.
func (c column) optional() bool {
	return slices.ContainsFunc(addedColumns, func(a addedColumn) bool { return a.name == c.name })
}

// needs is what the column must be, or "" if it is that.
func (c column) needs() string {
	var (
		fits   bool
		needed string
	)

	switch c.name {
	case "lock_id":
		needed = "text or character varying, with a deterministic collation"
		fits = (c.oid == pgtype.TextOID || c.oid == pgtype.VarcharOID) && !c.coarse
	case "owner":
		needed = "text, or character varying(" + strconv.Itoa(ownerLength) + ") or longer, with a deterministic collation"
		fits = (c.oid == pgtype.TextOID || c.oid == pgtype.VarcharOID && (c.typmod < 0 || c.typmod >= ownerLength+varcharHeader)) && !c.coarse
	case "generation":
		needed = "bigint"
		fits = c.oid == pgtype.Int8OID
	default: // a time
		needed = "timestamp with time zone, with microseconds (no precision, or 6)"
		fits = c.oid == pgtype.TimestamptzOID && (c.typmod < 0 || c.typmod == microseconds)
	}

	if c.optional() {
		needed += ", without NOT NULL"
		fits = fits && !c.notNull
	}

	if c.generated {
		needed += ", without GENERATED ALWAYS"
		fits = false
	}

	if fits {
		return ""
	}

	return needed
}
