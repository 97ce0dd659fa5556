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
	// Remaining is how long the lease still runs when the error is returned, unless it
	// was renewed or released after Seen. Zero: it had just changed hands, or is over.
	Remaining time.Duration
	// Seen is when the answer came from the database that says all this, by the local
	// clock. It may be long before the error is returned if the caller has waited, and the
	// database couldn't be asked any more.
	Seen time.Time

	// age is the time from Seen to the return of the error.
	age time.Duration
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

	if e.age >= old {
		is, when = "was", fmt.Sprintf(", when it was last seen %s ago", e.age.Round(time.Second/10))
	}

	text := fmt.Sprintf("%s: %q %s held%s, generation %d%s", ErrAlreadyLocked.Error(), e.LockID, is, by, e.Generation, when)

	if e.Remaining > 0 || e.age < old {
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
		Seen:       time.Now(),
		resting:    row.Owner == "" && row.Held() && l.store.Full(),
	}
}

// aged is the same some time later, when it is returned.
func (e *HeldError) aged(now time.Time) *HeldError {
	later := *e
	later.age = now.Sub(e.Seen)
	later.Remaining = max(e.Remaining-later.age, 0)

	return &later
}
