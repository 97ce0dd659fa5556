package store

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
)

// shape is what the locker found out about its table and server on first use.
type shape struct {
	// full: the columns owner, acquired_at and contended_until are there.
	full bool
	// secured: row-level security applies to this role, and may hide rows from it.
	secured bool
	// statements are written for this table, and this shape of it.
	statements statements
}

// shapeCache looks the shape up once. A failed look-up is not remembered, so a
// locker made before its table works as soon as the table is there.
type shapeCache struct {
	found atomic.Pointer[shape]
	// last is what was found last, even if it has to be looked up again.
	last atomic.Pointer[shape]
	// floorless: that the server has no timeline was said.
	floorless atomic.Bool
	// looking is full while enough of them look. More than one may: its connection may be
	// dead without anybody knowing.
	looking chan struct{}
}

func newShapeCache() *shapeCache { return &shapeCache{looking: make(chan struct{}, 4)} }

func (c *shapeCache) get() *shape { return c.found.Load() }

// set with nil has the shape looked up again.
func (c *shapeCache) set(found *shape) {
	c.found.Store(found)

	if found != nil {
		c.last.Store(found)
	}
}

// shapeOf returns the table's shape, from memory after the first time. Of many first
// callers a few look it up, and the others wait for them.
func (s *Store) shapeOf(ctx context.Context) (*shape, error) {
	if found := s.shape.get(); found != nil {
		return found, nil
	}

	select {
	case s.shape.looking <- struct{}{}:
		defer func() { <-s.shape.looking }()
	case <-ctx.Done():
		return nil, ended(ctx)
	}

	if found := s.shape.get(); found != nil {
		return found, nil
	}

	if err := s.acquaint(ctx); err != nil {
		return nil, err
	}

	table, err := s.description(ctx)
	if err != nil {
		return nil, err
	}

	if err := s.usable(table); err != nil {
		return nil, err
	}

	id, err := s.identify(ctx)
	if err != nil {
		return nil, err
	}

	floor, err := s.hasTimeline(ctx)
	if err != nil {
		return nil, err
	}

	full := table.full()
	found := &shape{
		full:       full,
		secured:    table.secured,
		statements: render(s.table, full, floor, id),
	}
	s.shape.set(found)

	return found, nil
}

// changed looks the shape up, if it has to be, and reports whether it is another than was
// known.
func (s *Store) changed(ctx context.Context, known *shape) (*shape, bool) {
	found, err := s.shapeOf(ctx)
	if err != nil {
		return known, false
	}

	return found, found.statements != known.statements
}

// statements are the SQL texts for one table.
type statements struct {
	// grants
	acquire, insert, refresh, refreshSeen, try, claim string
	// settling of unknown grants
	confirm, giveBack, giveBackLast string

	create, get, look, release, releaseSeen, renew, held, guard string

	// for several locks at once
	acquireMany, insertMany, refreshMany, releaseMany, getMany, lookMany string
	tryMany, claimMany, confirmMany, giveBackMany, createMany            string
	refreshManyDated, releaseManyDated                                   string
}

// isoDates adds to some columns, of which the last is a time, a setting of the DateStyle to ISO,
// which drivers read. It holds for the transaction alone, and is made before any column of the
// row is sent.
func isoDates(columns string) string {
	i := strings.LastIndex(columns, ", {now}")
	if i < 0 {
		return "CASE WHEN pg_catalog.set_config('DateStyle', 'ISO', true) IS NOT NULL THEN " + columns + " END"
	}

	return columns[:i] + ", CASE WHEN pg_catalog.set_config('DateStyle', 'ISO', true) IS NOT NULL THEN {now} END" + columns[i+len(", {now}"):]
}

// render fills the table's name and the way its ids are compared into the texts, and takes
// out what the table or the server doesn't have.
func render(table Table, full, floor bool, id identity) statements {
	row := "l.generation, " + sqlExpiresAt + ", l.owner, l.acquired_at, l.contended_until, {now}, {began}"
	expiresAt := sqlExpiresAt
	notify, lazy := "(CASE WHEN l.contended_until {>} {now}"+
		" THEN pg_catalog.pg_notify('"+table.Channel()+"', l.lock_id) END IS NOT NULL)", sqlLazy

	if !full {
		row = "l.generation, " + sqlExpiresAt + ", NULL::{text}, NULL::{timestamptz}, NULL::{timestamptz}, {now}, {began}"
		notify, lazy = "false", sqlDurable
	}

	if id.datesOdd {
		row, expiresAt = isoDates(row), isoDates(expiresAt)
	}

	modulus := strconv.FormatInt(MarkModulus, 10)
	ahead := strings.NewReplacer(
		"{modulus}", modulus, "{longest}", strconv.FormatInt(LongestMark.Microseconds(), 10),
	)

	fragments := []string{
		"{table}", table.String(),
		"{row}", row,
		"{expires_at}", expiresAt,
		"{is}", id.equal,
		"{lock}", rowLock(id.keyed),
		"{lock_expiry}", rowLock(id.expiryKeyed),
		"{durable}", sqlDurable,
		"{lazy}", lazy,
		"{modulus}", modulus,
		"{ahead}", ahead.Replace(sqlAhead),
		"{aheads}", strings.ReplaceAll(ahead.Replace(sqlAhead), "$4::bigint", "r.mark"),
		"{notify}", notify,
	}

	if floor {
		fragments = append(fragments, "{next}", "greatest(l.generation {+} 1, "+sqlFloor+")",
			"{first}", "greatest(2, "+sqlFloor+")", "{floor}", sqlFloor)
	} else {
		fragments = append(fragments, "{next}", "l.generation {+} 1", "{first}", "2", "{floor}", "0::bigint")
	}

	fill := strings.NewReplacer(fragments...).Replace
	replace := func(text string) string { return qualified(fill(text)) }
	optional := func(text, whenFull string) string {
		if !full {
			whenFull = ""
		}

		return replace(strings.ReplaceAll(text, "{optional}", whenFull))
	}

	// seen is a statement with the condition sqlSeen, or without it.
	seen := func(text, condition, param string) string {
		return strings.ReplaceAll(text, "{seen}", strings.ReplaceAll(condition, "{seen}", param))
	}
	many := func(columns arrayColumns, text, whenFull string) string {
		return optional(columns.in(text, full, id.kind), whenFull)
	}

	st := statements{
		acquire: optional(sqlAcquire, sqlAcquireOwner),
		refresh: optional(seen(sqlRefresh, "", ""), sqlRefreshOwner),
		try:     optional(sqlTry, sqlAcquireOwner),
		release: optional(seen(sqlRelease, "", ""), sqlReleaseOwner),
		create:  replace(sqlCreate),
		get:     replace(sqlGet),
		look:    replace(sqlLook),
		guard:   replace(sqlGuard),
		renew:   many(renewColumns, sqlRenew, ""),
		held:    many(heldColumns, sqlHeld, ""),
		insert:  replace(sqlInsert),

		acquireMany: many(acquireColumns, sqlAcquireMany, sqlAcquireManyOwner),
		insertMany:  many(acquireColumns, sqlInsertMany, ""),
		refreshMany: many(refreshColumns, seen(sqlRefreshMany, "", ""), sqlAcquireManyOwner),
		releaseMany: many(releaseColumns, sqlReleaseMany, sqlReleaseOwner),
		getMany:     many(getColumns, sqlGetMany, ""),
		tryMany:     many(acquireColumns, sqlTryMany, sqlAcquireManyOwner),
		createMany:  many(getColumns, sqlCreateMany, ""),

		releaseManyDated: many(releaseDatedColumns, seen(sqlReleaseManyDated, "", ""), ""),
		lookMany:         many(getColumns, sqlLookMany, ""),
	}

	if full {
		st.insertMany = many(acquireColumns, sqlInsertManyFull, "")
		st.insert = replace(sqlInsertFull)
		st.confirm = replace(sqlConfirm)
		st.giveBack = replace(sqlGiveBack)
		st.giveBackLast = replace(sqlGiveBackLast)
		st.claim = replace(sqlClaim)
		st.refreshManyDated = many(refreshDatedColumns, seen(sqlRefreshMany, sqlSeenMany, ""), sqlAcquireManyOwner)
		st.releaseManyDated = many(releaseDatedColumns, seen(sqlReleaseManyDated, sqlSeenMany, ""), sqlReleaseOwner)
		st.claimMany = many(claimColumns, sqlClaimMany, "")
		st.confirmMany = many(confirmColumns, sqlConfirmMany, "")
		st.giveBackMany = many(giveBackColumns, sqlGiveBackMany, "")
		st.refreshSeen = optional(seen(sqlRefresh, sqlSeen, "$5"), sqlRefreshOwner)
		st.releaseSeen = optional(seen(sqlRelease, sqlSeen, "$4"), sqlReleaseOwner)
	}

	return st
}
