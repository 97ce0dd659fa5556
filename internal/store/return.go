package store

import "context"

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
RETURNING CASE WHEN l.owner IS NULL THEN {notify} IS NOT NULL ELSE false END, {lazy}`

// GiveBack frees the lock if the row shows the grant to one of the owners, and reports whether the
// lock is free now. With queue it waits behind every statement that waits for the row already: none
// of those owners can be granted the lock after that. On three columns it does nothing.
func (s *Store) GiveBack(ctx context.Context, id string, owners []string, queue bool) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full {
		return false, err
	}

	req := request{shape: sh, id: id, owners: textArray(owners)}

	if !queue {
		a := s.lanes.unwanted.write(ctx, req, false)

		return len(a.rows) == 1, a.err
	}

	if !s.loners.wait(ctx, 0) {
		return false, ended(ctx)
	}
	defer s.loners.leave()

	a := persist(ctx, s, func(bool) answer[bool] {
		return askAudibly(ctx, s, sh.statements.unwantedLast, unwanted.given.ofOne(&req, true), scanBool(new(*string)))
	})

	return len(a.rows) == 1 && a.rows[0], a.err
}
