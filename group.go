package pglocker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/store"
)

// group is locks that are held as one, in the order of their ids: one context, and if one is lost, all are. A
// lock by itself is a group of one. Once a group has begun, only what mu guards changes.
type group struct {
	locker *Locker
	locks  []*Lock
	// shown is the lock that [FromContext] finds, nil if there is none.
	shown *Lock

	ctx    context.Context
	cancel context.CancelCauseFunc
	// outer is the group whose context this one's was made from, nil if there is none.
	outer *group

	// freed is closed when the first unlock has ended.
	freed chan struct{}

	// mu guards what follows, and the state of the locks. It is not held while the database is asked.
	mu sync.Mutex
	// lost is why the locks were lost, nil if they weren't. What is unlocked can't be lost.
	lost     error
	unlocked bool
	// hold is nil before startHold and after endHold.
	hold *observedHold
	// exchanged: a downgrade may have ended the tenure.
	exchanged bool
}

// holdAll starts to keep alive several leases as one, all granted by one request whose term is known. gate is
// the lock in whose line their waiters stand, "" if that is each one's own.
func (l *Locker) holdAll(parent context.Context, grants []store.LockRow, gate string, term keepalive.Term, o lockOptions) *group {
	g := new(group)
	g.begin(parent, l)
	g.add(grants, gate, term, o)

	return g
}

// add adds leases to a group that nobody has yet, and starts to keep them alive.
func (g *group) add(grants []store.LockRow, gate string, term keepalive.Term, o lockOptions) {
	var (
		locks = make([]*Lock, len(grants))
		block = make([]Lock, len(grants))
	)

	for i, granted := range grants {
		locks[i] = &block[i]
		locks[i].init(g, newStatus(granted.LockID, granted.Row), term, o, false)
		locks[i].tenure.Gate = gate
	}

	g.mu.Lock()
	g.locks = append(g.locks, locks...)
	g.mu.Unlock()

	for _, lk := range locks {
		g.locker.renewer.Add(&lk.lease, term)
		lk.count(1)
	}

	if g.over() == nil {
		return
	}

	for _, lk := range locks { // lose may have come before all of them were added
		g.locker.renewer.Remove(&lk.lease)
	}
}

// holdFor sets the minimum hold of a group that nobody has yet.
func (g *group) holdFor(minHold time.Duration) {
	for _, lk := range g.locks {
		if minHold > 0 {
			lk.tenure.HeldUntil = time.Now().Add(minHold)
		}
	}
}

// acquireAll is acquire and holdAll.
func (l *Locker) acquireAll(ctx, parent context.Context, r line.Request, gate string, o lockOptions) (*group, error) {
	res, term, err := l.acquire(ctx, r)
	if err != nil {
		return nil, err
	}

	g := l.holdAll(parent, res.Grants, gate, term, o)
	g.startHold(res.HandedOver)

	return g, nil
}

// begin makes the context of a group.
func (g *group) begin(parent context.Context, l *Locker) {
	g.locker, g.freed, g.outer = l, make(chan struct{}), groupOf(parent)

	ctx, cancel := context.WithCancelCause(parent)
	g.ctx, g.cancel = context.WithValue(ctx, groupKey{}, g), cancel
}

// lose marks all locks as lost because of one, and cancels their context, unless they were unlocked. The
// others aren't renewed any more, and are free when their leases end: their holder may still be at work. err is the
// caller's, or nil. tell runs what tells the observer, which may take its time.
func (g *group) lose(lk *Lock, loss keepalive.Loss, err error, tell func(func())) {
	g.mu.Lock()

	if g.unlocked || g.lost != nil {
		lk.gone = lk.gone || loss.Gone
		g.mu.Unlock()

		return
	}

	locks := g.locks // more may be on the way

	if err == nil {
		err = lossError(lk.lease.LockID, lk.lease.Generation, loss, lk.rowHolders)
	}

	if len(locks) > 1 {
		err = fmt.Errorf("%w (and so are all %d that are held as one)", err, len(locks))
	}

	err = tidy(err)
	g.lost, lk.gone = err, lk.gone || loss.Gone
	g.cancel(err)
	g.mu.Unlock()

	l, now := g.locker, time.Now()

	tell(func() {
		g.endHold(err)
		lk.tellLoss(loss, err, now.Sub(lk.granted))
	})

	l.desk.WakeAt(lk.line(), now.Add(l.cfg.margin(lk.ttl)))

	for _, other := range locks {
		if other != lk {
			l.desk.WakeAt(other.line(), now.Add(l.renewer.Remove(&other.lease).LeaseLeft(now)))
		}
	}

	l.held.remove(g)
}

// here is for lose by a caller that waits for what is told.
func here(tell func()) { tell() }

// setGone says whether there is nothing left to release.
func (lk *Lock) setGone(gone bool) {
	lk.group.mu.Lock()
	defer lk.group.mu.Unlock()

	lk.gone = gone
}

// line is the lock in whose line the waiters for this one stand.
func (lk *Lock) line() string { return cmp.Or(lk.tenure.Gate, lk.lease.LockID) }

// count counts a slot that begins or ends to be held here.
func (lk *Lock) count(n int) {
	if lk.tenure.Gate != "" && store.IsSlot(lk.lease.LockID) {
		lk.group.locker.desk.Queue.Hold(lk.tenure.Gate, n)
	}
}

// over is why the locks are no longer held as far as this process knows, nil if they are.
func (g *group) over() error {
	g.mu.Lock()
	defer g.mu.Unlock()

	switch {
	case g.lost != nil:
		return g.lost
	case g.unlocked:
		return fmt.Errorf("%w: %s was unlocked", ErrLockLost, g.name())
	}

	return nil
}

// name is what errors call the group.
func (g *group) name() string {
	if len(g.locks) == 0 {
		return "nothing yet"
	}

	return nameOf(g.locks[0].lease.LockID, len(g.locks))
}

// nameOf is what errors call some locks, of which one is the first.
func nameOf(first string, locks int) string {
	if locks > 1 {
		return fmt.Sprintf("%q and %d more", first, locks-1)
	}

	return fmt.Sprintf("%q", first)
}

// unlock is [Lock.Unlock] of all.
func (g *group) unlock(ctx context.Context) error {
	l, now := g.locker, time.Now()
	end, loss := now, keepalive.Loss{}

	for _, lk := range g.locks {
		term := l.renewer.Remove(&lk.lease)
		loss.Since = max(loss.Since, now.Sub(term.Sent))

		if term.Left(now) <= 0 { // the renewer would have found it at its next look
			g.lose(lk, keepalive.Loss{Cause: keepalive.Cause{Since: now.Sub(term.Sent)}}, nil, here)
		}

		if leaseEnd := now.Add(term.LeaseLeft(now)); leaseEnd.After(end) {
			end = leaseEnd
		}
	}

	g.mu.Lock()
	again, lost, exchanged := g.unlocked, g.lost, g.exchanged
	g.unlocked = true
	held := g.locks // but those of which nothing is left to release

	if !again {
		for _, lk := range held {
			lk.count(-1)
		}
	}

	if lost != nil {
		held = slices.DeleteFunc(slices.Clone(held), func(lk *Lock) bool { return lk.gone })
	}
	g.mu.Unlock()

	if again {
		return fmt.Errorf("%w: %s", ErrAlreadyUnlocked, g.name())
	}

	g.endHold(context.Cause(g.ctx))

	// The holder must have stopped believing before the next begins to.
	g.cancel(context.Canceled)

	// Close waits for this, also where it finds the locks unlocked.
	defer l.held.remove(g)
	defer close(g.freed)

	if len(held) == 0 {
		return lost
	}

	if done, err := l.desk.Begin(); err == nil {
		defer done()
	}

	ctx, ended := l.watch.start(ctx, OperationRelease, held[0].lease.LockID, len(held), held[0].lease.Generation)
	worst, err := g.release(ctx, held, end, lost == nil)

	switch {
	case lost != nil:
		err = lost // its release was for the waiters' sake
	case isGone(err) && exchanged:
		err = nil
	case isGone(err):
		err = tidy(fmt.Errorf("%w: found on release: %w", ErrLockLost, err))
		loss.Gone = true
		worst.tellLoss(loss, err, time.Since(worst.granted))
	case err != nil:
		err = tidy(fmt.Errorf("%w: %w", ErrNotReleased, err))
	}

	ended(err)

	return err
}

// release releases locks of the group, and returns the worst of the errors, and whose it is. awaited: Close
// waits for this.
func (g *group) release(ctx context.Context, held []*Lock, until time.Time, awaited bool) (worst *Lock, err error) {
	tenure := func(lk *Lock) handover.Tenure {
		t := lk.tenure
		t.Awaited = awaited

		return t
	}

	if len(g.locks) == 1 {
		return held[0], g.locker.desk.Release(ctx, tenure(held[0]), until)
	}

	tenures := make([]handover.Tenure, len(held))
	for i, lk := range held {
		tenures[i] = tenure(lk)
	}

	failures := 0

	for i, failure := range g.locker.desk.ReleaseAll(ctx, tenures, until) {
		if failure == nil {
			continue
		}

		failures++

		if err == nil || isGone(failure) && !isGone(err) {
			worst, err = held[i], failure
		}
	}

	if err != nil {
		err = fmt.Errorf("%d of %d locks, such as %q: %w", failures, len(g.locks), worst.lease.LockID, err)
	}

	return worst, err
}

func isGone(err error) bool {
	return errors.Is(err, ErrWrongGeneration) || errors.Is(err, ErrLockNotFound)
}
