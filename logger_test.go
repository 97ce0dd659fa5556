package pglocker_test

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestLogger: the loss of the listener's connection and of a renewal's is told to
// the logger, and to nobody where there is none, the default logger included.
func TestLogger(t *testing.T) {
	var told, byDefault contract.Page

	former, writer, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(&byDefault, nil)))
	t.Cleanup(func() {
		slog.SetDefault(former)
		log.SetOutput(writer) // SetDefault has turned these round, and not back
		log.SetFlags(flags)
	})

	for _, logger := range []*slog.Logger{nil, slog.New(slog.NewTextHandler(&told, nil))} {
		url := contract.NewDatabase(t)
		direct := contract.Open(t, "pgx", url)
		w := contract.NewWatcher()

		locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, "pgx", url),
			&pglocker.Config{Logger: logger, Observer: w})
		if err != nil {
			t.Fatal(err)
		}

		lock, err := locker.TryLock(t.Context(), "a", time.Minute, pglocker.WithRelockInterval(10*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})

		go func() {
			defer close(left)

			_, _ = locker.Lock(ctx, "a", time.Minute)
		}()

		contract.Receive(t, "somebody waits", w.InLine())

		// listener is the process that serves the listener, 0 if there is none that listens on both channels.
		listener := func() int {
			return contract.Query[int](t, direct, `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE 'LISTEN%' AND query NOT LIKE '%probe%' AND state = 'idle'`)
		}

		failed := func() bool {
			for _, end := range w.Ended(pglocker.OperationRenew, "") {
				if end.Err != nil {
					return true
				}
			}

			return false
		}

		contract.Await(t, "the listener listens", func() bool { return listener() != 0 })

		first := listener()

		contract.Exec(t, direct, "SELECT pg_terminate_backend($1::int)", first)
		contract.Await(t, "the listener is back", func() bool { return listener() != 0 && listener() != first })

		// One that is ended while its answer is awaited is no silent reconnect.
		contract.Await(t, "a renewal fails", func() bool {
			contract.Exec(t, direct, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE '%l.*, r.n, r.ttl%' AND pid <> pg_backend_pid()`)

			return failed()
		})

		cancel()
		contract.Receive(t, "the waiter leaves", left)

		if err := lock.Unlock(t.Context()); err != nil {
			t.Error(err)
		}

		if err := locker.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}

	for _, what := range []string{"listener lost its connection", "renewals are in trouble"} {
		if got := told.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, what) {
			t.Errorf("told %q, want a warning of %q", got, what)
		}
	}

	if got := byDefault.String(); strings.Contains(got, "pglocker") {
		t.Errorf("without a logger: %s", got)
	}
}

// TestWaitingIsTold: when a waiter has waited for five seconds, the log names the lock, its holder,
// and since when it is held. However many waiters there are, there is one line.
func TestWaitingIsTold(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const waiters = 100

		var (
			ctx, cancel = context.WithCancel(t.Context())
			url         = contract.NewDatabase(t)
			log         contract.Journal
			waiting     sync.WaitGroup
		)

		defer cancel()

		locker, err := pglocker.NewWithMigrateDB(ctx, contract.Open(t, driver, url), &pglocker.Config{Logger: slog.New(&log)})
		contract.Must(t, err)

		lock, err := locker.TryLock(ctx, "a", time.Minute)
		contract.Must(t, err)

		free, err := locker.Lock(ctx, "free", time.Minute)
		contract.Must(t, err)
		contract.Must(t, free.Unlock(ctx))

		for range waiters {
			waiting.Go(func() { _, _ = locker.Lock(ctx, "a", time.Minute) })
		}

		const message = "pglocker: waiting for a lock"

		contract.Await(t, "it is told", func() bool { return len(log.Of(message)) > 0 })

		// Each of the others comes to it within a moment.
		others := time.Now()

		contract.Await(t, "the others have come to it", func() bool { return time.Since(others) > time.Second })
		cancel()
		waiting.Wait()
		contract.CloseLocker(t, locker)

		told := log.Of(message)
		if len(told) != 1 {
			t.Fatalf("told %d times, want once", len(told))
		}

		status := lock.Status()

		if told[0].Level != slog.LevelInfo {
			t.Errorf("its level is %s, want %s", told[0].Level, slog.LevelInfo)
		}

		for key, want := range map[string]any{
			"lock": "a", "owner": status.Owner, "token": lock.Token(), "held_since": status.AcquiredAt,
		} {
			if got := told[0].Attrs[key].Any(); got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}

		for _, key := range []string{"waited", "held_for"} {
			if got := told[0].Attrs[key].Duration(); got < 5*time.Second || got > time.Minute {
				t.Errorf("%s is %s, want five seconds or a little more", key, got)
			}
		}
	})
}
