package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestNothingObserved: while locks are taken, awaited, renewed, lost and released, nothing is allocated for an observer
// that isn't there.
func TestNothingObserved(t *testing.T) { // not parallel: others observe
	url := contract.NewDatabase(t)
	contract.NewLocker(t, "pgx", url) // makes the table

	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 1

	defer func() { runtime.MemProfileRate = rate }()

	before := toldOf()
	takeAndLose(t, url, nil)
	after := toldOf()

	for site, n := range after {
		if n > before[site] {
			t.Errorf("%d allocations by %s", n-before[site], site)
		}
	}

	// It would be seen.
	takeAndLose(t, url, contract.NewWatcher())

	sites := strings.Join(slices.Collect(maps.Keys(toldOf())), "\n")

	for _, told := range []string{".startHold", ".start", ".request", ".begin", ".onBatch"} {
		if !strings.Contains(sites, told) {
			t.Errorf("with an observer nothing is allocated by %s, only by\n%s", told, sites)
		}
	}
}

// toldOf is how many values the files that tell observers have allocated, by function.
func toldOf() map[string]int64 {
	for range 3 { // the profile is of what the collector has seen
		runtime.GC()
	}

	var (
		records []runtime.MemProfileRecord
		found   = make(map[string]int64)
	)

	for {
		n, ok := runtime.MemProfile(records, true)
		if ok {
			records = records[:n]

			break
		}

		records = make([]runtime.MemProfileRecord, n+100)
	}

	for _, r := range records {
		frames := runtime.CallersFrames(r.Stack())

		for more := true; more; {
			var frame runtime.Frame

			frame, more = frames.Next()
			if !strings.HasPrefix(frame.Function, "github.com/ismurov/pglocker") {
				continue
			}

			file := filepath.Base(frame.File)
			if strings.HasPrefix(frame.Function, "github.com/ismurov/pglocker.") && (file == "watch.go" || strings.HasPrefix(file, "observe")) {
				found[frame.Function] += r.AllocObjects
			}

			break // its callers didn't
		}
	}

	return found
}

// takeAndLose does with a Locker of its own what an observer is told of.
func takeAndLose(t *testing.T, url string, o pglocker.Observer) {
	t.Helper()

	ctx := t.Context()

	locker, err := pglocker.New(contract.Open(t, "pgx", url), &pglocker.Config{Observer: o})
	contract.Must(t, err)

	lock, err := locker.TryLock(ctx, "a", time.Minute, pglocker.WithRelockInterval(20*time.Millisecond))
	contract.Must(t, err)

	granted := lock.Status().ExpiresAt

	contract.Await(t, "it is renewed", func() bool { return lock.Status().ExpiresAt.After(granted) })

	if _, err := locker.TryLock(ctx, "a", time.Minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("a held lock: %v", err)
	}

	next := make(chan error, 1)

	go func() {
		next <- locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error { return nil }, pglocker.WithWait(pglocker.Forever))
	}()

	contract.Await(t, "another waits", func() bool { return locker.InLine("a") })
	contract.Must(t, lock.Unlock(ctx))
	contract.Must(t, contract.Receive(t, "the waiter is granted the lock", next))

	all, err := locker.TryLockAll(ctx, []string{"a", "b"}, time.Minute)
	contract.Must(t, err)
	contract.Must(t, all.Unlock(ctx))

	sem, err := locker.NewSemaphore(fmt.Sprint("of ", o != nil), 2)
	contract.Must(t, err)
	contract.Must(t, sem.Do(ctx, time.Minute, time.Second, func(context.Context) error { return nil }))

	lock, err = locker.TryLock(ctx, "a", time.Minute)
	contract.Must(t, err)
	contract.Must(t, locker.ForceRelease(ctx, "a", lock.Token(), "a test"))
	contract.Receive(t, "it is lost", lock.Context().Done())
	contract.Must(t, locker.Close(ctx))
}
