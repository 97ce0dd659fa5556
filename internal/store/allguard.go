package store

import (
	"context"
	"database/sql"
)

// sqlGuardAll is sqlGuard of the locks $1, sorted, each held by the generation in the same place of
// $2. It returns the places, from 1, of those that are.
const sqlGuardAll = `
SELECT r.n
  FROM ROWS FROM (pg_catalog.unnest((SELECT $1::{text}[])), pg_catalog.unnest((SELECT $2::bigint[])))
       WITH ORDINALITY AS r (lock_id, generation, n),
       LATERAL (SELECT
                  FROM {table} AS l
                 WHERE l.lock_id {=} r.lock_id
                   AND l.generation {=} r.generation
                   AND l.expires_at {>} {now}
                   FOR SHARE) AS l`

// GuardAll runs sqlGuardAll in a transaction, and returns which of the ids the generations don't
// hold. After an error the transaction can't go on.
func (s *Store) GuardAll(ctx context.Context, tx *sql.Tx, ids []string, generations []int64) (lost []string, err error) {
	if s.isPlain() {
		return s.guardEach(ctx, tx, ids, generations)
	}

	text, args := s.plain(newWriter(s.table, form{}).one(nil, sqlGuardAll), []any{ids, generations})

	rows, err := tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, s.guardFailed(err)
	}

	held := make([]bool, len(ids))

	for rows.Next() {
		var n int64
		if err = rows.Scan(&n); err != nil {
			break
		}

		held[n-1] = true
	}

	if closeErr := rows.Close(); err == nil {
		err = closeErr
	}

	if err == nil {
		err = rows.Err()
	}

	if err != nil {
		return nil, s.guardFailed(err)
	}

	for i, id := range ids {
		if !held[i] {
			lost = append(lost, id)
		}
	}

	return lost, nil
}
