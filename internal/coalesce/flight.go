package coalesce

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// maxUnready bounds the flights that are not ready to send. Any of them may never be, so the
// oldest is given up for a new one after [Config.Ready], which is how long a connection may take.
const maxUnready = 4

// flight is one statement on its way. It owns its timers, which land stops.
type flight[Req, Res any] struct {
	began time.Time
	// overtaking starts the next flight when the patience is over, and grace cancels this one
	// when all callers have left. Both may be nil.
	overtaking, grace *time.Timer

	// A lone caller's flight has none of the rest.
	cancel    context.CancelFunc
	calls     []*call[Req, Res]
	callers   int  // those of calls that have not left
	gathers   bool // more requests are about to come
	abandoned bool // it was given up before it took its requests
}

// next starts a flight for the requests that wait, if any. The caller holds mu.
func (b *Batcher[Req, Res]) next(gathers bool) {
	b.current = nil

	if len(b.waiting) == 0 {
		return
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(b.waiting[0].ctx))
	f := &flight[Req, Res]{began: time.Now(), cancel: cancel, gathers: gathers}
	b.current = f
	b.unready = append(b.unready, f)
	b.watch(f, b.cfg.Patience)

	b.cfg.Go(func() { b.fly(ctx, f) })
}

// watch has the flight overtaken after a time. The caller holds mu.
func (b *Batcher[Req, Res]) watch(f *flight[Req, Res], after time.Duration) {
	f.overtaking = time.AfterFunc(after, func() { b.overtake(f) })
}

// overtake starts another flight beside one that takes too long.
func (b *Batcher[Req, Res]) overtake(f *flight[Req, Res]) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.current != f {
		return
	}

	if len(b.unready) >= maxUnready {
		if left := b.cfg.Ready - time.Since(b.unready[0].began); left > 0 {
			// f may be ready sooner, and then hold other requests back.
			b.watch(f, min(left, b.cfg.Patience))

			return
		}

		b.abandonOldest()
	}

	b.next(false)
}

// tidy gives up the flights that aren't ready if no request waits. The caller holds mu.
func (b *Batcher[Req, Res]) tidy() {
	for len(b.waiting) == 0 && len(b.unready) > 0 {
		b.abandonOldest()
	}
}

// abandonOldest gives up a flight that is not ready. The caller holds mu.
func (b *Batcher[Req, Res]) abandonOldest() {
	f := b.unready[0]
	b.unready = slices.Delete(b.unready, 0, 1)
	f.abandoned = true
	f.cancel()

	if b.current == f {
		b.current = nil
	}
}

// fly sends a batch and gives the callers their answers, whatever becomes of Many.
func (b *Batcher[Req, Res]) fly(ctx context.Context, f *flight[Req, Res]) {
	defer f.cancel()

	var (
		take     = sync.OnceValue(func() []Req { return b.take(f) })
		answers  []Res
		answered bool
	)

	defer func() {
		reqs := take()

		if !answered {
			answers = slices.Repeat([]Res{b.cfg.Broken(recover())}, len(reqs))
		}

		b.answer(f, reqs, answers)
	}()

	answers = b.cfg.Many(ctx, take)
	answered = true
}

func (b *Batcher[Req, Res]) take(f *flight[Req, Res]) []Req {
	b.mu.Lock()

	for before := 0; f.gathers && before < len(b.waiting) && len(b.waiting) < b.cfg.Limit; {
		before = len(b.waiting)

		b.mu.Unlock()
		runtime.Gosched()
		b.mu.Lock()
	}

	if f.abandoned {
		b.mu.Unlock()

		return nil
	}

	b.unready = slices.DeleteFunc(b.unready, func(other *flight[Req, Res]) bool { return other == f })

	taken := min(len(b.waiting), b.cfg.Limit)
	f.calls = slices.Clone(b.waiting[:taken])
	b.waiting = slices.Delete(b.waiting, 0, taken)

	for _, c := range f.calls {
		c.flight = f
	}

	b.crowded = len(f.calls) > 1
	f.callers = len(f.calls)
	b.tidy()

	b.mu.Unlock()

	slices.SortFunc(f.calls, func(x, y *call[Req, Res]) int { return b.cfg.Compare(x.req, y.req) })

	reqs := make([]Req, len(f.calls))
	for i, c := range f.calls {
		reqs[i] = c.req
	}

	return reqs
}

// answer gives the callers of a flight their answers, and ends the flight.
func (b *Batcher[Req, Res]) answer(f *flight[Req, Res], reqs []Req, answers []Res) {
	var late []int

	for i, c := range f.calls {
		if c.over.CompareAndSwap(false, true) {
			c.answer <- answers[i]
		} else {
			late = append(late, i)
		}
	}

	b.land(f)

	for _, i := range late {
		b.cfg.Late(reqs[i], answers[i])
	}
}

// land ends a flight. The requests that have gathered behind it go next.
func (b *Batcher[Req, Res]) land(f *flight[Req, Res]) {
	b.mu.Lock()
	defer b.mu.Unlock()

	for _, timer := range []*time.Timer{f.overtaking, f.grace} {
		if timer != nil {
			timer.Stop()
		}
	}

	if b.current == f {
		b.next(false)
	}
}
