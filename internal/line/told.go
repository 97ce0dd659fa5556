package line

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/store"
)

// slow is from when on the error of a waiter says that the database has not answered.
const slow = time.Second

// told is what a waiter was told, for the error of a wait without success.
type told struct {
	// busy is the last answer of the database, at the time at, nil if there was none.
	busy *store.Result
	at   time.Time
	// inTheWay is why the database has not answered since then; nil if it has, or wasn't asked.
	inTheWay error
	// unanswered is why the first request had no answer.
	unanswered error
}

// saw notes an answer. One that was contested says nothing of what is held.
func (t *told) saw(busy store.Result) {
	if !busy.Contested {
		t.busy, t.at, t.inTheWay = &busy, time.Now(), nil
	}
}

// obstacle notes what kept the waiter from an answer. Errors of contexts aren't the caller's, and a grant
// that may still come is returned: these are told and not matched.
func (t *told) obstacle(err error) {
	if errors.Is(err, store.ErrUnknownOutcome) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = errors.New(err.Error())
	}

	t.inTheWay = err
}

// lastHeld says who held the lock when the database last answered, and what has been in the way since; nil if
// that isn't known.
func (w *waiter) lastHeld() error {
	if w.told.busy == nil {
		return nil
	}

	held := w.held(w.Request, *w.told.busy, time.Since(w.told.at))
	if w.told.inTheWay != nil {
		held = fmt.Errorf("%w; since then: %w", held, w.told.inTheWay)
	}

	return held
}

// limited is the error of a waiter that fails with err. If its limit is over, rather than the caller's ctx,
// it says who holds the lock. A waiter that wasn't told asks for that now: one that never was the head, or was
// contested each time.
func (w *waiter) limited(ctx, waiting context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || waiting.Err() == nil || ctx.Err() != nil {
		return err
	}

	held := w.lastHeld()

	if held == nil {
		if w.told.unanswered != nil {
			err = w.told.unanswered
		}

		ctx, cancel := context.WithTimeout(ctx, handover.Grace)
		defer cancel()

		found, getErr := w.Desk.Store.Get(ctx, w.LockID)
		if inLine := w.place != nil && w.told.unanswered == nil; getErr != nil || !inLine && !found.Row.Held() {
			return err
		}

		held = w.held(w.Request, found, 0)
	}

	// What was asked for and not answered may be what holds the lock now.
	if errors.Is(err, store.ErrUnknownOutcome) {
		return fmt.Errorf("%w: %w", err, held)
	}

	return held
}
