package pglocker_test

import (
	"context"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// startServer starts a server of the test's own, to be broken.
func startServer(t *testing.T, opts ...pgtesting.ServerOption) *pgtesting.Server {
	t.Helper()

	if testing.Short() {
		t.Skip("needs a server of its own")
	}

	server, err := pgtesting.StartServer(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})

	return server
}

// must fails the test at once if there is an error.
func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// task is a Do that runs until it is told to end, or until it loses its lock.
type task struct {
	locker *pglocker.Locker
	lock   *pglocker.Lock
	// lost is when fn's context ended before fn was told to end, and why.
	lost chan loss
	// returned is what Do returned.
	returned chan error
	end      chan struct{}
}

type loss struct {
	at    time.Time
	cause error
}

// startTask returns when fn runs.
func startTask(t *testing.T, locker *pglocker.Locker, id string, ttl, interval time.Duration) *task {
	t.Helper()

	k := &task{
		locker:   locker,
		lost:     make(chan loss, 1),
		returned: make(chan error, 1),
		end:      make(chan struct{}),
	}
	running := make(chan struct{})

	go func() {
		k.returned <- locker.Do(context.Background(), id, ttl, interval, func(ctx context.Context) error {
			k.lock, _ = pglocker.FromContext(ctx)
			close(running)

			select {
			case <-k.end:
			case <-ctx.Done():
				k.lost <- loss{time.Now(), context.Cause(ctx)}
			}

			return nil
		})
	}()

	select {
	case <-running:
	case err := <-k.returned:
		t.Fatalf("Do: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("in vain for 30s: fn runs")
	}

	return k
}

// awaitRenewal returns when a renewal was acknowledged that was not before.
func (k *task) awaitRenewal(t *testing.T) {
	t.Helper()

	last := k.lock.Status().ExpiresAt

	contract.Await(t, "a renewal", func() bool {
		k.mustHold(t)

		return k.lock.Status().ExpiresAt.After(last)
	})
}

// mustHold fails the test if the lock was lost.
func (k *task) mustHold(t *testing.T) {
	t.Helper()

	select {
	case lost := <-k.lost:
		t.Fatalf("the lock was lost: %v", lost.cause)
	default:
	}
}

// finish ends fn. The lock must have been held to the end, and is free now.
func (k *task) finish(t *testing.T) {
	t.Helper()
	k.mustHold(t)
	close(k.end)

	if err := contract.Receive(t, "Do returns", k.returned); err != nil {
		t.Errorf("Do: %v", err)
	}
}

// closeLocker waits for every goroutine of the locker.
func closeLocker(t *testing.T, locker *pglocker.Locker) {
	t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	if err := locker.Close(ctx); err != nil {
		t.Error(err)
	}
}
