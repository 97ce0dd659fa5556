package pglocker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/store"
)

// MaxLockIDs is how many locks [Locker.LockAll] takes at most.
const MaxLockIDs = 1000

// MultiLock is several locks that are held as one and kept alive. It is safe for concurrent use.
type MultiLock struct{ group *group }

// TryLockAll takes all the locks, or none of them, in one statement, and keeps them alive until
// [MultiLock.Unlock] or [Locker.Close]. The order of the ids doesn't matter, and an id that is given twice is
// taken once. In all else it is as [Locker.TryLock]. On a lock's row it waits for no other transaction.
//
// Errors are those of TryLock, and
//
//   - [ErrAlreadyLocked], as a [*HeldError], if another holds one of the locks, or has its row locked. The
//     error names the first of those in the order of the ids.
//   - [ErrNoLockIDs], [ErrTooManyLockIDs].
func (l *Locker) TryLockAll(ctx context.Context, lockIDs []string, ttl time.Duration, opts ...LockOption) (*MultiLock, error) {
	return l.lockAll(ctx, lockIDs, ttl, false, opts)
}

// LockAll takes all the locks as [Locker.TryLockAll] does, but waits for them until ctx ends. For the
// first second it holds none of them while it waits, so calls that want the same locks in different orders can't
// wait for each other. It asks again when the first lock in its way is released.
//
// Others might take the locks again and again, one here and one there. So a call that has waited for a second
// begins to gather: it takes the locks in the order of their ids, keeps what it has, and waits for the next in
// the line of that lock, as [Locker.Lock] does. If it has not gathered all in as much time as it had waited
// before, it releases what it has, waits as before for up to half of that time, and gathers again. So it
// delays others for no longer than it has waited itself. It gets the locks once the others release each within
// that time.
//
// If ctx was made from the context of one of the locks, LockAll returns a [*HeldError] at once. Errors are
// otherwise as for Lock.
func (l *Locker) LockAll(ctx context.Context, lockIDs []string, ttl time.Duration, opts ...LockOption) (*MultiLock, error) {
	return l.lockAll(ctx, lockIDs, ttl, true, opts)
}

func (l *Locker) lockAll(ctx context.Context, lockIDs []string, ttl time.Duration, wait bool, opts []LockOption) (*MultiLock, error) {
	all, options, end, err := l.beginAll(lockIDs, ttl, max(ttl/3, 1), opts)
	if err != nil {
		return nil, err
	}
	defer end()

	if wait && options.wait == 0 {
		options.wait = Forever
	}

	g, err := all.take(ctx, context.WithoutCancel(ctx), options)
	if err != nil {
		return nil, all.failed("lock", err)
	}

	if !l.held.add(g) { // closed meanwhile
		_ = g.unlock(context.WithoutCancel(ctx)) // bounded by its leases

		return nil, ErrClosed
	}

	return &MultiLock{g}, nil
}

// DoAll takes all the locks, or none of them, as [Locker.TryLockAll] does, runs fn while it keeps them alive,
// and releases them when fn has returned or panicked. If one of the locks is lost, all are. [FromContext] finds
// no lock in fn's context. [Guard] guards all. In all else, and in its errors, it is as [Locker.Do]. With
// [WithWait] it waits as [Locker.LockAll] does.
func (l *Locker) DoAll(
	ctx context.Context, lockIDs []string, lockTTL, relockInterval time.Duration,
	fn func(ctx context.Context) error, opts ...LockOption,
) error {
	if fn == nil {
		return ErrFuncIsNil
	}

	all, options, end, err := l.beginAll(lockIDs, lockTTL, relockInterval, opts)
	if err != nil {
		return err
	}
	defer end()

	g, err := all.take(ctx, ctx, options)
	if err != nil {
		return all.failed("do", err)
	}

	return g.run(ctx, fn)
}

// beginAll checks what a call for several locks is given. The caller calls end.
func (l *Locker) beginAll(lockIDs []string, ttl, relockInterval time.Duration, opts []LockOption) (all *several, o lockOptions, end func(), err error) {
	ids := slices.Clone(lockIDs)
	slices.Sort(ids)
	ids = slices.Compact(ids)

	switch {
	case len(ids) == 0:
		return nil, o, nil, ErrNoLockIDs
	case len(ids) > MaxLockIDs:
		return nil, o, nil, fmt.Errorf("%w: %d, more than %d", ErrTooManyLockIDs, len(ids), MaxLockIDs)
	}

	for _, id := range ids {
		if err := validatePlainID(id); err != nil {
			return nil, o, nil, err
		}
	}

	o, end, err = l.beginHold(ttl, relockInterval, opts)

	return &several{Locker: l, ids: ids, ttl: ttl}, o, end, err
}

// Context returns the context of the locks. It is cancelled as [Lock.Context] is, by the loss of one of them.
func (m *MultiLock) Context() context.Context { return m.group.ctx }

// Tokens returns the fencing token of each lock by its id, see [Lock.Token].
func (m *MultiLock) Tokens() map[string]int64 {
	tokens := make(map[string]int64, len(m.group.locks))
	for _, lk := range m.group.locks {
		tokens[lk.lease.LockID] = lk.lease.Generation
	}

	return tokens
}

// Guard proves, inside the caller's transaction and in one statement, that all the locks are still held under
// these tokens. Rules and errors are those of [Lock.Guard]: [ErrLockLost] if one of the locks is lost.
func (m *MultiLock) Guard(ctx context.Context, tx *sql.Tx) error {
	return m.group.guard(ctx, inSQL(tx))
}

// GuardPgx is [MultiLock.Guard] for a pgx.Tx: see [Lock.GuardPgx].
func (m *MultiLock) GuardPgx(ctx context.Context, tx PgxTx) error {
	return m.group.guard(ctx, inPgx(tx))
}

// GuardTx is [MultiLock.Guard] for a transaction of a library on database/sql: see [Lock.GuardTx].
func (m *MultiLock) GuardTx(ctx context.Context, tx Tx) error { return m.group.guard(ctx, inTx(tx)) }

// Unlock cancels the context, and then releases all the locks in one statement. A lock that another call in
// this Locker waits for is handed to it by a second. Errors are those of [Lock.Unlock]:
//
//   - [ErrLockLost], if one of the locks was lost before, which lost all.
//   - [ErrAlreadyUnlocked].
//   - [ErrNotReleased], if all were held until this call, but not all releases were acknowledged.
func (m *MultiLock) Unlock(ctx context.Context) error { return m.group.unlock(ctx) }

// several is a request for several locks, sorted by id. It is a [line.Special].
type several struct {
	*Locker
	ids []string
	ttl time.Duration
}

// failed adds to an error what was asked for.
func (all *several) failed(verb string, err error) error {
	if _, held := errors.AsType[*HeldError](err); held {
		return tidy(err) // it says so itself
	}

	return tidy(fmt.Errorf("%w (%s %s)", err, verb, nameOf(all.ids[0], len(all.ids))))
}

// request is one for all of the locks.
func (all *several) request(wait time.Duration) line.Request {
	return line.Request{LockID: all.ids[0], TTL: all.ttl, Wait: wait, Special: all}
}

func (all *several) Locks() int { return len(all.ids) }

func (all *several) Permits() int { return 0 }

func (all *several) Held(lockID string, row store.Row, ago time.Duration) error {
	return all.heldError(lockID, row, ago)
}

func (all *several) Return(res store.Result) { all.desk.ReturnAll(res, all.ttl) }

// Ask asks once for all of the locks. A waiter is in a line since it was refused.
func (all *several) Ask(ctx context.Context, line string, mark store.Mark) (store.Result, error) {
	res, err := all.store.AcquireAll(ctx, all.ids, all.desk.Names.Next(), all.ttl, all.cfg.margin(all.ttl), line != "")
	all.desk.SettleAll(all.ids, res.Stray, all.ttl)

	if err != nil && len(res.Grants) > 0 {
		all.desk.Aside(func() { all.Return(res) })
	}

	if err != nil || res.Verdict != store.Busy || res.LockID != line || mark.For == 0 {
		return res, err
	}

	// If the lock has been released meanwhile, there is no mark, and the waiter asks again soon.
	res.Marked, err = all.store.MarkHeld(ctx, line, mark)

	return res, err
}
