package pglocker

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/listen"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

const (
	// MaxLockIDBytes is the longest a lock id may be.
	MaxLockIDBytes = 1024

	// MinTTL is the shortest TTL of a lease.
	MinTTL = time.Millisecond

	// MaxTTL is the longest TTL of a lease. It keeps the ends of leases within the range
	// of a timestamp in nanoseconds.
	MaxTTL = 100 * 365 * 24 * time.Hour
)

// Locker takes, keeps and releases the locks of one table. It is safe for
// concurrent use. While nothing is held and nothing under way it owns no
// goroutine and no connection, so it need not be closed.
type Locker struct {
	cfg     Config
	db      *sql.DB
	store   *store.Store
	renewer *keepalive.Renewer

	// renewStore and releaseStore are over Config.RenewDB, nil where that isn't set.
	renewStore, releaseStore *store.Store
	// renewing and releasing have a token for each session with a connection beside the
	// pool.
	renewing, releasing chan struct{}
	// openOwn is store.OpenOwn, but for tests of drivers that can't be asked.
	openOwn    func(db *sql.DB, name string) (*sql.DB, bool)
	sharedOnce sync.Once

	queue    *waitqueue.Queue
	listener *listen.Listener
	held     heldLocks
	spare    spare

	givenBack givenBack
	notices   notices
	// localRun is maxLocalRun, but for benchmarks of what goes between processes.
	localRun int

	watch watch
	log   *slog.Logger

	// renewals and releases are the troubles that are logged; failing counts the releases
	// that have failed and are repeated.
	renewals, releases trouble
	failing            atomic.Int64
	// looking is held while a goroutine looks up which transactions have a row locked.
	looking sync.Mutex

	// name is Config.Owner and the Locker's random id; grants counts the names
	// made from it.
	name   string
	grants atomic.Uint64

	// ctx ends when Close is called; every held lock and every clean-up hangs
	// on it.
	ctx   context.Context
	close context.CancelCauseFunc

	// closing is held for reading while a job begins, and for writing by Close,
	// so that no job begins after Close has started to wait for jobs.
	closing sync.RWMutex
	jobs    sync.WaitGroup
	// jobDone is jobs.Done, made once.
	jobDone func()
}

// New returns a Locker for a table that exists, made by [MigrateDB] or by
// migrations of the user's own; at least the columns lock_id, generation and
// expires_at must be there. It sends nothing: a missing table is found by the
// first use. db stays the caller's; cfg is not changed, and not used afterwards.
//
// Errors: [ErrConfigIsNil], [ErrDBIsNil], [ErrInvalidIdentifier],
// [ErrInvalidOwner], [ErrInvalidSafetyMargin].
func New(db *sql.DB, cfg *Config) (*Locker, error) {
	completed, err := complete(db, cfg)
	if err != nil {
		return nil, err
	}

	random := strings.ToLower(rand.Text()[:8])

	l := &Locker{
		cfg:   completed,
		db:    db,
		queue: waitqueue.New(),

		localRun: maxLocalRun,

		renewing:  make(chan struct{}, maxRenewing),
		releasing: make(chan struct{}, maxReleasing),
		openOwn:   store.OpenOwn,

		watch: watch{completed.Observer},
		log:   completed.Logger,
		name:  completed.Owner + "#" + random,
	}
	l.jobDone = l.jobs.Done
	l.store = store.New(db, completed.table(), l.late)
	l.store.Log(l.log)

	listening := l.store

	if beside := completed.RenewDB; beside != nil {
		l.renewStore, l.releaseStore = l.store.Beside(beside, 0), l.store.Beside(beside, 1)
		listening = l.renewStore
	}

	l.ctx, l.close = context.WithCancelCause(context.Background())
	l.renewer = keepalive.New(func() keepalive.Session { return l.newSession() }, l.renewalTrouble)
	l.listener = listen.New(listen.Config{
		Open:    listening.OpenListening,
		Notify:  listening.Notify,
		Channel: completed.table().Channel(),
		Probe:   "pglocker_probe_" + random,
		Wake:    l.queue.Released,
		WakeAll: l.queue.WakeAll,
		Logger:  l.log,
	})

	return l, nil
}

// NewWithMigrateDB is [MigrateDB] followed by [New], with the errors of both.
func NewWithMigrateDB(ctx context.Context, db *sql.DB, cfg *Config) (*Locker, error) {
	if err := MigrateDB(ctx, db, cfg); err != nil {
		return nil, err
	}

	return New(db, cfg)
}

// complete checks what every constructor is given, and returns the configuration
// with its defaults.
func complete(db *sql.DB, cfg *Config) (Config, error) {
	completed, err := cfg.complete()
	if err == nil && db == nil {
		err = ErrDBIsNil
	}

	return completed, err
}

// Close ends the Locker. Contexts of functions that [Locker.Do] runs are
// cancelled with cause [ErrClosed]; so are those of locks taken by [Locker.Lock]
// and [Locker.TryLock], which are then unlocked, whatever their holders do; waiters get
// ErrClosed. Close waits until Do's functions have returned, their locks are released,
// and every goroutine of the Locker has ended. If a driver doesn't return from a
// statement, since the server doesn't answer, Close leaves it behind five seconds after
// that, and tells [Config.Logger]. From its start on, every other method returns
// ErrClosed. Locks taken by [Locker.AcquireLock] are their callers'; they are left as
// they are.
//
// If ctx ends first, Close returns its error, and the rest goes on by itself.
// Closing again waits again. Do's function must not call it.
func (l *Locker) Close(ctx context.Context) error {
	l.closing.Lock()
	l.close(ErrClosed)
	l.closing.Unlock()

	done := make(chan struct{})

	// Owned by this call as long as it waits, and by nobody if ctx ends first: it
	// ends with the last of what it waits for.
	go func() {
		defer close(done)

		l.held.close(context.WithoutCancel(ctx))
		l.jobs.Wait()
		l.listener.Wait()
		l.renewer.Wait()

		for _, beside := range []*store.Store{l.renewStore, l.releaseStore} {
			if beside != nil {
				beside.GiveUpOpening()
			}
		}

		if left := l.store.Wait(); left > 0 {
			l.log.Warn("pglocker: closed, but the driver has not returned from what it was asked", "statements", left)
		}
	}()

	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pglocker: closing: %w", ctx.Err())
	}
}

// begin registers work that Close waits for; end is called when it is done. It
// fails once the Locker is closed.
func (l *Locker) begin() (end func(), err error) {
	l.closing.RLock()
	defer l.closing.RUnlock()

	if l.ctx.Err() != nil {
		return nil, ErrClosed
	}

	l.jobs.Add(1)

	return l.jobDone, nil
}

// grantName is the owner of one request for a lock. No other request has the
// same, in this or any other Locker, so that a grant can be told from all others
// even where its reply was lost.
func (l *Locker) grantName() string {
	name := make([]byte, 0, len(l.name)+14)
	name = append(append(name, l.name...), '.')

	return string(strconv.AppendUint(name, l.grants.Add(1), 36))
}

// nameOf is the name of the Locker that made a request of this name.
func nameOf(grant string) string {
	return grant[:max(strings.LastIndexByte(grant, '.'), 0)]
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
