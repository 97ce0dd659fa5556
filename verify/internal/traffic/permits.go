package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// takePermits takes one permit of a semaphore, or two, and releases them.
func (w *worker) takePermits(ctx context.Context, s *pglocker.Semaphore, r Recipe) {
	e := history.Event{
		Kind: history.Permit, Lock: r.ID(), Family: r.ID(), TTL: int64(r.TTL), Most: r.MostOf(w.cfg.Name), Count: 1, Waits: w.chance(60),
	}
	opts := w.options(&e)

	if w.chance(20) {
		e.Count = 2
		opts = append(opts, pglocker.WithPermits(e.Count))
	}

	asking, cancel := w.within(ctx, 2*time.Second)
	defer cancel()

	take := s.TryAcquire
	if e.Waits && e.Wait == 0 {
		take = s.Acquire
	}

	e = w.rec.InvokeAll(limited(asking, e), []string{r.ID()})[0]
	p, err := take(asking, r.TTL, opts...)
	if err != nil {
		e.At = 0
		w.rec.Return(outcome(e, err))

		return
	}

	var rows []string
	for _, slot := range p.Slots() {
		rows = append(rows, fmt.Sprintf("%s:%d", r.ID(), slot))
	}

	parts := w.grantedSlots(e, p.Token(), rows)
	context.AfterFunc(p.Context(), func() { w.lostAll(parts, context.Cause(p.Context())) })

	if w.chance(25) {
		sleep(p.Context(), r.TTL+w.upTo(r.TTL))
	} else {
		sleep(p.Context(), w.upTo(50*time.Millisecond))
	}

	if ctx.Err() != nil && w.chance(50) {
		w.lostAll(parts, errors.New(LeftToClose))

		return
	}

	w.unlockAll(ctx, parts, p.Unlock)
}

// grantedSlots records the grant of some rows of a family.
func (w *worker) grantedSlots(e history.Event, token int64, rows []string) []history.Event {
	called := e.At
	e.At, e.Outcome, e.Token = 0, history.OK, token

	var parts []history.Event

	for i, row := range rows {
		e.Lock = row
		parts = append(parts, e)

		if i == 0 {
			w.rec.Return(e)
		} else {
			w.rec.Granted(e, called)
		}
	}

	return parts
}
