package traffic

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// poolSize bounds the connections of a client's application. All its workers together sometimes use
// it up.
const poolSize = 16

// plainPause is how many times as long the pauses are in the plain dialect. There, waiters poll, and on a distributed
// engine each statement takes several servers of the same machine.
const plainPause = 10

// client is one process under test.
type client struct {
	cfg    Config
	rec    *history.Recorder
	db     *sql.DB
	locker *pglocker.Locker
	// bare is a Locker for the table of three columns, nil where that isn't used.
	bare   *pglocker.Locker
	pauser *pauser
}

// worker is one goroutine of a client. It has randomness of its own, so what it chooses depends
// only on the seed and on its own past.
type worker struct {
	*client
	*rand.Rand
}

func (c *client) worker(n int) *worker {
	return &worker{c, rand.New(rand.NewPCG(c.cfg.Seed, uint64(n)))}
}

// starter starts a worker that does something with a lock, pauses, and picks another.
type starter func(step func(*worker, context.Context, Spec), pause time.Duration, pick func(*rand.Rand) Spec)

// onBare is the same client with the other Locker.
func (c *client) onBare() *client {
	other := *c
	other.locker = c.bare

	return &other
}

// run starts all workers. It returns when ctx has ended and all workers have.
func (c *client) run(ctx context.Context) {
	var workers sync.WaitGroup

	n := 0
	as := c
	var start starter = func(step func(*worker, context.Context, Spec), pause time.Duration, pick func(*rand.Rand) Spec) {
		n++
		w := as.worker(n)

		if c.cfg.Extras.Plain {
			pause *= plainPause
		}

		workers.Go(func() {
			for ctx.Err() == nil {
				step(w, ctx, pick(w.Rand))
				sleep(ctx, w.upTo(pause))
			}
		})
	}

	if c.cfg.Waits {
		for lock := range turnLocks {
			start((*worker).takeTurn, 0, func(*rand.Rand) Spec { return turns(lock) })
		}

		workers.Wait()

		return
	}

	together := 2
	if c.cfg.Extras.Plain {
		together = 1
	}

	for _, lock := range Holds {
		for range together {
			start((*worker).hold, 8*time.Millisecond, func(*rand.Rand) Spec { return lock })
		}
	}

	for _, lock := range Kept {
		start((*worker).keep, 8*time.Millisecond, func(*rand.Rand) Spec { return lock })
	}

	for _, lock := range Leases {
		for range together {
			start((*worker).lease, 8*time.Millisecond, func(*rand.Rand) Spec { return lock })
		}
	}

	start((*worker).share, 10*time.Millisecond, func(*rand.Rand) Spec { return Shared })

	privates := privateLocks
	if c.cfg.Extras.Plain {
		privates = plainPrivateLocks // each is granted once more in the end
	}

	anyPrivate := func(r *rand.Rand) Spec { return private(c.cfg.Name, r.IntN(privates)) }
	start((*worker).lease, 20*time.Millisecond, anyPrivate)
	start((*worker).hold, 20*time.Millisecond, anyPrivate)

	if c.cfg.Extras.Long {
		for n := range longLocks {
			start((*worker).takeBriefly, briefAbsence, func(*rand.Rand) Spec { return long(n) })
		}
	}

	start((*worker).passOn, relayAbsence, func(*rand.Rand) Spec { return Relay })
	start((*worker).keepSteady, 20*time.Millisecond, func(*rand.Rand) Spec { return steady(c.cfg.Name) })

	if c.cfg.Fenced {
		start((*worker).hold, 100*time.Millisecond, func(*rand.Rand) Spec { return lone(c.cfg.Name) })
	}

	if c.cfg.Extras.Spared {
		start((*worker).keepSpared, 20*time.Millisecond, func(*rand.Rand) Spec { return spared(c.cfg.Name) })

		for n := range doomedLocks {
			start((*worker).keepSpared, 20*time.Millisecond, func(*rand.Rand) Spec { return doomed(c.cfg.Name, n) })
		}
	}

	if c.cfg.Extras.Recipes {
		c.startRecipes(start)
	}

	if c.cfg.Extras.Bare {
		as = c.onBare()

		for _, lock := range Bare {
			start((*worker).hold, 8*time.Millisecond, func(*rand.Rand) Spec { return lock })
			start((*worker).lease, 8*time.Millisecond, func(*rand.Rand) Spec { return lock })
		}

		start((*worker).hold, 20*time.Millisecond, anyOf(BareAlls))
		start(allOf(BareAlls), 20*time.Millisecond, anyOf(BareAlls))

		if c.cfg.Extras.Recipes {
			as.startFamilies(start, BareSemaphores, BareRWLocks)
		}
	}

	workers.Wait()
}

// upTo is a random duration below d.
func (w *worker) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}

	return time.Duration(w.Int64N(int64(d)))
}

// chance is true in percent of a hundred cases.
func (w *worker) chance(percent int) bool { return w.IntN(100) < percent }

// within is a context for one request. It mostly has much time, and sometimes so little that it
// ends while the request is under way.
func (w *worker) within(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	hasty := 10
	if w.cfg.Extras.Plain {
		hasty = 1 // the session that it costs is one on each server
	}

	if w.chance(hasty) {
		patience = w.upTo(5 * time.Millisecond)
	}

	return context.WithTimeout(ctx, patience)
}

// limited records for how long the request's context lets it go on.
func limited(ctx context.Context, e history.Event) history.Event {
	if deadline, ok := ctx.Deadline(); ok {
		e.Limit = max(1, int64(time.Until(deadline)))
	}

	return e
}

// sleep returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// outcome fills in how a failed request ended.
func outcome(e history.Event, err error) history.Event {
	var held *pglocker.HeldError

	switch {
	case err == nil:
		e.Outcome = history.OK

		return e
	case errors.Is(err, pglocker.ErrLockLost):
		// Even if it is for want of an answer.
		e.Outcome = history.OutcomeLost
	case errors.Is(err, pglocker.ErrUnknownOutcome), errors.Is(err, pglocker.ErrNotReleased):
		e.Outcome = history.Unknown
	case errors.As(err, &held):
		e.Outcome, e.Token = history.Busy, held.Generation
		e.Owner = held.Owner

		if held.Remaining > 0 { // what it was when the database was asked
			e.Remaining = (held.Remaining + held.Age).Microseconds()
		}
	case errors.Is(err, pglocker.ErrWrongGeneration):
		e.Outcome = history.OutcomeLost
	case errors.Is(err, pglocker.ErrLockNotFound):
		e.Outcome = history.Missing
	default:
		e.Outcome = history.Refused
	}

	e.Detail = err.Error()

	return e
}

func status(e history.Event, s *pglocker.LockStatus) history.Event {
	e.Outcome = history.OK
	e.Token, e.Owner, e.Expires = s.Generation, s.Owner, s.ExpiresAt.UnixMicro()

	if !s.AcquiredAt.IsZero() {
		e.Acquired = s.AcquiredAt.UnixMicro()
	}

	return e
}

func open(cfg Config, rec *history.Recorder) (*client, error) {
	p := newPauser()

	db, err := openDatabase(cfg, p)
	if err != nil {
		return nil, err
	}

	db.SetMaxOpenConns(poolSize)
	db.SetMaxIdleConns(poolSize)

	c := &client{cfg: cfg, rec: rec, db: db, pauser: p}

	config := &pglocker.Config{Owner: cfg.Name}
	if cfg.Extras.Plain && isOdd(cfg.Name) { // the others find it out
		config.Dialect = pglocker.DialectPlain
	}

	c.locker, err = pglocker.New(db, config)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}

	if cfg.Extras.Bare {
		c.bare, err = pglocker.New(db, &pglocker.Config{Scheme: audit.BareSchema, Table: audit.BareTable, Owner: cfg.Name})
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}

	return c, nil
}
