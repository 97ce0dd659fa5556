package pglocker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// maxLocalRun bounds how often in a row a lock is handed over inside a process
// while another process is known to wait, or might. After that many the lock is
// freed for all.
const maxLocalRun = 16

// Unlock ends the tenure, and cancels the lock's context. If somebody in this
// Locker waits for the lock, it is handed over to the first of them in the same
// statement, at most 16 times in a row where another process may be waiting.
//
// It returns nil if the lock was held to the moment of the call and is free now,
// or another's, or held until the time of [WithMinHold] is over. Errors:
//
//   - [ErrLockLost], also as its cause says why: the lock was lost before.
//   - [ErrAlreadyUnlocked]: Unlock was called before, or Do or Close did it.
//     Whether that call succeeded, it says itself.
//   - [ErrNotReleased], and the cause: the lock was held to the moment of the
//     call, but ctx ended or the lease did before the database had confirmed. The
//     lock frees itself at the end of its lease, if it isn't free already.
func (lk *Lock) Unlock(ctx context.Context) error {
	term := lk.locker.renewer.Remove(lk.lease)
	now := time.Now()

	if term.Left(now) <= 0 {
		// The renewer would have found it at its next look.
		lk.lose(keepalive.Loss{})
	}

	lk.mu.Lock()
	again, lost := lk.unlocked, lk.lost
	lk.unlocked = true
	lk.mu.Unlock()

	if again {
		return fmt.Errorf("%w: %q", ErrAlreadyUnlocked, lk.lease.LockID)
	}

	lk.locker.held.remove(lk)
	defer lk.cancel(context.Canceled)

	span := lk.locker.watch.start(ctx, OperationRelease, lk.lease.LockID, 1)
	err := lk.free(span.ctx, term.LeaseLeft(now))
	span.end(err)

	switch {
	case lost != nil:
		return lost // freeing it early was a courtesy to those who wait
	case err == nil:
		return nil
	case errors.Is(err, ErrWrongGeneration), errors.Is(err, ErrLockNotFound):
		return fmt.Errorf("%w: found on release: %w", ErrLockLost, err)
	default:
		return fmt.Errorf("%w: %w", ErrNotReleased, err)
	}
}

// free gives up the lock, trying for as long as the database may show the lease.
// It asks over the pool, and from the second time on, or where the application
// has the whole pool in use, over a connection of its own.
func (lk *Lock) free(ctx context.Context, left time.Duration) error {
	l := lk.locker

	var (
		until = time.Now().Add(left)
		own   *session
		doubt error
		given = tenure{lockID: lk.lease.LockID, generation: lk.lease.Generation}
	)

	defer func() {
		if own != nil {
			own.Close()
		}
	}()

	if lk.minHold > 0 {
		given.heldUntil = lk.granted.Add(lk.minHold)
	}

	for n := 0; ; n++ {
		st := l.store

		if n > 0 || exhausted(l.db.Stats()) {
			if own == nil {
				own = l.newSession()
			}

			st = own.store
		}

		attempt, cancel := context.WithTimeout(ctx, min(left/4, time.Until(until)))
		err := l.pass(attempt, st, &given)

		cancel()

		switch {
		case doubt != nil && errors.Is(err, ErrWrongGeneration):
			// The lock was this one's when the request went out whose reply was
			// lost, so that request was the one that moved the generation.
			return nil
		case err == nil, !mayAskAgain(err):
			return err
		case errors.Is(err, ErrUnknownOutcome):
			doubt = err
		}

		if !store.Pause(ctx, min(left/20, time.Second)) || time.Now().After(until) {
			return err
		}
	}
}

// mayAskAgain reports whether an error leaves the request unanswered, for reasons
// that may pass.
func mayAskAgain(err error) bool {
	return !errors.Is(err, ErrWrongGeneration) && !errors.Is(err, ErrLockNotFound) && store.Transient(err)
}

// exhausted reports whether a request for a connection of this pool would wait.
func exhausted(stats sql.DBStats) bool {
	return stats.MaxOpenConnections > 0 && stats.InUse >= stats.MaxOpenConnections
}

// tenure is what is given up: the lock as long as its generation is this one.
type tenure struct {
	lockID     string
	generation int64
	heldUntil  time.Time // zero: no minimum hold
}

// pass gives up a tenure: to the first who waits in this Locker, or to all. If a
// waiter leaves while its grant is on the way, the grant becomes the tenure.
func (l *Locker) pass(ctx context.Context, st *store.Store, t *tenure) error {
	hold := time.Until(t.heldUntil)

	for hold <= 0 && l.ctx.Err() == nil { // a closed Locker's waiters are leaving
		head, run, others := l.queue.Head(t.lockID)
		mayCompete := others || !l.listener.Proven() // who polls leaves no mark

		if head == nil || run >= l.localRun && mayCompete {
			break
		}

		name := l.grantName()

		res, err := st.HandOver(ctx, t.lockID, t.generation, name, head.TTL, l.cfg.margin(head.TTL))
		if err != nil {
			if errors.Is(err, ErrUnknownOutcome) {
				l.giveBack(t.lockID, name, head.TTL)
			}

			return err
		}

		if err := verdictError(res.Verdict); err != nil {
			return err
		}

		t.generation = res.Row.Generation
		l.queue.Saw(t.lockID, res.Row.ContendedUntil, res.Row.Now)

		if l.queue.Deliver(head, res) {
			// The next holder's work comes before what is left of this one's.
			runtime.Gosched()

			return nil
		}
	}

	// At the end of a run the own waiters hear of it as all others do.
	_, run, _ := l.queue.Head(t.lockID)
	shared := run >= l.localRun

	l.queue.EndRun(t.lockID)

	res, err := st.Release(ctx, t.lockID, t.generation, max(hold, 0))
	if !shared || !res.Notified {
		l.queue.Wake(t.lockID)
	}

	if err != nil {
		return err
	}

	return verdictError(res.Verdict)
}
