package store

import (
	"context"
	"fmt"
)

// Holder is a transaction that has a row, a table or an advisory lock locked.
type Holder struct {
	// PID is its server process, 0 if it is a prepared transaction, which is ended by hand.
	PID int64
	// GID is the name of a prepared transaction.
	GID string

	application string // application_name
	query       string // what it runs or ran last, as far as this role may see it
}

func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("prepared transaction %q", h.GID)
	}

	return fmt.Sprintf("pid %d", h.PID)
}

// detail is what an administrator needs to end the transaction.
func (h Holder) detail() string {
	if h.PID == 0 {
		return fmt.Sprintf("the prepared transaction %s (see pg_prepared_xacts; ROLLBACK PREPARED ends it)", quoteLiteral(h.GID)[1:])
	}

	text := h.String()
	if h.application != "" {
		text += fmt.Sprintf(" (%s)", h.application)
	}

	if h.query != "" && h.query != "<insufficient privilege>" {
		text += fmt.Sprintf(": %q", h.query)
	}

	return text
}

// sqlHolders lists the transactions, but this one, that hold locks of pg_locks (k) that {what}
// chooses. A prepared transaction has no pid. The lock on its own number (own) leads to its name.
const sqlHolders = `
SELECT DISTINCT coalesce(k.pid, 0)::pg_catalog.int8,
       coalesce(x.gid, ''),
       coalesce(p.application_name, ''),
       coalesce(pg_catalog."left"(p.query, 100), '')
  FROM pg_catalog.pg_locks AS k
  LEFT JOIN pg_catalog.pg_stat_activity AS p ON p.pid {=} k.pid
  LEFT JOIN pg_catalog.pg_locks AS own
    ON k.pid IS NULL AND own.pid IS NULL AND own.granted
   AND own.locktype {=} 'transactionid'
   AND own.virtualtransaction {=} k.virtualtransaction
  LEFT JOIN pg_catalog.pg_prepared_xacts AS x ON x.transaction {=} own.transactionid
 WHERE k.granted
   AND coalesce(k.pid {<>} pg_catalog.pg_backend_pid(), true)
   AND {what}`

const (
	sqlInDatabase = `k.database {=} (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname {=} pg_catalog.current_database())
   AND `

	// sqlLocksOfTable are locks on the table $2 of the schema $1, of any strength.
	sqlLocksOfTable = sqlInDatabase + `k.locktype {=} 'relation'
   AND k.relation {=} (SELECT c.oid
                         FROM pg_catalog.pg_class AS c
                         JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
                        WHERE n.nspname {=} ($1::{text})::pg_catalog.name
                          AND c.relname {=} ($2::{text})::pg_catalog.name)`

	// sqlLocksOfKey are those on the advisory lock of the key $1.
	sqlLocksOfKey = sqlInDatabase + `k.locktype {=} 'advisory' AND k.objsubid {=} 1
   AND ((k.classid::pg_catalog.int8 {<<} 32) {|} k.objid::pg_catalog.int8) {=} $1::pg_catalog.int8`

	// sqlLocksOfRow are those of the transaction that has the row of the lock $1 locked. The row's
	// xmax is its number, on which it holds a lock.
	sqlLocksOfRow = `k.locktype {=} 'transactionid'
   AND k.transactionid {=} (SELECT l.xmax FROM {table} AS l WHERE l.lock_id {=} $1)`

	// sqlLocksOfMembers is the same where several transactions share the row.
	sqlLocksOfMembers = `k.locktype {=} 'transactionid'
   AND k.transactionid {=} ANY (SELECT m.xid
                                  FROM {table} AS l, LATERAL pg_catalog.pg_get_multixact_members(l.xmax) AS m
                                 WHERE l.lock_id {=} $1)`
)

// holdersOf is sqlHolders of what a condition on pg_locks chooses.
func holdersOf(table Table, what string) string {
	return with(qualified(with(sqlHolders, "{what}", what)), "{table}", table.String())
}

// holders asks once.
func (s *Store) holders(ctx context.Context, what string, args ...any) ([]Holder, error) {
	a := ask(ctx, s, holdersOf(s.table, what), args, func(from scanner) (h Holder, err error) {
		err = from.Scan(&h.PID, &h.GID, &h.application, &h.query)

		return h, err
	})

	return a.rows, a.err
}

// Holders looks up the transactions that have the lock's row locked now. xmax may name a group of
// them, and the server doesn't say so: the number is looked up as a group if no transaction has it.
// An error then means that it is no group either.
func (s *Store) Holders(ctx context.Context, id string) ([]Holder, error) {
	found, err := s.holders(ctx, sqlLocksOfRow, id)
	if err != nil || len(found) > 0 {
		return found, err
	}

	return s.holders(ctx, sqlLocksOfMembers, id)
}
