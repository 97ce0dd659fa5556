package contender

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/ismurov/pglocker/bench/internal/server"
)

// Etcd is etcd's concurrency.Mutex. A session keeps all its locks alive by one lease.
type Etcd struct {
	Server *server.Program
}

// NameEtcd is the contender that pglocker is compared to in W3.
const NameEtcd = "etcd"

func (e *Etcd) Name() string { return NameEtcd }

func (e *Etcd) OnPostgres() bool { return false }

func (e *Etcd) CPU() (time.Duration, bool) { return e.Server.CPU() }

// Open implements Contender. Goroutines that compete for one lock need a session each: a
// session holds a lock once for all of them. Those with locks of their own share one.
func (e *Etcd) Open(ctx context.Context, o Options) (_ Client, err error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.Server.Address},
		Context:   ctx,
		Logger:    zap.NewNop(),
	})
	if err != nil {
		return nil, err
	}

	c := &etcdClient{client: client, free: make(chan *concurrency.Session, max(o.Waiters, 1))}

	for range cap(c.free) {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(int(TTL.Seconds())))
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}

		c.sessions = append(c.sessions, session)
		c.free <- session
	}

	return c, nil
}

type etcdClient struct {
	client   *clientv3.Client
	sessions []*concurrency.Session
	free     chan *concurrency.Session // for those who wait
}

func (c *etcdClient) TryAcquire(ctx context.Context, id string) (Release, error) {
	mutex := concurrency.NewMutex(c.sessions[0], id)

	err := mutex.TryLock(ctx)
	if errors.Is(err, concurrency.ErrLocked) {
		err = ErrHeld
	}

	return mutex.Unlock, err
}

func (c *etcdClient) Acquire(ctx context.Context, id string) (Release, error) {
	session := <-c.free
	mutex := concurrency.NewMutex(session, id)

	if err := mutex.Lock(ctx); err != nil {
		c.free <- session

		return nil, err
	}

	return func(ctx context.Context) error {
		err := mutex.Unlock(ctx)
		c.free <- session

		return err
	}, nil
}

func (c *etcdClient) Keep(ctx context.Context, id string) (Kept, error) {
	_, err := c.TryAcquire(ctx, id)

	return Kept{}, err // Close ends the session, which frees it
}

// Connections is the one over which the client sends everything.
func (c *etcdClient) Connections() int { return 1 }

func (c *etcdClient) Close() error {
	var err error
	for _, session := range c.sessions {
		err = errors.Join(err, session.Close())
	}

	return errors.Join(err, c.client.Close())
}
