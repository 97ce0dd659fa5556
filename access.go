package pglocker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
)

// Access is read or write access to an [RWLock], held and kept alive. It is safe for concurrent use.
type Access struct {
	group   *group
	rw      *RWLock
	options lockOptions
	reading bool
}

// Context returns the access's context. It ends as [Lock.Context] does: when the access is unlocked or
// downgraded, the Locker is closed, or the access is lost ([ErrLockLost]).
func (a *Access) Context() context.Context { return a.group.ctx }

// Token returns the fencing token. It is larger than those of all earlier grants of this read-write lock, to
// readers and to writers.
func (a *Access) Token() int64 { return a.lock().lease.Generation }

// Reading reports whether this is read access. Otherwise it is write access.
func (a *Access) Reading() bool { return a.reading }

// Guard proves, inside the caller's transaction, that the access is still held, as [Lock.Guard] does, with its
// errors. While the transaction of a reader is open, no writer is granted the lock. While that of a writer is,
// nobody is.
func (a *Access) Guard(ctx context.Context, tx *sql.Tx) error { return a.group.guard(ctx, inSQL(tx)) }

// GuardPgx is [Access.Guard] for a pgx.Tx: see [Lock.GuardPgx].
func (a *Access) GuardPgx(ctx context.Context, tx PgxTx) error { return a.group.guard(ctx, inPgx(tx)) }

// GuardTx is [Access.Guard] for a transaction of a library on database/sql: see [Lock.GuardTx].
func (a *Access) GuardTx(ctx context.Context, tx Tx) error { return a.group.guard(ctx, inTx(tx)) }

// Unlock cancels the access's context, and then releases the lock. Errors are those of [Lock.Unlock].
func (a *Access) Unlock(ctx context.Context) error { return a.group.unlock(ctx) }

func (a *Access) lock() *Lock { return a.group.locks[0] }

// pauses between the attempts of a downgrade.
const (
	downgradePause    = 2 * time.Millisecond
	downgradePauseMax = 100 * time.Millisecond
)

// Downgrade turns write access into read access, in one statement: no other writer is granted the lock in
// between, not even one that waits. Other readers may come at once, unless a writer waits.
//
// The writer's context ends when Downgrade is called. The read access that it returns has a context of its own,
// which inherits ctx's values only, and a new, larger token. Its options and its TTL are those of the write
// access.
//
// Downgrade waits for a transaction that has the writer's row locked, such as a guarded one, while ctx and the
// lease last. If it fails, it releases the lock as [Access.Unlock] does. Errors:
//
//   - [ErrNotWriting]: it is read access. That stays as it is.
//   - [ErrAlreadyUnlocked], [ErrLockLost]: the write access was over.
//   - ctx's error; [ErrUnknownOutcome]; what the driver reports. Joined with the release's, if that failed too.
func (a *Access) Downgrade(ctx context.Context) (*Access, error) {
	if a.reading {
		return nil, ErrNotWriting
	}

	l := a.rw.locker

	end, err := l.desk.Begin()
	if err != nil {
		return nil, err
	}
	defer end()

	if err := a.group.retire(); err != nil {
		return nil, err
	}

	a.group.endHold(nil)

	reader, err := a.downgrade(ctx, l.renewer.Remove(&a.lock().lease))
	if err != nil {
		a.group.revive(errors.Is(err, ErrUnknownOutcome))

		if unlockErr := a.group.unlock(context.WithoutCancel(ctx)); unlockErr != nil && !errors.Is(unlockErr, ErrAlreadyUnlocked) {
			err = errors.Join(err, unlockErr)
		}

		return nil, failed("downgrade", a.rw.name, err)
	}

	l.held.remove(a.group)
	close(a.group.freed)

	if err := reader.group.keep(ctx); err != nil {
		return nil, err
	}

	return reader, nil
}

// downgrade asks for the exchange until it is made, the writer's term is over or ctx ends.
func (a *Access) downgrade(ctx context.Context, left keepalive.Term) (*Access, error) {
	var (
		lk = a.lock()
		l  = a.rw.locker
		r  = &slotsRequest{family: a.rw.family, asked: store.SlotsRequest{
			Family: a.rw.prefix, TTL: lk.ttl, Margin: l.cfg.margin(lk.ttl),
			Permits: a.rw.readers, Want: 1, From: lk.lease.Generation,
		}}
	)

	for wait := downgradePause; ; wait = min(2*wait, downgradePauseMax) {
		res, err := r.acquire(ctx)

		switch {
		case err == nil && res.Verdict == store.WrongGeneration:
			return nil, fmt.Errorf("%w: found on downgrade", ErrLockLost)
		case err == nil && res.Verdict == store.Granted:
			term := l.desk.Term(res, lk.ttl)
			if term.Left(time.Now()) <= 0 {
				r.Return(res)

				return nil, fmt.Errorf("%w: the downgrade took as long as its lease", ErrLockLost)
			}

			g := l.holdAll(context.WithoutCancel(ctx), res.Grants, a.rw.gate(), term, a.options)
			g.startHold(false)
			l.desk.Queue.Wake(a.rw.gate())

			return &Access{group: g, rw: a.rw, options: a.options, reading: true}, nil
		case err != nil && (!store.Transient(err) || errors.Is(err, store.ErrUnknownOutcome) || ctx.Err() != nil):
			return nil, err
		case left.Left(time.Now()) <= 0:
			return nil, errors.Join(fmt.Errorf("%w: the lease ended before the downgrade", ErrLockLost), err)
		}

		if !pause.Sleep(ctx, pause.Jitter(wait, 2)) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// retire ends the belief in what the group holds, as unlock does.
func (g *group) retire() error {
	g.mu.Lock()
	defer g.mu.Unlock()

	switch {
	case g.unlocked:
		return fmt.Errorf("%w: %s", ErrAlreadyUnlocked, g.name())
	case g.lost != nil:
		return g.lost
	}

	g.unlocked = true
	g.cancel(context.Canceled)

	return nil
}

// revive lets unlock release what was retired. exchanged: the database may have made a reader of it, which is no
// loss.
func (g *group) revive(exchanged bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	g.unlocked, g.exchanged = false, exchanged
}
