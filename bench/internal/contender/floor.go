package contender

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/bench/internal/server"
)

// Floor is what a careful person writes by hand: a prepared UPDATE to acquire and one to
// release, on a table like pglocker's, with the same driver, each flushed to disk. It
// polls, and renews by another UPDATE.
type Floor struct {
	Server *server.Postgres
	Table  Table
}

// NameFloor is the contender that others are compared to.
const NameFloor = "floor"

func (f *Floor) Name() string { return NameFloor }

func (f *Floor) OnPostgres() bool { return true }

func (f *Floor) CPU() (time.Duration, bool) { return f.Server.CPU() }

// Open implements Contender. The driver prepares each statement once on every connection,
// without the cost of sql.Stmt.
func (f *Floor) Open(ctx context.Context, o Options) (Client, error) {
	return openFloor(ctx, f.Server.URL(), f.Table, o)
}

func openFloor(ctx context.Context, url string, table Table, o Options) (Client, error) {
	db, err := openPool(ctx, url, o)
	if err != nil {
		return nil, err
	}

	return &floorClient{
		db:   db,
		poll: o.Poll,
		acquire: fmt.Sprintf(`
			UPDATE public.%s
			   SET generation = generation + 1, owner = 'floor', acquired_at = clock_timestamp(),
			       expires_at = clock_timestamp() + $2 * interval '1 microsecond'
			 WHERE lock_id = $1 AND expires_at <= clock_timestamp()
			RETURNING generation`, table),
		renew: fmt.Sprintf(`
			UPDATE public.%s SET expires_at = clock_timestamp() + $3 * interval '1 microsecond'
			 WHERE lock_id = $1 AND generation = $2 AND expires_at > clock_timestamp()`, table),
		release: fmt.Sprintf(`
			UPDATE public.%s SET expires_at = clock_timestamp(), owner = NULL, acquired_at = NULL
			 WHERE lock_id = $1 AND generation = $2`, table),
	}, nil
}

type floorClient struct {
	db                      *sql.DB
	poll                    time.Duration
	acquire, renew, release string
}

func (c *floorClient) take(ctx context.Context, id string) (generation int64, err error) {
	err = c.db.QueryRowContext(ctx, c.acquire, id, TTL.Microseconds()).Scan(&generation)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrHeld
	}

	return generation, err
}

func (c *floorClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	generation, err := c.take(ctx, id)
	if err != nil {
		return nil, err
	}

	return func(ctx context.Context) error { return c.exec(ctx, c.release, id, generation) }, nil
}

func (c *floorClient) Acquire(ctx context.Context, id string) (Release, error) {
	return polling(ctx, c.poll, func() (Release, error) { return c.TryAcquire(ctx, id) })
}

func (c *floorClient) Keep(ctx context.Context, id string) (Kept, error) {
	generation, err := c.take(ctx, id)
	if err != nil {
		return Kept{}, err
	}

	return Kept{
		Renew: func(ctx context.Context) error {
			return c.exec(ctx, c.renew, id, generation, TTL.Microseconds())
		},
		Release: func(ctx context.Context) error { return c.exec(ctx, c.release, id, generation) },
	}, nil
}

func (c *floorClient) exec(ctx context.Context, query string, args ...any) error {
	res, err := c.db.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}

	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("bench: the lock of the floor was lost (%d rows): %w", n, errors.Join(err, ErrHeld))
	}

	return nil
}

func (c *floorClient) Close() error { return c.db.Close() }
