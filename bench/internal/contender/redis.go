package contender

import (
	"context"
	"errors"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"

	"github.com/ismurov/pglocker/bench/internal/server"
)

// Redislock is github.com/bsm/redislock on a Redis with its default configuration: a grant
// is on disk some time after it is acknowledged.
type Redislock struct {
	Server *server.Program
}

// NameRedislock is the contender that pglocker is compared to in W2.
const NameRedislock = "redislock"

func (r *Redislock) Name() string { return NameRedislock }

func (r *Redislock) OnPostgres() bool { return false }

func (r *Redislock) CPU() (time.Duration, bool) { return r.Server.CPU() }

func (r *Redislock) Open(_ context.Context, o Options) (Client, error) {
	client := redis.NewClient(&redis.Options{
		Addr:         r.Server.Address,
		PoolSize:     o.Pool,
		MinIdleConns: o.Pool,
		// Thousands of goroutines wait for a connection for long.
		PoolTimeout: time.Minute,
	})

	return &redisClient{client, redislock.New(client), o.Poll}, nil
}

type redisClient struct {
	redis *redis.Client
	locks *redislock.Client
	poll  time.Duration
}

func (c *redisClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	return c.obtain(ctx, id, nil)
}

func (c *redisClient) Acquire(ctx context.Context, id string) (Release, error) {
	// Without a deadline redislock stops after the TTL, which no waiter reaches.
	return c.obtain(ctx, id, &redislock.Options{RetryStrategy: redislock.LinearBackoff(c.poll)})
}

func (c *redisClient) obtain(ctx context.Context, id string, o *redislock.Options) (Release, error) {
	lock, err := c.locks.Obtain(ctx, id, TTL, o)
	if err != nil {
		return nil, redisError(err)
	}

	return lock.Release, nil
}

func (c *redisClient) Keep(ctx context.Context, id string) (Kept, error) {
	lock, err := c.locks.Obtain(ctx, id, TTL, nil)
	if err != nil {
		return Kept{}, redisError(err)
	}

	renew := func(ctx context.Context) error { return lock.Refresh(ctx, TTL, nil) }

	return Kept{Renew: renew, Release: lock.Release}, nil
}

func (c *redisClient) Connections() int { return int(c.redis.PoolStats().TotalConns) }

func (c *redisClient) Close() error { return c.redis.Close() }

func redisError(err error) error {
	if errors.Is(err, redislock.ErrNotObtained) {
		return ErrHeld
	}

	return err
}
