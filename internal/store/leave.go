package store

import (
	"context"
	"database/sql"
)

type callerKey struct{}

// Outlive returns a context with ctx's values that doesn't end with ctx, for
// requests whose answer is wanted even if their caller leaves. What still waits for
// a connection then is not sent, so that leavers don't pile up in the pool, before
// those who stay.
func Outlive(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), callerKey{}, ctx)
}

// stay returns a context that doesn't tell of one caller's leaving, for a statement
// that serves several.
func stay(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, nil)
}

// connect takes a connection from the pool, for a caller who is still there.
func connect(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	caller, ok := ctx.Value(callerKey{}).(context.Context)
	if !ok {
		return db.Conn(ctx)
	}

	waiting, cancel := context.WithCancel(ctx)
	defer cancel()

	stop := context.AfterFunc(caller, cancel)
	defer stop()

	conn, err := db.Conn(waiting)
	if err == nil && caller.Err() != nil { // it was free before cancel was called
		_ = conn.Close() // back to the pool

		return nil, caller.Err()
	}

	return conn, err
}
