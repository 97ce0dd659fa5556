package contract

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker"
)

// notPlain are the tests of what the plain dialect lacks, and notDistributed of what a cluster lacks.
var (
	notPlain = map[string]bool{
		"Semaphore": true, "SemaphoreWaits": true, "SemaphoreFewer": true, "SemaphoreAfterCrash": true,
		"RWLock": true, "RWLockWaits": true, "DowngradeRace": true,
		"Prune": true,
	}
	// notSeen are the tests that look who waits for a row.
	notSeen        = map[string]bool{"CloseWaits": true, "GuardHolds": true}
	notDistributed = map[string]bool{
		"GuardSerialization": true, // each server has a snapshot of its own
	}
)

// isPlain reports whether the Locker speaks the plain dialect, as Config or the server has it.
func (s Setup) isPlain() bool {
	return s.Dialect == pglocker.DialectPlain || s.Distributed || s.Engine != "" || slices.Contains([]string{LikeCitus, LikeLimitless, LikeYugabyte, LikeCockroach, Poorest}, s.Driver)
}

// lacks says why a test can't be run, or "".
func (s Setup) lacks(test string) string {
	switch {
	case s.isPlain() && notPlain[test]:
		return "not in the plain dialect"
	case s.Engine != "" && notSeen[test]:
		return s.Engine + " doesn't show who waits for a row"
	case s.isPlain() && s.Dialect == "" && strings.HasPrefix(test, "SQL"):
		return "without functions in SQL"
	case s.Driver == LikeCockroach && test == "MissingTable":
		return "a release that is refused as a feature finds no table to look at, and says what was refused"
	case s.Driver == Poorest && test == "GuardHolds":
		return "a renewal that can't pass over a row waits for the guard, and goes on after it"
	case s.Distributed && notDistributed[test]:
		return "not on several servers"
	}

	return ""
}

// rowWaits is how many statements wait for a lock, on any server.
func (e *env) rowWaits(t *testing.T) int {
	t.Helper()

	if e.Distributed {
		return Query[int](t, e.direct, "SELECT count(*) FROM citus_lock_waits")
	}

	return RowWaits(t, e.direct)
}

// testDialect: the Locker tells which dialect it speaks.
func testDialect(t *testing.T, e *env) {
	want := pglocker.DialectPostgreSQL
	if e.isPlain() {
		want = pglocker.DialectPlain
	}

	for _, locker := range []*pglocker.Locker{e.locker, e.newLocker(t)} { // one that is in use, and one that isn't
		if got, err := locker.Dialect(withinContext(t)); got != want || err != nil {
			t.Errorf("dialect %q, %v, want %q", got, err, want)
		}
	}
}

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
