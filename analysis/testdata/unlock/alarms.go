package unlock

import (
	"context"
	"errors"
	"time"

	"github.com/ismurov/pglocker"
)

// Nothing in this file is a mistake.

// finish releases the lock of a context.
func finish(ctx context.Context) error { // want finish:"releases"
	lock, ok := pglocker.FromContext(ctx)
	if !ok {
		return pglocker.ErrNoLock
	}

	return lock.Unlock(ctx)
}

func finishLater(ctx context.Context) { defer func() { must(finish(ctx)) }() } // want finishLater:"releases"

func byItsContext(ctx context.Context, locker *pglocker.Locker) error { // want byItsContext:"releases"
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return finish(lock.Context())
}

func byItsContextDeeper(ctx context.Context, locker *pglocker.Locker) error { // want byItsContextDeeper:"releases"
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	held, cancel := context.WithTimeout(lock.Context(), time.Second)
	defer cancel()

	finishLater(held)

	return nil
}

func begin(ctx context.Context, locker *pglocker.Locker) (context.Context, error) {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return nil, err
	}

	return lock.Context(), nil
}

type session struct {
	ctx  context.Context
	ends func(context.Context) error
}

func (s *session) begin(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	s.ctx = lock.Context()

	return nil
}

func open(ctx context.Context, locker *pglocker.Locker) (*session, error) { // want open:"releases"
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return nil, err
	}

	held := lock.Context()
	s := &session{ctx: context.WithValue(held, key{}, "a"), ends: finish}

	return s, nil
}

type key struct{}

func (s *session) methodValue(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	end := s.ends

	return end(lock.Context())
}

type ender interface {
	end(ctx context.Context) error
}

func byAnInterface(ctx context.Context, locker *pglocker.Locker, e ender) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return e.end(lock.Context())
}

func sent(ctx context.Context, locker *pglocker.Locker, to chan<- context.Context) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	to <- lock.Context()

	return nil
}

func sentItself(ctx context.Context, locker *pglocker.Locker, to chan<- *pglocker.Lock) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	to <- lock

	return nil
}

func unlockValue(ctx context.Context, locker *pglocker.Locker) (func(context.Context) error, error) {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return nil, err
	}

	return lock.Unlock, nil
}

func unlockOf(lock *pglocker.Lock) func() {
	return func() { _ = lock.Unlock(context.Background()) }
}

func inAHelper(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}
	defer unlockOf(lock)()

	return work(lock.Context())
}

func stored(ctx context.Context, locker *pglocker.Locker, ids []string) ([]*pglocker.Lock, error) {
	var locks []*pglocker.Lock

	for _, id := range ids {
		lock, err := locker.Lock(ctx, id, time.Minute)
		if err != nil {
			return locks, err
		}

		locks = append(locks, lock)
	}

	return locks, nil
}

func tried(ctx context.Context, locker *pglocker.Locker) error {
	var (
		lock *pglocker.Lock
		err  error
	)

	for range 3 {
		lock, err = locker.TryLock(ctx, "a", time.Minute)
		if err == nil {
			break
		}
	}

	if err != nil {
		return err
	}
	defer lock.Unlock(ctx)

	return work(lock.Context())
}

func releasedByStatus(ctx context.Context, locker *pglocker.Locker) error { // want releasedByStatus:"releases"
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	status := lock.Status()

	return errors.Join(work(lock.Context()), locker.ReleaseLock(ctx, &status))
}

func openLocker() (locker *pglocker.Locker, stop func()) {
	return locker, func() { _ = locker.Close(context.Background()) }
}

func closedByAHelper(ctx context.Context) error {
	locker, stop := openLocker()
	defer stop()

	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return work(lock.Context())
}

func closeAll(lockers ...*pglocker.Locker) {
	for _, locker := range lockers {
		_ = locker.Close(context.Background())
	}
}

func closedByAnother(ctx context.Context, locker *pglocker.Locker) error {
	defer closeAll(locker)

	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return work(lock.Context())
}

func granted(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.TryLock(ctx, "a", time.Minute)
	if err == nil {
		err = errors.Join(work(lock.Context()), lock.Unlock(ctx))
	}

	return err
}

func absent(ctx context.Context, locker *pglocker.Locker) {
	lock, _ := locker.TryLock(ctx, "a", time.Minute)
	if lock == nil {
		return
	}
	defer lock.Unlock(ctx)

	_ = work(lock.Context())
}
