package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// grant is one request for a lock, through all its attempts.
type grant struct {
	store *Store
	shape *shape
	id    string
	// owner is that of the next attempt, made from first, the caller's. renamed counts those.
	owner, first string
	renamed      int
	ttl          time.Duration
	// keep: the caller may work under the grant even if it doesn't wait for the answer.
	keep bool
	// refreshed: the shape was looked up anew.
	refreshed bool

	// waited: the last statement waited for the row.
	waited bool
	// doubtful: a reply was lost, and the row may name one of the owners in lost.
	doubtful bool
	lost     []string
	cause    error
	// over: it was granted, and the lease was over, or nearly, when that was acknowledged. If no
	// better grant follows, its error may not say that it was refused.
	over bool
	// firstSent is when the first of the doubtful attempts was sent: the lease may have begun then.
	firstSent time.Time
}

// lose notes that the reply to the present attempt was lost. The next one has an owner of its own:
// a late grant of this one could not be told from that of the next, and never be returned.
func (g *grant) lose(sent time.Time, cause error) {
	if !g.doubtful {
		g.doubtful, g.cause, g.firstSent = true, cause, sent
		g.first = g.owner
	}

	g.lost = append(g.lost, g.owner)
	g.renamed++
	g.owner = fmt.Sprintf("%s-%d", g.first, g.renamed+1)
}

// begin begins a request.
func (g *grant) begin(ctx context.Context, s *Store) (err error) {
	g.store = s
	g.shape, err = s.shapeOf(ctx)

	return err
}

// result adds the stray attempts to the result of a request.
func (g *grant) result(res Result, err error) (Result, error) {
	res.Stray = g.lost

	// A grant that was over, and not refreshed, may stand on the row as well.
	if g.over && errors.Is(err, ErrUnknownOutcome) {
		res.Stray = append(res.Stray, g.owner)
	}

	return res, err
}

// mine reports whether the row was left by an attempt whose reply was lost.
func (g *grant) mine(row Row) bool { return slices.Contains(g.lost, row.Owner) }

// outdated looks the shape up anew, once, if err may be due to it, and reports whether it changed.
func (g *grant) outdated(ctx context.Context, err error) bool {
	if g.refreshed || !outdated(err) {
		return false
	}

	g.refreshed = true

	found, ok := g.store.changed(ctx, g.shape)
	g.shape = found

	return ok
}

// doubt is the error of a request that may have been granted.
func (g *grant) doubt(err error) error {
	switch {
	case !g.doubtful && (!g.over || err == nil):
		return err
	case err == nil:
		err = g.cause
	}

	if errors.Is(err, ErrUnknownOutcome) {
		return err
	}

	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// try sends a granting statement. After a lost reply it asks again, which is safe since the row
// names the owner. Either the repetition is granted, or an earlier attempt was, which a write
// settles, or another holds the lock. On three columns the outcome stays unknown.
func (g *grant) try(ctx context.Context, l *lane[Row], state State, alone bool) (Result, bool, error) {
	req := request{
		shape: g.shape, id: g.id, owner: g.owner, ttl: Microseconds(g.ttl),
		generation: state.Generation, seen: state.seen(g.shape), discard: !g.keep,
	}

	for n := 1; ; n++ {
		start := time.Now()
		req.owner = g.owner
		a := l.write(ctx, req, alone)
		g.waited = a.waited

		if a.err == nil && len(a.rows) == 1 {
			return Result{Verdict: Granted, Row: a.rows[0], Sent: a.sent}, true, nil
		}

		if a.outcome == unknown {
			g.lose(start, a.err)
		}

		if a.err == nil && g.doubtful && g.shape.full {
			var granted bool

			if a, granted = g.settle(ctx, req, alone); granted {
				return Result{Verdict: Granted, Row: a.rows[0], Sent: g.firstSent, Later: a.sent.Sub(g.firstSent)}, true, nil
			}
		}

		if a.err == nil {
			return Result{}, false, nil
		}

		if a.outcome == refused && g.outdated(ctx, a.err) {
			req.shape, req.seen = g.shape, state.seen(g.shape)

			continue
		}

		if !g.doubtful {
			return Result{}, false, g.doubt(a.err)
		}

		if a.outcome == refused || !g.shape.full || n >= sendAttempts || !backOff(ctx, n) {
			return Result{}, false, g.doubt(a.err)
		}
	}
}

// settle finds out what became of a grant whose reply was lost: it writes the row that the grant to
// {owner} left. Its own commit, which is awaited, covers that of the grant. A SELECT
// could show a grant that is not yet durable. It locks as acquire does.
var settle = verb{
	given: parameters{paramID, paramOwner},
	one:   change(sqlTouched, sqlHeldByOwner, `{row}, {durable}`),
	many:  changeMany(`{durable} AS durable`, sqlHeldByOwner, "", sqlTouched, `{row}, r.n`),
	six:   true,
}

const (
	sqlUnchanged = `expires_at = l.expires_at`
	// sqlTouched changes what doesn't matter: no waiter goes by a mark that is over. A trigger may skip an update that
	// changes nothing.
	sqlTouched     = `contended_until = greatest(l.contended_until, {now})`
	sqlHeldByOwner = `l.owner {=} {owner}
   AND l.expires_at {>} {now}`
)

// settle reports whether one of the lost attempts was granted. That one is stray no more.
func (g *grant) settle(ctx context.Context, req request, alone bool) (a answer[Row], granted bool) {
	req.seen, req.hold = 0, 0 // it goes by the owner alone

	for i, owner := range g.lost {
		req.owner = owner
		a = g.store.lanes.settle.write(ctx, req, alone)
		g.waited = g.waited && a.waited

		switch {
		case a.err != nil:
			return a, false
		case len(a.rows) == 1:
			g.owner, g.lost = owner, slices.Delete(g.lost, i, i+1)

			return a, true
		}
	}

	return a, false
}
