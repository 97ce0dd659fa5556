package contract

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// semaphore returns a semaphore of a locker.
func semaphore(t *testing.T, locker *pglocker.Locker, name string, permits int) *pglocker.Semaphore {
	t.Helper()

	s, err := locker.NewSemaphore(name, permits)
	Must(t, err)

	return s
}

// permit takes permits that must be free, for a minute.
func permit(t *testing.T, s *pglocker.Semaphore, k int) *pglocker.Permit {
	t.Helper()

	p, err := s.TryAcquire(withinContext(t), minute, pglocker.WithPermits(k))
	if err != nil {
		t.Fatalf("TryAcquire of %d: %v", k, err)
	}

	return p
}

// noPermit fails the test unless k permits are refused.
func noPermit(t *testing.T, s *pglocker.Semaphore, k int) {
	t.Helper()

	_, err := s.TryAcquire(withinContext(t), minute, pglocker.WithPermits(k))

	var held *pglocker.HeldError
	if !errors.As(err, &held) || !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("TryAcquire of %d: %v, want a HeldError", k, err)
	}
}

func leave(t *testing.T, held interface{ Unlock(context.Context) error }) {
	t.Helper()

	if err := held.Unlock(withinContext(t)); err != nil {
		t.Errorf("Unlock: %v", err)
	}
}

// call is a call that waits, and what it returns.
type call[T any] struct {
	got  chan T
	errs chan error
}

func async[T any](do func() (T, error)) call[T] {
	c := call[T]{make(chan T, 1), make(chan error, 1)}

	go func() {
		got, err := do()
		if err != nil {
			c.errs <- err
		} else {
			c.got <- got
		}
	}()

	return c
}

func (c call[T]) get(t *testing.T) T {
	t.Helper()

	select {
	case got := <-c.got:
		return got
	case err := <-c.errs:
		t.Fatal(err)
	case <-time.After(within):
		t.Fatalf("in vain for %s: the call returns", within)
	}

	panic("unreachable")
}

func (c call[T]) waits(t *testing.T, what string) {
	t.Helper()

	if len(c.got) > 0 {
		t.Errorf("%s: it was granted what it must wait for", what)
	}

	if len(c.errs) > 0 {
		t.Errorf("%s: %v", what, <-c.errs)
	}
}

func acquireAsync(ctx context.Context, s *pglocker.Semaphore, k int) call[*pglocker.Permit] {
	return async(func() (*pglocker.Permit, error) { return s.Acquire(ctx, minute, pglocker.WithPermits(k)) })
}

// testSemaphore: as many as there are permits hold one, whatever number others go by.
func testSemaphore(t *testing.T, e *env) {
	name := newID()
	five, three := semaphore(t, e.locker, name, 5), semaphore(t, e.newLocker(t), name, 3)

	first := permit(t, three, 1)
	pair := permit(t, three, 2)

	if !slices.Equal(first.Slots(), []int{1}) || !slices.Equal(pair.Slots(), []int{2, 3}) || pair.Slot() != 2 || pair.Token() <= first.Token() {
		t.Errorf("slots %v by token %d, then %v by %d", first.Slots(), first.Token(), pair.Slots(), pair.Token())
	}

	noPermit(t, three, 1)
	noPermit(t, five, 3)

	last := permit(t, five, 2)
	noPermit(t, five, 1)
	leave(t, pair)
	noPermit(t, three, 1) // three are held
	leave(t, first)

	again := permit(t, three, 1)
	if again.Token() <= last.Token() || again.Slot() != 1 {
		t.Errorf("slot %d by token %d after %d", again.Slot(), again.Token(), last.Token())
	}

	if again.Context().Err() != nil || pair.Context().Err() == nil {
		t.Errorf("the context of a permit: %v, of one that was unlocked: %v", again.Context().Err(), pair.Context().Err())
	}

	for _, bad := range []int{0, -1, 4} {
		if _, err := three.TryAcquire(t.Context(), minute, pglocker.WithPermits(bad)); !errors.Is(err, pglocker.ErrInvalidPermits) {
			t.Errorf("%d of 3 permits: %v, want ErrInvalidPermits", bad, err)
		}
	}

	guard := func(p *pglocker.Permit) error {
		tx := begin(t, e.db, 0)
		defer func() { _ = tx.Rollback() }()

		return p.Guard(t.Context(), tx)
	}

	if err := errors.Join(guard(again), guard(last)); err != nil {
		t.Errorf("Guard: %v", err)
	}

	// The database says that one of two slots is gone.
	Exec(t, e.direct, "UPDATE "+e.table()+" SET generation = generation + 1 WHERE lock_id = $1", "pglocker:semaphore:"+name+":5")

	if err := guard(last); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard of a permit of which one slot is lost: %v, want ErrLockLost", err)
	}

	leave(t, again)

	if err := guard(again); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard of a permit that was unlocked: %v, want ErrLockLost", err)
	}

	if err := last.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Unlock of a permit that was lost: %v, want ErrLockLost", err)
	}

	err := five.Do(t.Context(), minute, time.Second, func(ctx context.Context) error {
		p, ok := pglocker.PermitFromContext(ctx)
		if !ok || len(p.Slots()) != 3 {
			t.Errorf("Do runs with %v, %t", p, ok)
		}

		// Two are left, and it would wait for itself.
		if _, err := five.Acquire(ctx, minute, pglocker.WithPermits(3)); !errors.Is(err, pglocker.ErrAlreadyLocked) {
			t.Errorf("Acquire of 3 beside 3 of its own: %v, want ErrAlreadyLocked", err)
		}

		leave(t, p)

		return nil
	}, pglocker.WithPermits(3))
	if err != nil {
		t.Error(err)
	}
}

// testSemaphoreWaits: each release reaches the waiters, in this process and in others, for one
// permit or for several. Waiters of one locker are served in order.
func testSemaphoreWaits(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	name := newID()
	here, there := semaphore(t, locker, name, 3), semaphore(t, e.newLocker(t), name, 3)
	ctx := withinContext(t)

	for _, holder := range []*pglocker.Semaphore{here, there} {
		one, two := permit(t, holder, 1), permit(t, holder, 2)

		wide := acquireAsync(ctx, here, 3)
		Receive(t, "a waiter in line", w.InLine())

		narrow := acquireAsync(ctx, here, 1)
		Receive(t, "a waiter in line", w.InLine())

		leave(t, one)

		// It overtakes nobody here.
		noPermit(t, there, 2)
		narrow.waits(t, "behind one that waits for three")
		wide.waits(t, "two of three are held")
		leave(t, two)

		p := wide.get(t)
		narrow.waits(t, "three of three are held")
		leave(t, p)
		leave(t, narrow.get(t))
	}

	short, cancel := context.WithCancel(ctx)
	held := permit(t, there, 3)
	waiter := acquireAsync(short, here, 1)
	Receive(t, "a waiter in line", w.InLine())
	cancel()

	if err := Receive(t, "Acquire returns", waiter.errs); !errors.Is(err, context.Canceled) || !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("Acquire whose context was cancelled: %v, want context.Canceled and ErrAlreadyLocked", err)
	}

	leave(t, held)
	leave(t, acquireAsync(ctx, here, 3).get(t)) // a grant to the waiter that has left is returned
	w.Check(t)
	Must(t, locker.Close(ctx))
}

// testSemaphoreFewer: a waiter that goes by three permits is granted none while three or more are held, whether its
// own Locker releases one of them or another does.
func testSemaphoreFewer(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	ctx := withinContext(t)

	for _, holder := range []*pglocker.Locker{locker, e.newLocker(t)} {
		name := newID()
		five, three := semaphore(t, holder, name, 5), semaphore(t, locker, name, 3)

		var held []*pglocker.Permit
		for range 5 {
			held = append(held, permit(t, five, 1))
		}

		waiter := acquireAsync(ctx, three, 1)
		Receive(t, "a waiter in line", w.InLine())

		for len(held) > 3 {
			leave(t, held[0])
			held = held[1:]
			noPermit(t, three, 1)
			waiter.waits(t, fmt.Sprintf("%d of its 3 are held", len(held)))
		}

		leave(t, held[0])
		leave(t, waiter.get(t))
		leave(t, held[1])
		leave(t, held[2])
	}

	w.Check(t)
	Must(t, locker.Close(ctx))
}

// testSemaphoreAfterCrash: a permit whose holder is gone is granted when its lease ends.
func testSemaphoreAfterCrash(t *testing.T, e *env) {
	name := newID()
	s := semaphore(t, e.locker, name, 2)
	crashed := permit(t, semaphore(t, e.newLocker(t), name, 2), 2)

	// Its holder doesn't renew in that time.
	Exec(t, e.direct, "UPDATE "+e.table()+` SET expires_at = statement_timestamp() + interval '1 s' WHERE lock_id = $1`,
		"pglocker:semaphore:"+name+":1")

	end := e.get(t, "pglocker:semaphore:"+name+":1").ExpiresAt
	p := acquireAsync(withinContext(t), s, 1).get(t)
	granted := e.get(t, "pglocker:semaphore:"+name+":1").ExpiresAt.Add(-minute)

	if late := granted.Sub(end); late < 0 || late > poll {
		t.Errorf("granted %s after the end of the lease, want at least 0 and at most %s", late, poll)
	}

	if p.Slot() != 1 || p.Token() <= crashed.Token() {
		t.Errorf("slot %d by token %d after %d", p.Slot(), p.Token(), crashed.Token())
	}

	noPermit(t, s, 1)
	leave(t, p)

	if err := crashed.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Unlock of a permit of which one slot was granted to another: %v, want ErrLockLost", err)
	}
}
