package pglocker_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// notes is a log of what is told.
type notes struct {
	mu   sync.Mutex
	told []slog.Record
}

func (n *notes) Enabled(context.Context, slog.Level) bool { return true }
func (n *notes) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n *notes) WithGroup(string) slog.Handler            { return n }

func (n *notes) Handle(_ context.Context, record slog.Record) error {
	n.mu.Lock()
	defer n.mu.Unlock()

	n.told = append(n.told, record)

	return nil
}

// of returns what was told in these words, as attributes.
func (n *notes) of(message string) (told []map[string]slog.Value) {
	n.mu.Lock()
	defer n.mu.Unlock()

	for _, record := range n.told {
		if record.Message != message {
			continue
		}

		attrs := map[string]slog.Value{"level": slog.AnyValue(record.Level)}
		record.Attrs(func(a slog.Attr) bool {
			attrs[a.Key] = a.Value

			return true
		})

		told = append(told, attrs)
	}

	return told
}

// TestWaitingIsTold: when a waiter has waited for five seconds, the log names the lock, its holder,
// and since when it is held. However many waiters there are, there is one line.
func TestWaitingIsTold(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const waiters = 100

		var (
			ctx, cancel = context.WithCancel(t.Context())
			url         = newDatabase(t)
			log         notes
			waiting     sync.WaitGroup
		)

		defer cancel()

		locker, err := pglocker.NewWithMigrateDB(ctx, contract.Open(t, driver, url), &pglocker.Config{Logger: slog.New(&log)})
		must(t, err)

		lock, err := locker.TryLock(ctx, "a", time.Minute)
		must(t, err)

		free, err := locker.Lock(ctx, "free", time.Minute)
		must(t, err)
		must(t, free.Unlock(ctx))

		for range waiters {
			waiting.Go(func() { _, _ = locker.Lock(ctx, "a", time.Minute) })
		}

		const message = "pglocker: waiting for a lock"

		contract.Await(t, "it is told", func() bool { return len(log.of(message)) > 0 })

		// Each of the others comes to it within a moment.
		others := time.Now()

		contract.Await(t, "the others have come to it", func() bool { return time.Since(others) > time.Second })
		cancel()
		waiting.Wait()
		closeLocker(t, locker)

		told := log.of(message)
		if len(told) != 1 {
			t.Fatalf("told %d times, want once", len(told))
		}

		status := lock.Status()
		for key, want := range map[string]any{
			"level": slog.LevelInfo, "lock": "a", "owner": status.Owner, "token": lock.Token(), "held_since": status.AcquiredAt,
		} {
			if got := told[0][key].Any(); got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}

		for _, key := range []string{"waited", "held_for"} {
			if got := told[0][key].Duration(); got < 5*time.Second || got > time.Minute {
				t.Errorf("%s is %s, want five seconds or a little more", key, got)
			}
		}
	})
}
