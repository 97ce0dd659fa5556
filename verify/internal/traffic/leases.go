package traffic

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// lease takes a lease by hand, refreshes it at times, and ends it in one of three ways: it releases
// it, gives it to a relocker, or lets it expire.
func (w *worker) lease(ctx context.Context, lock Spec) {
	s, until := w.acquire(ctx, lock)
	if s == nil {
		return
	}

	for w.chance(30) && ctx.Err() == nil {
		sleep(ctx, w.upTo(lock.TTL/8))

		fresh, freshUntil, known := w.refresh(ctx, lock, s)
		if !known {
			break // the old status is all there is to release by
		}

		if fresh == nil {
			return
		}

		s, until = fresh, freshUntil
	}

	switch {
	case w.chance(8):
		w.relock(ctx, lock, s, until)
	case w.chance(5): // expires
	default:
		sleep(ctx, w.upTo(lock.TTL/16))
		w.release(ctx, s)
	}
}

// acquire is AcquireLock. until is when its holder must have stopped believing.
func (w *worker) acquire(ctx context.Context, lock Spec) (s *pglocker.LockStatus, until int64) {
	ctx, cancel := w.within(ctx, time.Second)
	defer cancel()

	e := w.rec.Invoke(limited(ctx, history.Event{Kind: history.Acquire, Lock: lock.ID, TTL: int64(lock.TTL)}))
	s, err := w.locker.AcquireLock(ctx, lock.ID, lock.TTL)

	return w.granted(e, s, err)
}

// granted records the answer to a request for a lease, which runs from the call for as long as
// the row shows.
func (w *worker) granted(e history.Event, s *pglocker.LockStatus, err error) (*pglocker.LockStatus, int64) {
	invoked := e.At
	e.At = 0

	if err != nil {
		w.rec.Return(outcome(e, err))

		return nil, 0
	}

	e = status(e, s)
	e.Until = invoked + min(e.TTL, int64(s.ExpiresAt.Sub(s.AcquiredAt)))
	w.rec.Return(e)

	return s, e.Until
}

// refresh is RefreshLock. known is false where its outcome is unknown.
func (w *worker) refresh(ctx context.Context, lock Spec, s *pglocker.LockStatus) (_ *pglocker.LockStatus, until int64, known bool) {
	ctx, cancel := w.within(ctx, time.Second)
	defer cancel()

	e := w.rec.Invoke(limited(ctx, history.Event{
		Kind: history.Refresh, Lock: lock.ID, TTL: int64(lock.TTL), Generation: s.Generation, Free: s.Owner == "",
	}))
	fresh, err := w.locker.RefreshLock(ctx, s, lock.TTL)
	fresh, until = w.granted(e, fresh, err)

	return fresh, until, err == nil || errors.Is(err, pglocker.ErrWrongGeneration)
}

func (w *worker) release(ctx context.Context, s *pglocker.LockStatus) {
	// A release is made when everything ends, too.
	ctx, cancel := w.within(context.WithoutCancel(ctx), time.Second)
	defer cancel()

	e := w.rec.Invoke(limited(ctx, history.Event{
		Kind: history.Release, Lock: s.LockID, Generation: s.Generation, Free: s.Owner == "",
	}))
	err := w.locker.ReleaseLock(ctx, s)
	e.At = 0
	w.rec.Return(outcome(e, err))
}

// RelockerStopped: the lease's relocker is told to stop and to release it.
const RelockerStopped = "relocker told to stop"

// relock keeps a lease alive for some time, and so releases it.
func (w *worker) relock(ctx context.Context, lock Spec, s *pglocker.LockStatus, until int64) {
	relocking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	e := w.rec.Invoke(history.Event{
		Kind: history.Relock, Lock: lock.ID, TTL: int64(lock.TTL), Generation: s.Generation, Until: until,
	})

	// The belief in it ends before the relocker is told to stop, and so before it releases.
	var stopped sync.WaitGroup

	stopping, stop := context.WithTimeout(ctx, w.upTo(lock.TTL*3/2))

	stopped.Go(func() {
		<-stopping.Done()
		w.rec.Note(history.Event{Kind: history.Lost, Lock: lock.ID, Token: s.Generation, Detail: RelockerStopped})
		cancel()
	})

	err := w.locker.StartRelocker(relocking, s, lock.TTL, lock.TTL/4)
	e.At = 0
	w.rec.Return(outcome(e, err))

	stop()
	stopped.Wait()
}

// share creates, reads, refreshes and releases a lock by the status that it shows.
func (w *worker) share(ctx context.Context, lock Spec) {
	if w.chance(5) {
		w.create(ctx, lock)
	}

	s := w.get(ctx, lock)

	switch {
	case s == nil:
		w.create(ctx, lock)
	case w.chance(40):
		w.refresh(ctx, lock, s)
	case w.chance(50):
		w.release(ctx, s)
	case w.chance(50):
		w.acquire(ctx, lock)
	}
}

func (w *worker) create(ctx context.Context, lock Spec) {
	ctx, cancel := w.within(ctx, time.Second)
	defer cancel()

	e := w.rec.Invoke(limited(ctx, history.Event{Kind: history.Create, Lock: lock.ID}))
	s, err := w.locker.CreateLock(ctx, lock.ID)
	w.saw(e, s, err)
}

func (w *worker) get(ctx context.Context, lock Spec) *pglocker.LockStatus {
	ctx, cancel := w.within(ctx, time.Second)
	defer cancel()

	e := w.rec.Invoke(limited(ctx, history.Event{Kind: history.Get, Lock: lock.ID}))
	s, err := w.locker.GetLockStatus(ctx, lock.ID)
	w.saw(e, s, err)

	return s
}

func (w *worker) saw(e history.Event, s *pglocker.LockStatus, err error) {
	e.At = 0

	if err != nil {
		e = outcome(e, err)
		if e.Outcome == history.Refused && e.Kind == history.Create {
			e.Outcome = history.Unknown // "the lock may have been created or not"
		}

		w.rec.Return(e)

		return
	}

	w.rec.Return(status(e, s))
}
