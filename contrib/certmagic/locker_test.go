package pglockercertmagic_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	pglockercertmagic "github.com/ismurov/pglocker/contrib/certmagic"
	"github.com/ismurov/pglocker/lockertest"
)

const minute = time.Minute

// free reports whether another process gets the lock. It releases it.
func free(t *testing.T, other *pglockercertmagic.Locker, name string) bool {
	t.Helper()

	granted, err := other.TryLock(t.Context(), name)
	must(t, err)

	if granted {
		must(t, other.Unlock(t.Context(), name))
	}

	return granted
}

func TestUnlockByName(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	locks, _ := newLocks(t, url)
	other, _ := newLocks(t, url)

	for _, name := range []string{"issue_cert_a", "issue_cert_b"} {
		must(t, locks.Lock(t.Context(), name))
	}

	// As at shutdown.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, locks.Unlock(ended, "issue_cert_a"))

	if !free(t, other, "issue_cert_a") || free(t, other, "issue_cert_b") {
		t.Error("not the lock of that name was released")
	}

	if err := locks.Unlock(t.Context(), "issue_cert_a"); !errors.Is(err, pglockercertmagic.ErrNotHeld) {
		t.Errorf("a second unlock: %v", err)
	}

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	if err := other.Lock(short, "issue_cert_b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another holds it: %v", err)
	}
}

func TestALossSurfaces(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	locks, locker := newLocks(t, url)
	ctx := t.Context()

	must(t, locks.Lock(ctx, "a"))
	must(t, locks.RenewLockLease(ctx, "a", minute))

	lockertest.Lose(t, locker, prefix+"a")

	if err := locks.RenewLockLease(ctx, "a", minute); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("after the loss: %v", err)
	}

	// Another attempt, while another process holds the lock, and once it is free.
	taken := lockertest.Take(t, db, &pglocker.Config{}, prefix+"a")
	if err := locks.RenewLockLease(ctx, "a", minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("while another holds it: %v", err)
	}

	must(t, taken.Unlock(ctx))
	must(t, locks.RenewLockLease(ctx, "a", minute))
	must(t, locks.RenewLockLease(ctx, "a", minute))

	other, _ := newLocks(t, url)
	if free(t, other, "a") {
		t.Error("the lock wasn't taken again")
	}

	// The unlock of a lost lock has nothing to do.
	lockertest.Lose(t, locker, prefix+"a")
	must(t, locks.Unlock(ctx, "a"))

	if err := locks.RenewLockLease(ctx, "a", minute); !errors.Is(err, pglockercertmagic.ErrNotHeld) {
		t.Errorf("after the unlock: %v", err)
	}
}

// TestALossThatIsNotNoticed: after a pause, the database knows of the loss before the holder does.
func TestALossThatIsNotNoticed(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	locks, _ := newLocks(t, url)
	ctx := t.Context()

	must(t, locks.Lock(ctx, "a"))
	taken := lockertest.Take(t, databases.Open(t, url), &pglocker.Config{}, prefix+"a")

	if err := locks.RenewLockLease(ctx, "a", minute); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("once another holds it: %v", err)
	}

	if err := locks.RenewLockLease(ctx, "a", minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("another attempt: %v", err)
	}

	must(t, taken.Unlock(ctx))
	must(t, locks.RenewLockLease(ctx, "a", minute))
	must(t, locks.Unlock(ctx, "a"))
}

// TestALoserReleasesNoOthersLock: two callers of a process, one of which has lost the lock.
func TestALoserReleasesNoOthersLock(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	locks, locker := newLocks(t, url)
	other, _ := newLocks(t, url)
	ctx := t.Context()

	must(t, locks.Lock(ctx, "a"))
	lockertest.Lose(t, locker, prefix+"a")
	must(t, locks.Lock(ctx, "a"))

	must(t, locks.Unlock(ctx, "a"))

	if free(t, other, "a") {
		t.Error("the loser has released the lock of the other caller")
	}

	must(t, locks.Unlock(ctx, "a"))

	if !free(t, other, "a") {
		t.Error("the lock isn't released")
	}
}

func TestNewLocker(t *testing.T) {
	t.Parallel()

	for prefix, want := range map[string]error{
		"":          pglockercertmagic.ErrNoPrefix,
		"pglocker:": pglocker.ErrReservedLockID,
	} {
		if _, err := pglockercertmagic.NewLocker(nil, prefix, minute); !errors.Is(err, want) {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
