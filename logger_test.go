package pglocker_test

import (
	"bytes"
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

// page is what a logger writes on.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.text.String()
}

// TestLogger: the loss of the listener's connection and of a renewal's is told to
// the logger, and to nobody where there is none, the default logger included.
func TestLogger(t *testing.T) {
	var told, byDefault page

	former, writer, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(&byDefault, nil)))
	t.Cleanup(func() {
		slog.SetDefault(former)
		log.SetOutput(writer) // SetDefault has turned these round, and not back
		log.SetFlags(flags)
	})

	for _, logger := range []*slog.Logger{nil, slog.New(slog.NewTextHandler(&told, nil))} {
		url := newDatabase(t)
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

		// listener is the process that serves the listener, 0 if there is none.
		listener := func() int {
			return contract.Query[int](t, direct, `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
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
				WHERE datname = current_database() AND query LIKE '%greatest(l.expires_at,%' AND pid <> pg_backend_pid()`)

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
