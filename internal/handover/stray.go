package handover

import (
	"context"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/outlive"
	"github.com/ismurov/pglocker/internal/store"
)

const (
	// A stray grant, one whose reply was lost, shows on the row at once, or when a statement that still waits
	// for the row gets through. The row is looked at firstLooks times, within two seconds.
	firstLooks = 6
	delayMin   = 50 * time.Millisecond
	delayMax   = time.Second

	// Or its request reaches the server later, which is rare. After the first looks the row is looked at
	// every slowDelay, until strayFor after the request was given up: PgBouncer keeps a request that waits for
	// a connection for two minutes, and sends it even if its client has left.
	slowDelay = 4 * time.Second
	strayFor  = 2 * time.Minute

	// maxStrays bounds the stray grants of one lock. Older ones are left to expire.
	maxStrays = 512
)

// Settle returns, in the background, the grants that requests without an answer may have brought, so that
// others needn't wait for the end of such a lease. A request may be granted the lock even after a later one was
// granted it and has released it. Settle stops when no grant can come any more, as far as is known. On a table
// without owners a stray grant can't be found, and expires.
func (d *Desk) Settle(lockID string, grants []string, ttl time.Duration) {
	if len(grants) == 0 || !d.Store.Full() {
		return
	}

	end, err := d.Begin()
	added, first := d.strays.add(lockID, grants, time.Now(), ttl)

	switch {
	case err != nil && first:
		d.settleAtLast(lockID) // Close waits for the caller
	case err == nil && first:
		go func() {
			defer end()

			d.settle(lockID, added)
		}()
	case err == nil:
		end()
	}
}

// settle looks for the strays of a lock until none is left.
func (d *Desk) settle(lockID string, added <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-added:
		case <-timer.C:
		case <-d.ctx.Done():
			d.settleAtLast(lockID)

			return
		}

		l, more := d.strays.next(lockID)
		if !more {
			return
		}

		attempt, cancel := context.WithTimeout(d.ctx, beside.Attempt(time.Until(l.until)))
		freed, err := d.Store.GiveBack(attempt, lockID, l.grants, l.last)

		cancel()

		if freed {
			d.Queue.Wake(lockID)
		}

		switch {
		case err != nil && !store.Transient(err):
			// The handle was closed, or the table is gone.
			d.strays.drop(lockID)

			return
		case err == nil && d.strays.looked(lockID, l, freed):
			return
		}

		timer.Reset(l.delay)
	}
}

// settleAtLast looks for a grant that a request may have just brought, for [outlive.Grace] at most. A grant
// that comes later expires, and so does one that the first looks have not found.
func (d *Desk) settleAtLast(lockID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), outlive.Grace)
	defer cancel()

	for {
		l, more := d.strays.next(lockID)
		if !more {
			return
		}

		if !l.slow {
			freed, err := d.Store.GiveBack(ctx, lockID, l.grants, l.last)
			if err == nil && d.strays.looked(lockID, l, freed) {
				return
			}
		}

		if l.slow || !store.Pause(ctx, l.delay) {
			d.strays.drop(lockID)

			return
		}
	}
}

// strays are the stray grants, by lock. While a row is locked for long, each request that waits for it may add
// one. They must not wait for it each on a connection of its own: one statement looks for all of a lock.
type strays struct {
	// mu guards what follows. Each lock that is in the map has a goroutine.
	mu    sync.Mutex
	locks map[string]*straysOfLock
}

type straysOfLock struct {
	grants map[string]expectation
	// looks counts those since the last grant was added. slow: the first looks are over.
	looks int
	slow  bool
	delay time.Duration
	// added has a token when a grant was, so that it is looked for at once.
	added chan struct{}
}

// expectation is until when a grant is looked for, by the local clock.
type expectation struct {
	// waiting is when the lease would be over if the request waits for the row. onItsWay is from when on the
	// request is taken never to reach the server; zero for a lease of slowDelay or less, which isn't worth the
	// looks.
	waiting, onItsWay time.Time
}

func (e expectation) end() time.Time {
	if e.onItsWay.After(e.waiting) {
		return e.onItsWay
	}

	return e.waiting
}

// add is true if nobody looks for grants of that lock yet. The one that does is told of later ones by the
// channel.
func (s *strays) add(lockID string, grants []string, now time.Time, ttl time.Duration) (added <-chan struct{}, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.locks == nil {
		s.locks = make(map[string]*straysOfLock)
	}

	all := s.locks[lockID]
	if first = all == nil; first {
		all = &straysOfLock{grants: make(map[string]expectation), added: make(chan struct{}, 1)}
		s.locks[lockID] = all
	}

	expect := expectation{waiting: now.Add(ttl)}
	if ttl > slowDelay {
		expect.onItsWay = now.Add(strayFor)
	}

	for _, grant := range grants {
		if len(all.grants) >= maxStrays {
			all.forgetOldest()
		}

		all.grants[grant] = expect
	}

	all.looks, all.slow, all.delay = 0, false, delayMin

	if !first {
		select {
		case all.added <- struct{}{}:
		default:
		}
	}

	return all.added, first
}

func (all *straysOfLock) forgetOldest() {
	var oldest string

	for grant, e := range all.grants {
		if oldest == "" || e.end().Before(all.grants[oldest].end()) {
			oldest = grant
		}
	}

	delete(all.grants, oldest)
}

// look is what is looked for at one time.
type look struct {
	grants []string
	// until is when the last of them is given up.
	until time.Time
	// last: the look stands in line behind requests that may still wait for the row themselves.
	last bool
	// slow: the first looks have found nothing.
	slow bool
	// delay is the pause before the next look.
	delay time.Duration
}

// next is what is to be looked for now. There is no more when all are given up. A caller that adds a grant then
// is the first again.
func (s *strays) next(lockID string) (l look, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	all := s.locks[lockID]
	now := time.Now()

	for grant, e := range all.grants {
		end := e.end()
		if !now.Before(end) {
			delete(all.grants, grant)

			continue
		}

		l.grants = append(l.grants, grant)

		if end.After(l.until) {
			l.until = end
		}
	}

	if len(l.grants) == 0 {
		delete(s.locks, lockID)

		return l, false
	}

	l.slow, l.delay = all.slow, all.delay
	l.last = !all.slow && all.looks >= firstLooks-1

	longest := delayMax
	if all.slow {
		longest = slowDelay
	}

	all.delay = min(2*all.delay, longest)

	return l, true
}

// looked notes an answer. A grant is settled when it was released; the answer doesn't say which of several was.
// A grant that isn't on the row, and whose statement doesn't wait for the row, can only be on its way to the
// server. looked returns true when all are settled. A caller that adds a grant then is the first again.
func (s *strays) looked(lockID string, l look, freed bool) (settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	all := s.locks[lockID]

	switch {
	case l.last:
		// If it is free now, it may have been before.
		for _, grant := range l.grants {
			if e, ok := all.grants[grant]; ok && !e.onItsWay.IsZero() {
				all.grants[grant] = expectation{onItsWay: e.onItsWay}
			} else {
				delete(all.grants, grant)
			}
		}

		all.slow = all.looks >= firstLooks-1 // none was added meanwhile
	case freed && len(l.grants) == 1:
		delete(all.grants, l.grants[0])
	}

	all.looks++

	if settled = len(all.grants) == 0; settled {
		delete(s.locks, lockID)
	}

	return settled
}

func (s *strays) drop(lockID string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.locks, lockID)
}
