package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
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

// renewPlainly renews the leases of each shard in one statement. If the shards aren't known it renews all in one where
// the server takes that, else each in one of its own. A statement for several that was refused is divided. A lease whose
// statement failed has no row: the leases that were renewed count, unless all statements failed.
func (s *Store) renewPlainly(ctx context.Context, sh *shape, reqs []request) (all answer[renewed]) {
	var some bool

	groups := s.renewedTogether(sh, reqs)

	for len(groups) > 0 {
		var again [][]int

		for i, a := range s.renewGroups(ctx, sh, reqs, groups) {
			group := groups[i]

			switch {
			case a.outcome == refused && len(group) > 1 && notTogether(a.err):
				// The statements for one tell whether it is for their number.
				again = slices.AppendSeq(again, slices.Chunk(group, 1))

				if s.shape.apart(sh, a.err); len(sh.shards) == 0 {
					s.shape.singly.Store(true)
				}
			case a.outcome == refused && len(group) > 1 && Divides(a.err):
				again = append(again, group[:len(group)/2], group[len(group)/2:])
			case a.err != nil:
				all.err, all.outcome = a.err, a.outcome
			default:
				some = true

				if all.sent.IsZero() || a.sent.Before(all.sent) {
					all.sent = a.sent
				}

				for _, row := range a.rows {
					for k, place := range row.places {
						row.places[k] = group[place]
					}

					all.rows = append(all.rows, row)
				}
			}
		}

		groups = again
	}

	if some {
		all.err = nil
	}

	return all
}

// renewedTogether are the numbers of the requests of each statement.
func (s *Store) renewedTogether(sh *shape, reqs []request) (groups [][]int) {
	places := make(map[int]int)

	for i := range reqs {
		key := i

		switch {
		case sh.waits || len(sh.shards) == 0 && s.shape.singly.Load():
		case len(sh.shards) == 0:
			key = 0
		default:
			key = sh.shards.of(reqs[i].id)
		}

		place, found := places[key]
		if !found {
			place = len(groups)
			places[key], groups = place, append(groups, nil)
		}

		groups[place] = append(groups[place], i)
	}

	return groups
}

// renewGroups sends a statement for each group.
func (s *Store) renewGroups(ctx context.Context, sh *shape, reqs []request, groups [][]int) []answer[renewed] {
	t := sh.statements.of(&renew)
	answers := make([]answer[renewed], len(groups))

	sideBySide(len(groups), func(i int) {
		text, args := t.one, sh.arguments(&renew, &reqs[groups[i][0]])

		if len(groups[i]) > 1 {
			group := valuesOf(groups[i], func(n *int) request { return reqs[*n] })
			text, args = t.together, plainVerbs[&renew].given.ofMany(group, sh.full)
		}

		answers[i] = s.sendRenewal(ctx, text, args, scanRenewedOne(len(groups[i])))
	})

	return answers
}

// notTogether reports whether a server may have refused a statement because it is about several locks.
func notTogether(err error) bool { return hasState(err, "0A", "42") }

// stillHeldPlainly is stillHeld.
func (s *Store) stillHeldPlainly(ctx context.Context, sh *shape, reqs []request) (still []int) {
	running := make([]bool, len(reqs))

	sideBySide(len(reqs), func(i int) {
		rows, err := read(ctx, s, sh.statements.of(&held).one, sh.arguments(&held, &reqs[i]), scanOne[int64])
		running[i] = err != nil || len(rows) > 0
	})

	for i := range reqs {
		if running[i] {
			still = append(still, i)
		}
	}

	return still
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
