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

	// Now is the database's clock when the statement looked, and Began when the server had received
	// it. Between them it may have waited for the row.
	Now, Began time.Time
}

// Held reports whether the lease still ran when the statement looked.
func (r Row) Held() bool { return r.ExpiresAt.After(r.Now) }

// mostRemaining bounds what is left of a lease, so that more can be added to it. No TTL is longer,
// but a row that another program wrote may show any time.
const mostRemaining = 200 * 365 * 24 * time.Hour

// Remaining is what was left of the lease by the database's clock: zero or less if it was over.
func (r Row) Remaining() time.Duration { return min(r.ExpiresAt.Sub(r.Now), mostRemaining) }

// leaseOf is how long a lease runs from when the statement began, at most [mostRemaining].
func leaseOf(expiresAt, began time.Time) time.Duration {
	return min(expiresAt.Sub(began), mostRemaining)
}

// rowScanner reads {row} and what stands behind it, row after row.
type rowScanner struct {
	row                        Row
	owner                      pgtype.Text
	acquiredAt, contendedUntil pgtype.Timestamptz
	dest                       []any
}

func newRowScanner(more ...any) *rowScanner {
	s := new(rowScanner)
	s.dest = append([]any{
		&s.row.Generation, &s.row.ExpiresAt, &s.owner, &s.acquiredAt, &s.contendedUntil, &s.row.Now, &s.row.Began,
	}, more...)

	return s
}

func (s *rowScanner) scan(from scanner) (Row, error) {
	err := from.Scan(s.dest...)
	row := s.row

	// Drivers differ in the location they give a time. In UTC equal rows are equal by ==. NULL is
	// the zero value.
	row.ExpiresAt, row.Now, row.Began = row.ExpiresAt.UTC(), row.Now.UTC(), row.Began.UTC()
	row.AcquiredAt, row.ContendedUntil = s.acquiredAt.Time.UTC(), s.contendedUntil.Time.UTC()
	row.Owner = s.owner.String

	return row, err
}

// scanRow reads {row} and one more column, of which only the side effect was wanted.
func scanRow(from scanner) (Row, error) { return scanRowAnd(new(*string))(from) }

// scanRowAnd reads {row} and the column behind it, row after row.
func scanRowAnd(more any) scanFunc[Row] { return newRowScanner(more).scan }

// Microseconds is how a TTL travels: whole microseconds, rounded up. The database never grants less
// than was asked for.
func Microseconds(ttl time.Duration) int64 {
	us := int64(ttl / time.Microsecond)
	if ttl%time.Microsecond > 0 {
		us++
	}

	return us
}
