package pglocker

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// Semaphore lets a number of holders work at the same time, in all processes that use the same table and name.
// Make it with [Locker.NewSemaphore]. It is safe for concurrent use, and needn't be closed.
//
// Each permit is a row of the table, a slot, with a lease of its own: a crashed holder's permit is granted
// again after its TTL. The number of permits is never stored. It is that of the Semaphore which asks. So
// processes may use different numbers, while a new version is rolled out for example. A Semaphore with 3
// permits is granted nothing while 3 or more are held, even if others may hold 5.
type Semaphore struct {
	family
	permits int
}

// NewSemaphore returns the semaphore of a name. It sends nothing. A semaphore has nothing in common with a lock
// or another recipe of the same name.
//
// Errors: [ErrInvalidName]; [ErrInvalidPermits], if permits is not within 1 and [MaxPermits].
func (l *Locker) NewSemaphore(name string, permits int) (*Semaphore, error) {
	f, err := l.newFamily(KindSemaphore, name)
	if err != nil {
		return nil, err
	}

	if permits < 1 || permits > MaxPermits {
		return nil, fmt.Errorf("%w: a semaphore with %d", ErrInvalidPermits, permits)
	}

	return &Semaphore{f, permits}, nil
}

// WithPermits makes [Semaphore.Acquire], [Semaphore.TryAcquire] and [Semaphore.Do] take k permits at once, all
// or none. Default: 1. k must be within 1 and the number of the semaphore's permits ([ErrInvalidPermits]). Other
// methods ignore it.
func WithPermits(k int) LockOption {
	return func(o *lockOptions) { o.permits, o.manyPermits = k, true }
}

// Acquire takes a permit, or as many as [WithPermits] says, and keeps it alive until [Permit.Unlock] or
// [Locker.Close]. It waits until ctx ends. The lease runs for ttl. It is renewed as [Locker.Do] describes.
// Cancelling ctx doesn't release the permit. The permit's context inherits ctx's values only.
//
// Calls of one Locker are served in the order in which they came, so one that waits for several permits isn't
// overtaken here. Between processes there is no order: one that always asks for a single permit may keep another
// from ever finding several free.
//
// If ctx ends first, the errors are those of [Locker.Lock]. The [*HeldError] is about the slot in the way whose
// lease ends first. If ctx was made from contexts of permits of this semaphore, and too few are left beside
// them, Acquire returns a HeldError at once: it would wait for itself. Other errors: [ErrInvalidPermits],
// [ErrInvalidTTL], [ErrClosed], those of the options, those of the database's state, and what the driver
// reports.
func (s *Semaphore) Acquire(ctx context.Context, ttl time.Duration, opts ...LockOption) (*Permit, error) {
	return s.acquire(ctx, ttl, true, opts)
}

// TryAcquire is [Semaphore.Acquire] that doesn't wait. If too few permits are free, the error is a
// [*HeldError]: it matches [ErrAlreadyLocked].
func (s *Semaphore) TryAcquire(ctx context.Context, ttl time.Duration, opts ...LockOption) (*Permit, error) {
	return s.acquire(ctx, ttl, false, opts)
}

func (s *Semaphore) acquire(ctx context.Context, ttl time.Duration, wait bool, opts []LockOption) (*Permit, error) {
	options, end, err := s.begin(ttl, max(ttl/3, 1), opts)
	if err != nil {
		return nil, err
	}
	defer end()

	if wait && options.wait == 0 {
		options.wait = Forever
	}

	p, err := s.take(ctx, context.WithoutCancel(ctx), ttl, options)
	if err == nil {
		err = p.group.keep(ctx)
	}

	if err != nil {
		return nil, failed("acquire", s.name, err)
	}

	return p, nil
}

// Do takes a permit, runs fn while it keeps the permit alive, and releases it, as [Locker.Do] does with a lock.
// If too few permits are free, Do fails at once, or waits as [WithWait] says. [PermitFromContext] finds the
// permit in fn's context.
//
// Errors: those of [Semaphore.TryAcquire], if fn was not called; otherwise fn's, joined with those that
// Locker.Do describes.
func (s *Semaphore) Do(
	ctx context.Context, ttl, relockInterval time.Duration, fn func(ctx context.Context) error, opts ...LockOption,
) error {
	if fn == nil {
		return ErrFuncIsNil
	}

	options, end, err := s.begin(ttl, relockInterval, opts)
	if err != nil {
		return err
	}
	defer end()

	p, err := s.take(ctx, ctx, ttl, options)
	if err != nil {
		return failed("do", s.name, err)
	}

	return p.group.run(ctx, fn)
}

// begin is [Locker.beginHold] for permits.
func (s *Semaphore) begin(ttl, relockInterval time.Duration, opts []LockOption) (o lockOptions, end func(), err error) {
	if o, end, err = s.locker.beginHold(ttl, relockInterval, opts); err != nil {
		return o, nil, err
	}

	if !o.manyPermits {
		o.permits = 1
	}

	if o.permits < 1 || o.permits > s.permits {
		end()

		return o, nil, fmt.Errorf("%w: %d of %d", ErrInvalidPermits, o.permits, s.permits)
	}

	return o, end, nil
}

func (s *Semaphore) take(ctx, parent context.Context, ttl time.Duration, o lockOptions) (*Permit, error) {
	if held := s.held(ctx); o.wait > 0 && len(held) > 0 && len(held)+o.permits > s.permits {
		return nil, waitsForItself(held[0])
	}

	g, err := s.family.take(ctx, parent, store.SlotsRequest{TTL: ttl, Permits: s.permits, Want: o.permits}, o)
	if err != nil {
		return nil, err
	}

	p := &Permit{group: g}
	g.ctx = context.WithValue(g.ctx, permitKey{}, p)

	return p, nil
}

// Permit is one or several permits of a [Semaphore], held and kept alive as one. It is safe for concurrent use.
type Permit struct{ group *group }

type permitKey struct{}

// PermitFromContext returns the permit of a context: that of a function that [Semaphore.Do] runs, a
// [Permit.Context], or one made from these. ok is false if there is none.
func PermitFromContext(ctx context.Context) (p *Permit, ok bool) {
	p, ok = ctx.Value(permitKey{}).(*Permit)

	return p, ok
}

// Context returns the permit's context. It ends as [Lock.Context] does: when the permit is unlocked, the Locker
// is closed, or the permit is lost ([ErrLockLost]). If one of several slots is lost, all are.
func (p *Permit) Context() context.Context { return p.group.ctx }

// Token returns the fencing token. It is larger than those of all earlier grants of this semaphore, whichever
// slots they were for. Several holders work at the same time, so a larger token doesn't mean that the holder of
// a smaller one has lost its permit. [Permit.Guard] does.
func (p *Permit) Token() int64 { return p.group.locks[0].lease.Generation }

// Slot returns the number of the slot, from 1. No other holder has it at the same time. Slots are given out from
// the lowest. With different numbers of permits in use, it may be above this semaphore's. Of several slots it is
// the lowest.
func (p *Permit) Slot() int { return p.Slots()[0] }

// Slots returns the numbers of all slots, in order.
func (p *Permit) Slots() []int {
	slots := make([]int, len(p.group.locks))
	for i, lk := range p.group.locks {
		slots[i] = slotOf(lk.lease.LockID)
	}

	slices.Sort(slots)

	return slots
}

// Guard proves, inside the caller's transaction, that the permit is still held, as [Lock.Guard] does, with its
// errors. It locks the rows of all its slots, in one statement. A slot is granted to no other while the
// transaction is open.
func (p *Permit) Guard(ctx context.Context, tx *sql.Tx) error { return p.group.guard(ctx, inSQL(tx)) }

// GuardPgx is [Permit.Guard] for a pgx.Tx: see [Lock.GuardPgx].
func (p *Permit) GuardPgx(ctx context.Context, tx PgxTx) error { return p.group.guard(ctx, inPgx(tx)) }

// GuardTx is [Permit.Guard] for a transaction of a library on database/sql: see [Lock.GuardTx].
func (p *Permit) GuardTx(ctx context.Context, tx Tx) error { return p.group.guard(ctx, inTx(tx)) }

// Unlock cancels the permit's context, and then releases all its slots. Errors are those of [Lock.Unlock].
func (p *Permit) Unlock(ctx context.Context) error { return p.group.unlock(ctx) }
