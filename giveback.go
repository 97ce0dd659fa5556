package pglocker

import (
	"context"
	"sync"
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
// stops when that lease is over, with what it has asked by then, or when the Locker is
// closed.
func (l *Locker) giveBack(lockID, grant string, ttl time.Duration) {
	if !l.store.Full() {
		return
	}

	end, err := l.begin()
	if err != nil {
		return
	}

	added, first := l.givenBack.add(lockID, grant, time.Now().Add(ttl))
	if !first {
		end()

		return
	}

	go func() {
		defer end()

		l.giveBackAll(lockID, added)
	}()
}

// giveBackAll gives back the grants that were added for a lock, until none is left.
func (l *Locker) giveBackAll(lockID string, added <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-added:
		case <-timer.C:
		case <-l.ctx.Done():
			l.givenBack.drop(lockID)

			return
		}

		batch, more := l.givenBack.next(lockID)
		if !more {
			return
		}

		attempt, cancel := context.WithTimeout(l.ctx, attemptFor(time.Until(batch.until)))
		freed, err := l.store.GiveBack(attempt, lockID, batch.grants, batch.last)

		cancel()

		if freed {
			l.queue.Wake(lockID)
		}

		switch {
		case err != nil && !store.Transient(err):
			// The handle was closed, or the table is gone.
			l.givenBack.drop(lockID)

			return
		case err == nil && l.givenBack.looked(lockID, batch, freed):
			return
		}

		timer.Reset(batch.delay)
	}
}

// givenBack are the grants to be given back, by lock. While a row is locked for long,
// each request that waits for it may add one, and they must not wait for it each on a
// connection of its own: one statement asks for all of a lock. Looks for several locks share
// statements in the store.
type givenBack struct {
	// mu guards what follows. Each lock that is in the map has a goroutine.
	mu    sync.Mutex
	locks map[string]*grantsToGiveBack
}

type grantsToGiveBack struct {
	// until is when the lease of each grant is over at the latest, by the local clock.
	until map[string]time.Time
	// looks counts those since the last grant was added.
	looks int
	delay time.Duration
	// added has a token when one was, so that it is looked for at once.
	added chan struct{}
}

// add is true if nobody gives back grants of that lock yet. Whoever does is told of later
// ones by the channel.
func (g *givenBack) add(lockID, grant string, until time.Time) (added <-chan struct{}, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	if g.locks == nil {
		g.locks = make(map[string]*grantsToGiveBack)
	}

	all := g.locks[lockID]
	if first = all == nil; first {
		all = &grantsToGiveBack{until: make(map[string]time.Time), added: make(chan struct{}, 1)}
		g.locks[lockID] = all
	}

	all.until[grant] = until
	all.looks, all.delay = 0, giveBackDelayMin

	if !first {
		select {
		case all.added <- struct{}{}:
		default:
		}
	}

	return all.added, first
}

// giveBackBatch is what is asked for at one time.
type giveBackBatch struct {
	grants []string
	// until is when the last of their leases is over.
	until time.Time
	// last: the look stands in line behind requests that may still wait for the row
	// themselves.
	last bool
	// delay is the pause before the next look.
	delay time.Duration
}

// next is what is to be asked for now. There is no more when all leases are over;
// whoever adds a grant then is the first again.
func (g *givenBack) next(lockID string) (batch giveBackBatch, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	all := g.locks[lockID]
	now := time.Now()

	for grant, until := range all.until {
		if !now.Before(until) {
			delete(all.until, grant)

			continue
		}

		batch.grants = append(batch.grants, grant)

		if until.After(batch.until) {
			batch.until = until
		}
	}

	if len(batch.grants) == 0 {
		delete(g.locks, lockID)

		return batch, false
	}

	batch.last, batch.delay = all.looks >= giveBackLooks-1, all.delay
	all.delay = min(2*all.delay, giveBackDelayMax)

	return batch, true
}

// looked notes an answer. A grant is settled when it was freed, or when it is neither on
// the row nor on its way there. Which of several was freed the answer doesn't say. It
// returns true when all are settled; whoever adds a grant then is the first again.
func (g *givenBack) looked(lockID string, batch giveBackBatch, freed bool) (settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	all := g.locks[lockID]
	all.looks++

	if batch.last || freed && len(batch.grants) == 1 {
		for _, grant := range batch.grants {
			delete(all.until, grant)
		}
	}

	if settled = len(all.until) == 0; settled {
		delete(g.locks, lockID)
	}

	return settled
}

func (g *givenBack) drop(lockID string) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.locks, lockID)
}
