package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// Holder is a transaction that has a row locked.
type Holder struct {
	// PID is the server process that runs it, 0 if it is a prepared one.
	PID int64
	// GID is the name of a prepared transaction.
	GID string
}

func (h Holder) String() string {
	switch {
	case h.PID != 0:
		return fmt.Sprintf("pid %d", h.PID)
	case h.GID != "":
		return fmt.Sprintf("prepared transaction %q", h.GID)
	}

	return "a prepared transaction"
}

// sqlHolders finds the transactions that have the row of the lock $1 locked: its xmax names one,
// and every transaction holds a lock on its own number. {xids} are the numbers.
const sqlHolders = `
SELECT k.pid::pg_catalog.int8, p.gid
  FROM {table} AS l,
       LATERAL {xids} AS x (xid)
  JOIN pg_catalog.pg_locks AS k
    ON k.locktype OPERATOR(pg_catalog.=) 'transactionid'::pg_catalog.text
   AND k.transactionid OPERATOR(pg_catalog.=) x.xid
   AND k.granted
  LEFT JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction OPERATOR(pg_catalog.=) x.xid
 WHERE l.lock_id OPERATOR(pg_catalog.=) $1`

const (
	sqlXmax    = `(SELECT l.xmax)`
	sqlMembers = `(SELECT m.xid FROM pg_catalog.pg_get_multixact_members(l.xmax) AS m)`
)

func holdersOf(table Table, xids string) string {
	return strings.NewReplacer("{table}", table.String(), "{xids}", xids).Replace(sqlHolders)
}

// Holders looks up the transactions that have the lock's row locked now. Where several share it,
// xmax names a group of them, and the server doesn't say that it is one. So the number is looked
// up as a group if no transaction has it. An error then means that it is no group either.
func (s *Store) Holders(ctx context.Context, id string) ([]Holder, error) {
	scan := func(from scanner) (h Holder, err error) {
		var (
			pid pgtype.Int8
			gid pgtype.Text
		)

		err = from.Scan(&pid, &gid)
		h.PID, h.GID = pid.Int64, gid.String

		return h, err
	}

	for _, xids := range []string{sqlXmax, sqlMembers} {
		a := ask(ctx, s, holdersOf(s.table, xids), []any{id}, scan)
		if a.err != nil || len(a.rows) > 0 {
			return a.rows, a.err
		}
	}

	return nil, nil
}
