package store

import (
	"context"
	"slices"
	"strings"
	"time"
)

// pageRows is how many rows a page has, and pageReach how many it reads where a filter leaves some out. The first
// page reads pageFirst, and each of the next four times as many up to that: many loops want few rows.
const (
	pageFirst = 250
	pageRows  = 1_000
	pageReach = 10_000
)

const (
	// sqlList reads the rows behind the id $1, or from it on, in the order of the index, $2 at most. It returns those that the
	// filter lets through, and the last. The ids begin with $3, and with none of $4. It is for information
	// only, and locks nothing.
	sqlList = `
WITH c AS MATERIALIZED (SELECT {now} AS now), page AS MATERIALIZED (
    SELECT *
      FROM {table} AS l
     WHERE l.lock_id {behind} $1::{text}
     ORDER BY l.lock_id
     LIMIT $2::bigint
), seen AS MATERIALIZED (
    SELECT l.*, pg_catalog.starts_with(l.lock_id, $3::{text})
           AND NOT EXISTS (SELECT
                             FROM pg_catalog.unnest($4::{text}[]) AS x (prefix)
                            WHERE pg_catalog.starts_with(l.lock_id, x.prefix))
           AND ($5::{text} {<>} 'held' OR l.expires_at {>} c.now){six}
           AND ($5::{text} {<>} 'crashed' OR l.owner IS NOT NULL AND l.expires_at {<=} c.now)
           AND ($6::{text} {=} '' OR l.owner {=} $6::{text}
                OR pg_catalog.starts_with(l.owner, $6::{text} {||} '#')
                OR pg_catalog.starts_with(l.owner, $6::{text} {||} '.')){end} AS pglocker_listed
      FROM page AS l, c
)
SELECT {row}, coalesce(l.pglocker_listed, false), l.lock_id
  FROM seen AS l
 WHERE l.pglocker_listed
    OR l.lock_id {=} (SELECT pg_catalog.max(l.lock_id) FROM seen AS l)
 ORDER BY l.lock_id`

	// sqlBytewiseText says whether ids are in the order of their bytes: whether the column lock_id of the table $2 in
	// the schema $1 has the collation C.
	sqlBytewiseText = `
SELECT EXISTS (SELECT
                 FROM pg_catalog.pg_attribute AS a
                 JOIN pg_catalog.pg_class AS c ON c.oid {=} a.attrelid
                 JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
                 JOIN pg_catalog.pg_collation AS o ON o.oid {=} a.attcollation
                WHERE n.nspname {=} ($1::{text})::pg_catalog.name
                  AND c.relname {=} ($2::{text})::pg_catalog.name
                  AND a.attname {=} 'lock_id'
                  AND NOT a.attisdropped
                  AND o.collname {=} ANY (ARRAY['C', 'POSIX']::pg_catalog.name[])
                  AND o.collnamespace {=} 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid)`
)

var sqlBytewise = qualified(sqlBytewiseText)

// listTexts are sqlList behind an id, and from it on.
type listTexts struct{ behind, from string }

func (w writer) listing() listTexts {
	return listTexts{w.one(nil, with(sqlList, "{behind}", "{>}")), w.one(nil, with(sqlList, "{behind}", "{>=}"))}
}

// ListFilter says which rows are listed: those with all that it asks for.
type ListFilter struct {
	// Prefix begins the ids, and none of Without does.
	Prefix  string
	Without []string
	// State is [ListHeld], [ListCrashed], or "" for any.
	State string
	// Owner is the name of a grant, or what it begins with up to a "#" or a ".".
	Owner string
	// After is before all ids, in the order of the column lock_id.
	After string
}

// What a row must be, see sqlList.
const (
	ListHeld    = "held"
	ListCrashed = "crashed"
)

// all: it lets all rows through.
func (f ListFilter) all() bool {
	return f.Prefix == "" && len(f.Without) == 0 && f.State == "" && f.Owner == ""
}

// Listed is a row with its id.
type Listed struct {
	ID  string
	Row Row
	// matches: the filter lets it through.
	matches bool
}

func scanListed() scanFunc[Listed] {
	var (
		l Listed
		s rowScan
	)

	s.init(new(tag), &l.matches, &l.ID)

	return func(from scanner) (_ Listed, err error) {
		l.Row, err = s.scan(from)

		return l, err
	}
}

// Listing lists rows, page after page.
type Listing struct {
	store  *Store
	shape  *shape
	filter ListFilter
	// bytewise: what begins with the prefix stands together.
	bytewise bool
	after    string
	// reach is how many rows the next page reads.
	reach int64
}

// List begins a listing.
func (s *Store) List(ctx context.Context, filter ListFilter) (*Listing, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, err
	}

	if !sh.full && (filter.Owner != "" || filter.State == ListCrashed) {
		return nil, ErrNoOwners
	}

	l := &Listing{store: s.planningAnew(), shape: sh, filter: filter, after: filter.After, reach: pageFirst}

	if filter.Prefix != "" {
		bytewise, err := read(ctx, s, sqlBytewise, []any{s.table.Schema, s.table.Name}, scanOne[bool])
		if err != nil {
			return nil, err
		}

		l.bytewise = bytewise[0]
	}

	return l, nil
}

// Next returns the next rows, which may be none, and whether there may be more. Each call is a statement of its own.
func (l *Listing) Next(ctx context.Context) (rows []Listed, more bool, err error) {
	after, limit, most := l.after, l.reach, int64(pageRows)
	if !l.filter.all() {
		most = pageReach
	}

	l.reach = min(4*l.reach, most)

	text := l.shape.statements.list().behind
	if l.bytewise && after < l.filter.Prefix {
		text, after = l.shape.statements.list().from, l.filter.Prefix
	}

	args := []any{after, limit, l.filter.Prefix, append([]string{}, l.filter.Without...), l.filter.State}
	if l.shape.full {
		args = append(args, l.filter.Owner)
	}

	page, err := read(ctx, l.store, text, args, scanListed())
	if err != nil || len(page) == 0 {
		return nil, false, err
	}

	last := page[len(page)-1].ID
	l.after = last
	more = !l.bytewise || strings.HasPrefix(last, l.filter.Prefix)

	return slices.DeleteFunc(page, func(r Listed) bool { return !r.matches }), more, nil
}

// HasOwners reports whether the table has the optional columns.
func (s *Store) HasOwners(ctx context.Context) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return false, err
	}

	return sh.full, nil
}

// sqlClock has the primary answer.
const sqlClock = sqlPrimary + `
SELECT {iso}{now}{/iso}`

// Clock reads the database's clock.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	sh, err := s.probedShape(ctx)
	if err != nil {
		return time.Time{}, err
	}

	now, err := read(ctx, s, sh.statements.clock(), nil, scanOne[time.Time])
	if err != nil {
		return time.Time{}, err
	}

	return now[0].UTC(), nil
}
