package top_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

const (
	ttl   = time.Minute
	renew = 20 * time.Second
)

// process is a program that uses locks.
type process struct {
	t *testing.T
	*pglocker.Locker
}

// newProcess starts one, whose holds others see under that name.
func newProcess(t *testing.T, db *sql.DB, owner string) *process {
	t.Helper()

	l, err := pglocker.New(db, &pglocker.Config{Owner: owner})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = l.Close(context.Background()) })

	return &process{t, l}
}

// hold takes a lock until it is unlocked or the test ends.
func (p *process) hold(id string) *pglocker.Lock {
	p.t.Helper()

	lk, err := p.Lock(p.t.Context(), id, ttl)
	if err != nil {
		p.t.Fatal(err)
	}

	return lk
}

// wait waits for a lock in the background, until stop is called.
func (p *process) wait(id string) (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan struct{})

	go func() {
		defer close(ended)

		if lk, err := p.Lock(ctx, id, ttl); err == nil {
			<-ctx.Done()
			_ = lk.Unlock(context.WithoutCancel(ctx))
		}
	}()

	stop = func() { cancel(); <-ended }
	p.t.Cleanup(stop)

	return stop
}

// lead takes part in an election, until stop is called.
func (p *process) lead(name string) (stop func()) {
	p.t.Helper()

	e, err := p.NewElection(name, ttl, pglocker.WithBackoff(time.Millisecond, 10*time.Millisecond))
	if err != nil {
		p.t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan struct{})

	go func() {
		defer close(ended)

		_ = e.Run(ctx, func(ctx context.Context, _ pglocker.Term) error {
			<-ctx.Done()

			return ctx.Err()
		})
	}()

	stop = func() { cancel(); <-ended }
	p.t.Cleanup(stop)

	return stop
}

// permit takes permits of a semaphore.
func (p *process) permit(name string, permits, n int) *pglocker.Permit {
	p.t.Helper()

	s, err := p.NewSemaphore(name, permits)
	if err != nil {
		p.t.Fatal(err)
	}

	permit, err := s.Acquire(p.t.Context(), ttl, pglocker.WithPermits(n))
	if err != nil {
		p.t.Fatal(err)
	}

	return permit
}

// read takes read access.
func (p *process) read(name string) *pglocker.Access {
	p.t.Helper()

	rw, err := p.NewRWLock(name)
	if err != nil {
		p.t.Fatal(err)
	}

	a, err := rw.RLock(p.t.Context(), ttl)
	if err != nil {
		p.t.Fatal(err)
	}

	return a
}

// write asks for write access in the background.
func (p *process) write(name string) {
	p.t.Helper()

	rw, err := p.NewRWLock(name)
	if err != nil {
		p.t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan struct{})

	go func() {
		defer close(ended)

		if a, err := rw.Lock(ctx, ttl); err == nil {
			<-ctx.Done()
			_ = a.Unlock(context.WithoutCancel(ctx))
		}
	}()

	p.t.Cleanup(func() { cancel(); <-ended })
}
