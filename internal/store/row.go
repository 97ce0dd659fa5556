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

// scanRow reads {row} and more columns, row after row.
func scanRow(more ...any) scanFunc[Row] {
	var (
		row                        Row
		owner                      pgtype.Text
		acquiredAt, contendedUntil pgtype.Timestamptz
	)

	dest := append([]any{
		&row.Generation, &row.ExpiresAt, &owner, &acquiredAt, &contendedUntil, &row.Now, &row.Began,
	}, more...)

	return func(from scanner) (Row, error) {
		err := from.Scan(dest...)

		// Drivers differ in a time's location. In UTC equal rows are equal by ==.
		row.ExpiresAt, row.Now, row.Began = row.ExpiresAt.UTC(), row.Now.UTC(), row.Began.UTC()
		row.AcquiredAt, row.ContendedUntil = acquiredAt.Time.UTC(), contendedUntil.Time.UTC()
		row.Owner = owner.String

		return row, err
	}
}

// Microseconds is how a TTL travels, rounded up: never less is granted than was asked for.
func Microseconds(ttl time.Duration) int64 {
	us := int64(ttl / time.Microsecond)
	if ttl%time.Microsecond > 0 {
		us++
	}

	return us
}
