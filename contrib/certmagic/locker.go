package pglockercertmagic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/ismurov/pglocker"
)

var (
	// ErrNoPrefix: [NewLocker] was given no prefix.
	ErrNoPrefix = errors.New("pglockercertmagic: no prefix")
	// ErrNotHeld: this Locker has no lock of that name.
	ErrNotHeld = errors.New("pglockercertmagic: not held")
)

// answerMax is how long [Locker.Unlock] and [Locker.RenewLockLease] wait for the database, at most.
const answerMax = 5 * time.Second

// Locker is a certmagic.Locker, certmagic.TryLocker and certmagic.LockLeaseRenewer. Its locks are released by name. It
// is safe for concurrent use.
type Locker struct {
	locker *pglocker.Locker
	prefix string
	ttl    time.Duration

	mu sync.Mutex
	// held are the locks by name, the oldest first. At most one of a name is not lost: another caller here may have been
	// granted the lock after the first was lost, and before the loser's Unlock.
	held map[string][]*lock
}

// lock is one that a caller believes to hold. [Locker.mu] guards it.
type lock struct {
	*pglocker.Lock
	// told: RenewLockLease has told the loss.
	told bool
}

var (
	_ certmagic.Locker           = (*Locker)(nil)
	_ certmagic.TryLocker        = (*Locker)(nil)
	_ certmagic.LockLeaseRenewer = (*Locker)(nil)
)

// NewLocker returns a Locker. A lock's id is prefix and the name that certmagic gives it. prefix must not be empty
// ([ErrNoPrefix]), because programs share the table, and must not begin with [pglocker.ReservedPrefix].
//
// ttl is the length of a lease. It is renewed until Unlock, so an operation may take longer. If the process crashes,
// another can go on after ttl.
func NewLocker(locker *pglocker.Locker, prefix string, ttl time.Duration) (*Locker, error) {
	switch {
	case prefix == "":
		return nil, ErrNoPrefix
	case strings.HasPrefix(prefix, pglocker.ReservedPrefix):
		return nil, fmt.Errorf("%w: prefix %q", pglocker.ErrReservedLockID, prefix)
	}

	return &Locker{locker: locker, prefix: prefix, ttl: ttl, held: map[string][]*lock{}}, nil
}

// Lock takes the lock of a name. It waits until ctx ends. Errors are those of [pglocker.Locker.Lock]. The end of ctx
// doesn't release the lock.
func (l *Locker) Lock(ctx context.Context, name string) error {
	granted, err := l.locker.Lock(ctx, l.prefix+name, l.ttl)
	if err == nil {
		l.add(name, granted)
	}

	return err
}

// TryLock takes the lock of a name if it is free. It returns false and no error if another holds it. Errors are
// otherwise those of [pglocker.Locker.TryLock].
func (l *Locker) TryLock(ctx context.Context, name string) (bool, error) {
	granted, err := l.locker.TryLock(ctx, l.prefix+name, l.ttl)

	switch {
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		return false, nil
	case err != nil:
		return false, err
	}

	l.add(name, granted)

	return true, nil
}

func (l *Locker) add(name string, granted *pglocker.Lock) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.held[name] = append(l.held[name], &lock{Lock: granted})
}

// Unlock releases the lock of a name. It does so even if ctx has ended, and waits for five seconds at most; then the
// pglocker.Locker goes on trying in the background.
//
// It returns nil if the lock is released, also if it was lost before: then there is nothing to release. Errors:
// [ErrNotHeld]; [pglocker.ErrNotReleased], if the database didn't acknowledge the release. The lock is free when its
// lease ends, at the latest.
func (l *Locker) Unlock(ctx context.Context, name string) error {
	l.mu.Lock()

	locks := l.held[name]
	if len(locks) == 0 {
		l.mu.Unlock()

		return fmt.Errorf("%w: %q", ErrNotHeld, name)
	}

	// A lost one goes first, whichever caller this is: so a lock isn't released while the one that was granted it works.
	if len(locks) == 1 {
		delete(l.held, name)
	} else {
		l.held[name] = locks[1:]
	}

	l.mu.Unlock()

	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerMax)
	defer cancel()

	err := locks[0].Unlock(release)
	if errors.Is(err, pglocker.ErrLockLost) || errors.Is(err, pglocker.ErrAlreadyUnlocked) {
		return nil
	}

	return err
}

// RenewLockLease returns nil while the lock of a name is held. It needn't renew it, and doesn't heed the duration: the
// pglocker.Locker renews the lease until Unlock. It asks the database, because a process that was paused for longer than
// its lease may call this before it notices. If the database doesn't answer within five seconds, it goes by the lease.
//
// If the lock was lost, the error matches [pglocker.ErrLockLost]. certmagic then gives up the attempt, and may begin
// another by the next call. So that call takes the lock again if it is free. If not, it returns a
// [*pglocker.HeldError].
//
// Other errors: [ErrNotHeld]; [pglocker.ErrClosed], if the pglocker.Locker was closed; those of
// [pglocker.Locker.TryLock].
func (l *Locker) RenewLockLease(ctx context.Context, lockKey string, _ time.Duration) error {
	lk, told, err := l.newest(lockKey)
	if err != nil {
		return err
	}

	if !told {
		granted := l.grantedSince(ctx, lk)

		return l.tell(lk, granted)
	}

	again, err := l.locker.TryLock(ctx, l.prefix+lockKey, l.ttl)
	if err != nil {
		return err
	}

	if !l.replace(lockKey, lk, again) { // unlocked meanwhile
		return errors.Join(ErrNotHeld, again.Unlock(context.WithoutCancel(ctx)))
	}

	return nil
}

// newest returns the lock of a name to which RenewLockLease is to be answered: one that was lost, or else the one that is
// held. told: its loss was told before.
func (l *Locker) newest(name string) (lk *lock, told bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	locks := l.held[name]
	if len(locks) == 0 {
		return nil, false, fmt.Errorf("%w: %q", ErrNotHeld, name)
	}

	for _, lk = range locks {
		if lk.told || lk.Context().Err() != nil {
			break
		}
	}

	return lk, lk.told, nil
}

// grantedSince reports whether the database shows a later grant, or a release, than that of a lock. A smaller token is
// that of a standby which lags.
func (l *Locker) grantedSince(ctx context.Context, lk *lock) bool {
	if lk.Context().Err() != nil {
		return false // it is lost as it is
	}

	asking, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()

	status, err := l.locker.GetLockStatus(asking, lk.Status().LockID)

	return err == nil && status.Generation > lk.Token()
}

// tell returns what there is to tell of a lock, nil if it is held.
func (l *Locker) tell(lk *lock, grantedSince bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()

	cause := context.Cause(lk.Context())
	if cause == nil && grantedSince {
		cause = fmt.Errorf("%w: the database shows a larger token than %d", pglocker.ErrLockLost, lk.Token())
	}

	lk.told = lk.told || errors.Is(cause, pglocker.ErrLockLost)

	return cause
}

// replace puts a new lock in the place of a lost one. It is false if that isn't there any more.
func (l *Locker) replace(name string, lost *lock, again *pglocker.Lock) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	for i, lk := range l.held[name] {
		if lk == lost {
			l.held[name][i] = &lock{Lock: again}

			return true
		}
	}

	return false
}
