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

	// Or its request reaches the server later, which is rare. After those looks the row is
	// looked at every giveBackSlowly, until strayFor after the request was given up:
	// PgBouncer keeps a request that waits for a connection for two minutes, and sends it
	// even if its client has left.
	giveBackSlowly = 4 * time.Second
	strayFor       = 2 * time.Minute

	// maxGivenBack bounds how many grants of one lock are looked for. Older ones are left
	// to expire.
	maxGivenBack = 512
)

// giveBack returns, in the background, the grants that attempts without an answer may have
// brought, so that others needn't wait for the end of such a lease. An attempt may be granted
// the lock even after a later one was granted it and has released it. giveBack stops when no
// grant can come any more as far as is known. Close has it look once more.
func (l *Locker) giveBack(lockID string, grants []string, ttl time.Duration) {
	if len(grants) == 0 || !l.store.Full() {
		return
	}

	end, err := l.begin()
	added, first := l.givenBack.add(lockID, grants, time.Now(), ttl)

	switch {
	case err != nil && first:
		l.giveBackAtLast(lockID) // Close waits for the caller

		return
	case err != nil:
		return
	case !first:
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
			l.giveBackAtLast(lockID)

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

// giveBackAtLast looks for a grant that a request may have just brought, for giveUpGrace at
// most, since Close doesn't wait for longer. A grant that comes later expires, and so does one
// that earlier looks have not found.
func (l *Locker) giveBackAtLast(lockID string) {
	defer l.givenBack.drop(lockID)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), giveUpGrace)
	defer cancel()

	for {
		batch, more := l.givenBack.next(lockID)
		if !more || batch.slowly {
			return
		}

		freed, err := l.store.GiveBack(ctx, lockID, batch.grants, batch.last)
		if err == nil && l.givenBack.looked(lockID, batch, freed) || !store.Pause(ctx, batch.delay) {
			return
		}
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
	// grants says until when each is looked for, by the local clock.
	grants map[string]untilWhen
	// looks counts those since the last grant was added. slowly: they were answered, and what
	// has not come by then is expected to come never.
	looks  int
	slowly bool
	delay  time.Duration
	// added has a token when one was, so that it is looked for at once.
	added chan struct{}
}

// untilWhen is until when a grant is looked for.
type untilWhen struct {
	// row is when the lease would be over if the request has reached the server and waits
	// for the row. stray is from when on the request is taken never to reach the server; zero
	// for a lease of giveBackSlowly or less, which isn't worth the looks.
	row, stray time.Time
}

func (u untilWhen) last() time.Time {
	if u.stray.After(u.row) {
		return u.stray
	}

	return u.row
}

// add is true if nobody gives back grants of that lock yet. Whoever does is told of later
// ones by the channel.
func (g *givenBack) add(lockID string, grants []string, now time.Time, ttl time.Duration) (added <-chan struct{}, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	if g.locks == nil {
		g.locks = make(map[string]*grantsToGiveBack)
	}

	all := g.locks[lockID]
	if first = all == nil; first {
		all = &grantsToGiveBack{grants: make(map[string]untilWhen), added: make(chan struct{}, 1)}
		g.locks[lockID] = all
	}

	until := untilWhen{row: now.Add(ttl)}
	if ttl > giveBackSlowly {
		until.stray = now.Add(strayFor)
	}

	for _, grant := range grants {
		if len(all.grants) >= maxGivenBack {
			all.forgetOldest()
		}

		all.grants[grant] = until
	}

	all.looks, all.slowly, all.delay = 0, false, giveBackDelayMin

	if !first {
		select {
		case all.added <- struct{}{}:
		default:
		}
	}

	return all.added, first
}

func (all *grantsToGiveBack) forgetOldest() {
	var oldest string

	for grant, until := range all.grants {
		if oldest == "" || until.last().Before(all.grants[oldest].last()) {
			oldest = grant
		}
	}

	delete(all.grants, oldest)
}

// giveBackBatch is what is asked for at one time.
type giveBackBatch struct {
	grants []string
	// until is when the last of them is given up.
	until time.Time
	// last: the look stands in line behind requests that may still wait for the row
	// themselves.
	last bool
	// slowly: the first looks have found nothing.
	slowly bool
	// delay is the pause before the next look.
	delay time.Duration
}

// next is what is to be asked for now. There is no more when all are given up. A caller that
// adds a grant then is the first again.
func (g *givenBack) next(lockID string) (batch giveBackBatch, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	all := g.locks[lockID]
	now := time.Now()

	for grant, until := range all.grants {
		last := until.last()
		if !now.Before(last) {
			delete(all.grants, grant)

			continue
		}

		batch.grants = append(batch.grants, grant)

		if last.After(batch.until) {
			batch.until = last
		}
	}

	if len(batch.grants) == 0 {
		delete(g.locks, lockID)

		return batch, false
	}

	batch.slowly = all.slowly
	batch.last, batch.delay = !all.slowly && all.looks >= giveBackLooks-1, all.delay

	longest := giveBackDelayMax
	if all.slowly {
		longest = giveBackSlowly
	}

	all.delay = min(2*all.delay, longest)

	return batch, true
}

// looked notes an answer. A grant is settled when it was freed. The answer doesn't say which of
// several was. When a grant isn't on the row, and its statement doesn't wait for the row, it
// can only be on its way to the server. looked returns true when all are settled. A caller that
// adds a grant then is the first again.
func (g *givenBack) looked(lockID string, batch giveBackBatch, freed bool) (settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	all := g.locks[lockID]

	switch {
	case batch.last:
		// If it is free now, it may have been before.
		for _, grant := range batch.grants {
			if until, ok := all.grants[grant]; ok && !until.stray.IsZero() {
				all.grants[grant] = untilWhen{stray: until.stray}
			} else {
				delete(all.grants, grant)
			}
		}

		all.slowly = all.looks >= giveBackLooks-1 // none was added meanwhile
	case freed && len(batch.grants) == 1:
		delete(all.grants, batch.grants[0])
	}

	all.looks++

	if settled = len(all.grants) == 0; settled {
		delete(g.locks, lockID)
	}

	return settled
}

func (g *givenBack) drop(lockID string) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.locks, lockID)
}
