package store

import (
	"context"
	"strings"
	"time"
)

// release: a generation -> free after {hold} microseconds, with the next generation. More than 0
// honours a minimum hold, and is as durable as a grant: the lease that a crash would revive may end
// before it. In a batch, one such release makes all durable. It locks as acquire does.
var release = verb{
	given: parameters{paramID, paramGeneration, paramHold, paramSeen},
	one: change(with(sqlFreed, "{until}", sqlAfterHold), sqlOfGeneration+sqlSeen,
		`{notify}, CASE WHEN {hold} {>} 0 THEN {durable} ELSE {lazy} END`),
	dated: changeMany(`{now} AS now, {timeline} AS floor,
           CASE WHEN pg_catalog.max(r.hold) {>} 0 THEN {durable} ELSE {lazy} END AS how
      FROM {requests} AS r ({columns})`,
		sqlOfGeneration+sqlSeen, "", with(sqlFreed, "{until}", sqlAfterHold), `{notify}, r.n`),

	undated: parameters{paramID, paramGeneration},
	many:    changeMany(sqlReleaseOnce, sqlOfGeneration, "", with(sqlFreed, "{until}", `{clock}`), `{notify}, r.n`),
	byID:    sqlReleaseByID,
}

// sqlReleaseByID finds the rows of many requests by arrays and not one by one, and changes them by their
// versions. These mean something in one part alone: of rows of several it changes none. "IS TRUE" keeps the
// pairs a table to look in, which a join might not.
var sqlReleaseByID = with(`
WITH c AS MATERIALIZED (
    SELECT `+sqlReleaseOnce+`
), found AS MATERIALIZED (
    SELECT l.tableoid AS part, l.ctid AS version
      FROM {table} AS l
     WHERE l.lock_id {=} ANY ((SELECT $1::{text}[])::{text}[])
       AND ((l.lock_id, l.generation) {=} ANY (SELECT r.lock_id, r.generation FROM {requests} AS r ({columns}))) IS TRUE
       {lock} SKIP LOCKED
), them AS MATERIALIZED (
    SELECT pg_catalog.array_agg(found.version) AS versions, pg_catalog.min(found.part) AS part
      FROM found
    HAVING pg_catalog.min(found.part) {=} pg_catalog.max(found.part)
)
UPDATE {table} AS l
   SET `+sqlFreed+`
 WHERE l.ctid {=} ANY ((SELECT them.versions FROM them)::{tid}[])
   AND l.tableoid {=} (SELECT them.part FROM them)
RETURNING {notify}, l.lock_id`,
	"{until}", `(SELECT c.now FROM c)`, "{floor}", `(SELECT c.floor FROM c)`)

// releaseSlot is release of a row of a family, whose waiters leave their marks on the {gate}. It reads
// the mark in its snapshot.
var releaseSlot = verb{
	given:   append(release.given[:len(release.given):len(release.given)], paramGate),
	one:     with(release.one, "{notify}", sqlNotifyGate),
	dated:   with(release.dated, "{notify}", sqlNotifyGate),
	undated: append(release.undated[:len(release.undated):len(release.undated)], paramGate),
	many:    with(release.many, "{notify}", sqlNotifyGate),
}

// sqlNotifyGate is sqlNotifyWaiters for waiters at a gate.
const sqlNotifyGate = `{six}(CASE WHEN (SELECT g.contended_until FROM {table} AS g WHERE g.lock_id {=} {gate}) {>} {now}
            THEN pg_catalog.pg_notify('{channel}', {gate}) END IS NOT NULL){three}false{end}`

// force is release for ForceRelease. The history finds the {reason} in the setting, when its
// trigger runs after the statement. It isn't repeated, so it is as durable as a grant.
var force = verb{
	given: parameters{paramID, paramGeneration, paramReason, paramGate},
	one: change(with(sqlFreed, "{until}", `{clock}`), sqlOfGeneration,
		`({notify} OR `+sqlNotifyGate+`), CASE WHEN pg_catalog.set_config('`+ForcedSetting+`', {reason}, true) IS NOT NULL THEN {durable} END`),
}

const sqlAfterHold = `{clock} {+} ({hold} {*} {us})`

// Release frees the lock if it is in the given state, at once or, to honour a minimum hold, that
// much later, and notifies waiters. The verdict is Granted, WrongGeneration or NotFound. If the
// generation is another after a lost reply, the error matches [ErrUnknownOutcome]: nobody can tell
// who moved it.
func (s *Store) Release(ctx context.Context, id string, state State, hold time.Duration) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	var (
		req   = request{shape: sh, id: id, generation: state.Generation, seen: state.seen(sh), hold: Microseconds(hold)}
		alone bool
		doubt error
		lost  int // replies
		anew  bool
	)

	lane := s.lanes.release
	if req.gate = GateOf(id); req.gate != "" {
		lane = s.lanes.releaseSlot
	}

	for {
		a := lane.write(ctx, req, alone)
		if a.err == nil && len(a.rows) == 1 {
			return Result{Verdict: Granted, Notified: a.rows[0]}, nil
		}

		if a.outcome == unknown {
			doubt = a.err // until it is settled
			if lost++; lost < sendAttempts && backOff(ctx, lost) {
				continue
			}
		}

		if a.outcome == refused && outdated(a.err) && !anew {
			anew = true

			if found, ok := s.changed(ctx, req.shape); ok {
				req.shape, req.seen = found, state.seen(found)

				continue
			}
		}

		if a.err != nil {
			if doubt != nil {
				return Result{}, doubt
			}

			return Result{}, a.err
		}

		seen, err := s.look(ctx, req.shape, id)
		if err == nil && seen.Verdict == Granted && seen.Row.Generation == state.Generation && !a.waited {
			alone = true // a batch passed it over

			continue
		}

		if doubt != nil {
			return Result{}, doubt
		}

		if err == nil && seen.Verdict == Granted {
			if req.shape.secured && state.shownBy(seen.Row) {
				return Result{}, s.hidden(id)
			}

			seen.Verdict = WrongGeneration
		}

		return seen, err
	}
}

// Force frees a lock of that generation at once, and notifies waiters. The verdict is Granted, WrongGeneration or
// NotFound. reason isn't empty. After a lost reply, the error matches [ErrUnknownOutcome].
func (s *Store) Force(ctx context.Context, id string, generation int64, reason string) (Result, error) {
	sh, err := s.probedShape(ctx)
	if err != nil {
		return Result{}, err
	}

	if !s.loners.wait(ctx, 0) {
		return Result{}, ended(ctx)
	}
	defer s.loners.leave()

	req := request{shape: sh, id: id, generation: generation, reason: reason, gate: GateOf(id)}
	a := persist(ctx, s, func(bool) answer[bool] {
		return askAudibly(ctx, s, sh.statements.of(&force).one, sh.arguments(&force, &req), scanBool(untagged(new(*string))))
	})

	if a.err != nil {
		return Result{}, a.err
	}

	if len(a.rows) == 1 {
		return Result{Verdict: Granted, Notified: a.rows[0]}, nil
	}

	seen, err := s.look(ctx, sh, id)
	if err == nil && seen.Verdict == Granted {
		seen.Verdict = WrongGeneration
	}

	return seen, err
}

// unwanted returns a grant: held by one of {owners} -> free. It locks as acquire does. In a batch,
// each element is an array of owners, as text.
var unwanted = verb{
	given: parameters{paramID, paramOwners},
	one:   change(with(sqlFreed, "{until}", `{clock}`), sqlOfOwners, `{notify}, {lazy}`),
	many:  changeMany(sqlReleaseOnce, sqlOfOwners, "", with(sqlFreed, "{until}", `{clock}`), `{notify}, r.n`),
	six:   true,
}

const sqlOfOwners = `l.owner {=} ANY ({owners}::{text}[])`

// sqlUnwantedLast is unwanted that locks the row whatever owner it shows, and waits for it behind
// every statement that waits already. The row that it then finds decides. It returns whether the lock is free.
const sqlUnwantedLast = `
UPDATE {table} AS l
   SET generation = CASE WHEN ` + sqlOfOwners + ` THEN ` + sqlNext + ` ELSE l.generation END,
       expires_at = CASE WHEN ` + sqlOfOwners + ` THEN {clock} ELSE l.expires_at END,
       acquired_at = CASE WHEN ` + sqlOfOwners + ` THEN NULL ELSE l.acquired_at END,
       owner = CASE WHEN ` + sqlOfOwners + ` THEN NULL ELSE l.owner END
 WHERE l.lock_id {=} {lock_id}
RETURNING CASE WHEN l.owner IS NULL THEN {notify} END IS NOT NULL, {lazy}`

// GiveBack frees those of the locks whose rows show a grant to one of the owners, and returns which
// it knows to be free now. With queue it waits behind every statement that waits for the first row
// already: none of those owners can be granted that lock after that. On three columns it does
// nothing. The id of a gate is for whatever rows of its family show such a grant.
func (s *Store) GiveBack(ctx context.Context, ids, owners []string, queue bool) (freed []string, err error) {
	if family, ok := strings.CutSuffix(ids[0], ":"+PartGate); ok && GateOf(ids[0]) != "" {
		free, err := s.giveBackSlots(ctx, family+":", owners, queue)
		if free {
			freed = ids
		}

		return freed, err
	}

	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full {
		return nil, err
	}

	reqs := valuesOf(ids, func(id *string) request { return request{shape: sh, id: *id, owners: textArray(owners)} })

	if queue {
		free, err := s.giveBackLast(ctx, reqs[0])
		if err != nil {
			return nil, err
		}

		if free {
			freed = append(freed, ids[0])
		}

		reqs = reqs[1:]
	}

	if len(reqs) == 0 {
		return freed, nil
	}

	answers := s.lanes.unwanted.several(ctx, reqs)

	for i, a := range answers {
		if a.err != nil {
			return freed, a.err
		}

		if len(a.rows) == 1 {
			freed = append(freed, reqs[i].id)
		}
	}

	return freed, nil
}

func (s *Store) giveBackLast(ctx context.Context, req request) (free bool, err error) {
	if !s.loners.wait(ctx, 0) {
		return false, ended(ctx)
	}
	defer s.loners.leave()

	a := persist(ctx, s, func(bool) answer[bool] {
		return askAudibly(ctx, s, req.shape.statements.unwantedLast(), unwanted.given.ofOne(&req, true), scanBool(untagged(new(*string))))
	})

	return len(a.rows) == 1 && a.rows[0], a.err
}
