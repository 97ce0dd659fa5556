// Package contract is what users of pglocker rely on, as one test suite. Every driver,
// every shape of table and every way to reach the server runs it.
package contract

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ismurov/pglocker"
)

// Setup is one combination to run the suite on.
type Setup struct {
	Name string
	// Driver is the driver's name in database/sql: "pgx", or "postgres" for lib/pq.
	Driver string
	// Scheme and Table are those of the Config; "" is the default.
	Scheme, Table string
	// Columns are the column definitions of a table of the user's own. If "", MigrateDB
	// creates the table.
	Columns string
	// Distributed: Citus spreads the table over several servers.
	Distributed bool
	// Engine names a relative of PostgreSQL that lacks what the tests look with. "" is PostgreSQL, or Citus.
	Engine string
	// Requires is a query that says whether the server can run the setup. If "", every
	// server can.
	Requires string
	// History: the table has a history.
	History bool
	// Pool: the lockers are on a pgxpool.Pool.
	Pool bool
	// Dialect is that of the Config.
	Dialect pglocker.Dialect
	// MaxOpenConns bounds the locker's pool; 0 is no bound.
	MaxOpenConns int
	// Via returns the URL by which the locker reaches the database of a URL, through a
	// pooler for example. nil: the same URL.
	Via func(tb testing.TB, databaseURL string) string
}

// ThreeColumns are the columns of a user's own table, as the README shows them.
const ThreeColumns = `lock_id TEXT COLLATE "C" PRIMARY KEY, generation BIGINT NOT NULL, expires_at TIMESTAMPTZ NOT NULL`

// hasOwners reports whether the table shows who holds a lock.
func (s Setup) hasOwners() bool { return s.Columns == "" }

func (s Setup) config() *pglocker.Config {
	cfg := &pglocker.Config{Scheme: s.Scheme, Table: s.Table, Owner: "contract", Dialect: s.Dialect}
	cfg.SetDefault()

	return cfg
}

func (s Setup) table() string {
	cfg := s.config()

	return quote(cfg.Scheme) + "." + quote(cfg.Table)
}

// Run runs the suite. newDatabase creates an empty database and returns its URL.
func Run(t *testing.T, setup Setup, newDatabase func(testing.TB) string) {
	t.Run(setup.Name, func(t *testing.T) {
		t.Parallel()

		e := newEnv(t, setup, newDatabase(t))

		for _, test := range []struct {
			name string
			run  func(*testing.T, *env)
		}{
			{"Generations", testGenerations},
			{"CreateAndGet", testCreateAndGet},
			{"AcquireHeld", testAcquireHeld},
			{"AcquireExpired", testAcquireExpired},
			{"AcquireContended", testAcquireContended},
			{"Lease", testLease},
			{"Refresh", testRefresh},
			{"Release", testRelease},
			{"LockIDs", testLockIDs},
			{"BadInput", testBadInput},
			{"MissingTable", testMissingTable},
			{"Closed", testClosed},
			{"DoHolds", testDoHolds},
			{"DoRenews", testDoRenews},
			{"DoHeld", testDoHeld},
			{"DoErrors", testDoErrors},
			{"DoLeavesByPanic", testDoLeavesByPanic},
			{"DoCancelled", testDoCancelled},
			{"DoLost", testDoLost},
			{"DoClosed", testDoClosed},
			{"CloseWaits", testCloseWaits},
			{"Relocker", testRelocker},
			{"RelockerLost", testRelockerLost},
			{"RelockerClosed", testRelockerClosed},
			{"TryLock", testTryLock},
			{"LockRenewed", testLockRenewed},
			{"LockOptions", testLockOptions},
			{"Unlock", testUnlock},
			{"UnlockLost", testUnlockLost},
			{"UnlockUnconfirmed", testUnlockUnconfirmed},
			{"UnlockRace", testUnlockRace},
			{"LockWaits", testLockWaits},
			{"LockAfterCrash", testLockAfterCrash},
			{"LockGivesUp", testLockGivesUp},
			{"LockInOrder", testLockInOrder},
			{"WithWait", testWithWait},
			{"MinHold", testMinHold},
			{"CloseWaitersAndHolders", testCloseWaitersAndHolders},
			{"Guard", testGuard},
			{"GuardHolds", testGuardHolds},
			{"GuardSerialization", testGuardSerialization},
			{"Observer", testObserver},
			{"Semaphore", testSemaphore},
			{"SemaphoreWaits", testSemaphoreWaits},
			{"SemaphoreFewer", testSemaphoreFewer},
			{"SemaphoreAfterCrash", testSemaphoreAfterCrash},
			{"RWLock", testRWLock},
			{"RWLockWaits", testRWLockWaits},
			{"DowngradeRace", testDowngradeRace},
			{"LockAll", testLockAll},
			{"LockAllWaits", testLockAllWaits},
			{"LockAllLost", testLockAllLost},
			{"DoAll", testDoAll},
			{"LockAllInput", testLockAllInput},
			{"Election", testElection},
			{"ElectionGoesOn", testElectionGoesOn},
			{"ElectionObserved", testElectionObserved},
			{"ElectionResign", testElectionResign},
			{"Locks", testLocks},
			{"ForceRelease", testForceRelease},
			{"PreviousHolderCrashed", testPreviousHolderCrashed},
			{"Prune", testPrune},
			{"SQLFunctions", testSQLFunctions},
			{"SQLExpired", testSQLExpired},
			{"SQLContended", testSQLContended},
			{"SQLReleaseWakes", testSQLReleaseWakes},
			{"SQLAssertHeld", testSQLAssertHeld},
			{"Dialect", testDialect},
			{"SQLBadInput", testSQLBadInput},
		} {
			t.Run(test.name, func(t *testing.T) {
				if lacks := e.lacks(test.name); lacks != "" {
					t.Skip(lacks)
				}

				test.run(t, e)
			})
		}

		if e.isPlain() {
			t.Run("PlainRefuses", func(t *testing.T) { testPlainRefuses(t, e) })
		}

		if e.Engine == "" {
			t.Run("NothingIsLeft", func(t *testing.T) { testNothingIsLeft(t, e) })
		}
	})
}

// env is a prepared database with a locker on it.
type env struct {
	Setup

	// url is the URL by which the locker reaches the database.
	url string
	db  *sql.DB
	// pool is nil unless the setup has one.
	pool *pgxpool.Pool
	// direct reaches the server without Via. Tests prepare and look with it.
	direct *sql.DB
	locker *pglocker.Locker
	// floor is the least generation of a grant on the server's timeline.
	floor int64
}

func newEnv(t *testing.T, setup Setup, databaseURL string) *env {
	t.Helper()

	e := &env{Setup: setup, url: withApplicationName(t, databaseURL)}
	e.direct = Open(t, setup.Driver, databaseURL)

	if setup.Requires != "" && !Query[bool](t, e.direct, setup.Requires) {
		t.Skip("not on this server: " + setup.Requires)
	}

	if setup.Via != nil {
		e.url = setup.Via(t, e.url)
	}

	e.db = Open(t, setup.Driver, e.url)
	e.db.SetMaxOpenConns(setup.MaxOpenConns)

	if setup.Pool {
		cfg, err := pgxpool.ParseConfig(e.url)
		Must(t, err)

		cfg.MaxConns = int32(cmp.Or(setup.MaxOpenConns, 20))
		e.pool, err = pgxpool.NewWithConfig(t.Context(), cfg)
		Must(t, err)
		t.Cleanup(e.pool.Close)
	}

	e.makeTable(t, setup.config())

	if setup.History {
		Must(t, pglocker.MigrateHistory(t.Context(), e.direct, setup.config()))
	}

	e.locker = e.newLocker(t)
	if e.Engine == "" {
		e.floor = Floor(t, e.direct)
	}

	return e
}

// makeTable creates the table of cfg as the setup wants it.
func (e *env) makeTable(t *testing.T, cfg *pglocker.Config) {
	t.Helper()

	if e.Columns == "" {
		making := *cfg // which those who use the table need not know
		making.Distributed = e.Distributed

		if err := pglocker.MigrateDB(t.Context(), e.direct, &making); err != nil {
			t.Fatal(err)
		}
	} else {
		Exec(t, e.direct, fmt.Sprintf("CREATE SCHEMA IF NOT EXISTS %s", quote(cfg.Scheme)))
		Exec(t, e.direct, fmt.Sprintf("CREATE TABLE %s.%s (%s)", quote(cfg.Scheme), quote(cfg.Table), e.Columns))
	}

	if e.Distributed && e.Columns != "" {
		Exec(t, e.direct, "SELECT create_distributed_table($1, 'lock_id')", quote(cfg.Scheme)+"."+quote(cfg.Table))
	}
}

// newLocker returns another locker of the setup.
func (e *env) newLocker(t *testing.T) *pglocker.Locker {
	t.Helper()

	locker := e.open(t, e.config())
	t.Cleanup(func() { CloseLocker(t, locker) })

	return locker
}

// open returns a locker of the setup, with a config of the test's.
func (e *env) open(t *testing.T, cfg *pglocker.Config) (locker *pglocker.Locker) {
	t.Helper()

	var err error
	if e.pool != nil {
		locker, err = pglocker.NewPool(e.pool, cfg)
	} else {
		locker, err = pglocker.New(e.db, cfg)
	}

	Must(t, err)

	return locker
}

// next is the generation of the grant after the given one.
func (e *env) next(generation int64) int64 { return max(generation+1, e.floor) }

// take takes the lock by SQL, as another client that was granted it.
func (e *env) take(t *testing.T, id string) {
	t.Helper()
	Exec(t, e.direct, "UPDATE "+e.table()+` SET generation = generation + 1,
		expires_at = statement_timestamp() + interval '1 hour' WHERE lock_id = $1`, id)
}

func (e *env) acquire(t *testing.T, id string, ttl time.Duration) *pglocker.LockStatus {
	t.Helper()

	status, err := e.locker.AcquireLock(t.Context(), id, ttl)
	if err != nil {
		t.Fatalf("AcquireLock: %v", err)
	}

	return status
}

func (e *env) get(t *testing.T, id string) *pglocker.LockStatus {
	t.Helper()

	status, err := e.locker.GetLockStatus(t.Context(), id)
	if err != nil {
		t.Fatalf("GetLockStatus: %v", err)
	}

	return status
}

// isFree fails unless the lock's lease is over.
func (e *env) isFree(t *testing.T, id string) {
	t.Helper()

	if status, now := e.get(t, id), Now(t, e.direct); status.ExpiresAt.After(now) {
		t.Errorf("lock %q is held until %s, %s from now", id, status.ExpiresAt, status.ExpiresAt.Sub(now))
	}
}

var lastID atomic.Int64

// newID returns a lock id that was not used before.
func newID() string { return fmt.Sprintf("lock-%d", lastID.Add(1)) }

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// withApplicationName names the connections of a test, for the test to count them.
func withApplicationName(t *testing.T, databaseURL string) string {
	t.Helper()

	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}

	q := u.Query()
	q.Set("application_name", fmt.Sprintf("contract-%d", lastID.Add(1)))
	u.RawQuery = q.Encode()

	return u.String()
}

const minute = time.Minute

// within bounds the wait for what must happen, on a slow machine too.
const within = 30 * time.Second

func withinContext(t *testing.T) context.Context {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)

	return ctx
}
