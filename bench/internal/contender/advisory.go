package contender

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/ismurov/pglocker/bench/internal/server"
)

// Advisory are PostgreSQL's session advisory locks. A lock pins its connection until it is
// released, so max_connections caps how many can be held. Without a free connection a
// client waits for one.
type Advisory struct {
	Server *server.Postgres
}

// NameAdvisory is the contender that pins connections.
const NameAdvisory = "advisory"

func (a *Advisory) Name() string { return NameAdvisory }

func (a *Advisory) OnPostgres() bool { return true }

func (a *Advisory) CPU() (time.Duration, bool) { return a.Server.CPU() }

// Open implements Contender. Each waiter needs a connection.
func (a *Advisory) Open(ctx context.Context, o Options) (Client, error) {
	o.Pool = max(o.Pool, o.Waiters)

	db, err := openPool(ctx, a.Server.URL(), o)
	if err != nil {
		return nil, err
	}

	return &advisoryClient{db}, nil
}

type advisoryClient struct{ db *sql.DB }

func (c *advisoryClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	return c.take(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", id)
}

func (c *advisoryClient) Acquire(ctx context.Context, id string) (Release, error) {
	return c.take(ctx, "SELECT true FROM pg_advisory_lock(hashtextextended($1, 0))", id)
}

func (c *advisoryClient) take(ctx context.Context, query, id string) (Release, error) {
	conn, err := c.db.Conn(ctx)
	if err != nil {
		return nil, err
	}

	var taken bool

	err = conn.QueryRowContext(ctx, query, id).Scan(&taken)
	if err == nil && !taken {
		err = ErrHeld
	}

	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}

	return func(ctx context.Context) error {
		_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock(hashtextextended($1, 0))", id)

		return errors.Join(err, conn.Close())
	}, nil
}

func (c *advisoryClient) Close() error { return c.db.Close() }
