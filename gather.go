package pglocker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
)

// gatherAfter is how long a request for several locks waits for all of them at once, at first.
const gatherAfter = time.Second

// take takes all of the locks within ctx, and starts to keep them alive. Their context is made from parent.
//
//	all at once, for a second --> gather, for as long as it has waited --> held
//	     ^                                 |
//	     +--- give all back, for up to ----+
//	          half as long
func (all *several) take(ctx, parent context.Context, o lockOptions) (*group, error) {
	if o.wait == 0 {
		return all.acquireAll(ctx, parent, all.request(0), "", o)
	}

	if err := heldUnder(ctx, all.Locker, all.ids...); err != nil {
		return nil, err
	}

	var (
		began = time.Now()
		left  = func() time.Duration {
			if o.wait == math.MaxInt64 {
				return o.wait
			}

			return o.wait - time.Since(began)
		}
		over   = func(err error) bool { return err == nil || ctx.Err() != nil || left() <= 0 }
		passes = func(err error) bool {
			return !errors.Is(err, ErrClosed) && (errors.Is(err, ErrLockLost) || store.Transient(err))
		}
		seen  lastHeld
		ended = func(err error) error {
			err = endedBy(ctx, err)
			if err != nil && passes(err) {
				err = seen.in(err)
			}

			return err
		}
	)

	// After the first round, troubles that pass don't end the wait.
	for atOnce, first := all.gatherAfter, true; ; atOnce, first = max(pause.Jitter(time.Since(began)/2, 2), 1), false {
		until := time.Now().Add(min(atOnce, left()))

		g, err := all.acquireAll(ctx, parent, all.request(time.Until(until)), "", o)
		early := time.Now().Before(until)
		seen.note(err)

		if over(err) || early && (first || !passes(err)) {
			return g, ended(err)
		}

		if early {
			pause.Sleep(ctx, pause.Jitter(min(handover.PollMax, left()), 2))

			continue
		}

		until = time.Now().Add(min(time.Since(began), left()))

		g, err = all.gather(ctx, parent, o, until)
		seen.note(err)

		if over(err) || time.Now().Before(until) && !passes(err) {
			return g, ended(err)
		}
	}
}

// gather takes the locks one by one, in the order of their ids, until the given time. It keeps what it has
// alive meanwhile, and releases it if it fails.
func (all *several) gather(ctx, parent context.Context, o lockOptions, until time.Time) (g *group, err error) {
	g = new(group)
	g.begin(parent, all.Locker)

	// If one is lost, all are, and there is nothing to wait for. A request may hang.
	waiting, cancel := context.WithDeadline(ctx, until.Add(handover.Grace))
	defer cancel()

	stop := context.AfterFunc(g.ctx, cancel)
	defer stop()

	held := o
	held.minHold = 0

	for rest := all.ids; len(rest) > 0 && err == nil; rest = all.ids[len(g.locks):] {
		err = g.gatherSome(waiting, several{all.Locker, rest, all.ttl}, held, until)
	}

	if lost := g.over(); lost != nil {
		err = lost
	}

	if err != nil {
		if len(g.locks) > 0 {
			releasing, done := outlasting(ctx)
			_ = g.unlock(releasing) // the error says more

			done()
		} else {
			g.cancel(context.Canceled)
		}

		return nil, err
	}

	g.holdFor(o.minHold)
	g.startHold(false)

	return g, nil
}

// gatherSome takes the first of the rest: all, or those before the first that is held, or that one.
func (g *group) gatherSome(ctx context.Context, rest several, o lockOptions, until time.Time) error {
	l := g.locker

	res, term, err := l.acquire(ctx, rest.request(0))
	if err == nil {
		g.add(res.Grants, "", term, o)

		return nil
	}

	if res.Verdict != store.Busy {
		return err
	}

	for k, id := range rest.ids {
		if id == res.LockID && k > 0 {
			rest.ids = rest.ids[:k]
		}
	}

	if rest.ids[0] != res.LockID {
		res, term, err = l.acquire(ctx, rest.request(0))
		if err == nil {
			g.add(res.Grants, "", term, o)
		}

		if err == nil || res.Verdict == store.Busy && time.Now().Before(until) {
			return nil
		}

		return err
	}

	id := res.LockID

	res, term, err = l.acquire(ctx, line.Request{LockID: id, TTL: rest.ttl, Wait: max(time.Until(until), 1)})
	if err == nil {
		g.add([]store.LockRow{{LockID: id, Row: res.Row}}, "", term, o)
	}

	return err
}

// outlasting returns a context that ends [handover.Grace] after ctx.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { handover.EndSoon(longer, cancel) })

	return longer, func() {
		stop()
		cancel()
	}
}

// lastHeld is the lock that was last seen to be in the way, if any.
type lastHeld struct {
	err *HeldError
	at  time.Time
}

func (l *lastHeld) note(err error) {
	if held, ok := errors.AsType[*HeldError](err); ok {
		l.err, l.at = held, time.Now()
	}
}

// in is err, which names that lock, too: the end of the time cut off the request that would have named one.
func (l *lastHeld) in(err error) error {
	if l.err == nil {
		return err
	}

	if _, named := errors.AsType[*HeldError](err); named {
		return err
	}

	held, ago := *l.err, time.Since(l.at)
	held.Age += ago
	held.Remaining = max(held.Remaining-ago, 0)

	return fmt.Errorf("%w: %w", err, &held)
}

// endedBy is an error that matches that of ctx, too, if ctx has ended.
func endedBy(ctx context.Context, err error) error {
	if end := ctx.Err(); err != nil && end != nil && !errors.Is(err, end) {
		return fmt.Errorf("%w: %w", end, err)
	}

	return err
}
