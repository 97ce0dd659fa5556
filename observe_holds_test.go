package pglocker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestHoldsObserved: the observer is told of every kind of hold, from its grant to its end, and why it ended.
func TestHoldsObserved(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	contract.NewLocker(t, "pgx", url) // makes the table

	const (
		ttl   = time.Minute
		renew = 20 * time.Second
	)

	unlocked := func(lock interface{ Unlock(context.Context) error }, err error) error {
		if err != nil {
			return err
		}

		return lock.Unlock(context.Background())
	}
	nothing := func(context.Context) error { return nil }

	for name, test := range map[string]struct {
		hold  func(ctx context.Context, l *pglocker.Locker) error
		kind  pglocker.Kind
		locks int
		why   []error // of each hold
	}{
		"lock": {
			func(ctx context.Context, l *pglocker.Locker) error { return unlocked(l.TryLock(ctx, "lock", ttl)) },
			pglocker.KindLock, 1,
			[]error{nil},
		},
		"cancelled": {
			func(ctx context.Context, l *pglocker.Locker) error {
				ctx, cancel := context.WithCancel(ctx)

				return l.Do(ctx, "cancelled", ttl, renew, func(context.Context) error {
					cancel()

					return nil
				})
			},
			pglocker.KindLock, 1,
			[]error{context.Canceled},
		},
		"closed": {
			func(ctx context.Context, l *pglocker.Locker) error {
				_, err := l.TryLock(ctx, "closed", ttl)

				return errors.Join(err, l.Close(ctx))
			},
			pglocker.KindLock, 1,
			[]error{pglocker.ErrClosed},
		},
		"forced": {
			func(ctx context.Context, l *pglocker.Locker) error {
				lock, err := l.TryLock(ctx, "forced", ttl)
				if err != nil {
					return err
				}

				return l.ForceRelease(ctx, "forced", lock.Token(), "a test")
			},
			pglocker.KindLock, 1,
			[]error{pglocker.ErrLockLost},
		},
		"relocked": {
			func(ctx context.Context, l *pglocker.Locker) error {
				status, err := l.AcquireLock(ctx, "relocked", ttl)
				if err != nil {
					return err
				}

				ctx, cancel := context.WithCancel(ctx)
				cancel()

				return l.StartRelocker(ctx, status, ttl, renew)
			},
			pglocker.KindLock, 1,
			[]error{nil},
		},
		"all": {
			func(ctx context.Context, l *pglocker.Locker) error {
				return l.DoAll(ctx, []string{"z", "all", "y"}, ttl, renew, nothing)
			},
			pglocker.KindLock, 3,
			[]error{nil},
		},
		"semaphore:with a colon": {
			func(ctx context.Context, l *pglocker.Locker) error {
				s, err := l.NewSemaphore("semaphore:with a colon", 3)
				if err != nil {
					return err
				}

				return s.Do(ctx, ttl, renew, nothing, pglocker.WithPermits(2))
			},
			pglocker.KindSemaphore, 2,
			[]error{nil},
		},
		"downgraded": {
			func(ctx context.Context, l *pglocker.Locker) error {
				rw, err := l.NewRWLock("downgraded")
				if err != nil {
					return err
				}

				writer, err := rw.Lock(ctx, ttl)
				if err != nil {
					return err
				}

				return unlocked(writer.Downgrade(ctx))
			},
			pglocker.KindRWLock, 1,
			[]error{nil, nil},
		},
		"resigned": {
			func(ctx context.Context, l *pglocker.Locker) error {
				e, err := l.NewElection("resigned", ttl)
				if err != nil {
					return err
				}

				ctx, cancel := context.WithCancel(ctx)

				err = e.Run(ctx, func(leading context.Context, term pglocker.Term) error {
					defer cancel()

					if err := e.RequestResign(ctx, term.Token); err != nil {
						return err
					}

					<-leading.Done()

					return nil
				})
				if errors.Is(err, context.Canceled) {
					err = nil
				}

				return err
			},
			pglocker.KindElection, 1,
			[]error{pglocker.ErrResignRequested},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := contract.NewWatcher()

			locker, err := pglocker.New(contract.Open(t, "pgx", url), &pglocker.Config{Observer: pglocker.JoinObservers(nil, onlyObserver{}, w)})
			contract.Must(t, err)
			contract.Must(t, test.hold(t.Context(), locker))

			held := w.Holds(name)
			if len(held) != len(test.why) {
				t.Fatalf("told of %+v, want %d holds", held, len(test.why))
			}

			for i, hold := range held {
				if hold.Kind != test.kind || hold.Locks != test.locks || hold.Token < 2 || hold.TTL != ttl || hold.HeldFor <= 0 {
					t.Errorf("told of %+v, want %d of kind %s", hold, test.locks, test.kind)
				}

				if why := test.why[i]; why == nil && hold.Err != nil || !errors.Is(hold.Err, why) {
					t.Errorf("ended by %v, want %v", hold.Err, why)
				}
			}

			w.Check(t)
		})
	}
}

// onlyObserver implements none of the other interfaces.
type onlyObserver struct{}

func (onlyObserver) OperationStart(ctx context.Context, _ pglocker.OperationStart) context.Context {
	return ctx
}

func (onlyObserver) OperationEnd(context.Context, pglocker.OperationEnd) {}

func (onlyObserver) LockLost(pglocker.LockLost) {}

// TestJoinNone: no observer is nil, so that nothing is told.
func TestJoinNone(t *testing.T) {
	t.Parallel()

	if o := pglocker.JoinObservers(nil, nil); o != nil {
		t.Errorf("JoinObservers of none is %v, want nil", o)
	}
}
