package contender

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/bench/internal/server"
)

// Pglocker is this library, in either of its layers.
type Pglocker struct {
	Server *server.Postgres
	Table  Table
	// Watched: TryLock, Lock and Unlock, whose locks are kept alive and watched,
	// instead of AcquireLock and ReleaseLock. Waiting is always of this kind.
	Watched bool
}

// Names of the contenders on which reaches depend.
const (
	NamePglocker     = "pglocker"
	NamePglockerLock = "pglocker-lock"
)

// Name implements Contender.
func (p *Pglocker) Name() string {
	if p.Watched {
		return NamePglockerLock
	}

	return NamePglocker
}

// OnPostgres implements Contender.
func (p *Pglocker) OnPostgres() bool { return true }

// CPU implements Contender.
func (p *Pglocker) CPU() (time.Duration, bool) { return p.Server.CPU() }

// Open implements Contender.
func (p *Pglocker) Open(ctx context.Context, o Options) (Client, error) {
	db, err := openPool(ctx, p.Server.URL(), o)
	if err != nil {
		return nil, err
	}

	locker, err := pglocker.New(db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: string(p.Table)})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}

	return &pglockerClient{db: db, locker: locker, watched: p.Watched}, nil
}

type pglockerClient struct {
	db      *sql.DB
	locker  *pglocker.Locker
	watched bool

	mu   sync.Mutex // guards kept
	kept []*pglocker.Lock
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

func (c *pglockerClient) Keep(ctx context.Context, id string) (func(context.Context) error, error) {
	lock, err := c.locker.TryLock(ctx, id, TTL)
	if err != nil {
		return nil, pglockerError(err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	c.kept = append(c.kept, lock)

	return nil, nil
}

// Lost is not nil if a lock was lost that should have been kept.
func (c *pglockerClient) Lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()

	for _, lock := range c.kept {
		if lock.Context().Err() != nil {
			return context.Cause(lock.Context())
		}
	}

	return nil
}

// Rest closes the idle connections of the pool, so that those can be counted that
// the Locker needs for what it holds.
func (c *pglockerClient) Rest() { c.db.SetMaxIdleConns(0) }

// Close unlocks what was kept, all at once rather than one after the other.
func (c *pglockerClient) Close() error {
	var (
		group sync.WaitGroup
		errs  = make([]error, 64)
	)

	c.db.SetMaxIdleConns(len(errs))

	for g := range errs {
		group.Go(func() {
			for i := g; i < len(c.kept); i += len(errs) {
				errs[g] = errors.Join(errs[g], c.kept[i].Unlock(context.Background()))
			}
		})
	}

	group.Wait()

	return errors.Join(errors.Join(errs...), c.locker.Close(context.Background()), c.db.Close())
}

func pglockerError(err error) error {
	if errors.Is(err, pglocker.ErrAlreadyLocked) {
		return ErrHeld
	}

	return err
}
