package contender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/bench/internal/server"
)

// NewLocker opens a Locker with a pool of its own, and returns what closes both.
func NewLocker(ctx context.Context, url string, table Table, pool int) (*pglocker.Locker, func() error, error) {
	db, err := openPool(ctx, url, Options{Pool: pool})
	if err != nil {
		return nil, nil, err
	}

	locker, err := pglocker.New(db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: string(table)})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}

	return locker, func() error { return errors.Join(locker.Close(context.Background()), db.Close()) }, nil
}

// Semaphore is pglocker's.
type Semaphore struct {
	Server  *server.Postgres
	Table   Table
	Permits int
}

func (s *Semaphore) Name() string               { return NamePglocker }
func (s *Semaphore) OnPostgres() bool           { return true }
func (s *Semaphore) CPU() (time.Duration, bool) { return s.Server.CPU() }

func (s *Semaphore) Open(ctx context.Context, o Options) (Client, error) {
	locker, closing, err := NewLocker(ctx, s.Server.URL(), s.Table, o.Pool)
	if err != nil {
		return nil, err
	}

	permits, err := locker.NewSemaphore("bench", s.Permits)
	if err != nil {
		return nil, errors.Join(err, closing())
	}

	return &semaphoreClient{permits, closing}, nil
}

type semaphoreClient struct {
	permits *pglocker.Semaphore
	closing func() error
}

func (c *semaphoreClient) TryAcquire(ctx context.Context, _ string) (Release, error) {
	permit, err := c.permits.TryAcquire(ctx, TTL)
	if err != nil {
		return nil, pglockerError(err)
	}

	return permit.Unlock, nil
}

func (c *semaphoreClient) Acquire(ctx context.Context, _ string) (Release, error) {
	permit, err := c.permits.Acquire(ctx, TTL)
	if err != nil {
		return nil, err
	}

	return permit.Unlock, nil
}

func (c *semaphoreClient) Close() error { return c.closing() }

// RedisSlots is a semaphore as it is built on redislock: a lock for each slot. A waiter tries all, from
// a random one on, and pauses.
type RedisSlots struct {
	Server *server.Program
	Slots  int
}

// NameRedisSlots is what it is called.
const NameRedisSlots = "redislock-slots"

func (r *RedisSlots) Name() string               { return NameRedisSlots }
func (r *RedisSlots) OnPostgres() bool           { return false }
func (r *RedisSlots) CPU() (time.Duration, bool) { return r.Server.CPU() }

func (r *RedisSlots) Open(_ context.Context, o Options) (Client, error) {
	client := redis.NewClient(&redis.Options{Addr: r.Server.Address, PoolSize: o.Pool, MinIdleConns: o.Pool, PoolTimeout: time.Minute})

	return &slotsClient{client, redislock.New(client), r.Slots, o.Poll}, nil
}

type slotsClient struct {
	redis *redis.Client
	locks *redislock.Client
	slots int
	poll  time.Duration
}

func (c *slotsClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	first := rand.IntN(c.slots)

	for n := range c.slots {
		lock, err := c.locks.Obtain(ctx, fmt.Sprintf("%s-slot-%d", id, (first+n)%c.slots), TTL, nil)
		if err == nil {
			return lock.Release, nil
		}

		if !errors.Is(err, redislock.ErrNotObtained) {
			return nil, err
		}
	}

	return nil, ErrHeld
}

func (c *slotsClient) Acquire(ctx context.Context, id string) (Release, error) {
	return polling(ctx, c.poll, func() (Release, error) { return c.TryAcquire(ctx, id) })
}

func (c *slotsClient) Close() error { return c.redis.Close() }
