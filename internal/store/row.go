package store

import "time"

// Row is a lock's row as one statement saw or left it.
type Row struct {
	Generation int64
	ExpiresAt  time.Time
	Owner      string    // "" where there is none
	AcquiredAt time.Time // zero where it isn't known

	// ContendedUntil is the mark of who waits: zero where there never was one.
	ContendedUntil time.Time

	// Now is the database's clock when the statement looked.
	Now time.Time
}

// Held reports whether the lease still ran when the statement looked.
func (r Row) Held() bool { return r.ExpiresAt.After(r.Now) }

// Remaining is what was left of the lease by the database's clock, at most zero
// if it was over.
func (r Row) Remaining() time.Duration { return r.ExpiresAt.Sub(r.Now) }

// scanRow reads {row} and one more column, of which only the side effect was
// wanted.
func scanRow(from scanner) (Row, error) {
	var effect *string

	return scanRowAnd(from, &effect)
}

// scanRowAnd reads {row} and what stands behind it.
func scanRowAnd(from scanner, more ...any) (row Row, err error) {
	var (
		owner                      *string
		acquiredAt, contendedUntil *time.Time
	)

	dest := []any{&row.Generation, &row.ExpiresAt, &owner, &acquiredAt, &contendedUntil, &row.Now}
	err = from.Scan(append(dest, more...)...)

	// Drivers differ in the location they give a time: in UTC equal rows are
	// equal by ==.
	row.ExpiresAt, row.Now = row.ExpiresAt.UTC(), row.Now.UTC()
	row.AcquiredAt, row.ContendedUntil = utc(acquiredAt), utc(contendedUntil)

	if owner != nil {
		row.Owner = *owner
	}

	return row, err
}

// utc is the zero time for what the table doesn't have or know.
func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}

	return t.UTC()
}

// Microseconds is how a TTL travels: whole microseconds, rounded up, so that
// the database never grants less than was asked for.
func Microseconds(ttl time.Duration) int64 {
	us := int64(ttl / time.Microsecond)
	if ttl%time.Microsecond > 0 {
		us++
	}

	return us
}
