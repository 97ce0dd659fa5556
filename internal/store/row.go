package store

import (
	"database/sql"
	"time"
)

// Row is a lock's row as one statement saw or left it.
type Row struct {
	Generation int64
	ExpiresAt  time.Time
	Owner      string    // "" where there is none
	AcquiredAt time.Time // zero where it isn't known

	// Now is the database's clock when the statement looked.
	Now time.Time
}

// Held reports whether the lease still ran when the statement looked.
func (r Row) Held() bool { return r.ExpiresAt.After(r.Now) }

// Remaining is what was left of the lease by the database's clock, at most zero
// if it was over.
func (r Row) Remaining() time.Duration { return r.ExpiresAt.Sub(r.Now) }

func scanRow(rows *sql.Rows) (Row, error) {
	var (
		row        Row
		owner      sql.NullString
		acquiredAt sql.NullTime
		durable    sql.NullString // set_config's result, of no interest
	)

	err := rows.Scan(&row.Generation, &row.ExpiresAt, &owner, &acquiredAt, &row.Now, &durable)
	// Drivers differ in the location they give a time: in UTC equal rows are
	// equal by ==.
	row.ExpiresAt, row.Now = row.ExpiresAt.UTC(), row.Now.UTC()
	row.Owner = owner.String

	if acquiredAt.Valid {
		row.AcquiredAt = acquiredAt.Time.UTC()
	}

	return row, err
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
