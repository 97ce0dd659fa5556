package contract

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
)

// Counted counts the statements of one locker, over all its connections.
type Counted struct {
	Locker     *pglocker.Locker
	DB         *sql.DB
	Statements atomic.Int64
}

// NewCounted returns a locker over a pool of that many connections, on a table that exists.
func NewCounted(tb testing.TB, url string, observer pglocker.Observer, connections int) *Counted {
	tb.Helper()

	cfg, err := pgx.ParseConfig(url)
	Must(tb, err)

	c := new(Counted)
	cfg.Tracer = OnStatement(func(context.Context) { c.Statements.Add(1) })

	c.DB = stdlib.OpenDB(*cfg)
	c.DB.SetMaxOpenConns(connections)
	c.DB.SetMaxIdleConns(connections)
	tb.Cleanup(func() { _ = c.DB.Close() })

	c.Locker = WatchedLocker(tb, c.DB, observer)

	return c
}
