package store

import (
	"context"
	"strconv"
	"strings"
)

// sqlGuardAll is sqlGuard of the locks $1, sorted, each held by the generation in the same place of
// $2. It returns the places, from 1, of those that are, in one row: not every transaction can read more. It returns
// none if none is.
const sqlGuardAll = `
SELECT pg_catalog.array_agg(held.n)::{text}
  FROM (SELECT r.n
          FROM ROWS FROM (pg_catalog.unnest((SELECT $1::{text}[])), pg_catalog.unnest((SELECT $2::bigint[])))
               WITH ORDINALITY AS r (lock_id, generation, n),
               LATERAL (SELECT
                          FROM {table} AS l
                         WHERE l.lock_id {=} r.lock_id
                           AND l.generation {=} r.generation
                           AND l.expires_at {>} {now}
                           FOR SHARE) AS l) AS held
HAVING pg_catalog.count(held.n) {>} 0`

func (s *Store) guardAll(ctx context.Context, in Transaction, ids []string, generations []int64) (lost []string, err error) {
	if s.isPlain() {
		return s.guardEach(ctx, in, ids, generations)
	}

	var places string

	if err := in(ctx, s, newWriter(s.table, form{}).one(nil, sqlGuardAll), []any{ids, generations}, &places); err != nil {
		return nil, err
	}

	held := make([]bool, len(ids)+1)

	for place := range strings.SplitSeq(strings.Trim(places, "{}"), ",") {
		if n, err := strconv.Atoi(place); err == nil && n < len(held) {
			held[n] = true
		}
	}

	for i, id := range ids {
		if !held[i+1] {
			lost = append(lost, id)
		}
	}

	return lost, nil
}
