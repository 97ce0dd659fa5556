package traffic

import (
	"context"
	"errors"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// takeAll takes several of the locks at once, works under them, and releases them.
func (w *worker) takeAll(ctx context.Context, locks []Spec) {
	var ids []string

	ttl := locks[0].TTL

	for _, n := range w.Perm(len(locks))[:2+w.IntN(len(locks)-1)] {
		ids = append(ids, locks[n].ID)
	}

	e := history.Event{Kind: history.All, Lock: ids[0], TTL: int64(ttl), Waits: w.chance(70)}
	opts := w.options(&e)

	asking, cancel := w.within(ctx, 2*time.Second)
	defer cancel()

	take := w.locker.TryLockAll
	if e.Waits && e.Wait == 0 {
		take = w.locker.LockAll
	}

	parts := w.rec.InvokeAll(limited(asking, e), ids)
	all, err := take(asking, ids, ttl, opts...)
	if err != nil {
		for i, part := range parts {
			parts[i] = refusedPart(outcome(part, err), err)
		}

		w.rec.ReturnAll(parts)

		return
	}

	tokens := all.Tokens()
	for i := range parts {
		parts[i].Outcome, parts[i].Token = history.OK, tokens[parts[i].Lock]
		if parts[i].Token == 0 {
			parts[i].Outcome = history.Busy // it isn't among those that were granted
		}
	}

	w.rec.ReturnAll(parts)
	context.AfterFunc(all.Context(), func() { w.lostAll(parts, context.Cause(all.Context())) })

	switch n := w.IntN(100); {
	case n < 35:
		w.count(ctx, holding{ctx: all.Context(), token: parts[0].Token, row: parts[0].Lock, guard: all.Guard}, Spec{parts[0].Lock, ttl})
	case n < 60:
		w.writeOutside(holding{ctx: all.Context(), token: parts[0].Token, row: parts[0].Lock}, Spec{parts[0].Lock, ttl})
	case n < 75:
		sleep(all.Context(), ttl+w.upTo(ttl))
	default:
		sleep(all.Context(), w.upTo(30*time.Millisecond))
	}

	if ctx.Err() != nil && w.chance(50) {
		w.lostAll(parts, errors.New(LeftToClose))

		return
	}

	w.unlockAll(ctx, parts, all.Unlock)
}

// refusedPart is what a refusal says of one lock: the error is of one that is held, and says nothing
// of the others.
func refusedPart(e history.Event, err error) history.Event {
	var held *pglocker.HeldError
	if errors.As(err, &held) && held.LockID != e.Lock {
		e.Token, e.Owner, e.Remaining = 0, "", 0
	}

	return e
}

// lostAll records that several rows are lost at once.
func (w *worker) lostAll(parts []history.Event, cause error) {
	for _, part := range parts {
		w.rec.Note(history.Event{Kind: history.Lost, Lock: part.Lock, Family: part.Family, Token: part.Token, Detail: cause.Error()})
	}
}

// unlockAll ends a tenure of one row or several.
func (w *worker) unlockAll(ctx context.Context, granted []history.Event, unlock func(context.Context) error) {
	ctx, cancel := w.within(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()

	ends := make([]history.Event, len(granted))
	for i, part := range granted {
		ends[i] = w.rec.Invoke(limited(ctx, history.Event{
			Kind: history.Unlock, Lock: part.Lock, Family: part.Family, TTL: part.TTL, Generation: part.Token, MinHold: part.MinHold,
		}))
	}

	err := unlock(ctx)

	for i := range ends {
		ends[i] = outcome(ends[i], err)
	}

	w.rec.ReturnAll(ends)
}
