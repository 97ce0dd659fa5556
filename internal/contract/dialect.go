package contract

import (
	"errors"
	"testing"

	"github.com/ismurov/pglocker"
)

// notPlain are the tests of what the plain dialect lacks.
var notPlain = map[string]bool{
	"Semaphore": true, "SemaphoreWaits": true, "SemaphoreAfterCrash": true,
	"RWLock": true, "RWLockWaits": true, "DowngradeRace": true,
	"Prune": true,
}

func (s Setup) isPlain() bool { return s.Dialect == pglocker.DialectPlain }

// testPlainRefuses: what the dialect lacks is refused at once, under one name, also by a call that would wait.
func testPlainRefuses(t *testing.T, e *env) {
	ctx := withinContext(t)
	permits := semaphore(t, e.locker, newID(), 3)

	access, err := e.locker.NewRWLock(newID())
	Must(t, err)

	for call, err := range map[string]error{
		"TryAcquire": Second(permits.TryAcquire(ctx, minute)),
		"Acquire":    Second(permits.Acquire(ctx, minute)),
		"TryLock":    Second(access.TryLock(ctx, minute)),
		"RLock":      Second(access.RLock(ctx, minute)),
		"Prune":      Second(e.locker.Prune(ctx, minute)),
	} {
		if !errors.Is(err, pglocker.ErrUnsupportedServer) {
			t.Errorf("%s: %v, want ErrUnsupportedServer", call, err)
		}
	}
}
