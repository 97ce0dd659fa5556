// Package coalesce sends requests together. A request that comes while nothing is under way is
// sent at once. Requests that come while a statement is in flight wait for its end, and then go
// in one statement. No request waits for a timer. The slower the server, the larger the batches.
//
// Callers that were answered together tend to send their next requests together. So after a
// batch of several, the first request lets other goroutines run for as long as they bring more.
// Alone it would make all of them wait for its statement. It costs a turn of the scheduler, once.
//
// A statement that takes unusually long holds no request back: after [Config.Patience] the next
// statement is sent beside it. flight.go has the statements and their timers.
package coalesce

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

type Config[Req, Res any] struct {
	// One sends the request of a lone caller, on its goroutine and with its context.
	One func(ctx context.Context, req Req) Res
	// Many sends a batch and returns an answer for each request, in order. It calls take once,
	// when it is ready to send or knows that it can't be. take returns the requests that have
	// gathered by then, sorted, or none if every caller has left. ctx has the values of one
	// caller's context, and ends when every caller has left.
	Many func(ctx context.Context, take func() []Req) []Res
	// Left is the answer to a caller whose context has ended. sent: its request may have gone
	// out.
	Left func(ctx context.Context, sent bool) Res
	// Late is given the answer to a request whose caller has left after it was sent.
	Late func(req Req, res Res)
	// Broken is the answer to requests that may have been sent. Many has panicked with cause,
	// or has ended its goroutine if cause is nil.
	Broken func(cause any) Res
	// Go starts the goroutine of a batch.
	Go func(run func())
	// Compare is the order of the requests in a batch.
	Compare func(a, b Req) int
	Limit   int // the most requests in a batch
	// Patience is how long a statement in flight holds the next one back.
	Patience time.Duration
	// Ready is how long a batch has to become ready. Then it may be given up for a new one.
	Ready time.Duration
	// Grace is how long a batch goes on when all its callers have left: cancelling it costs a
	// connection.
	Grace time.Duration
}

// Batcher sends requests of one kind. It has a goroutine for each batch in flight, and none at
// rest.
type Batcher[Req, Res any] struct {
	cfg Config[Req, Res]

	// mu guards the fields below, and those of calls and flights. It is not held while a
	// statement is sent.
	mu      sync.Mutex
	waiting []*call[Req, Res] // the oldest first
	// current is the flight that holds new requests back, nil if there is none.
	current *flight[Req, Res]
	// crowded: the last batch had several requests.
	crowded bool
	// unready are the flights that have not taken their requests, the oldest first.
	unready []*flight[Req, Res]

	// calls are used again: a call and its channel would be a third of what a request allocates.
	calls sync.Pool
}

func New[Req, Res any](cfg Config[Req, Res]) *Batcher[Req, Res] {
	return &Batcher[Req, Res]{cfg: cfg}
}

type call[Req, Res any] struct {
	req Req
	ctx context.Context
	// flight is nil while the call is waiting.
	flight *flight[Req, Res]
	// over is set by the caller when it leaves, or with the answer, whichever comes first.
	over   atomic.Bool
	answer chan Res
}

// Do sends the request, alone or together with others, and returns its answer. It returns that
// of Left when ctx ends.
func (b *Batcher[Req, Res]) Do(ctx context.Context, req Req) Res {
	if ctx.Err() != nil {
		return b.cfg.Left(ctx, false)
	}

	b.mu.Lock()

	if b.current == nil && !b.crowded {
		f := &flight[Req, Res]{began: time.Now()}
		b.current = f
		b.mu.Unlock()

		defer b.land(f)

		return b.cfg.One(ctx, req)
	}

	c, _ := b.calls.Get().(*call[Req, Res])
	if c == nil {
		c = &call[Req, Res]{answer: make(chan Res, 1)}
	}

	c.req, c.ctx = req, ctx
	b.waiting = append(b.waiting, c)

	switch {
	case b.current == nil:
		b.next(true)
	case b.current.overtaking == nil:
		b.watch(b.current, b.cfg.Patience-time.Since(b.current.began))
	}

	b.mu.Unlock()

	select {
	case res := <-c.answer:
		return b.reuse(c, res)
	case <-ctx.Done():
		return b.leave(ctx, c)
	}
}

// reuse puts by a call that was answered: nobody else has it any more.
func (b *Batcher[Req, Res]) reuse(c *call[Req, Res], res Res) Res {
	var none Req

	c.req, c.ctx, c.flight = none, nil, nil
	c.over.Store(false)
	b.calls.Put(c)

	return res
}

// leave takes out a caller whose context has ended.
func (b *Batcher[Req, Res]) leave(ctx context.Context, c *call[Req, Res]) Res {
	b.mu.Lock()
	defer b.mu.Unlock()

	f := c.flight
	if f == nil {
		at := slices.Index(b.waiting, c)
		b.waiting = slices.Delete(b.waiting, at, at+1)
		b.tidy()

		return b.cfg.Left(ctx, false)
	}

	if !c.over.CompareAndSwap(false, true) { // answered at the same moment
		return b.reuse(c, <-c.answer)
	}

	f.callers--
	if f.callers == 0 {
		f.grace = time.AfterFunc(b.cfg.Grace, f.cancel)
	}

	return b.cfg.Left(ctx, true)
}
