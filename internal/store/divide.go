package store

import (
	"context"
	"slices"
)

// divide turns the answer to a batch into those to its requests. Where some of them may have had it
// refused, it asks for the halves separately, down to single requests.
func (l *lane[T]) divide(ctx context.Context, reqs []request, a answer[one[T]], answers []answer[T]) {
	var moved tries

	for n := 1; a.outcome == refused; n++ {
		lost := n < sendAttempts && l.store.lostStatement(a.err, a.named)
		if !lost && !l.store.afresh(a.err, &moved) {
			break
		}

		a = l.askAgain(ctx, reqs)
	}

	if a.outcome == refused {
		p := l.statement(reqs)
		a = orQuietly(l.store, p.text, a, func(text string) answer[one[T]] {
			return ask(ctx, l.store, text, p.args, scanMany(l.kind.scan, &p))
		})
	}

	// A batch of requests from before and after a change of the shards says nothing about either.
	mixed := slices.ContainsFunc(reqs, func(r request) bool { return r.shape != reqs[0].shape })
	if a.outcome == refused && len(reqs) > 1 && !mixed {
		l.store.shape.apart(reqs[0].shape, a.err)
	}

	switch {
	case a.outcome != refused:
	case sweeping(a.err) && len(reqs) > 2:
		l.sample(ctx, reqs, a, answers)

		return
	case divisible(a.err) && len(reqs) > 1:
		l.halve(ctx, reqs, answers)

		return
	}

	l.spread(reqs, a, answers)
}

// halve asks for the halves separately.
func (l *lane[T]) halve(ctx context.Context, reqs []request, answers []answer[T]) {
	half := len(reqs) / 2
	l.divideAgain(ctx, reqs[:half], answers[:half])
	l.divideAgain(ctx, reqs[half:], answers[half:])
}

// divideAgain asks for some of the requests of a batch that was refused.
func (l *lane[T]) divideAgain(ctx context.Context, reqs []request, answers []answer[T]) {
	if len(reqs) > 0 {
		l.divide(ctx, reqs, l.askAgain(ctx, reqs), answers)
	}
}

// sample divides a batch that was refused for a reason which may be the same for all. All are
// refused if the first, the last and one between are, each alone. So a locked table takes a few
// statements, and a few refused rows don't cost the others.
func (l *lane[T]) sample(ctx context.Context, reqs []request, a answer[one[T]], answers []answer[T]) {
	divide := func(from, to int) { l.divideAgain(ctx, reqs[from:to], answers[from:to]) }

	last := len(reqs) - 1
	middle := last / 2

	divide(0, 1)
	divide(last, last+1)

	between, rest := reqs[1:last], answers[1:last]

	if !refusedAs(answers[0], a.err) || !refusedAs(answers[last], a.err) {
		l.halve(ctx, between, rest)

		return
	}

	again := l.askAgain(ctx, between)
	if again.outcome != refused || sqlState(again.err) != sqlState(a.err) {
		l.divide(ctx, between, again, rest)

		return
	}

	divide(middle, middle+1)

	if !refusedAs(answers[middle], a.err) {
		divide(1, middle)
		divide(middle+1, last)

		return
	}

	l.spread(between, again, rest)

	// Alone, each would wait in vain as long as these have.
	code := sqlState(a.err)
	if code == codeQueryCanceled || code == codeLockNotAvailable && !l.kind.inserts {
		for i := range rest {
			rest[i].shared = false
		}
	}
}

func refusedAs[T any](a answer[T], err error) bool {
	return a.outcome == refused && sqlState(a.err) == sqlState(err)
}
