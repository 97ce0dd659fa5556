package pglocker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
)

// Run takes part in the election until ctx ends: it campaigns, leads while it can, and campaigns again. It
// calls lead each time that it is elected, and at no other time. One call of Run of an Election may be under
// way at a time ([ErrElectionRunning]).
//
// lead's context ends
//
//   - when ctx ends;
//   - with a cause that matches [ErrLockLost], when the leadership can't be trusted any more: no renewal was
//     acknowledged in time, or the database says that it is gone;
//   - with cause [ErrResignRequested], after [Election.RequestResign];
//   - with a cause that matches [ErrUnhealthy], when the health check has failed;
//   - with cause [ErrClosed], when the Locker is closed.
//
// lead should return soon after that; Run waits for it. When lead returns, nil or an error, Run releases the
// leadership, and campaigns again after a pause ([WithBackoff]). [Guard] and [Token] work in lead's context. A
// panic of lead goes on through Run after the release.
//
// Run goes on after errors of lead, after a loss, and while the database can't be reached or refuses requests
// for a reason that may pass. [WithOnError] is told of these. An error of lead that only says that its context
// has ended isn't told. [Config.Logger] is told, once a minute, of what keeps Run from campaigning.
//
// Run ends, always with an error:
//
//   - When ctx ends, with ctx's error. If lead ran, that is joined with lead's error, unless that is ctx's
//     too, and with [ErrNotReleased] if the release was not acknowledged.
//   - With [ErrClosed], when the Locker is closed.
//   - With an error of the database that doesn't pass, such as [ErrPermissionDenied], [ErrTableNotFound] or
//     [ErrInvalidTable].
//   - At once, with [ErrFuncIsNil] if lead is nil, with [ErrObserveOnly], with ErrElectionRunning, or with a
//     [*HeldError] if ctx was made from lead's context of the same election.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context, term Term) error) (err error) {
	switch {
	case lead == nil:
		return ErrFuncIsNil
	case e.options.observeOnly:
		return ErrObserveOnly
	}

	l := e.locker

	options, end, err := l.beginHold(e.ttl, e.options.relockInterval, nil)
	if err != nil {
		return err
	}
	defer end()

	if err := heldUnder(ctx, l, e.id); err != nil {
		return failed("run", e.name, err)
	}

	if !e.running.CompareAndSwap(false, true) {
		return ErrElectionRunning
	}
	defer e.running.Store(false)

	running, stop := context.WithCancelCause(ctx)
	defer context.AfterFunc(l.desk.Context(), func() { stop(ErrClosed) })()

	h := &health{interval: e.options.healthInterval, check: e.options.check, failed: e.report}
	h.start(running)

	defer h.wait()
	defer stop(nil)

	pauses := backoff{shortest: e.options.shortest, longest: e.options.longest}
	options.wait = Forever

	for {
		led, err := e.campaign(running, h, options, lead)
		if led < 0 && (running.Err() != nil || l.desk.Context().Err() != nil) {
			err = nil // that of a candidate that has left the line
		}

		switch {
		case l.desk.Context().Err() != nil:
			return errors.Join(ErrClosed, err)
		case running.Err() != nil:
			return errors.Join(beside.Err(ctx), err)
		case led < 0 && final(err):
			return failed("run", e.name, err)
		case led < 0: // as often as a waiter in line asks that can't be notified
			if err != nil {
				e.obstructed(err)
			}

			pause.Sleep(running, pause.Jitter(handover.PollMax, 2))
		default:
			if err != nil {
				e.report(err)
			}

			pause.Sleep(running, pause.Jitter(pauses.next(led), 2))
		}
	}
}

// campaign waits in line, and leads when it is elected. led is for how long, below zero if it wasn't.
func (e *Election) campaign(
	running context.Context, h *health, options lockOptions, lead func(context.Context, Term) error,
) (led time.Duration, err error) {
	healthy := h.healthy(running)
	if healthy == nil {
		return -1, nil
	}

	lock, err := e.locker.take(healthy, running, e.id, e.ttl, options)

	switch {
	case err != nil && healthy.Err() != nil:
		return -1, unless(err, healthy.Err()) // it left the line
	case err != nil:
		return -1, err
	}

	if err := e.log(lock); err != nil {
		return -1, errors.Join(err, e.release(running, lock))
	}

	e.obstructed(nil)

	err = e.lead(running, healthy, lock, lead)

	return time.Since(lock.granted), err
}

// final reports whether an error of the database ends Run. [ErrLockLost] is that of a late grant.
func final(err error) bool {
	return err != nil && !errors.Is(err, ErrLockLost) && !store.Transient(err)
}

// lead is one term. Its error is that of the function, and what went wrong with the term.
func (e *Election) lead(running, healthy context.Context, lock *Lock, fn func(context.Context, Term) error) (err error) {
	e.locker.held.run(lock.group)

	status := lock.Status()
	leading, resign := context.WithCancelCause(lock.Context())
	unhealthy := context.AfterFunc(healthy, func() { resign(context.Cause(healthy)) })

	told, deafen := e.locker.news.subscribe(e.resignID) // before anybody hears of the term

	var watch sync.WaitGroup

	watch.Go(func() {
		defer deafen()

		e.heedRequests(leading, told, lock.Token(), resign)
	})
	e.locker.announce(e.termID)
	e.leading.Store(&leadership{lock, leading})

	defer func() {
		if leading.Err() != nil {
			err = unless(err, leading.Err(), context.Cause(leading)) // it has said why it returned
		}

		lock.group.endHold(context.Cause(leading))
		e.leading.Store(nil)
		unhealthy()
		resign(context.Canceled)
		watch.Wait()

		err = errors.Join(err, e.release(running, lock))
	}()

	return fn(leading, Term{Token: lock.Token(), Leader: status.Owner, Since: status.AcquiredAt})
}

// log writes the term down before its function is called. So every term that led is found by an observer
// that looks later.
func (e *Election) log(lock *Lock) error {
	attempt, cancel := context.WithTimeout(lock.Context(), beside.Attempt(e.ttl/3))
	defer cancel()

	err := e.locker.store.LogTerm(attempt, e.logID(lock.Token()), e.id, lock.Token())
	if err != nil && attempt.Err() != nil {
		err = errors.New(err.Error()) // the context's error isn't the caller's
	}

	return err
}

// release ends a term.
func (e *Election) release(running context.Context, lock *Lock) error {
	err := lock.Unlock(context.WithoutCancel(running))
	e.locker.announce(e.termID)

	if errors.Is(err, ErrAlreadyUnlocked) { // by the function, perhaps on another goroutine
		<-lock.group.freed

		return nil
	}

	return err
}

// heedRequests looks once in each relock interval, and when it hears of a request, whether the leader of the
// term is asked to resign. It returns when the term ends.
func (e *Election) heedRequests(leading context.Context, told <-chan struct{}, token int64, resign context.CancelCauseFunc) {
	l := e.locker
	interval := e.options.relockInterval
	look := time.NewTimer(pause.Jitter(interval, 10))
	defer look.Stop()

	for {
		select {
		case <-told:
		case <-look.C:
		case <-leading.Done():
			return
		}

		attempt, cancel := context.WithTimeout(leading, beside.Attempt(interval))
		res, err := l.store.Look(attempt, e.resignID)

		cancel()

		if err == nil && res.Row.Generation == token {
			l.cfg.Logger.Info("pglocker: a leader was asked to resign", "election", e.name, "token", token)
			resign(ErrResignRequested)

			return
		}

		look.Reset(pause.Jitter(interval, 10)) // an error passes: renewals tell of what lasts
	}
}

// obstructed tells what keeps a candidate from campaigning, and with nil that nothing does any more. The
// logger hears of it once a minute.
func (e *Election) obstructed(err error) {
	switch now := time.Now(); {
	case err == nil:
		if lasted, failed, tell := e.obstacle.over(now); tell {
			e.locker.cfg.Logger.Info("pglocker: a candidate can campaign again", "election", e.name, "lasted", lasted, "failed_attempts", failed)
		}
	case e.obstacle.happened(now) || e.options.onError != nil:
		e.report(err)
	}
}

// report tells of an error after which Run goes on.
func (e *Election) report(err error) {
	err = tidy(err)

	if e.options.onError != nil {
		e.options.onError(err)

		return
	}

	e.locker.cfg.Logger.Warn("pglocker: an election goes on after an error", "election", e.name, "error", err)
}

// unless returns an error that matches none of the given ones.
func unless(err error, known ...error) error {
	for _, k := range known {
		if k != nil && errors.Is(err, k) {
			return nil
		}
	}

	return err
}
