package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/jackc/pgx/v5"
)

// serverState is what a command that reads needs to know of the server.
type serverState struct {
	standby bool
	now     time.Time // by the database's clock, when it was asked
	asked   time.Time
}

// serverNow asks the server for its clock. The library's DatabaseTime doesn't ask a standby.
func serverNow(ctx context.Context, db *sql.DB) (s serverState, err error) {
	s.asked = time.Now()
	// In this mode it is one round trip. Between two, a pooler may let another client's unnamed statement in.
	err = db.QueryRowContext(ctx, `SELECT pg_catalog.clock_timestamp(), pg_catalog.pg_is_in_recovery()`, pgx.QueryExecModeExec).
		Scan(&s.now, &s.standby)

	return s, err
}

// clock is the time by the database's clock now.
func (s serverState) clock() time.Time { return s.now.Add(time.Since(s.asked)).UTC() }
