package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// settleSlots is settle for whatever slots of a family were granted to {owner}.
var settleSlots = verb{
	given: parameters{paramFamily, paramOwner},
	one: with(sqlChangeSlots, "{set}", sqlTouched, "{where}", `w.owner {=} {owner}
   AND w.expires_at {>} {now}`, "{returning}", `{row}, w.i, {durable}`),
	six: true,
}

// unwantedSlots is unwanted for whatever slots of a family were granted to one of {owners}.
var unwantedSlots = verb{
	given: parameters{paramFamily, paramOwners, paramGate},
	one: with(sqlChangeSlots, "{set}", with(sqlFreed, "{until}", `{clock}`), "{where}", `w.owner {=} ANY ({owners}::{text}[])`,
		"{returning}", sqlNotifyGate+`, {lazy}`),
	six: true,
}

// sqlChangeSlots changes rows of a family that are unchanged since the snapshot, and waits for
// them.
const sqlChangeSlots = sqlWalk + `
UPDATE {table} AS l
   SET {set}
  FROM walk AS w
 WHERE w.i {>=} 0
   AND {where}
   AND l.ctid {=} w.row_version
   AND l.tableoid {=} w.relation
RETURNING {returning}`

// settleGrants waits until grants to an owner are durable whose commit wasn't waited for: it settles each. The
// error matches [ErrUnknownOutcome].
func (s *Store) settleGrants(ctx context.Context, sh *shape, owner string, grants []LockRow) error {
	reqs := valuesOf(grants, func(g *LockRow) request { return request{shape: sh, id: g.LockID, owner: owner} })

	for i, a := range s.lanes.settle.several(ctx, reqs) {
		if a.err == nil && len(a.rows) == 0 && !a.waited {
			a = s.lanes.settle.write(ctx, reqs[i], true) // a batch passed it over
		}

		switch {
		case a.err != nil:
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, a.err)
		case len(a.rows) == 0: // another program has ended it, or a crash
			return ErrUnknownOutcome
		}
	}

	return nil
}

// passGate refuses all requests for slots whose snapshot is older: those that wait for the gate.
var passGate = verb{
	given: parameters{paramID},
	one: change(`generation = `+sqlNext+`,
       `+sqlGateMoves, `l.generation {>} 0`, `true, {lazy}`),
	six: true,
}

// markGate leaves the mark of a waiter on a gate. It doesn't know what is held: the waiter asks
// after it. A release whose snapshot is older, and that is committed after that, doesn't notify. No
// request for slots misses it but the next one.
var markGate = verb{
	given: parameters{paramID, paramMark, paramSignature},
	one: `
UPDATE {table} AS l
   SET contended_until = ` + sqlMark + `
  FROM (SELECT n.now, (extract(epoch FROM n.now) {*} 1000000)::bigint AS us,
               (SELECT s.contended_until FROM {table} AS s WHERE s.lock_id {=} {lock_id}) AS mark
          FROM (SELECT {now} AS now OFFSET 0) AS n
        OFFSET 0) AS c
 WHERE l.lock_id {=} {lock_id}
RETURNING {row}, {lazy}, c.mark`,
	six: true,
}

// intend leaves a writer's intent, for {ttl} from now, or as long as the one that stands there. The
// generation tells who left the last one. It is lost in a crash that comes at once.
var intend = verb{
	given: parameters{paramID, paramTTL, paramOwner},
	one: change(`generation = `+sqlNext+`,
       expires_at = greatest(l.expires_at, {clock} {+} ({ttl} {*} {us})){six},
       owner = {owner},
       acquired_at = {clock}{end}`, `l.generation {>} 0`, `{row}, {lazy}`),
}

// single sends a statement for one request about a family, which may wait for a row.
func single[T any](ctx context.Context, s *Store, v *verb, req *request, scan scanFunc[T]) answer[T] {
	if req.shape.plain {
		return answer[T]{outcome: refused, err: s.withoutSlots()}
	}

	leave, ok := s.atGate(ctx, GateOf(req.id))
	if !ok {
		return answer[T]{err: ended(ctx)}
	}
	defer leave()

	text, args := req.shape.statements.of(v).one, v.given.ofOne(req, req.shape.full)

	return persist(ctx, s, func(bool) answer[T] { return askAudibly(ctx, s, text, args, scan) })
}

// MarkGate leaves a mark on the gate of a family, if it is there and has marks. The result has the
// mark that stood there before.
func (s *Store) MarkGate(ctx context.Context, gate string, mark Mark) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full {
		return Result{}, err
	}

	req := request{shape: sh, id: gate, mark: Microseconds(mark.For), signature: mark.Signature}

	var (
		found pgtype.Timestamptz
		read  rowScan
	)

	read.init(new(tag), new(*string), &found)

	a := single(ctx, s, &markGate, &req, read.scan)
	if a.err != nil || len(a.rows) == 0 {
		return Result{}, a.err
	}

	return Result{Verdict: Busy, Row: a.rows[0], Mark: found.Time.UTC(), Marked: true}, nil
}

// Intend leaves a writer's intent for d, and returns its generation, by which [Store.Release] ends
// it if no other writer has left one since.
func (s *Store) Intend(ctx context.Context, family, owner string, d time.Duration) (generation int64, err error) {
	id := family + PartIntent

	for range maxContests {
		sh, err := s.shapeOf(ctx)
		if err != nil {
			return 0, err
		}

		req := request{shape: sh, id: id, owner: owner, ttl: Microseconds(d)}

		a := single(ctx, s, &intend, &req, scanRow(untagged(new(*string))))
		if a.err != nil {
			return 0, a.err
		}

		if len(a.rows) == 1 {
			return a.rows[0].Generation, nil
		}

		if _, err := s.Create(ctx, id); err != nil {
			return 0, err
		}
	}

	return 0, s.hidden(id)
}

// giveBackSlots is [Store.GiveBack] for the rows of a family. It reports whether it freed some.
func (s *Store) giveBackSlots(ctx context.Context, family string, owners []string, queue bool) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full {
		return false, err
	}

	req := request{shape: sh, id: family + PartGate, gate: family + PartGate, owners: textArray(owners)}

	if queue {
		if a := single(ctx, s, &passGate, &req, scanBool(untagged(new(*string)))); a.err != nil {
			return false, a.err
		}
	}

	req.id = family

	a := single(ctx, s, &unwantedSlots, &req, scanBool(untagged(new(*string))))

	return len(a.rows) > 0, a.err
}
