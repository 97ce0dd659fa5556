package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Claimed is a claim that goes with others in one statement, and its answer.
type Claimed struct {
	ID, Owner string
	Mark      Mark

	// Answered: the statement had a row for it. Result is what that row says.
	Answered bool
	Result   Result
	Err      error
}

// ClaimTogether sends claims in one statement, with marks or, on a table of three columns or
// where none has a mark, without.
func ClaimTogether(ctx context.Context, s *Store, ttl time.Duration, claims []*Claimed) error {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return err
	}

	slices.SortStableFunc(claims, func(a, b *Claimed) int { return cmp.Compare(a.ID, b.ID) })

	reqs := valuesOf(claims, func(claimed **Claimed) request {
		c := *claimed

		return request{
			shape: sh, id: c.ID, owner: c.Owner, ttl: Microseconds(ttl),
			mark: Microseconds(c.Mark.For), signature: c.Mark.Signature,
		}
	})

	lane := s.lanes.try
	if sh.full && slices.ContainsFunc(reqs, func(r request) bool { return r.mark > 0 }) {
		lane = s.lanes.claim
	}

	for i, a := range lane.askMany(ctx, func() []request { return reqs }) {
		c := claims[i]
		c.Answered, c.Err = len(a.rows) == 1, a.err

		if !c.Answered {
			continue
		}

		got := a.rows[0]
		c.Result = Result{Verdict: Busy, Row: got.row, Mark: got.mark, Marked: got.marked}

		if got.granted {
			c.Result.Verdict = Granted
		}
	}

	return nil
}

// ReleaseTogether sends releases in one statement; hold is for each.
func ReleaseTogether(ctx context.Context, s *Store, generations map[string]int64, hold map[string]time.Duration) error {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return err
	}

	var reqs []request
	for id, generation := range generations {
		reqs = append(reqs, request{shape: sh, id: id, generation: generation, hold: Microseconds(hold[id])})
	}

	slices.SortFunc(reqs, func(a, b request) int { return cmp.Compare(a.id, b.id) })

	for _, a := range s.lanes.release.askMany(ctx, func() []request { return reqs }) {
		if a.err != nil {
			return a.err
		}
	}

	return nil
}
