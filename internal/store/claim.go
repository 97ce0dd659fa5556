package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Mark says until when somebody waits. Its last digits are signed: whoever wrote a
// mark knows it again, also where the reply to its statement was lost or is still on
// its way.
type Mark struct {
	// For is how long the mark stands, [LongestMark] at most. Zero leaves none. Where
	// another stands for longer, the mark stands as long as that one, or up to a
	// [MarkModulus] longer.
	For time.Duration
	// Signature is below [MarkModulus].
	Signature int64
}

// MarkModulus is in microseconds. A mark may end up to this much earlier than was asked
// for.
const MarkModulus = 1 << 20

// LongestMark is how long a mark stands at most, but for a [MarkModulus].
const LongestMark = 10 * time.Second

// SignatureOf is the signature of a mark.
func SignatureOf(mark time.Time) int64 { return mark.UnixMicro() % MarkModulus }

// Claim is one attempt of somebody who waits for the lock. Like [Store.Acquire]
// it grants the lock if it is free; if not, it leaves the mark that somebody
// waits, so that the release notifies. A mark for no time, and
// a table without that column, leave none, and a failed attempt then costs no
// write. Nor does an attempt leave one that didn't find the lock at first, or whose
// outcome had to be settled. Result.Marked is set only where the mark stands for sure.
//
// The result of a failed attempt may show a row that is free: the lock was taken
// by another at the same moment, or freed a moment after. owner must be of this
// call alone, as for Acquire.
func (s *Store) Claim(ctx context.Context, id, owner string, ttl, margin time.Duration, mark Mark) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	g := grant{store: s, shape: sh, id: id, owner: owner, ttl: ttl}

	return g.result(g.claim(ctx, margin, mark))
}

func (g *grant) claim(ctx context.Context, margin time.Duration, mark Mark) (Result, error) {
	s, sh, id := g.store, g.shape, g.id

	req := request{shape: sh, id: id, owner: g.owner, ttl: Microseconds(g.ttl), discard: true}
	lane := s.lanes.try

	if mark.For > 0 && sh.full {
		req.mark, req.signature = Microseconds(mark.For), mark.Signature
		lane = s.lanes.claim
	}

	start := time.Now()
	a := lane.write(ctx, req, false)

	// What was passed over asks again, unless there is no such lock.
	for a.err == nil && !a.waited && (len(a.rows) == 0 || !a.rows[0].granted && !a.rows[0].row.Held() && !a.rows[0].marked) {
		seen, err := s.look(ctx, sh, id)
		if err != nil {
			return Result{}, err
		}

		if seen.Verdict == NotFound {
			break
		}

		a = lane.write(ctx, req, true)
	}

	if a.outcome == unknown {
		g.lose(start, a.err)
	}

	switch {
	case a.outcome == unknown && sh.full && ctx.Err() == nil:
		// Ask again in the way that settles the doubt.
		return g.acquire(ctx, margin)
	case a.err != nil && a.outcome == refused && g.outdated(ctx, a.err):
		return g.acquire(ctx, margin)
	case a.err != nil:
		return Result{}, a.err
	case len(a.rows) == 0: // not there yet, or the clock was set back
		return g.acquire(ctx, margin)
	case a.rows[0].granted && a.rows[0].row.Remaining() <= margin: // most of it went by in a wait for the row
		g.over = true

		return g.swap(ctx, State{Generation: a.rows[0].row.Generation}, margin)
	case a.rows[0].marked && !a.rows[0].row.Held():
		// It became free while the claim waited for the row. Whoever freed it didn't
		// see the mark, so nobody will be notified of that. If another is faster now,
		// its release will see the mark.
		res, err := g.acquire(ctx, margin)
		if err == nil && res.Verdict == Busy {
			res.Mark, res.Marked = a.rows[0].mark, true
		}

		return res, err
	case a.rows[0].granted:
		return Result{Verdict: Granted, Row: a.rows[0].row, Mark: a.rows[0].mark, Sent: a.sent}, nil
	}

	return Result{Verdict: Busy, Row: a.rows[0].row, Mark: a.rows[0].mark, Marked: a.rows[0].marked}, nil
}

type attempted struct {
	row     Row
	granted bool
	mark    time.Time
	marked  bool
}

func scanTry(from scanner) (a attempted, err error) {
	var durable *string

	a.row, err = newRowScanner(&durable, &a.granted).scan(from)
	a.mark = a.row.ContendedUntil

	return a, err
}

func scanClaim(from scanner) (a attempted, err error) {
	var (
		durable *string
		mark    pgtype.Timestamptz
	)

	a.row, err = newRowScanner(&durable, &a.granted, &mark).scan(from)
	a.mark = mark.Time.UTC()
	a.marked = !a.granted

	return a, err
}
