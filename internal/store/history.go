package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// ErrHistoryNotFound: see the package pglocker.
var ErrHistoryNotFound = errors.New("pglocker: history not found")

// HistoryPage is how many events one statement reads.
const HistoryPage = 500

// prunePage is how many events one statement deletes.
const prunePage = 5000

const (
	// sqlEvent are the columns of a [HistoryEvent]. Times are in microseconds since 1970, which every
	// driver reads, whatever the role's DateStyle.
	sqlEvent = `h.id, h.lock_id, h.kind, h.token, coalesce(h.previous_token, 0), coalesce(h.owner, ''), coalesce(h.reason, ''),
       (extract(epoch FROM h.at) {*} 1000000)::bigint, (extract(epoch FROM {until}) {*} 1000000)::bigint`

	// sqlEventUntil keeps 'infinity', which another program may have written, from drivers.
	sqlEventUntil = `greatest(least(h.expires_at, '9999-12-31 00:00:00+00'::{timestamptz}), '0001-01-01 00:00:00+00'::{timestamptz})`

	// sqlTime is a time, the parameter $2, that travels in microseconds since 1970.
	sqlTime = `('epoch'::{timestamptz} {+} ($2::bigint {*} {us}))`

	// sqlHistoryStart is the last event of the lock $1 that was written before $2. The event of an
	// expiry is written later than its time.
	sqlHistoryStart = `
SELECT coalesce(pg_catalog.max(h.id), 0)
  FROM {history} AS h
 WHERE h.lock_id {=} $1
   AND h.at {<} ` + sqlTime + `
   AND h.kind {<>} 'expired'`

	// sqlHistoryOf are the events of the lock $1 from $2 on that follow on the event $3, in the order
	// in which they were written.
	sqlHistoryOf = `
SELECT ` + sqlEvent + `
  FROM {history} AS h
 WHERE h.lock_id {=} $1
   AND h.at {>=} ` + sqlTime + `
   AND h.id {>} $3::bigint
 ORDER BY h.id
 LIMIT $4::bigint`

	// sqlHistoryOfAll are the events of all locks from $2 on that follow on the event $3 of the lock $1,
	// lock by lock.
	sqlHistoryOfAll = `
SELECT ` + sqlEvent + `
  FROM {history} AS h
 WHERE ROW(h.lock_id, h.id) {>} ROW($1::{text}, $3::bigint)
   AND h.at {>=} ` + sqlTime + `
 ORDER BY h.lock_id, h.id
 LIMIT $4::bigint`

	// sqlPruneHistory deletes events that are older than $1 microseconds, $2 of them at most. It reads
	// the table from its beginning, where the oldest are, unless rows were deleted before.
	sqlPruneHistory = `
DELETE FROM {history} AS h
 WHERE h.ctid {=} ANY (ARRAY(SELECT o.ctid
                               FROM {history} AS o
                              WHERE o.at {<} (SELECT {now} {-} ($1::bigint {*} {us}))
                              LIMIT $2::bigint))
RETURNING 1::bigint`

	// sqlHolderAt is the last grant of the lock $1 at the time $2 or before, the event that followed on
	// it, if any, and the end of its lease if the row still shows it.
	sqlHolderAt = `
SELECT g.token, coalesce(g.owner, ''),
       (extract(epoch FROM g.at) {*} 1000000)::bigint,
       coalesce(e.kind, ''),
       (extract(epoch FROM e.at) {*} 1000000)::bigint,
       (extract(epoch FROM greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::{timestamptz}), '0001-01-01 00:00:00+00'::{timestamptz})) {*} 1000000)::bigint,
       coalesce(l.expires_at {<=} {now}, false)
  FROM (SELECT h.*
          FROM {history} AS h
         WHERE h.lock_id {=} $1
           AND h.at {<=} ` + sqlTime + `
           AND h.kind {=} ANY (ARRAY['granted', 'refreshed'])
         ORDER BY h.id DESC
         LIMIT 1) AS g
  LEFT JOIN LATERAL (SELECT h.kind, h.at
                       FROM {history} AS h
                      WHERE h.lock_id {=} $1
                        AND h.id {>} g.id
                      ORDER BY h.id
                      LIMIT 1) AS e ON true
  LEFT JOIN {table} AS l
    ON l.lock_id {=} $1 AND l.generation {=} g.token`
)

// historyText writes one of the texts for a table.
func historyText(table Table, text string) string {
	text = with(text, "{until}", sqlEventUntil)

	return with(qualified(text), "{history}", table.history(), "{table}", table.String())
}

// HistoryEvent is a row of the history.
type HistoryEvent struct {
	ID                   int64
	LockID, Kind         string
	Token, PreviousToken int64
	Owner, Reason        string
	At, ExpiresAt        time.Time
}

func scanEvent(from scanner) (e HistoryEvent, err error) {
	var at, until int64

	err = from.Scan(&e.ID, &e.LockID, &e.Kind, &e.Token, &e.PreviousToken, &e.Owner, &e.Reason, &at, &until)
	e.At, e.ExpiresAt = time.UnixMicro(at).UTC(), time.UnixMicro(until).UTC()

	return e, err
}

// HistoryCursor says where in the history a reader is.
type HistoryCursor struct {
	all    bool
	lockID string // of all: of the last event
	id     int64  // of the last event
	since  int64  // microseconds
	begun  bool
	ended  bool
}

// NewHistoryCursor begins at the events from since on, of one lock, or of all for "".
func NewHistoryCursor(lockID string, since time.Time) *HistoryCursor {
	c := &HistoryCursor{all: lockID == "", lockID: lockID}

	if since.After(time.UnixMicro(0)) {
		c.since = since.Add(time.Microsecond - 1).UnixMicro() // rounded up: an event at the same microsecond is before
	}

	return c
}

// ReadHistory reads the next events, or none at the end.
func (s *Store) ReadHistory(ctx context.Context, c *HistoryCursor) ([]HistoryEvent, error) {
	if c.ended {
		return nil, nil
	}

	if !c.begun && !c.all && c.since > 0 {
		start, err := readHistory(ctx, s, historyText(s.table, sqlHistoryStart), []any{c.lockID, c.since}, scanOne[int64])
		if err != nil {
			return nil, err
		}

		c.id = start[0]
	}

	c.begun = true

	text := sqlHistoryOf
	if c.all {
		text = sqlHistoryOfAll
	}

	events, err := readHistory(ctx, s, historyText(s.table, text), []any{c.lockID, c.since, c.id, int64(HistoryPage)}, scanEvent)
	if err != nil {
		return nil, err
	}

	if n := len(events); n > 0 {
		c.lockID, c.id = events[n-1].LockID, events[n-1].ID
	}

	c.ended = len(events) < HistoryPage

	return events, nil
}

// PruneHistory deletes events that are older than that, and returns how many.
func (s *Store) PruneHistory(ctx context.Context, age time.Duration) (deleted int64, err error) {
	text := historyText(s.table, sqlPruneHistory)

	for {
		rows, err := readHistory(ctx, s, text, []any{Microseconds(age), int64(prunePage)}, scanOne[int64])
		deleted += int64(len(rows))

		if err != nil || len(rows) < prunePage {
			return deleted, err
		}
	}
}

// Holding is a tenure as the history shows it.
type Holding struct {
	Token int64
	Owner string
	Since time.Time
	// Until is when it ended, or else when its lease ends. Zero if neither is known.
	Until time.Time
	// End is the kind of the event that ended it, or "" if it runs.
	End string
}

// HolderAt returns the tenure of the last grant at that time or before, or nil.
func (s *Store) HolderAt(ctx context.Context, lockID string, at time.Time) (*Holding, error) {
	rows, err := readHistory(ctx, s, historyText(s.table, sqlHolderAt), []any{lockID, max(at.UnixMicro(), 0)}, scanHolding)
	if err != nil || len(rows) == 0 {
		return nil, err
	}

	return &rows[0], nil
}

func scanHolding(from scanner) (h Holding, err error) {
	var (
		since      int64
		end, lease pgtype.Int8
		over       bool
	)

	err = from.Scan(&h.Token, &h.Owner, &since, &h.End, &end, &lease, &over)
	h.Since = time.UnixMicro(since).UTC()

	switch {
	case end.Valid:
		h.Until = time.UnixMicro(end.Int64).UTC()
	case lease.Valid:
		h.Until = time.UnixMicro(lease.Int64).UTC()

		if over {
			h.End = "expired" // which no grant has written yet
		}
	}

	return h, err
}

// readHistory runs a statement on the history. All can be repeated.
func readHistory[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) ([]T, error) {
	if err := s.acquaint(ctx); err != nil {
		return nil, err
	}

	a := insist(ctx, s, func(bool) answer[T] { return ask(ctx, s, text, args, scan) }, func(a answer[T]) bool {
		return a.outcome != refused || retriable(a.err) || s.lostStatement(a.err, a.named)
	})
	if a.err == nil {
		return a.rows, nil
	}

	err := withContext(ctx, a.err)

	switch sqlState(err) {
	case codeUndefinedTable, codeUndefinedSchema:
		err = s.historyNotFound(err)
	case codeInsufficientPriv:
		err = fmt.Errorf("%w: %w (to read the history, the role needs USAGE on the schema and SELECT on %s; to prune it, DELETE too)",
			ErrPermissionDenied, err, s.table.history())
	default:
		err = s.explain(err)
	}

	return nil, err
}

func (s *Store) historyNotFound(err error) error {
	return fmt.Errorf("%w: %s (make it with pglocker.MigrateHistory): %w", ErrHistoryNotFound, s.table.history(), err)
}
