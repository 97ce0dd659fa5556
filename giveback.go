package pglocker

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

const (
	// A grant whose reply was lost shows on the row at once, or when a statement
	// that still waits for the row gets through. The row is looked at a few times,
	// over one to two seconds in all.
	giveBackLooks    = 6
	giveBackDelayMin = 50 * time.Millisecond
	giveBackDelayMax = time.Second
)

// giveBack frees, in the background, what a request may have been granted whose
// outcome nobody knows, so that others needn't wait for the end of its lease. It
// stops when that lease is over at the latest, or when the Locker is closed.
func (l *Locker) giveBack(lockID, grant string, ttl time.Duration) {
	if !l.store.Full() {
		return
	}

	end, err := l.begin()
	if err != nil {
		return
	}

	go func() {
		defer end()

		ctx, cancel := context.WithTimeout(l.ctx, ttl)
		defer cancel()

		timer := time.NewTimer(0)
		defer timer.Stop()

		delay := giveBackDelayMin

		for looks := 0; looks < giveBackLooks; {
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}

			// The last look stands in line behind a request that may itself still wait
			// for the row.
			last := looks == giveBackLooks-1

			attempt, cancel := context.WithTimeout(ctx, attemptMax)
			freed, err := l.store.GiveBack(attempt, lockID, grant, last)

			cancel()

			if freed {
				l.queue.Wake(lockID)

				return
			}

			if err != nil && !store.Transient(err) {
				return // the handle was closed, or the table is gone
			}

			if err == nil {
				looks++
			}

			timer.Reset(delay)
			delay = min(2*delay, giveBackDelayMax)
		}
	}()
}
