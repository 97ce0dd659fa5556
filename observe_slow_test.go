package pglocker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// stuck is an observer that doesn't return from the first loss.
type stuck struct {
	pglocker.Observer
	in   chan struct{}
	out  chan struct{}
	once sync.Once
}

func (s *stuck) LockLost(pglocker.LockLost) {
	s.once.Do(func() {
		close(s.in)
		<-s.out
	})
}

// TestSlowObserver: an observer that takes its time over a loss holds up neither the renewals of other locks, nor the ends
// of their contexts. Close waits for it.
func TestSlowObserver(t *testing.T) {
	t.Parallel()

	const ttl = 2 * time.Second

	url := contract.NewDatabase(t)
	db := contract.Open(t, "pgx", url)
	contract.NewLocker(t, "pgx", url) // makes the table

	observer := &stuck{Observer: new(statementsSent), in: make(chan struct{}), out: make(chan struct{})}

	locker, err := pglocker.New(db, &pglocker.Config{Observer: observer})
	contract.Must(t, err)

	take := func(id string, ttl time.Duration) *pglocker.Lock {
		lock, err := locker.TryLock(t.Context(), id, ttl)
		contract.Must(t, err)

		return lock
	}

	first, second, held := take("first", ttl), take("second", 2*ttl), take("held", ttl)

	// Nobody renews the two while their rows are locked.
	tx, err := db.BeginTx(t.Context(), nil)
	contract.Must(t, err)
	_, err = tx.ExecContext(t.Context(), "SELECT FROM pglocker.lock_statuses WHERE lock_id IN ('first', 'second') FOR UPDATE")
	contract.Must(t, err)

	contract.Receive(t, "the observer is told", observer.in)
	contract.Receive(t, "the first lock is lost", first.Context().Done())

	before := held.Status().ExpiresAt
	contract.Await(t, "renewals go on", func() bool { return held.Status().ExpiresAt.After(before) })
	contract.Receive(t, "the second lock is lost", second.Context().Done())

	if err := held.Context().Err(); err != nil {
		t.Errorf("a lock that was renewed: %v", context.Cause(held.Context()))
	}

	contract.Must(t, tx.Rollback())

	closed := make(chan error, 1)
	go func() { closed <- locker.Close(context.WithoutCancel(t.Context())) }()

	contract.Receive(t, "Close unlocks", held.Context().Done())

	select {
	case err := <-closed:
		t.Errorf("Close has returned before the observer: %v", err)
	case <-time.After(100 * time.Millisecond):
	}

	close(observer.out)
	contract.Must(t, contract.Receive(t, "Close returns", closed))
}
