package traffic

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// LeftToClose says that a lock isn't unlocked before the Locker is closed.
const LeftToClose = "left to Close"

// hold takes a lock that is kept alive, works under it, and releases it.
func (w *worker) hold(ctx context.Context, lock Spec) {
	switch w.IntN(3) {
	case 0:
		w.do(ctx, lock)
	case 1:
		w.lock(ctx, lock, history.TryLock)
	default:
		w.lock(ctx, lock, history.Lock)
	}
}

// keep takes a lock that is kept alive, mostly after a wait, and holds it. If it is refused at
// once, it doesn't ask again at once.
func (w *worker) keep(ctx context.Context, lock Spec) {
	began := time.Now()

	w.lock(ctx, lock, history.Lock)

	if time.Since(began) < keepRefused {
		sleep(ctx, keepRefused)
	}
}

// keepRefused is how long it waits then.
const keepRefused = 50 * time.Millisecond

func (w *worker) options(e *history.Event) []pglocker.LockOption {
	var opts []pglocker.LockOption

	e.Waits = e.Kind == history.Lock || w.chance(50)
	if e.Waits && e.Kind != history.Lock {
		wait := w.upTo(600 * time.Millisecond)
		e.Wait = int64(wait)
		opts = append(opts, pglocker.WithWait(wait))
	}

	if w.chance(10) && !IsBare(e.Lock) {
		hold := w.upTo(maxMin)
		e.MinHold = int64(hold)
		opts = append(opts, pglocker.WithMinHold(hold))
	}

	return opts
}

// lock is Lock or TryLock, with Unlock.
func (w *worker) lock(ctx context.Context, lock Spec, kind history.Kind) {
	e := history.Event{Kind: kind, Lock: lock.ID, TTL: int64(lock.TTL)}
	opts := w.options(&e)

	// Its values are the lock's, its end is not.
	asking, cancel := w.within(ctx, time.Second)
	defer cancel()

	take := w.locker.TryLock
	if kind == history.Lock {
		take = w.locker.Lock
	}

	e = w.rec.Invoke(limited(asking, e))
	lk, err := take(asking, lock.ID, lock.TTL, opts...)
	e.At = 0

	if err != nil {
		w.rec.Return(outcome(e, err))

		return
	}

	w.rec.Return(held(e, lk))
	context.AfterFunc(lk.Context(), func() { w.lost(lk, context.Cause(lk.Context())) })

	w.work(ctx, lk, lock)

	if ctx.Err() != nil && w.chance(50) {
		// Close unlocks it.
		w.lost(lk, errors.New(LeftToClose))

		return
	}

	w.unlock(ctx, lk, e)
}

func (w *worker) unlock(ctx context.Context, lk *pglocker.Lock, granted history.Event) {
	ctx, cancel := w.within(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()

	w.knows(lk)

	e := w.rec.Invoke(limited(ctx, history.Event{
		Kind: history.Unlock, Lock: granted.Lock, TTL: granted.TTL,
		Generation: lk.Token(), MinHold: granted.MinHold,
	}))
	err := lk.Unlock(ctx)
	e.At = 0
	w.rec.Return(outcome(e, err))
}

// do is Do, recorded as two operations: one until its function is called, and one from the
// function's return.
func (w *worker) do(ctx context.Context, lock Spec) {
	e := history.Event{Kind: history.Do, Lock: lock.ID, TTL: int64(lock.TTL)}
	opts := w.options(&e)

	asking, cancel := w.within(ctx, 2*lock.TTL)
	defer cancel()

	var leave history.Event

	e = w.rec.Invoke(limited(asking, e))
	err := w.locker.Do(asking, lock.ID, lock.TTL, lock.TTL/4, func(fnCtx context.Context) error {
		lk, _ := pglocker.FromContext(fnCtx)
		e.At = 0
		w.rec.Return(held(e, lk))

		// A context ends once. If the caller's context has ended before, a loss can't be told
		// through it any more.
		stop := context.AfterFunc(fnCtx, func() { w.lost(lk, context.Cause(fnCtx)) })
		defer stop()

		w.work(ctx, lk, lock)
		w.knows(lk)
		leave = w.rec.Invoke(history.Event{
			Kind: history.Leave, Lock: lock.ID, TTL: int64(lock.TTL), Generation: lk.Token(), MinHold: e.MinHold,
		})

		return nil
	}, opts...)

	if leave.Op == 0 { // it was not called
		e.At = 0
		w.rec.Return(outcome(e, err))

		return
	}

	leave.At = 0
	w.rec.Return(outcome(leave, err))
}

func held(e history.Event, lk *pglocker.Lock) history.Event {
	s := lk.Status()
	e = status(e, &s)
	e.Expires = 0 // it may have been renewed since

	return e
}

// knows records the end of the lease that the library says was acknowledged.
func (w *worker) knows(lk *pglocker.Lock) (until time.Time) {
	s := lk.Status()
	w.rec.Note(history.Event{Kind: history.Renewed, Lock: s.LockID, Token: s.Generation, Expires: s.ExpiresAt.UnixMicro()})

	return s.ExpiresAt
}

// live holds a lock that renewals keep, and records each renewal soon after it was acknowledged:
// the next one may hide that it was lost.
func (w *worker) live(lk *pglocker.Lock, d time.Duration) {
	ctx, cancel := context.WithTimeout(lk.Context(), d)
	defer cancel()

	look := time.NewTicker(liveLook)
	defer look.Stop()

	for known := w.knows(lk); ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}

		if !lk.Status().ExpiresAt.Equal(known) {
			known = w.knows(lk)
		}
	}
}

// liveLook is short against the time between two renewals.
const liveLook = 5 * time.Millisecond

func (w *worker) lost(lk *pglocker.Lock, cause error) {
	w.rec.Note(history.Event{
		Kind: history.Lost, Lock: lk.Status().LockID, Token: lk.Token(), Detail: cause.Error(),
	})
}

// work works under a lock, until it is done or the lock can't be trusted any more.
func (w *worker) work(ctx context.Context, lk *pglocker.Lock, lock Spec) {
	n := w.IntN(100)
	if !w.cfg.Fenced {
		n = w.IntN(65) // the control is about writes alone
	}

	switch {
	case slices.Contains(Kept, lock):
		w.live(lk, lock.TTL+w.upTo(2*lock.TTL))
	case n < 40, lock == lone(w.cfg.Name):
		w.count(ctx, holdingOf(lk), lock)
	case n < 65:
		w.writeOutside(holdingOf(lk), lock)
	case n < 73:
		w.live(lk, lock.TTL+w.upTo(lock.TTL))
	case n < 85:
		sleep(lk.Context(), w.upTo(30*time.Millisecond))
	}
}
