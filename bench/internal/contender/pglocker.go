package contender

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/bench/internal/server"
)

// Pglocker is this library, in either of its layers.
type Pglocker struct {
	Server *server.Postgres
	Table  Table
	// Watched: TryLock, Lock and Unlock, instead of AcquireLock and ReleaseLock. Waiting is
	// always of this kind.
	Watched bool
}

// The contenders that reaches depend on.
const (
	NamePglocker     = "pglocker"
	NamePglockerLock = "pglocker-lock"
)

func (p *Pglocker) Name() string {
	if p.Watched {
		return NamePglockerLock
	}

	return NamePglocker
}

func (p *Pglocker) OnPostgres() bool { return true }

func (p *Pglocker) CPU() (time.Duration, bool) { return p.Server.CPU() }

func (p *Pglocker) Open(ctx context.Context, o Options) (Client, error) {
	return openPglocker(ctx, p.Server.URL(), p.Table, p.Watched, o)
}

func openPglocker(ctx context.Context, url string, table Table, watched bool, o Options) (Client, error) {
	db, err := openPool(ctx, url, o)
	if err != nil {
		return nil, err
	}

	locker, err := pglocker.New(db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: string(table)})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}

	return &pglockerClient{db: db, locker: locker, watched: watched, pool: o.Pool}, nil
}

type pglockerClient struct {
	db      *sql.DB
	locker  *pglocker.Locker
	watched bool
	pool    int
}

func (c *pglockerClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	if c.watched {
		lock, err := c.locker.TryLock(ctx, id, TTL)
		if err != nil {
			return nil, pglockerError(err)
		}

		return lock.Unlock, nil
	}

	status, err := c.locker.AcquireLock(ctx, id, TTL)
	if err != nil {
		return nil, pglockerError(err)
	}

	return func(ctx context.Context) error { return c.locker.ReleaseLock(ctx, status) }, nil
}

func (c *pglockerClient) Acquire(ctx context.Context, id string) (Release, error) {
	lock, err := c.locker.Lock(ctx, id, TTL)
	if err != nil {
		return nil, err
	}

	return lock.Unlock, nil
}

// Keep returns a lock whose release fails if the lock was lost before.
func (c *pglockerClient) Keep(ctx context.Context, id string) (Kept, error) {
	lock, err := c.locker.TryLock(ctx, id, TTL)
	if err != nil {
		return Kept{}, pglockerError(err)
	}

	return Kept{Release: lock.Unlock}, nil
}

// Rest closes the idle connections of the pool. What is left are those that the Locker
// needs for what it holds.
func (c *pglockerClient) Rest(rest bool) {
	idle := 0
	if !rest {
		idle = c.pool
	}

	c.db.SetMaxIdleConns(idle)
}

func (c *pglockerClient) Close() error {
	return errors.Join(c.locker.Close(context.Background()), c.db.Close())
}

func pglockerError(err error) error {
	if errors.Is(err, pglocker.ErrAlreadyLocked) {
		return ErrHeld
	}

	return err
}
