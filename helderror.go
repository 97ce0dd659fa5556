package pglocker

import (
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// HeldError is the error of an attempt to take a lock that another holds. It
// matches [ErrAlreadyLocked].
type HeldError struct {
	LockID string
	// Owner is who holds it, in the form of [LockStatus.Owner]; "" where that isn't
	// known, and while only a minimum hold ([WithMinHold]) keeps it from being granted.
	Owner string
	// Generation is the holder's, or that of the release that left the minimum hold.
	Generation int64
	// Remaining is how long the lease still runs when the error is returned, unless it was
	// renewed or released since the database was asked. Zero: it had just changed hands, or
	// is over.
	Remaining time.Duration
	// Age is the time from that answer of the database to the return of the error: zero for
	// a caller that hasn't waited, and long if the database couldn't be asked any more.
	Age time.Duration

	// seen is when the answer came, by the local clock.
	seen time.Time
	// resting: nobody has the lock, a minimum hold keeps it.
	resting bool
}

// old is from when on an answer is said to be old.
const old = time.Second

// Error names the lock, the holder and what remains of the lease.
func (e *HeldError) Error() string {
	is, by, when := "is", "", ""

	switch {
	case e.resting:
		by = " until its minimum hold ends"
	case e.Owner != "":
		by = " by " + e.Owner
	}

	if e.Age >= old {
		is, when = "was", fmt.Sprintf(", when it was last seen %s ago", e.Age.Round(time.Second/10))
	}

	text := fmt.Sprintf("%s: %q %s held%s, generation %d%s", ErrAlreadyLocked.Error(), e.LockID, is, by, e.Generation, when)

	if e.Remaining > 0 || e.Age < old {
		text += fmt.Sprintf(", for another %s", e.Remaining.Round(time.Millisecond))
	}

	return text
}

// Is reports whether target is [ErrAlreadyLocked].
func (e *HeldError) Is(target error) bool { return target == ErrAlreadyLocked }

// heldError says what stands in the way of a request that has just been answered.
func (l *Locker) heldError(lockID string, row store.Row) *HeldError {
	return &HeldError{
		LockID:     lockID,
		Owner:      row.Owner,
		Generation: row.Generation,
		Remaining:  max(row.Remaining(), 0),
		seen:       time.Now(),
		resting:    row.Owner == "" && row.Held() && l.store.Full(),
	}
}

// aged is the same some time later, when it is returned.
func (e *HeldError) aged(now time.Time) *HeldError {
	later := *e
	later.Age = now.Sub(e.seen)
	later.Remaining = max(e.Remaining-later.Age, 0)

	return &later
}
