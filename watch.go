package pglocker

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/listen"
	"github.com/ismurov/pglocker/internal/store"
)

// watch tells the observer of one Locker. What it implements no interface for is nil. Nothing is allocated for what
// nobody observes.
type watch struct {
	observer  Observer
	holds     HoldObserver
	renewals  RenewalObserver
	batches   BatchObserver
	listeners ListenerObserver
}

func newWatch(o Observer) watch {
	w := watch{observer: o}
	w.holds, _ = o.(HoldObserver)
	w.renewals, _ = o.(RenewalObserver)
	w.batches, _ = o.(BatchObserver)
	w.listeners, _ = o.(ListenerObserver)

	return w
}

// start begins an operation on what is held under a token, 0 for none.
func (w watch) start(ctx context.Context, op Operation, lockID string, locks int, token int64) (watched context.Context, end func(error)) {
	if w.observer == nil {
		return ctx, unobserved
	}

	watched, told := w.begin(ctx, op, lockID, locks)

	return watched, func(err error) { told(token, false, err) }
}

func unobserved(error) {}

// request begins a request for locks, or the wait for them.
func (w watch) request(ctx context.Context, waits bool, lockID string, locks int) (watched context.Context, end func(store.Result, error)) {
	if w.observer == nil {
		return ctx, unobservedRequest
	}

	op := OperationAcquire
	if waits {
		op = OperationWait
	}

	watched, told := w.begin(ctx, op, lockID, locks)

	return watched, func(res store.Result, err error) {
		switch {
		case err != nil:
			told(0, false, err)
		case len(res.Grants) > 0:
			told(res.Grants[0].Row.Generation, res.HandedOver, nil)
		default:
			told(res.Row.Generation, res.HandedOver, nil)
		}
	}
}

func unobservedRequest(store.Result, error) {}

func (w watch) begin(ctx context.Context, op Operation, lockID string, locks int) (watched context.Context, end func(int64, bool, error)) {
	start := OperationStart{Operation: op, Subject: subjectOf(lockID, locks)}
	began := time.Now()
	watched = w.observer.OperationStart(ctx, start)

	return watched, func(token int64, handedOver bool, err error) {
		w.observer.OperationEnd(watched, OperationEnd{
			OperationStart: start, Duration: time.Since(began), Token: token, HandedOver: handedOver, Err: tidy(err),
		})
	}
}

func (w watch) lost(lk *Lock, loss keepalive.Loss, heldFor time.Duration, err error) {
	if w.observer == nil {
		return
	}

	lk.group.mu.Lock()
	locks := len(lk.group.locks) // more may be on the way
	lk.group.mu.Unlock()

	w.observer.LockLost(LockLost{
		Subject: subjectOf(lk.lease.LockID, locks), Token: lk.lease.Generation, HeldFor: heldFor, Gone: loss.Gone, Err: err,
	})
}

func (w watch) renewed(lk *Lock, left time.Duration) {
	if w.renewals != nil {
		w.renewals.LockRenewed(LockRenewed{
			Subject: subjectOf(lk.lease.LockID, 1), Token: lk.lease.Generation, TTL: lk.ttl, Left: max(left, 0),
		})
	}
}

// onBatch is what a store tells of its statements, nil if nobody wants that.
func (w watch) onBatch() store.BatchFunc {
	if w.batches == nil {
		return nil
	}

	return func(grants bool, locks int) {
		op := OperationRelease
		if grants {
			op = OperationAcquire
		}

		w.batches.BatchSent(BatchSent{Operation: op, Locks: locks})
	}
}

func (w watch) listener(from, to listen.State) {
	if w.listeners != nil {
		w.listeners.ListenerChanged(ListenerChanged{From: ListenerState(from), To: ListenerState(to)})
	}
}

// observedHold is a hold that the observer was told of.
type observedHold struct {
	ctx   context.Context
	start HoldStart
	began time.Time
}

// startHold tells the observer that a group is held, which nobody has yet.
func (g *group) startHold(handedOver bool) {
	holds := g.locker.watch.holds
	if holds == nil {
		return
	}

	lk := g.locks[0]
	hold := &observedHold{began: time.Now(), start: HoldStart{
		Subject: subjectOf(lk.lease.LockID, len(g.locks)), Token: lk.lease.Generation, TTL: lk.ttl, HandedOver: handedOver,
	}}
	g.ctx = holds.HoldStart(g.ctx, hold.start)
	hold.ctx = g.ctx

	g.mu.Lock()
	g.hold = hold
	lost := g.lost
	g.mu.Unlock()

	if lost != nil { // before there was a hold to end
		g.endHold(lost)
	}
}

// endHold tells the observer of the end of a hold, once. err is that of [HoldEnd].
func (g *group) endHold(err error) {
	holds := g.locker.watch.holds
	if holds == nil {
		return
	}

	g.mu.Lock()
	hold := g.hold
	g.hold = nil
	g.mu.Unlock()

	if hold != nil {
		holds.HoldEnd(hold.ctx, HoldEnd{HoldStart: hold.start, HeldFor: time.Since(hold.began), Err: err})
	}
}

// renewals is a session for renewals, under observation.
type renewals struct {
	*beside.Session
	watch watch
}

func (r renewals) Connect(ctx context.Context) error {
	if r.Shared() {
		return nil
	}

	ctx, end := r.watch.start(ctx, OperationRenew, "", 0, 0)
	err := r.Session.Connect(ctx)
	end(err)

	return err
}

func (r renewals) Renew(ctx context.Context, due []store.Renewal, tell store.RenewedFunc) (results []store.RenewResult, sent time.Time, err error) {
	if r.watch.batches != nil {
		r.watch.batches.BatchSent(BatchSent{Operation: OperationRenew, Locks: len(due)})
	}

	ctx, end := r.watch.start(ctx, OperationRenew, "", len(due), 0)
	results, sent, err = r.Store.Renew(ctx, due, tell)
	end(err)

	return results, sent, err
}
