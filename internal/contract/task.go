package contract

import (
	"context"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// Task is a Do that runs until it is told to end, or until it loses its lock.
type Task struct {
	Locker *pglocker.Locker
	Lock   *pglocker.Lock
	// Lost is when fn's context ended before fn was told to end, and why.
	Lost chan Loss
	// Returned is what Do returned.
	Returned chan error
	End      chan struct{}
}

// Loss is the end of a task's lock.
type Loss struct {
	At    time.Time
	Cause error
}

// StartTask returns when fn runs.
func StartTask(t *testing.T, locker *pglocker.Locker, id string, ttl, interval time.Duration) *Task {
	t.Helper()

	k := &Task{
		Locker:   locker,
		Lost:     make(chan Loss, 1),
		Returned: make(chan error, 1),
		End:      make(chan struct{}),
	}
	running := make(chan struct{})

	go func() {
		k.Returned <- locker.Do(context.Background(), id, ttl, interval, func(ctx context.Context) error {
			k.Lock, _ = pglocker.FromContext(ctx)
			close(running)

			select {
			case <-k.End:
			case <-ctx.Done():
				k.Lost <- Loss{time.Now(), context.Cause(ctx)}
			}

			return nil
		})
	}()

	select {
	case <-running:
	case err := <-k.Returned:
		t.Fatalf("Do: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("in vain for 30s: fn runs")
	}

	return k
}

// AwaitRenewal returns when a renewal was acknowledged that was not before.
func (k *Task) AwaitRenewal(t *testing.T) {
	t.Helper()

	last := k.Lock.Status().ExpiresAt

	Await(t, "a renewal", func() bool {
		k.MustHold(t)

		return k.Lock.Status().ExpiresAt.After(last)
	})
}

// MustHold fails the test if the lock was lost.
func (k *Task) MustHold(t *testing.T) {
	t.Helper()

	select {
	case lost := <-k.Lost:
		t.Fatalf("the lock was lost: %v", lost.Cause)
	default:
	}
}

// Finish ends fn. The lock must have been held to the end, and is free now.
func (k *Task) Finish(t *testing.T) {
	t.Helper()
	k.MustHold(t)
	close(k.End)

	if err := Receive(t, "Do returns", k.Returned); err != nil {
		t.Errorf("Do: %v", err)
	}
}
