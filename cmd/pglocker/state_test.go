package main

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestServerNowThroughPooler: the server's time is asked for in one round trip. Between two, a pooler in transaction
// mode may give the connection to another client, whose unnamed statement would then run in place of this one.
func TestServerNowThroughPooler(t *testing.T) {
	t.Parallel()

	a := new(app)
	a.connection.dsn = contract.ThroughPgBouncer(t, newBed(t).url)

	db, err := a.open(t.Context(), "ls")
	must(t, err)

	defer db.Close()

	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})

	go func() { // the other client
		defer close(gone)

		conn, err := pgx.Connect(ctx, a.connection.dsn+"&default_query_exec_mode=exec")
		for err == nil {
			_, err = conn.Exec(ctx, "SELECT $1::int", 1)
		}
	}()

	for range 300 {
		if _, err := serverNow(t.Context(), db); err != nil {
			t.Error(err)

			break
		}
	}

	cancel()
	<-gone
}
