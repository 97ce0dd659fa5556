package traffic

import (
	"context"
	"errors"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// readOrWrite takes a read-write lock as a reader or as the writer, works under it, and releases it.
// A writer sometimes goes on as a reader. Which slot a reader has, its client isn't told: NameGrants
// finds that in the audit.
func (w *worker) readOrWrite(ctx context.Context, l *pglocker.RWLock, r Recipe) {
	e := history.Event{Kind: history.RLock, Lock: r.ID(), Family: r.ID(), TTL: int64(r.TTL)}
	now, wait := l.TryRLock, l.RLock

	if w.chance(35) {
		e.Kind = history.WLock
		now, wait = l.TryLock, l.Lock
	}

	e.Waits = w.chance(60)
	opts := w.options(&e)

	asking, cancel := w.within(ctx, 2*time.Second)
	defer cancel()

	take := now
	if e.Waits && e.Wait == 0 {
		take = wait
	}

	e = w.rec.Invoke(limited(asking, e))
	a, err := take(asking, r.TTL, opts...)
	e.At = 0

	if err != nil {
		w.rec.Return(outcome(e, err))

		return
	}

	e = w.accessed(e, a)

	switch n := w.IntN(100); {
	case e.Kind == history.WLock && n < 30:
		w.count(ctx, holding{ctx: a.Context(), token: a.Token(), row: r.ID(), family: r.ID(), guard: a.Guard}, Spec{r.ID(), r.TTL})
	case e.Kind == history.WLock && n < 50:
		w.writeOutside(holding{ctx: a.Context(), token: a.Token(), row: r.ID()}, Spec{r.ID(), r.TTL})
	case n > 80:
		sleep(a.Context(), r.TTL+w.upTo(r.TTL))
	default:
		sleep(a.Context(), w.upTo(40*time.Millisecond))
	}

	if e.Kind == history.WLock && w.chance(30) {
		if a, e = w.downgrade(ctx, a, e); a == nil {
			return
		}

		sleep(a.Context(), w.upTo(40*time.Millisecond))
	}

	if ctx.Err() != nil && w.chance(50) {
		w.lostAll([]history.Event{e}, errors.New(LeftToClose))

		return
	}

	w.unlockAll(ctx, []history.Event{e}, a.Unlock)
}

// accessed records a grant, and its end if it is lost.
func (w *worker) accessed(e history.Event, a *pglocker.Access) history.Event {
	e.Outcome, e.Token = history.OK, a.Token()
	w.rec.Return(e)
	context.AfterFunc(a.Context(), func() { w.lostAll([]history.Event{e}, context.Cause(a.Context())) })

	return e
}

// downgrade makes a reader of a writer. The access is nil if that failed.
func (w *worker) downgrade(ctx context.Context, a *pglocker.Access, e history.Event) (*pglocker.Access, history.Event) {
	ctx, cancel := w.within(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()

	of := history.Event{Lock: e.Lock, Family: e.Family, TTL: e.TTL}

	ended, begun := of, of
	ended.Kind, ended.Generation = history.Downgrade, e.Token
	ended = w.rec.Invoke(limited(ctx, ended))

	begun.Kind = history.RLock
	begun = w.rec.Invoke(limited(ctx, begun))

	reader, err := a.Downgrade(ctx)
	ended.At, begun.At = 0, 0

	if err != nil {
		// It may have been made, and what it granted released.
		ended, begun = outcome(ended, err), outcome(begun, err)
		ended.Outcome, begun.Outcome = history.Unknown, history.Unknown
		w.rec.Return(ended)
		w.rec.Return(begun)

		return nil, begun
	}

	ended.Outcome = history.OK
	w.rec.Return(ended)

	return reader, w.accessed(begun, reader)
}
