// Package coalesce batches naturally: a request that comes while nothing is under
// way is sent at once, and what comes while a statement is in flight waits for its
// end and then goes together, in one statement. Nothing waits for a timer, and a
// lone caller for nobody. The slower the server, the larger the batches.
//
// Callers who were answered together tend to ask for the next thing together. So after
// a batch of several, the first who comes lets those go first who are ready to run, and
// takes along what they ask for; alone, it would make all of them wait for its own
// statement. That costs a turn of the scheduler, and once: who turns out to be alone is
// alone from then on.
//
// A statement that takes unusually long holds nobody back: after [Config.Patience]
// the next one is sent beside it.
package coalesce

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config says how requests are sent.
type Config[Req, Res any] struct {
	// One sends the request of a caller who is alone, on that caller's goroutine and
	// with its context.
	One func(ctx context.Context, req Req) Res

	// Many sends a batch. When it is ready to send, it calls take, which returns the
	// requests that have gathered by then, sorted, or none if every caller has left;
	// what comes after that goes with the next. Many answers each of them, in that
	// order. If it can't become ready, it calls take as well, so as to answer them; it
	// calls it once in any case. ctx has the values of one caller's context, and ends
	// when every caller has left.
	Many func(ctx context.Context, take func() []Req) []Res

	// Left is the answer to a caller whose context has ended. sent says whether its
	// request may have gone out.
	Left func(ctx context.Context, sent bool) Res

	// Late is given the answer to a request that was sent and whose caller has left.
	Late func(req Req, res Res)

	// Broken is the answer to the requests of a batch whose Many panicked with cause, or
	// ended its goroutine, in which case cause is nil. They may have been sent.
	Broken func(cause any) Res

	// Go starts the goroutine of a batch; whoever wants to can wait for it.
	Go func(run func())

	// Compare gives the order of the requests in a batch.
	Compare func(a, b Req) int

	// Limit is the most requests that a batch has.
	Limit int

	// Patience is how long a statement in flight holds the next one back.
	Patience time.Duration

	// Ready is how long a batch has to become ready before it may be given up for a new
	// one.
	Ready time.Duration

	// Grace is how long a batch goes on whose callers have all left: its answer is of
	// no use to them, but a connection is lost by cancelling.
	Grace time.Duration
}

// maxUnready bounds how many flights wait for being ready to send at once. Each of them
// may have met with something that will never be ready: beyond that the oldest is given
// up for a new one, if it has had time enough. If flights were given up sooner than a
// connection can be opened, none would ever be ready.
const maxUnready = 4

// Batcher sends requests of one kind. It has a goroutine for each batch in flight,
// and none at rest.
type Batcher[Req, Res any] struct {
	cfg Config[Req, Res]

	// mu guards what follows, and the state of all calls and flights. It is not held
	// while anything is sent.
	mu sync.Mutex
	// queue are the calls that wait, some of which may have left; waiting counts the
	// others.
	queue   []*call[Req, Res]
	waiting int
	// current is the flight that holds newcomers back, nil if none does.
	current *flight[Req, Res]
	// crowded: the last batch had several requests.
	crowded bool
	// unready are the flights that have not taken their requests yet, the oldest first.
	unready []*flight[Req, Res]

	// calls are used again, since there are many and each has a channel.
	calls sync.Pool
}

// New returns a Batcher.
func New[Req, Res any](cfg Config[Req, Res]) *Batcher[Req, Res] {
	return &Batcher[Req, Res]{cfg: cfg}
}

// call is one caller's request.
type call[Req, Res any] struct {
	req Req
	ctx context.Context
	// flight is the one that took it, nil while it waits; left is for that time.
	flight *flight[Req, Res]
	left   bool
	// over is set by whoever is first: the caller that leaves, or the answer.
	over atomic.Bool
	res  Res
	// landed has room for one, which is there when res is.
	landed chan struct{}
}

// flight is one statement on its way.
type flight[Req, Res any] struct {
	began time.Time
	// overtaking fires when its patience is over; nil while nobody waits behind it.
	overtaking *time.Timer
	// cancel and calls are those of a batch, nil for a lone caller.
	cancel context.CancelFunc
	calls  []*call[Req, Res]
	// gathers: it holds its place for others who are about to come.
	gathers bool
	// taken: the requests have been taken. abandoned: it was given up before that.
	taken     bool
	abandoned bool
	// callers counts those of calls that have not left.
	callers int
}

// Do sends the request, alone or together with others, and returns its answer, or
// Left's as soon as ctx ends.
func (b *Batcher[Req, Res]) Do(ctx context.Context, req Req) Res {
	if ctx.Err() != nil {
		return b.cfg.Left(ctx, false)
	}

	b.mu.Lock()

	if b.current == nil && !b.crowded {
		f := &flight[Req, Res]{began: time.Now(), taken: true}
		b.current = f
		b.mu.Unlock()

		defer b.land(f)

		return b.cfg.One(ctx, req)
	}

	c, _ := b.calls.Get().(*call[Req, Res])
	if c == nil {
		c = &call[Req, Res]{landed: make(chan struct{}, 1)}
	}

	c.req, c.ctx = req, ctx
	b.queue = append(b.queue, c)
	b.waiting++

	if b.current == nil {
		b.next(true)
	} else {
		b.watch(b.current)
	}

	b.mu.Unlock()

	select {
	case <-c.landed:
		return b.reuse(c)
	case <-ctx.Done():
		return b.leave(ctx, c)
	}
}

// leave takes a caller out whose context has ended.
func (b *Batcher[Req, Res]) leave(ctx context.Context, c *call[Req, Res]) Res {
	b.mu.Lock()
	defer b.mu.Unlock()

	f := c.flight
	if f == nil {
		c.left = true
		b.waiting--

		b.tidy()

		if len(b.queue) > 2*b.waiting+b.cfg.Limit {
			b.queue = slices.DeleteFunc(b.queue, func(c *call[Req, Res]) bool { return c.left })
		}

		return b.cfg.Left(ctx, false)
	}

	if !c.over.CompareAndSwap(false, true) { // answered at the same moment
		<-c.landed

		return b.reuse(c)
	}

	f.callers--
	if f.callers == 0 {
		time.AfterFunc(b.cfg.Grace, f.cancel)
	}

	return b.cfg.Left(ctx, true)
}

// reuse returns the answer of a call, and puts it by.
func (b *Batcher[Req, Res]) reuse(c *call[Req, Res]) Res {
	var (
		req Req
		res Res
	)

	res, c.res = c.res, res
	c.req, c.ctx, c.flight = req, nil, nil
	c.over.Store(false)
	b.calls.Put(c)

	return res
}

// tidy gives up the flights that aren't ready if nobody waits for them. b.mu is held.
func (b *Batcher[Req, Res]) tidy() {
	for b.waiting == 0 && len(b.unready) > 0 {
		b.abandon(b.unready[0])
	}
}

// abandon gives up a flight that is not ready. b.mu is held.
func (b *Batcher[Req, Res]) abandon(f *flight[Req, Res]) {
	f.abandoned = true
	f.cancel()
	b.unready = slices.DeleteFunc(b.unready, func(other *flight[Req, Res]) bool { return other == f })

	if b.current == f {
		b.current = nil
	}
}

// watch makes sure that the current flight is overtaken when its time has come. b.mu
// is held.
func (b *Batcher[Req, Res]) watch(f *flight[Req, Res]) {
	if f.overtaking == nil {
		f.overtaking = time.AfterFunc(b.cfg.Patience-time.Since(f.began), func() { b.overtake(f) })
	}
}

// overtake starts another flight beside one that takes too long.
func (b *Batcher[Req, Res]) overtake(f *flight[Req, Res]) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.current != f {
		return
	}

	if len(b.unready) >= maxUnready {
		oldest := b.unready[0]

		if left := b.cfg.Ready - time.Since(oldest.began); left > 0 {
			// This one may be ready before, and then hold back others.
			f.overtaking = time.AfterFunc(min(left, b.cfg.Patience), func() { b.overtake(f) })

			return
		}

		b.abandon(oldest)
	}

	b.next(false)
}

// land ends a flight. What has gathered behind it goes next.
func (b *Batcher[Req, Res]) land(f *flight[Req, Res]) {
	b.mu.Lock()
	defer b.mu.Unlock()

	if f.overtaking != nil {
		f.overtaking.Stop()
	}

	if b.current == f {
		b.next(false)
	}
}

// next starts the flight for those who wait, if anybody does; gathers says whether more
// are about to come. b.mu is held.
func (b *Batcher[Req, Res]) next(gathers bool) {
	b.current = nil

	if b.waiting == 0 {
		b.queue = nil

		return
	}

	var first *call[Req, Res]
	for _, c := range b.queue {
		if !c.left {
			first = c

			break
		}
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(first.ctx))
	f := &flight[Req, Res]{began: time.Now(), cancel: cancel, gathers: gathers}
	b.current = f
	b.unready = append(b.unready, f)
	b.watch(f)

	b.cfg.Go(func() { b.fly(ctx, f) })
}

// fly sends a batch and hands out the answers, whatever becomes of Many.
func (b *Batcher[Req, Res]) fly(ctx context.Context, f *flight[Req, Res]) {
	defer f.cancel()

	var (
		reqs     []Req
		answers  []Res
		answered bool
	)

	defer func() {
		if !answered {
			cause := recover()
			if !f.taken {
				reqs = b.take(f)
			}

			answers = make([]Res, len(reqs))
			for i := range answers {
				answers[i] = b.cfg.Broken(cause)
			}
		}

		b.deliver(f, reqs, answers)
	}()

	answers = b.cfg.Many(ctx, func() []Req {
		b.gather(f)
		reqs = b.take(f)

		return reqs
	})
	answered = true
}

// deliver hands out the answers of a flight, and ends it.
func (b *Batcher[Req, Res]) deliver(f *flight[Req, Res], reqs []Req, answers []Res) {
	var late []int

	for i, c := range f.calls {
		if c.over.CompareAndSwap(false, true) {
			c.res = answers[i]
			c.landed <- struct{}{} // there is room: each call lands once
		} else {
			late = append(late, i)
		}
	}

	b.land(f)

	for _, i := range late {
		b.cfg.Late(reqs[i], answers[i])
	}
}

// gather lets other goroutines run for as long as they bring new requests.
func (b *Batcher[Req, Res]) gather(f *flight[Req, Res]) {
	if !f.gathers {
		return
	}

	for before, waiting := 0, b.waits(); before < waiting && waiting < b.cfg.Limit; {
		runtime.Gosched()

		before, waiting = waiting, b.waits()
	}
}

// waits counts the calls that wait.
func (b *Batcher[Req, Res]) waits() int {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.waiting
}

// take gives a flight its requests.
func (b *Batcher[Req, Res]) take(f *flight[Req, Res]) []Req {
	b.mu.Lock()

	if f.abandoned {
		b.mu.Unlock()

		return nil
	}

	f.taken = true
	b.unready = slices.DeleteFunc(b.unready, func(other *flight[Req, Res]) bool { return other == f })

	taken := 0

	for _, c := range b.queue {
		if len(f.calls) == b.cfg.Limit {
			break
		}

		taken++

		if !c.left {
			c.flight = f
			f.calls = append(f.calls, c)
		}
	}

	b.crowded = len(f.calls) > 1
	b.queue = slices.Delete(b.queue, 0, taken)
	b.waiting -= len(f.calls)
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
