package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// lossy is a locker behind a proxy, with a created lock "a".
type lossy struct {
	proxy  *proxy
	locker *pglocker.Locker
	// watcher is that of cfg: it tells who waits.
	watcher *contract.Watcher
	db      *sql.DB // the locker's
	direct  *sql.DB
	cfg     *pglocker.Config
	owners  bool
}

func eachLossy(t *testing.T, test func(t *testing.T, l *lossy)) {
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				w := contract.NewWatcher()
				l := &lossy{direct: contract.Open(t, "pgx", databaseURL), watcher: w, cfg: &pglocker.Config{Observer: w}, owners: columns == ""}
				l.cfg.SetDefault()

				contract.MakeTable(t, l.direct, columns)

				var (
					through string
					err     error
				)

				l.proxy, through = newProxy(t, databaseURL)
				l.db = contract.Open(t, driver, through)
				l.locker, err = pglocker.New(l.db, l.cfg)
				contract.Must(t, err)
				t.Cleanup(func() {
					l.proxy.cutAll() // lib/pq waits for an answer as long as there is a connection
					contract.CloseLocker(t, l.locker)
				})

				if _, err := l.locker.CreateLock(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}

				test(t, l)
			})
		}
	})
}

// row is the lock as the server shows it.
func (l *lossy) row(t *testing.T) (generation int64, held bool) {
	t.Helper()

	// Not with t's context: the proxy asks while a test ends, too.
	err := l.direct.QueryRow("SELECT generation, expires_at > clock_timestamp() FROM pglocker.lock_statuses WHERE lock_id = 'a'").
		Scan(&generation, &held)
	if err != nil {
		t.Error(err)
	}

	return generation, held
}

// loseWhen loses the answers that come once the server shows another generation
// than it does now: the first of them is that to the statement that moved it.
func (l *lossy) loseWhen(t *testing.T, how fate, times int64) {
	t.Helper()

	before, _ := l.row(t)

	var lost atomic.Int64

	l.proxy.onAnswer(func() fate {
		if generation, _ := l.row(t); generation == before || lost.Add(1) > times {
			return pass
		}

		return how
	})
}

// giveUpInSilence asks for the lock, and leaves when the reply to the grant was
// lost. lose says what becomes of that reply, the first, and of all after it.
func (l *lossy) giveUpInSilence(t *testing.T, ttl time.Duration, lose func(first bool) fate) {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var lost atomic.Bool

	before, _ := l.row(t)

	l.proxy.onAnswer(func() fate {
		if generation, _ := l.row(t); generation == before {
			return pass
		}

		first := lost.CompareAndSwap(false, true)
		if first {
			defer cancel()
		}

		return lose(first)
	})

	status, err := l.locker.AcquireLock(ctx, "a", ttl)
	if !errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v, want ErrUnknownOutcome and context.Canceled", status, err)
	}
}

// wantSettled fails unless a grant of an unknown outcome is given back where that
// can be done, and left alone where it can't.
func (l *lossy) wantSettled(t *testing.T) {
	t.Helper()

	if l.owners {
		contract.Await(t, "the grant is given back", func() bool {
			_, held := l.row(t)

			return !held
		})

		return
	}

	if _, held := l.row(t); !held {
		t.Error("a grant that may be somebody else's was taken back")
	}
}
