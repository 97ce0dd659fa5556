package keepalive

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// linger is how long the loop and its connection outlive the last lease: another may follow.
	linger = 100 * time.Millisecond
	// clockCheck is how often the loop looks at the wall clock. It finds a machine that slept.
	clockCheck = 500 * time.Millisecond
	// clockDrift is how far ahead the wall clock may get before readClocks acts.
	clockDrift = time.Millisecond
)

// Renewer renews leases. The zero value is not usable.
type Renewer struct {
	open      func() Session
	onTrouble func(Trouble)
	began     time.Time // what moments are counted from

	// mu guards the fields up to the next empty line, and those of leases and attempts. It is
	// not held while the database is asked or a callback runs.
	mu sync.Mutex
	// held counts the leases. ends has all of them, next and early those that wait, and due those that are due.
	held                   int
	ends, next, early, due queue
	// added is the lease that was added last, nil if it was removed.
	added *Lease
	// ahead is how far the wall clock was ahead of the monotonic one, since began, when the
	// moments in ends were computed.
	ahead time.Duration
	// troubled counts the leases in trouble. urgent is what report tells of.
	troubled int
	urgent   *Lease
	parties  uint64 // counts the values of Lease.party
	// stop ends the loop and its attempts, nil while there is no loop.
	stop context.CancelFunc
	// attempts are those under way. current is the one that is not doubled, nil if none.
	attempts map[*attempt]struct{}
	current  *attempt
	// idle is the connection that no attempt has, nil if none.
	idle *link
	// looksAt is the moment when the loop looks again by itself, and endsAt the one when it
	// ends if nothing is held by then; 0 is at once.
	looksAt, endsAt time.Duration
	// losses and calls are what unlock calls, losses first.
	losses, calls []func()

	wake       chan struct{}  // makes the loop look again
	goroutines sync.WaitGroup // the loop and the attempts
}

// New returns a Renewer that owns nothing yet. It calls open when it needs a session. It calls
// onTrouble, which must return at once, of every [Trouble] and at its end.
func New(open func() Session, onTrouble func(Trouble)) *Renewer {
	return &Renewer{
		open:      open,
		onTrouble: onTrouble,
		began:     time.Now(),
		ends:      queue{order: byEnd},
		next:      queue{order: byNext},
		early:     queue{order: byEarly},
		due:       queue{order: byUrgency},
		attempts:  make(map[*attempt]struct{}),
		wake:      make(chan struct{}, 1),
	}
}

// Add starts to renew a lease whose present term is known.
func (r *Renewer) Add(l *Lease, term Term) {
	r.mu.Lock()
	defer r.mu.Unlock()

	now := time.Now()
	l.term, l.held = term, true
	r.held++

	next := term.Sent
	if !l.RenewNow {
		next = next.Add(l.interval())
	}

	if !r.follow(l) {
		r.ends.put(l, r.end(l, now))
		r.wait(l, next)
	}

	if r.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		r.stop, r.looksAt = stop, now.Sub(r.began)

		r.goroutines.Go(func() { r.run(ctx) })
	}

	// Leases come and go far more often than one is due.
	if l.places[byEnd] > 0 && min(l.moments[byNext], l.moments[byEnd]) < r.looksAt {
		r.poke()
	}
}

func (r *Renewer) queues() [orders]*queue {
	return [orders]*queue{&r.ends, &r.next, &r.early, &r.due}
}

// Remove ends the renewals of a lease and returns its last term. A renewal or a callback that
// is under way may still come.
func (r *Renewer) Remove(l *Lease) Term {
	r.mu.Lock()
	defer r.unlock()

	if l.held {
		r.drop(l)
	}

	if r.ends.Len() == 0 {
		r.endsAt = time.Since(r.began) + linger

		if r.endsAt < r.looksAt {
			r.poke()
		}
	}

	return l.term
}

// Term returns the present term of a lease, or the last one that it had.
func (r *Renewer) Term(l *Lease) Term {
	r.mu.Lock()
	defer r.mu.Unlock()

	return l.term
}

// Wait ends the linger. It returns when nothing is held and all goroutines have ended.
func (r *Renewer) Wait() {
	r.mu.Lock()
	r.endsAt = 0
	r.poke()
	r.mu.Unlock()

	r.goroutines.Wait()
}

// unlock releases mu and makes the calls that were left for it.
func (r *Renewer) unlock() {
	calls := slices.Concat(r.losses, r.calls)
	r.losses, r.calls = nil, nil
	r.mu.Unlock()

	for _, call := range calls {
		call()
	}
}

func (r *Renewer) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run is the loop.
func (r *Renewer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-timer.C:
		case <-r.wake:
		}

		next := r.step(ctx, time.Now())
		if next == 0 {
			return
		}

		timer.Reset(next)
	}
}

// step is one look of the loop, which starts at most one attempt. It returns how long it is
// until the next look, 0 if the loop ends.
func (r *Renewer) step(ctx context.Context, now time.Time) (next time.Duration) {
	r.mu.Lock()
	defer r.unlock()

	r.readClocks(now)
	next = min(r.endPatience(now), clockCheck)
	next = min(r.endTerms(now), next)
	next = min(r.fallDue(now), next)

	if r.ends.Len() == 0 {
		left := r.endsIn(now)
		if left <= 0 {
			r.rest()

			return 0
		}

		next = min(left, next)
	}

	switch {
	case r.due.Len() == 0:
	case r.mayStart(now):
		next = min(r.start(ctx, now), next)
	default:
		next = min(r.hurry(now), next)
	}

	next = max(next, time.Microsecond)
	r.looksAt = now.Sub(r.began) + next

	return next
}

// endTerms loses the leases whose term is over. It returns how long it is until the next is.
func (r *Renewer) endTerms(now time.Time) time.Duration {
	for l := r.ends.first(); l != nil; l = r.ends.first() {
		left, ahead := l.term.Left(now), l.moments[byEnd]-now.Sub(r.began)

		switch {
		case left <= 0:
			r.lose(l, false, now)
		case ahead > 0:
			return min(left, ahead)
		default: // the wall clock was set back
			r.ends.put(l, r.end(l, now))
		}
	}

	return clockCheck
}

// readClocks computes the ends of all terms again if the wall clock has got ahead. If it has
// fallen behind, terms end later than their moments say, and endTerms puts that right.
func (r *Renewer) readClocks(now time.Time) {
	ahead := now.Round(0).Sub(r.began.Round(0)) - now.Sub(r.began)

	if ahead-r.ahead > clockDrift {
		for _, q := range []*queue{&r.ends, &r.due} {
			for i := range q.entries {
				l := q.entries[i].lease
				l.moments[q.order] = r.end(l, now)
				q.entries[i].moment = l.moments[q.order]
			}

			heap.Init(q)
		}

		r.ahead = ahead
	}

	// A term that was added while the wall clock was behind ends earlier if it catches up.
	r.ahead = min(r.ahead, ahead)
}

// endsIn is how long the loop goes on with nothing held: linger, AttemptMin for each request.
func (r *Renewer) endsIn(now time.Time) time.Duration {
	if r.endsAt == 0 {
		return 0
	}

	left := r.endsAt - now.Sub(r.began)

	for a := range r.attempts {
		if !a.opens {
			left = max(left, AttemptMin-now.Sub(a.since))
		}
	}

	return left
}

// rest lets go of everything that a Renewer at rest doesn't own.
func (r *Renewer) rest() {
	r.stop()
	r.stop, r.current = nil, nil
	clear(r.attempts) // finish closes their connections

	if r.idle != nil {
		r.calls = append(r.calls, r.idle.Close)
		r.idle = nil
	}
}
