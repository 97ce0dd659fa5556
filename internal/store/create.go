package store

import (
	"context"
	"fmt"
)

const (
	sqlInsertOne = `
INSERT INTO {table} AS l ({into})
VALUES ({values})
ON CONFLICT DO NOTHING
RETURNING {row}, {durable}`

	// sqlInsertMany returns rows by their ids, and inserts the first of equal ids. It can't pass
	// over a lock that an open transaction creates: it waits for that one for 20 ms, and fails with
	// 55P03.
	sqlInsertMany = `
WITH c AS MATERIALIZED (
    SELECT ` + sqlGrantOnce + `,
           pg_catalog.set_config('lock_timeout', '20ms', true) AS patience
), ` + sqlWatermark + `
INSERT INTO {table} AS l ({into})
SELECT {values}
  FROM {requests} AS r ({columns}), c
ON CONFLICT DO NOTHING
RETURNING {row}, l.lock_id`

	sqlHeldColumns = `lock_id, generation, expires_at{six}, owner, acquired_at{end}`
	sqlHeldValues  = `{lock_id}, greatest(2, {floor}, {above}), {clock} {+} ({ttl} {*} {us}){six}, {owner}, {clock}{end}`

	sqlFreeColumns = `lock_id, generation, expires_at`
	sqlFreeValues  = `{lock_id}, greatest(1, {above}), {clock}`
)

// inserting is a text that inserts values into columns. above is that of the watermark.
func inserting(text, above, columns, values string) string {
	return with(text, "{into}", columns, "{values}", with(values, "{above}", above))
}

// insert: no row -> held, above the watermark. It shares the watermark's row, and locks no other that
// exists. Where an open transaction creates the lock, it waits for the end of that one, and then does
// nothing.
var insert = verb{
	given: parameters{paramID, paramTTL, paramOwner},
	one:   inserting(sqlInsertOne, sqlAboveOne, sqlHeldColumns, sqlHeldValues),
	many:  inserting(sqlInsertMany, sqlAboveMany, sqlHeldColumns, sqlHeldValues),
}

// create: no row -> free, generation 1, or above the watermark. It locks as insert does.
var create = verb{
	given: parameters{paramID},
	one:   inserting(sqlInsertOne, sqlAboveOne, sqlFreeColumns, sqlFreeValues),
	many:  inserting(sqlInsertMany, sqlAboveMany, sqlFreeColumns, sqlFreeValues),
}

// Create makes the lock, free and with generation 1 or above the watermark, unless it is there, and returns its
// row.
func (s *Store) Create(ctx context.Context, id string) (Row, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Row{}, err
	}

	anew := false

	for range maxContests {
		seen, err := s.look(ctx, sh, id)
		if err != nil || seen.Verdict != NotFound {
			return seen.Row, err
		}

		var a answer[Row]
		if sh.plain {
			a, err = s.createPlainly(ctx, sh, id)
		} else {
			a = s.lanes.create.write(ctx, request{shape: sh, id: id}, false)
			err = a.err
		}

		if err != nil && a.outcome == refused && outdated(err) && !anew {
			if sh, anew = s.changed(ctx, sh); anew {
				continue
			}
		}

		if err != nil || len(a.rows) == 1 {
			return append(a.rows, Row{})[0], err
		}
	}

	if sh.secured {
		return Row{}, s.hidden(id)
	}

	return Row{}, fmt.Errorf("pglocker: lock %q appears and vanishes: rows of %s are being deleted", id, s.table)
}
