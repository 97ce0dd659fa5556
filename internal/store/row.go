package store

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Row is a lock's row as one statement saw or left it.
type Row struct {
	Generation int64
	ExpiresAt  time.Time // from the zero time to the year 9999, see sqlExpiresAt
	Owner      string    // "" where there is none
	AcquiredAt time.Time // zero where it isn't known

	// ContendedUntil is the waiters' mark: zero where there never was one.
	ContendedUntil time.Time

	// AfterCrash: the row is that of a grant, and the holder before didn't release the lock. Its lease ended.
	AfterCrash bool

	// Now is the database's clock when the statement looked, and Began when the server received it.
	Now, Began time.Time
}

// Held reports whether the lease still ran when the statement looked.
func (r Row) Held() bool { return r.ExpiresAt.After(r.Now) }

// mostRemaining bounds what is left of a lease, so that more can be added to it. A row that another
// program wrote may show any time.
const mostRemaining = 200 * 365 * 24 * time.Hour

// Remaining is what was left of the lease by the database's clock: zero or less if it was over.
func (r Row) Remaining() time.Duration { return min(r.ExpiresAt.Sub(r.Now), mostRemaining) }

// leaseOf is how long a lease runs from when the statement began, at most [mostRemaining].
func leaseOf(expiresAt, began time.Time) time.Duration {
	return min(expiresAt.Sub(began), mostRemaining)
}

// rowScan reads {row} and more columns, row after row. It is one allocation.
type rowScan struct {
	row                        Row
	owner                      text
	acquiredAt, contendedUntil pgtype.Timestamptz
	dest                       [11]any // seven, and what stands behind them
	columns                    int
	behind                     *tag
}

func (s *rowScan) init(behind *tag, more ...any) {
	s.behind = behind
	s.columns = copy(s.dest[:], []any{
		&s.row.Generation, &s.row.ExpiresAt, &s.owner, &s.acquiredAt, &s.contendedUntil, &s.row.Now, &s.row.Began,
	})
	s.columns += copy(s.dest[s.columns:], more)
}

func (s *rowScan) scan(from scanner) (Row, error) {
	return s.read(from, s.dest[:s.columns])
}

// read is scan for dest, which begins as s.dest does.
func (s *rowScan) read(from scanner, dest []any) (Row, error) {
	err := from.Scan(dest...)
	row := s.row

	// Drivers differ in a time's location. In UTC equal rows are equal by ==.
	row.ExpiresAt, row.Now, row.Began = row.ExpiresAt.UTC(), row.Now.UTC(), row.Began.UTC()
	row.AcquiredAt, row.ContendedUntil = s.acquiredAt.Time.UTC(), s.contendedUntil.Time.UTC()
	row.Owner = s.behind.owner(s.owner)

	return row, err
}

// scanRow reads a row and the column behind it.
func scanRow(behind *tag) scanFunc[Row] {
	s := new(rowScan)
	s.init(behind, behind.column)

	return s.scan
}

// grantScan reads a row, the column {former}, and more.
type grantScan struct {
	rowScan
	former pgtype.Int8
}

func (s *grantScan) scan(from scanner) (Row, error) {
	row, err := s.rowScan.scan(from)
	row.AfterCrash = s.former.Valid && afterCrash(s.former.Int64, row.Generation)

	return row, err
}

// scanGrant reads a granted row and the column behind it.
func scanGrant(behind *tag) scanFunc[Row] {
	s := new(grantScan)
	s.init(behind, &s.former, behind.column)

	return s.scan
}

// floorBits are below a timeline in a generation, see sqlFloor.
const floorBits = 40

// afterCrash reports whether a grant came right after a holder that a snapshot showed: nobody else had the lock
// between them. It has the next generation, or the first of a timeline.
func afterCrash(former, granted int64) bool {
	return granted == former+1 || granted&(1<<floorBits-1) == 1
}

// Microseconds is how a TTL travels, rounded up: never less is granted than was asked for.
func Microseconds(ttl time.Duration) int64 {
	us := int64(ttl / time.Microsecond)
	if ttl%time.Microsecond > 0 {
		us++
	}

	return us
}
