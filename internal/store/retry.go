package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

// Delays between attempts of one call.
const (
	retryDelayMin = 2 * time.Millisecond
	retryDelayMax = 250 * time.Millisecond
	// sendAttempts bounds how often a statement is sent: all connections of a pool may be dead.
	sendAttempts = 4
)

// backOff waits before repetition number n, from 1, or returns false when ctx ends.
func backOff(ctx context.Context, n int) bool {
	return pause.Sleep(ctx, pause.Jitter(min(retryDelayMin<<min(n, 10), retryDelayMax), 2))
}

// persist attempts a statement that writes until it has an outcome. It repeats it where the server
// rolled it back for the sake of others, until ctx ends, and where it was not sent, a few times.
// alone is set once an attempt was refused that may succeed by itself.
func persist[T any](ctx context.Context, s *Store, attempt func(alone bool) answer[T]) answer[T] {
	var (
		alone bool
		moved tries
	)

	for n, unsent := 1, 0; ; n++ {
		a := attempt(alone)

		switch {
		case a.err == nil:
			return a
		case a.outcome == nothingSent && ctx.Err() == nil:
			unsent++
			if unsent >= sendAttempts || sqlState(a.err) != "" {
				a.err = s.explain(a.err)

				return a
			}
		case a.outcome == refused && a.shared && divisible(a.err) && !general(a.err):
			alone = true

			continue
		case a.outcome == refused && s.afresh(a.err, &moved):
			continue
		case a.outcome == refused && (retriable(a.err) || s.lostStatement(a.err, a.named)):
			alone = true
		case a.outcome == unknown:
			a.err = fmt.Errorf("%w: %w", ErrUnknownOutcome, a.err)

			return a
		default:
			if outdated(a.err) {
				s.shape.found.Store(nil)
			}

			a.err = s.named(ctx, a.err)

			return a
		}

		if !backOff(ctx, n) {
			return answer[T]{outcome: a.outcome, err: fmt.Errorf("%w: %w", ended(ctx), a.err)}
		}
	}
}

const (
	// afreshLimit bounds how many stale connections in a row a request is tried on.
	afreshLimit = 16
	// newLimit bounds how many of them may have been new. A name may lead to several servers.
	newLimit = 6
)

// tries counts the connections over which one request was refused because of them.
type tries struct{ all, new int }

// afresh reports whether a refused request may be answered if it is sent again at once. A
// connection that is at fault was discarded. The next is another of the pool, or a new one. After
// newLimit new ones the server itself is at fault.
func (s *Store) afresh(err error, t *tries) bool {
	if t.all >= afreshLimit || t.new >= newLimit && elsewhere(err) || !elsewhere(err) && !stalePlan(err) {
		return false
	}

	// The next is probably a new one if none is free, in a pgxpool.Pool under the handle either.
	free := s.handle.idle()

	t.all++
	if elsewhere(err) && free == 0 {
		t.new++
	}

	return true
}

// read runs a statement that changes nothing. It repeats one whose reply was lost.
func read[T any](ctx context.Context, s *Store, text string, args []any, scan scanFunc[T]) ([]T, error) {
	return persistRead(ctx, s, func(bool) answer[T] { return ask(ctx, s, text, args, scan) })
}

// persistRead is read for any way to ask, as [persist] is write.
func persistRead[T any](ctx context.Context, s *Store, attempt func(alone bool) answer[T]) ([]T, error) {
	a := insist(ctx, s, attempt, func(a answer[T]) bool {
		return a.outcome != refused || retriable(a.err) || s.lostStatement(a.err, a.named)
	})
	if a.err != nil {
		a.err = withContext(ctx, s.named(ctx, withContext(ctx, a.err)))
	}

	return a.rows, a.err
}

// insist repeats an attempt a few times, as long as again says that it may succeed.
func insist[T any](ctx context.Context, s *Store, attempt func(alone bool) answer[T], again func(answer[T]) bool) answer[T] {
	var moved tries

	for n := 1; ; n++ {
		a := attempt(n > 1)

		for a.outcome == refused && s.afresh(a.err, &moved) {
			a = attempt(true)
		}

		if a.err == nil || !again(a) || n >= sendAttempts || !backOff(ctx, n) {
			return a
		}
	}
}
