package contract

import (
	"errors"
	"sync"
	"testing"

	"github.com/ismurov/pglocker"
)

const contenders = 48

// testAcquireContended: of many contenders for a free lock one is granted it. The others
// are told who holds it, and get no other error.
func testAcquireContended(t *testing.T, e *env) {
	for _, state := range []struct {
		name    string
		prepare func(t *testing.T, id string)
	}{
		{"unknown", func(*testing.T, string) {}},
		{"created", func(t *testing.T, id string) {
			if _, err := e.locker.CreateLock(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}},
		{"released", func(t *testing.T, id string) {
			if err := e.locker.ReleaseLock(t.Context(), e.acquire(t, id, minute)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(state.name, func(t *testing.T) {
			id := newID()
			state.prepare(t, id)
			Contend(t, []*pglocker.Locker{e.locker, e.newLocker(t)}, id)
		})
	}
}

// Contend has 48 goroutines request a lock that is free, over the lockers in turn. It fails
// the test unless one is granted it and 47 get ErrAlreadyLocked.
func Contend(t *testing.T, lockers []*pglocker.Locker, id string) {
	t.Helper()

	type answer struct {
		status *pglocker.LockStatus
		err    error
	}

	var (
		ctx     = withinContext(t)
		start   = make(chan struct{})
		answers = make([]answer, contenders)
		ready   sync.WaitGroup
		done    sync.WaitGroup
	)

	ready.Add(contenders)

	for i := range answers {
		done.Go(func() {
			ready.Done()
			<-start

			a := &answers[i]
			a.status, a.err = lockers[i%len(lockers)].AcquireLock(ctx, id, minute)
		})
	}

	ready.Wait()
	close(start)
	done.Wait()

	var winner *pglocker.LockStatus

	for _, a := range answers {
		switch {
		case a.err == nil && winner == nil:
			winner = a.status
		case a.err == nil:
			t.Errorf("granted twice: %+v and %+v", winner, a.status)
		case !errors.Is(a.err, pglocker.ErrAlreadyLocked):
			t.Errorf("%v, want ErrAlreadyLocked", a.err)
		}
	}

	if winner == nil {
		t.Fatal("no contender was granted the lock")
	}

	for _, a := range answers {
		var held *pglocker.HeldError
		if errors.As(a.err, &held) && held.Remaining > 0 && held.Generation != winner.Generation {
			t.Errorf("%v, but the winner is %+v", held, winner)
		}
	}
}
