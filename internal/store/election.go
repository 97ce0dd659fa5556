package store

import "context"

// resign asks the leader of a term to resign: it writes the term's token on the election's second row. Tokens
// only grow, so a request for an older term changes nothing. No lease is on that row. It locks one row, and
// waits for it. A request that a crash loses can be made again.
var resign = verb{
	given: parameters{paramID, paramGeneration},
	one: `
INSERT INTO {table} AS l (lock_id, generation, expires_at)
VALUES ({lock_id}, {generation}, {now})
    ON CONFLICT (lock_id) DO UPDATE
   SET generation = excluded.generation, expires_at = excluded.expires_at
 WHERE l.generation {<} excluded.generation
RETURNING true`,
}

// paramSource is the id of the row that another is made from.
var paramSource = parameter{name: "source", text: func(r *request) string { return r.owner }}

// logTerm writes down who leads under a token: a copy of the election's row, on one of a few rows that are
// used in turn. It does nothing if another leads by now. No lease is on that row. It locks one row, and waits
// for it. A term that a crash forgets is one that an observer may not see.
var logTerm = verb{
	given: parameters{paramID, paramGeneration, paramSource},
	one: `
INSERT INTO {table} AS l (lock_id, generation, expires_at{six}, owner, acquired_at{end})
SELECT {lock_id}, e.generation, {now}{six}, e.owner, e.acquired_at{end}
  FROM {table} AS e
 WHERE e.lock_id {=} {source}
   AND e.generation {=} {generation}
    ON CONFLICT (lock_id) DO UPDATE
   SET generation = excluded.generation, expires_at = excluded.expires_at{six},
       owner = excluded.owner, acquired_at = excluded.acquired_at{end}
 WHERE l.generation {<} excluded.generation
RETURNING true`,
}

// announce notifies the processes that listen for released locks, with a payload that is no lock's id.
var announce = verb{
	given: parameters{paramID},
	one: sqlPrimary + `
SELECT pg_catalog.pg_notify('{channel}', {lock_id}) IS NOT NULL`,
}

// Resign writes the token on the row of that id, unless a larger one is there. It can be repeated.
func (s *Store) Resign(ctx context.Context, id string, token int64) error {
	return s.tell(ctx, &resign, request{id: id, generation: token})
}

// LogTerm copies the row of an election to another, if it shows that token. It can be repeated.
func (s *Store) LogTerm(ctx context.Context, id, election string, token int64) error {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return err
	}

	req := request{id: id, generation: token, owner: election}

	if sh.plain {
		term, err := s.look(ctx, sh, election)
		if err != nil || term.Row.Generation != token {
			return err
		}

		req.owner, req.seen = term.Row.Owner, term.Row.AcquiredAt.UnixMicro()
	}

	return s.tell(ctx, &logTerm, req)
}

// Announce notifies of a change that moved no lock. Where the server refuses notifications, it does nothing.
func (s *Store) Announce(ctx context.Context, payload string) error {
	if s.isPlain() {
		return nil
	}

	return s.tell(ctx, &announce, request{id: payload})
}

// tell sends a request of a verb that is so rare that it has no lane.
func (s *Store) tell(ctx context.Context, v *verb, req request) error {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return err
	}

	return persist(ctx, s, func(bool) answer[bool] {
		return askAudibly(ctx, s, sh.statements.of(v).one, sh.arguments(v, &req), scanOne[bool])
	}).err
}
