package pglocker

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/listen"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

const (
	// MaxLockIDBytes is the longest a lock id may be.
	MaxLockIDBytes = 1024
	// MinTTL is the shortest TTL of a lease.
	MinTTL = time.Millisecond
	// MaxTTL is the longest TTL of a lease.
	MaxTTL = 100 * 365 * 24 * time.Hour
)

// Locker takes, keeps and releases the locks of one table. It is safe for concurrent use. While it holds no
// lock and no call is under way, it owns no goroutine and no connection, so it need not be closed.
type Locker struct {
	cfg Config

	store    *store.Store
	renewer  *keepalive.Renewer
	listener *listen.Listener
	line     *line.Line
	desk     *handover.Desk

	watch  watch
	report report
	held   heldLocks

	// gatherAfter is [gatherAfter], but for tests.
	gatherAfter time.Duration
	news        news
}

// New returns a Locker for a table that exists, such as one that [MigrateDB] made. A table of the user's own
// needs at least the columns lock_id, generation and expires_at. New sends nothing to the database: the first
// call of a method finds out if the table is missing. The caller closes db. cfg is not changed, and not used
// after New has returned.
//
// Errors: [ErrConfigIsNil], [ErrDBIsNil], [ErrInvalidIdentifier], [ErrInvalidOwner],
// [ErrInvalidSafetyMargin], [ErrInvalidDialect].
func New(db *sql.DB, cfg *Config) (*Locker, error) {
	completed, err := cfg.complete(db != nil)
	if err != nil {
		return nil, err
	}

	return newLocker(completed, func(late store.LateFunc) *store.Store {
		return store.New(db, completed.table(), late)
	}), nil
}

// NewPool is [New] for programs that use pgx without database/sql. The caller closes pool after the Locker.
//
// The Locker's statements use the pool's connections, within its limit. Its own connections, for renewals,
// listening, and releases that the pool gives no connection ([Config.RenewDB]), are beside the pool, since the
// application may use up that. They are made as the pool makes its own: from its configuration, with all its
// hooks, and for MaxConnLifetime at most, but for one that listens. The pool doesn't count them.
//
// [MigrateDB] takes a database handle: stdlib.OpenDBFromPool(pool), of pgx.
//
// Errors are those of New: [ErrDBIsNil] if pool is nil.
func NewPool(pool *pgxpool.Pool, cfg *Config) (*Locker, error) {
	completed, err := cfg.complete(pool != nil)
	if err != nil {
		return nil, err
	}

	return newLocker(completed, func(late store.LateFunc) *store.Store {
		return store.NewPool(pool, completed.table(), late)
	}), nil
}

func newLocker(completed Config, newStore func(store.LateFunc) *store.Store) *Locker {
	random := strings.ToLower(rand.Text()[:8])
	queue := waitqueue.New()
	l := &Locker{
		cfg:   completed,
		watch: newWatch(completed.Observer),
		held:  heldLocks{groups: make(map[*group]bool)},

		gatherAfter: gatherAfter,
	}

	l.store = newStore(func(lockID string, granted store.Result, ttl time.Duration) {
		l.desk.ReturnAside(lockID, granted, ttl)
	})
	l.store.Speak(completed.Dialect.store())
	l.store.Log(l.cfg.Logger)
	l.store.OnBatch(l.watch.onBatch())

	pool := beside.New(completed.RenewDB, l.store, func() {
		l.cfg.Logger.Warn("pglocker: renewals share the pool", "cause", "the driver can't be asked for a connection beside it",
			"remedy", "set Config.RenewDB")
	})
	l.listener = listen.New(listen.Config{
		Open:    pool.Listening().OpenListening,
		Notify:  pool.Listening().Notify,
		Channel: completed.table().Channel(),
		Probe:   "pglocker_probe_" + random,
		Wake: func(payload string) {
			queue.Released(payload)
			l.news.tell(payload)
		},
		WakeAll: func() {
			queue.WakeAll()
			l.news.tellAll()
		},
		Logger:  l.cfg.Logger,
		OnState: l.watch.listener,
	})
	l.desk = handover.New(handover.Config{
		Queue:     queue,
		Store:     l.store,
		Beside:    pool,
		Names:     &handover.Names{Locker: l.cfg.Owner + "#" + random},
		Margin:    l.cfg.margin,
		Heard:     l.listener.Proven,
		OnTrouble: l.report.release,
		Log:       l.cfg.Logger,
	})
	l.line = &line.Line{
		Desk:     l.desk,
		Listener: l.listener,
		Observe:  l.watch.request,
		Held:     l.heldError,
	}
	l.report.desk = l.desk
	l.renewer = keepalive.New(func() keepalive.Session {
		return renewals{pool.ForRenewals(), l.watch}
	}, l.report.renewal)

	return l
}

// NewWithMigrateDB is [MigrateDB] followed by [New], with the errors of both.
func NewWithMigrateDB(ctx context.Context, db *sql.DB, cfg *Config) (*Locker, error) {
	if err := MigrateDB(ctx, db, cfg); err != nil {
		return nil, err
	}

	return New(db, cfg)
}

// begin checks what every method on one lock checks. Close waits until the caller calls end.
func (l *Locker) begin(lockID string) (end func(), err error) {
	if err := validatePlainID(lockID); err != nil {
		return nil, err
	}

	return l.desk.Begin()
}

func validateLockID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: empty", ErrInvalidLockID)
	case len(id) > MaxLockIDBytes:
		return fmt.Errorf("%w: %d bytes, more than %d", ErrInvalidLockID, len(id), MaxLockIDBytes)
	case !utf8.ValidString(id):
		return fmt.Errorf("%w: not valid UTF-8: %q", ErrInvalidLockID, id)
	case strings.ContainsRune(id, 0):
		return fmt.Errorf("%w: contains NUL: %q", ErrInvalidLockID, id)
	}

	return nil
}

func (l *Locker) validateTTL(ttl time.Duration) error {
	switch {
	case ttl < MinTTL:
		return fmt.Errorf("%w: %s is below %s", ErrInvalidTTL, ttl, MinTTL)
	case ttl > MaxTTL:
		return fmt.Errorf("%w: %s is above %s", ErrInvalidTTL, ttl, MaxTTL)
	case ttl <= 2*l.cfg.SafetyMargin:
		return fmt.Errorf("%w: %s is not above twice the safety margin of %s", ErrInvalidTTL, ttl, l.cfg.SafetyMargin)
	}

	return nil
}
