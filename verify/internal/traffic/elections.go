package traffic

import (
	"context"
	"errors"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
)

const (
	// candidacy is how long a candidate takes part at most, and then begins anew.
	candidacy = 4 * time.Second
	// backoffMin and backoffMax are its pauses between campaigns.
	backoffMin = 20 * time.Millisecond
	backoffMax = 200 * time.Millisecond
)

// election is the client's own part in an election.
func (c *client) election(r Recipe) *pglocker.Election {
	return must(c.locker.NewElection(r.Name, r.TTL, pglocker.WithBackoff(backoffMin, backoffMax), pglocker.WithOnError(func(error) {})))
}

// campaign takes part in an election, and leads when it is elected. Each term is recorded as two
// operations: one until the function is called, and one from its return, of which only Run knows
// how it ends.
func (w *worker) campaign(ctx context.Context, e *pglocker.Election, r Recipe) {
	running, cancel := context.WithTimeout(ctx, candidacy/4+w.upTo(candidacy))
	defer cancel()

	lead := history.Event{Kind: history.Lead, Lock: r.ID(), TTL: int64(r.TTL), Waits: true}
	asked := w.rec.Invoke(limited(running, lead))

	err := e.Run(running, func(term context.Context, t pglocker.Term) error {
		asked.At, asked.Outcome, asked.Token, asked.Owner = 0, history.OK, t.Token, t.Leader
		w.rec.Return(asked)

		lost := context.AfterFunc(term, func() {
			w.rec.Note(history.Event{Kind: history.Lost, Lock: r.ID(), Token: t.Token, Detail: context.Cause(term).Error()})
		})
		defer lost()

		w.rule(term, e, t, r)
		w.rec.Invoke(history.Event{Kind: history.Leave, Lock: r.ID(), TTL: int64(r.TTL), Generation: t.Token})
		asked = w.rec.Invoke(limited(running, lead))

		return nil
	})

	asked.At, asked.Outcome, asked.Detail = 0, history.Busy, err.Error()
	if running.Err() == nil && !errors.Is(err, pglocker.ErrClosed) {
		asked.Outcome = history.Refused
	}

	w.rec.Return(asked)
}

// rule works under a term.
func (w *worker) rule(term context.Context, e *pglocker.Election, t pglocker.Term, r Recipe) {
	switch n := w.IntN(100); {
	case n < 40:
		w.writeOutside(holding{ctx: term, token: t.Token, row: r.ID()}, Spec{r.ID(), r.TTL})
	case n < 50:
		_ = e.RequestResign(term, t.Token) // with an error or not, the term may go on
		sleep(term, r.TTL)
	default:
		sleep(term, w.upTo(4*r.TTL))
	}
}

// askWhetherLeading asks the client's own election.
func (w *worker) askWhetherLeading(ctx context.Context, e *pglocker.Election, r Recipe) {
	asked := w.rec.Invoke(history.Event{Kind: history.IsLeader, Lock: r.ID()})
	asked.At, asked.Outcome = 0, history.OK

	if err := e.IsLeader(ctx); err != nil {
		asked.Outcome = history.OutcomeLost
	}

	w.rec.Return(asked)
}

// observe records the terms that it is told of.
func (w *worker) observe(ctx context.Context, e *pglocker.Election, r Recipe) {
	ctx, cancel := context.WithTimeout(ctx, candidacy+w.upTo(candidacy))
	defer cancel()

	observer := w.rec.Number()

	for term, err := range e.Observe(ctx) {
		if err == nil {
			w.rec.Note(history.Event{Kind: history.Observed, Op: observer, Lock: r.ID(), Token: term.Token, Owner: term.Leader})
		}
	}
}
