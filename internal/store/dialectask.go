package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// createPlainly is [create] in the plain dialect. The watermark may be on another node than the lock, so it
// is read before, and not locked: where the dialect is spoken nobody prunes.
func (s *Store) createPlainly(ctx context.Context, sh *shape, id string) (answer[Row], error) {
	watermark, err := s.look(ctx, sh, WatermarkID)
	if err != nil {
		return answer[Row]{}, err
	}

	generation := int64(1)
	if watermark.Verdict == Granted {
		generation = watermark.Row.Generation + 1
	}

	a := s.lanes.create.write(ctx, request{shape: sh, id: id, generation: generation}, false)

	return a, a.err
}

// createAllPlainly creates those of the locks that aren't there.
func (g *grant) createAllPlainly(ctx context.Context, ids []string) error {
	errs := make([]error, len(ids))

	sideBySide(len(ids), func(i int) {
		seen, err := g.store.look(ctx, g.shape, ids[i])
		if err == nil && seen.Verdict == NotFound {
			_, err = g.store.createPlainly(ctx, g.shape, ids[i])
		}

		errs[i] = err
	})

	for _, err := range errs {
		if err != nil && !Passing(err) {
			return err
		}
	}

	return nil
}

// guardEach guards several locks, in the order of their ids, which may be on several nodes.
func (s *Store) guardEach(ctx context.Context, in Transaction, ids []string, generations []int64) (lost []string, err error) {
	for i, id := range ids {
		err := in(ctx, s, s.GuardSQL(), []any{id, generations[i]}, new(int64))

		switch {
		case errors.Is(err, sql.ErrNoRows):
			lost = append(lost, id)
		case err != nil:
			return nil, err
		}
	}

	return lost, nil
}

// askAllPlainly is sqlGrantAll as a transaction of a statement for each lock, in the order of the ids. It waits
// for no row where the server can pass over one.
func (g *grant) askAllPlainly(ctx context.Context, reqs []request, granted *bool) (a answer[LockRow]) {
	s := g.store

	place, err := s.places.take(ctx)
	if err != nil {
		return answer[LockRow]{err: s.ended(ctx)}
	}
	defer place.free()

	conn, done, err := s.connect(ctx)
	if err != nil {
		return answer[LockRow]{err: err}
	}
	defer done()

	tx, err := s.beginOn(ctx, conn)
	if err != nil {
		return answer[LockRow]{err: err}
	}

	a = answer[LockRow]{sent: time.Now(), rows: make([]LockRow, 0, len(reqs))}
	stmts := g.shape.statements.of

	for i := range reqs {
		id := reqs[i].id

		rows, err := inTx(tx, stmts(&acquire).many, g.shape.arguments(&acquire, &reqs[i]), scanGrant(untagged(new(int64))))
		if err == nil && len(rows) == 1 {
			a.rows = append(a.rows, LockRow{id, rows[0]})

			continue
		}

		if err == nil {
			rows, err = inTx(tx, stmts(&look).one, g.shape.arguments(&look, &reqs[i]), scanRow(untagged(new(*string))))
		}

		_ = tx.end(false) // without a commit nothing is granted

		if elsewhere(err) {
			discard(conn)
		}

		*granted, a.rows = false, nil
		if a.err = err; err != nil {
			if sqlState(err) != "" {
				a.outcome = refused
			}

			return a
		}

		if len(rows) == 1 {
			a.rows = append(a.rows, LockRow{id, rows[0]})
		}

		return a
	}

	if *granted, a.err = true, tx.end(true); a.err != nil {
		a.rows, a.outcome = nil, judge(a.err, s.native.Load())
	}

	return a
}
