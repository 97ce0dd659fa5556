package pglocker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
)

// lossError is the error of a lost lock. holders names the transactions that have its row locked.
func lossError(lockID string, token int64, loss keepalive.Loss, holders string) error {
	if loss.Gone {
		return fmt.Errorf("%w: the database shows %q expired, or with another token than %d",
			ErrLockLost, lockID, token)
	}

	return fmt.Errorf("%w: no renewal of %q was acknowledged in time, the last one %s ago: %w",
		ErrLockLost, lockID, rounded(loss.Since), causeOf(loss.Cause, holders))
}

// causeOf says what keeps renewals from being acknowledged.
func causeOf(c keepalive.Cause, holders string) error {
	var text string

	switch {
	case c.Locked && holders != "":
		text = "the row is locked by another transaction (" + holders + ")"
	case c.Locked:
		text = "the row is locked by another transaction"
	case c.Unanswered > 0 && c.Opening:
		text = fmt.Sprintf("no connection could be opened for %s", rounded(c.Unanswered))
	case c.Unanswered > 0:
		text = fmt.Sprintf("the server has not answered for %s", rounded(c.Unanswered))
	case c.Err == nil && c.Short > 0:
		text = fmt.Sprintf("the table shows a lease that is %s shorter than was asked for (a trigger?)", rounded(c.Short))
	case c.Err == nil:
		text = "none was answered"
	}

	switch {
	case c.Err == nil:
		return errors.New(text)
	case text == "":
		return notOurs{c.Err}
	}

	return fmt.Errorf("%s: %w", text, notOurs{c.Err})
}

func rounded(d time.Duration) time.Duration {
	if d >= 10*time.Second {
		return d.Round(time.Second)
	}

	return d.Round(time.Millisecond)
}

// notOurs is an error that matches what it wraps, but for the errors of contexts. A driver's own limit would
// look like the end of a context of the caller's.
type notOurs struct{ err error }

func (e notOurs) Error() string { return e.err.Error() }

func (e notOurs) Is(target error) bool {
	return target != context.Canceled && target != context.DeadlineExceeded && errors.Is(e.err, target)
}

func (e notOurs) As(target any) bool { return errors.As(e.err, target) }

func (lk *Lock) tellLoss(loss keepalive.Loss, err error, heldFor time.Duration) {
	l := lk.group.locker

	l.watch.lost(lk, loss, heldFor, err)
	l.desk.Aside(func() {
		l.cfg.Logger.Error("pglocker: a lock was lost", "lock", lk.lease.LockID, "token", lk.lease.Generation,
			"error", err, "ttl", lk.ttl, "held_for", heldFor, "last_renewed_ago", loss.Since)
	})
}

// rowLocked is called while another transaction has the row locked and the lease has not much left. A loss can't
// wait for the look for that transaction.
func (lk *Lock) rowLocked() {
	g := lk.group

	g.mu.Lock()
	known := lk.rowHolders != "" || g.lost != nil || g.unlocked
	g.mu.Unlock()

	l := lk.group.locker
	if known || l.desk.Context().Err() != nil {
		return
	}

	l.desk.Aside(func() {
		if !l.report.looking.TryLock() {
			return // a transaction that has many rows locked is found by one of them
		}
		defer l.report.looking.Unlock()

		holders := l.report.rowHolders(lk.lease.LockID)

		g.mu.Lock()
		defer g.mu.Unlock()

		if holders != "" { // another look may have found them
			lk.rowHolders = holders
		}
	})
}
