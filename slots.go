package pglocker

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/store"
)

// MaxPermits is how many permits a semaphore, and how many readers a read-write lock may have. Each attempt
// reads the rows of all slots that were ever used at the same time.
const MaxPermits = 10_000

// family is the rows of one semaphore or one read-write lock: a gate, which every grant changes and at which
// the waiters stand in line, and slots.
type family struct {
	locker *Locker
	name   string
	prefix string // of all its ids
}

func (l *Locker) newFamily(kind Kind, name string) (family, error) {
	id, err := recipeID(kind, name)

	return family{locker: l, name: name, prefix: id + ":"}, err
}

func (f family) gate() string { return f.prefix + store.PartGate }

// held are the locks of this family that are held under ctx.
func (f family) held(ctx context.Context) (held []*Lock) {
	for g := groupOf(ctx); g != nil; g = g.outer {
		if !g.sharesTable(f.locker) || g.over() != nil {
			continue
		}

		for _, lk := range g.locks {
			if strings.HasPrefix(lk.lease.LockID, f.prefix) && store.GateOf(lk.lease.LockID) == f.gate() {
				held = append(held, lk)
			}
		}
	}

	return held
}

// slotOf is the number of a slot, 0 for other rows.
func slotOf(id string) int {
	n, _ := strconv.Atoi(id[strings.LastIndexByte(id, ':')+1:])

	return n
}

// take takes slots within ctx, and starts to keep them alive. Its context is made from parent.
func (f family) take(ctx, parent context.Context, asked store.SlotsRequest, o lockOptions) (*group, error) {
	l := f.locker
	asked.Family, asked.Margin = f.prefix, l.cfg.margin(asked.TTL)
	r := &slotsRequest{family: f, asked: asked, waits: o.wait > 0}

	g, err := l.acquireAll(ctx, parent, line.Request{LockID: f.gate(), TTL: asked.TTL, Wait: o.wait, Special: r, Front: asked.Nested}, f.gate(), o)
	r.leave(err == nil)

	return g, err
}

// keep has Close unlock a group, unless the Locker is closed.
func (g *group) keep(ctx context.Context) error {
	if g.locker.held.add(g) {
		return nil
	}

	_ = g.unlock(context.WithoutCancel(ctx)) // bounded by its lease

	return ErrClosed
}

// slotsRequest is one call's request for slots, however often it is made. It is a [line.Special].
type slotsRequest struct {
	family
	asked store.SlotsRequest // but for the owner
	waits bool               // in line, if too much is held

	// mu guards what follows. Requests that nobody waits for any more run beside later ones.
	mu sync.Mutex
	// busy is what was in the way last.
	busy string
	// intent is the generation of the last intent, 0 if there is none, and intended is when it was left.
	intent   int64
	intended time.Time
	left     bool
}

// A release that is committed after a waiter has left its mark, and that began before, doesn't notify. So the
// waiter asks again after that.
const afterMark = 250 * time.Millisecond

// Ask asks once. A mark is left first: what a release frees after that is notified. A writer leaves an intent
// as the head of its line only. One that comes to stand behind a reader would be waited for by that reader.
func (r *slotsRequest) Ask(ctx context.Context, line string, mark store.Mark) (res store.Result, err error) {
	desk := r.locker.desk

	var marked store.Result

	if mark.For > 0 {
		if marked, err = desk.Store.MarkGate(ctx, r.gate(), mark); err != nil {
			return res, err
		}
	}

	if res, err = r.acquire(ctx); err == nil && line != "" && r.isKeptOut(res) {
		if err = r.intend(ctx, res.Intended); err == nil {
			res, err = r.acquire(ctx) // the last reader may have left in between
		}

		res.Again = r.intentFor() / 3
	}

	if res.Contested {
		res.Again = desk.Queue.Politeness(r.gate())
	}

	if marked.Marked {
		res.Mark, res.Marked = marked.Mark, true

		if res.Again == 0 || res.Again > afterMark {
			res.Again = afterMark
		}
	}

	if !res.Contested { // it says nothing of what is in the way
		r.mu.Lock()
		r.busy = res.LockID
		r.mu.Unlock()
	}

	res.LockID = "" // it waits at the gate, whatever is in the way

	return res, err
}

func (r *slotsRequest) acquire(ctx context.Context) (store.Result, error) {
	desk := r.locker.desk

	_, run := desk.Queue.Head(r.gate())

	asked := r.asked
	asked.Once, asked.Contended = r.waits, run.Others
	asked.Owner = desk.Names.Next()

	res, err := desk.Store.AcquireSlots(ctx, asked)
	desk.Settle(r.gate(), res.Stray, asked.TTL)

	return res, err
}

// isKeptOut reports whether this is a writer that readers are in the way of.
func (r *slotsRequest) isKeptOut(res store.Result) bool {
	part := strings.TrimPrefix(res.LockID, r.prefix)

	return r.asked.Writes && res.Verdict == store.Busy && part != store.PartWriter && part != store.PartGate
}

// intentFor is how long an intent stands. A waiting writer renews it.
func (r *slotsRequest) intentFor() time.Duration { return min(r.asked.TTL, store.LongestMark) }

// intend leaves an intent, unless one stands there that is new enough.
func (r *slotsRequest) intend(ctx context.Context, stands bool) error {
	d := r.intentFor()

	r.mu.Lock()
	fresh := r.left || stands && r.intent != 0 && time.Since(r.intended) < d/4
	r.mu.Unlock()

	if fresh {
		return nil
	}

	desk, now := r.locker.desk, time.Now()

	generation, err := desk.Store.Intend(ctx, r.prefix, desk.Names.Next(), d)
	if err != nil {
		return err
	}

	r.mu.Lock()
	r.intent, r.intended = generation, now
	left := r.left
	r.mu.Unlock()

	if left {
		r.endIntent(generation)
	}

	return nil
}

// leave is called when nobody waits for this request any more. A grant has ended the intent. A writer that
// leaves without one ends it, if no other has left one since.
func (r *slotsRequest) leave(granted bool) {
	r.mu.Lock()
	r.left = true
	generation := r.intent
	r.mu.Unlock()

	if generation != 0 && !granted {
		r.endIntent(generation)
	}
}

func (r *slotsRequest) endIntent(generation int64) {
	desk := r.locker.desk
	desk.Aside(func() {
		ctx, cancel := desk.UntilClosed(context.Background())
		defer cancel()

		// If it fails, the intent ends by itself.
		_ = desk.Release(ctx, handover.Tenure{
			LockID: r.prefix + store.PartIntent, Gate: r.gate(), State: store.State{Generation: generation},
		}, time.Now().Add(r.intentFor()))
	})
}

// Return returns a grant that nobody wants.
func (r *slotsRequest) Return(res store.Result) {
	r.locker.desk.ReturnAll(res, r.asked.TTL)
}

// Held names the row that was in the way last: of all, that whose lease ends first.
func (r *slotsRequest) Held(gate string, row store.Row, ago time.Duration) error {
	r.mu.Lock()
	id := cmp.Or(r.busy, gate)
	r.mu.Unlock()

	held := r.locker.heldError(id, row, ago)

	switch part := strings.TrimPrefix(id, r.prefix); {
	case part == store.PartIntent:
		return fmt.Errorf("%w (a writer waits)", held)
	case r.asked.Permits > 1 && !r.asked.Writes && strings.HasPrefix(r.prefix, ReservedPrefix+string(KindRWLock)+":") &&
		part != store.PartWriter && part != store.PartGate:
		return fmt.Errorf("%w: %d: %w", ErrTooManyReaders, r.asked.Permits, held)
	}

	return held
}

// Permits is how many slots may be held, if this asks for one of them.
func (r *slotsRequest) Permits() int {
	if r.asked.Want > 1 || r.asked.Writes {
		return 0
	}

	return r.asked.Permits
}

// Locks is how many slots are asked for.
func (r *slotsRequest) Locks() int { return r.asked.Want }

// waitsForItself is the error of a call that waits for what is held under its own context.
func waitsForItself(held *Lock) error {
	return fmt.Errorf("%w; it is held under the context of this call, which would wait for itself", held.heldError())
}
