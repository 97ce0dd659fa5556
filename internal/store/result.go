package store

import (
	"fmt"
	"time"
)

// Verdict is the database's answer to a request, given that there was one.
type Verdict int

const (
	// Granted: the row is as asked for, and that is durable.
	Granted Verdict = iota + 1
	// Busy: the lock is held by another.
	Busy
	// WrongGeneration: the row has another generation than the request named.
	WrongGeneration
	// NotFound: there is no row.
	NotFound
)

// Result is a verdict with what it rests on.
type Result struct {
	Verdict Verdict
	// Row is the row after a grant, or the row in the way. Of several locks that were granted it is
	// that whose lease ends first.
	Row Row
	// LockID is the lock in the way of a request for several locks, and Grants are the locks that it
	// was granted. Requests for one lock leave both empty.
	LockID string
	Grants []LockRow
	// Mark is the mark that stood on the row before a Claim that was not granted.
	Mark time.Time
	// Intended: a refused request for slots found a writer's intent.
	Intended bool
	// Contested: a request for slots was refused because others were granted theirs first. Some may be free.
	Contested bool
	// Marked: that Claim left a mark. Row shows it, or that of another waiter since.
	Marked bool
	// Stray are the owners of attempts of this request whose replies were lost, also beside an
	// error. The row may show one of them, unless the verdict is Granted. Or the server may still
	// grant it, minutes later. No caller waits for such a grant.
	Stray []string
	// Again is how long after it a request that was refused should be repeated at the latest, or 0.
	Again time.Duration
	// HandedOver: the release of a holder in this process has granted it.
	HandedOver bool
	// Notified: a release notified waiters.
	Notified bool
	// Sent is the moment before the granting statement was sent.
	Sent time.Time
	// Later is how long after Sent the statement was sent that Row is from, if it is another.
	Later time.Duration
}

// LockRow is one of several locks.
type LockRow struct {
	LockID string
	Row    Row
}

// Lease is how long the row of a grant shows the lease, counted from after Sent: at least what was
// asked for, unless a trigger cut it.
func (r Result) Lease() time.Duration { return leaseOf(r.Row.ExpiresAt, r.Row.Began) + r.Later }

// errCut is the error of a grant whose lease is too short for any use.
func errCut(res Result, margin time.Duration) error {
	return fmt.Errorf("%w: it shows a lease of %s where more was asked for, and at least the safety margin of %s "+
		"is needed (a trigger?)", ErrInvalidTable, res.Lease(), margin)
}
