package pglocker

import (
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// LockStatus is a lock as the database showed it at one moment. Two statuses of an unchanged lock are equal
// by ==.
type LockStatus struct {
	LockID string
	// Generation is the fencing token. Every grant, refresh and release increases it.
	Generation int64
	// ExpiresAt is when the lease ends or ended, by the database's clock, in UTC. For 'infinity', set by
	// hand, it is the last day of the year 9999, and for '-infinity' the zero time.
	ExpiresAt time.Time
	// Owner is who holds the lock, or who held it when its lease ended. It is [Config.Owner], "#", and a text
	// that no other grant has. "" after a release, and on a table without that column.
	Owner string
	// AcquiredAt is when Owner was granted the lock or refreshed it, by the database's clock, in UTC. Zero
	// where Owner is "".
	AcquiredAt time.Time
	// Waited reports whether a waiter of another Locker than the holder's listens for the release, or did within the
	// last 10 s. A waiter that can only poll isn't seen. [Locker.Locks] alone fills it in.
	Waited bool
}

func newStatus(lockID string, row store.Row) *LockStatus {
	return &LockStatus{
		LockID: lockID, Generation: row.Generation, ExpiresAt: row.ExpiresAt,
		Owner: row.Owner, AcquiredAt: row.AcquiredAt,
	}
}

// state is what a request goes by that names this status. Grants are durable, so the generation of one tells
// all. A crash may have undone what was seen of a free lock.
func (s *LockStatus) state() store.State {
	state := store.State{Generation: s.Generation, Owner: s.Owner}
	if s.Owner == "" {
		state.Until = s.ExpiresAt
	}

	return state
}
