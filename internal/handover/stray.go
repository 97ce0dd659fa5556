package handover

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/store"
)

// A stray grant is one whose reply was lost.
const (
	// It shows on the row at once, or when a statement that waits for the row gets through. The row is looked
	// at firstLooks times within two seconds.
	firstLooks = 6
	delayMin   = 50 * time.Millisecond
	delayMax   = time.Second

	// Rarely, its request reaches the server later: PgBouncer keeps a request for two minutes, and sends it
	// even if its client has left. For strayFor the row is looked at every slowDelay.
	slowDelay = 4 * time.Second
	strayFor  = 2 * time.Minute

	// maxStrays bounds the stray grants of one lock. Older ones are left to expire.
	maxStrays = 512
)

// Settle looks in the background for the grants that requests without an answer may have brought, and returns
// them. It stops when none can come any more, as far as is known. On a table without owners they can't be
// found, and expire.
func (d *Desk) Settle(lockID string, grants []string, ttl time.Duration) {
	if len(grants) > 0 {
		d.SettleAll([]string{lockID}, grants, ttl)
	}
}

// SettleAll is Settle of requests that may have been granted several locks each. They are granted none of
// them while another transaction has the first one's row locked.
func (d *Desk) SettleAll(ids, grants []string, ttl time.Duration) {
	if len(grants) == 0 || !d.Store.Full() {
		return
	}

	key := strings.Join(ids, "\x00")
	if added, first := d.strays.add(key, grants, time.Now(), ttl); first {
		d.Aside(func() { d.settle(key, ids, added) })
	}
}

// settle looks for the strays of some locks until none is left. Once the Desk is closed it looks for what a
// request may have just brought, for [Grace] at most.
func (d *Desk) settle(key string, ids []string, added <-chan struct{}) {
	ctx, cancel := d.UntilClosed(context.Background())
	defer cancel()

	timer := time.NewTimer(delayMin)
	defer timer.Stop()

	for closed := d.ctx.Done(); ; {
		select {
		case <-added:
		case <-timer.C:
		case <-closed:
			closed = nil
		case <-ctx.Done():
			d.strays.drop(key)

			return
		}

		l, more := d.strays.next(key)
		if !more {
			return
		}

		if l.slow && closed == nil {
			d.strays.drop(key)

			return
		}

		attempt, cancel := context.WithTimeout(ctx, beside.Attempt(time.Until(l.until)))
		freed, err := d.Store.GiveBack(attempt, ids, l.grants, l.last)

		cancel()

		for _, id := range freed {
			d.Queue.Wake(id)
		}

		switch {
		case err != nil && !store.Transient(err):
			d.strays.drop(key) // the handle was closed, or the table is gone

			return
		case err == nil && d.strays.looked(key, l, len(freed) == len(ids)):
			return
		}

		timer.Reset(l.delay)
	}
}

// strays are the stray grants, by the locks that each was for. While a row is locked, each request that waits
// for it may add one. One statement looks for all of the same locks.
type strays struct {
	// mu guards what follows. Each lock that is in the map has a goroutine.
	mu    sync.Mutex
	locks map[string]*straysOfLock
}

type straysOfLock struct {
	// grants says until when each is looked for, by the local clock.
	grants map[string]time.Time
	// looks counts those that were answered since the last grant was added.
	looks int
	delay time.Duration
	// added has a token when a grant was, so that it is looked for at once.
	added chan struct{}
}

// add is true if nobody looks for grants of that lock yet. The one that does is told of later ones by the
// channel.
func (s *strays) add(key string, grants []string, now time.Time, ttl time.Duration) (added <-chan struct{}, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.locks == nil {
		s.locks = make(map[string]*straysOfLock)
	}

	all := s.locks[key]
	if first = all == nil; first {
		all = &straysOfLock{grants: make(map[string]time.Time), added: make(chan struct{}, 1)}
		s.locks[key] = all
	}

	if ttl > slowDelay { // a shorter lease isn't worth the slow looks
		ttl = max(ttl, strayFor)
	}

	for _, grant := range grants {
		if len(all.grants) >= maxStrays {
			oldest := slices.MinFunc(slices.Collect(maps.Keys(all.grants)), func(a, b string) int {
				return all.grants[a].Compare(all.grants[b])
			})
			delete(all.grants, oldest)
		}

		all.grants[grant] = now.Add(ttl)
	}

	all.looks, all.delay = 0, delayMin

	select {
	case all.added <- struct{}{}:
	default:
	}

	return all.added, first
}

type look struct {
	grants []string
	until  time.Time // the last of them is given up
	// last: the look stands in line behind requests that still wait for the row. slow: it comes after that.
	last, slow bool
	delay      time.Duration // before the next look
}

// next is what is to be looked for now, unless all are given up. A caller that adds a grant then is the first
// again.
func (s *strays) next(key string) (l look, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	all := s.locks[key]
	now := time.Now()

	maps.DeleteFunc(all.grants, func(_ string, until time.Time) bool { return !now.Before(until) })

	for grant, until := range all.grants {
		l.grants = append(l.grants, grant)

		if until.After(l.until) {
			l.until = until
		}
	}

	if len(l.grants) == 0 {
		delete(s.locks, key)

		return l, false
	}

	l.last, l.slow, l.delay = all.looks == firstLooks-1, all.looks >= firstLooks, all.delay

	longest := delayMax
	if l.slow {
		longest = slowDelay
	}

	all.delay = min(2*all.delay, longest)

	return l, true
}

// looked notes an answer, and returns true when all are settled. The answer doesn't say which of several was
// released. After the last of the first looks, a request can only be on its way to the server.
func (s *strays) looked(key string, l look, freed bool) (settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	all := s.locks[key]

	switch now := time.Now(); {
	case l.last:
		for _, grant := range l.grants {
			if until := all.grants[grant]; until.Before(now.Add(slowDelay)) {
				delete(all.grants, grant)
			} else if until.After(now.Add(strayFor)) {
				all.grants[grant] = now.Add(strayFor)
			}
		}
	case freed && len(l.grants) == 1:
		delete(all.grants, l.grants[0])
	}

	all.looks++

	if settled = len(all.grants) == 0; settled {
		delete(s.locks, key)
	}

	return settled
}

func (s *strays) drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.locks, key)
}
