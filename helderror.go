package pglocker

import (
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// HeldError is the error of an attempt to take a lock that another holds. It matches [ErrAlreadyLocked].
type HeldError struct {
	LockID string
	// Owner is who holds the lock, in the form of [LockStatus.Owner]. It is "" where that isn't known, and
	// while only a minimum hold ([WithMinHold]) keeps the lock from being granted.
	Owner string
	// Generation is the holder's token, or the generation that the release has left beside the minimum hold.
	Generation int64
	// Remaining is how long the lease, or the minimum hold, still runs, counted from the return of the error:
	// Age is already subtracted. The holder may have renewed or released the lock since the database was
	// asked. Zero: the lock had just changed hands, or the lease is over.
	Remaining time.Duration
	// Age is how old the database's answer was when the error was returned. It is zero for a caller that
	// hasn't waited, and grows while the database can't be asked.
	Age time.Duration

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

	text := fmt.Sprintf("%s: %q %s held%s, token %d%s", ErrAlreadyLocked.Error(), e.LockID, is, by, e.Generation, when)

	if e.Remaining > 0 || e.Age < old {
		text += fmt.Sprintf(", for another %s", e.Remaining.Round(time.Millisecond))
	}

	return text
}

// Is reports whether target is [ErrAlreadyLocked].
func (e *HeldError) Is(target error) bool { return target == ErrAlreadyLocked }

// heldError is the error of a lock that another holds, by what the database showed some time ago.
func (l *Locker) heldError(lockID string, row store.Row, ago time.Duration) error {
	return &HeldError{
		LockID:     lockID,
		Owner:      row.Owner,
		Generation: row.Generation,
		Remaining:  max(row.Remaining()-ago, 0),
		Age:        ago,
		resting:    row.Owner == "" && row.Held() && l.store.Full(),
	}
}
