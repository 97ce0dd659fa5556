package pglocker

import (
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ismurov/pglocker/internal/store"
)

const (
	// PublicScheme is the schema that every PostgreSQL database has.
	PublicScheme = "public"
	// DefaultScheme is the schema that is used where [Config] names none.
	DefaultScheme = "pglocker"
	// DefaultTable is the table that is used where [Config] names none.
	DefaultTable = "lock_statuses"
)

const maxOwnerBytes = 255

// Config says where the locks are, and how a [Locker] treats them. The zero value means the defaults.
type Config struct {
	// Scheme is the database schema of the table: 1 to 63 bytes. It is quoted in SQL, so any characters may be
	// in it. Default: [DefaultScheme].
	Scheme string

	// Table is the table that holds the locks. The rules are those for Scheme. Default: [DefaultTable].
	Table string

	// Owner is how others see who holds a lock ([HeldError], [LockStatus]). The Locker adds a random id of
	// its own, and a number for each grant. Default: host name and process id.
	Owner string

	// SafetyMargin is how long before the end of its lease a holder stops trusting it. It must exceed any step
	// of the database's clock, and how far that clock and the holder's drift apart within one TTL, the length
	// of a lease. Default: a tenth of the TTL, at most a second.
	SafetyMargin time.Duration

	// Dialect is which SQL the Locker speaks. All programs that share a table should speak the same. Default:
	// PostgreSQL's, until the server refuses a statement of that. The Locker then tries the plain dialect.
	Dialect Dialect

	// Distributed: the table is distributed by lock id over the servers of a Citus cluster. [MigrateDB] does that. The
	// Locker speaks the plain dialect from its first statement on. docs/distributed.md says what is promised there.
	Distributed bool

	// RenewDB is a handle for what must get through while the application has its whole pool in use:
	// renewals, releases that get no connection from the pool, and, with pgx, listening for released locks.
	// It must lead to the same database, with the same rights. The caller closes it after the Locker, and
	// uses it for nothing else.
	//
	// A Locker uses at most eight of its connections, mostly one while it holds locks and one while it
	// listens. A limit of two is enough (SetMaxOpenConns). With a limit of one the Locker doesn't listen.
	//
	// Default: the Locker opens connections of its own, as the pool that [NewPool] is given does, or by the
	// connector of the handle that [New] is given. It reads that connector by reflection. Behind some wrappers
	// it can't be found. Renewals then share the pool, and Logger is told so: if the application uses up its
	// pool for longer than a lease, the lock is lost. To share the pool without that warning, set RenewDB to the
	// handle that New is given.
	RenewDB *sql.DB

	// Observer is told of operations and of losses. Default: none.
	Observer Observer

	// Logger is told of lost locks, renewals and releases that failed and are repeated, what [MigrateDB]
	// waits for, and trouble with notifications. After five seconds of waiting for a lock, and then once a
	// minute, it is told who holds the lock. Default: silence.
	Logger *slog.Logger
}

// SetDefault fills Scheme and Table where they are empty. [New] fills in the other defaults.
func (c *Config) SetDefault() {
	if c.Scheme == "" {
		c.Scheme = DefaultScheme
	}

	if c.Table == "" {
		c.Table = DefaultTable
	}
}

// complete returns a checked copy with the defaults filled in. given: there is a handle to use it with.
func (c *Config) complete(given bool) (Config, error) {
	if c == nil {
		return Config{}, ErrConfigIsNil
	}

	completed := *c
	completed.SetDefault()

	if completed.Owner == "" {
		host, err := os.Hostname()
		if err != nil || !utf8.ValidString(host) {
			host = "unknown-host"
		}

		completed.Owner = fmt.Sprintf("%s:%d", host, os.Getpid())
	}

	if completed.Logger == nil {
		completed.Logger = slog.New(slog.DiscardHandler)
	}

	if err := completed.table().Validate(); err != nil {
		return Config{}, err
	}

	if o := completed.Owner; len(o) > maxOwnerBytes || !utf8.ValidString(o) || strings.ContainsRune(o, 0) {
		return Config{}, fmt.Errorf("%w: %q", ErrInvalidOwner, o)
	}

	if completed.SafetyMargin < 0 {
		return Config{}, fmt.Errorf("%w: %s is negative", ErrInvalidSafetyMargin, completed.SafetyMargin)
	}

	if _, known := dialects[completed.Dialect]; !known {
		return Config{}, fmt.Errorf("%w: %q", ErrInvalidDialect, completed.Dialect)
	}

	if completed.Distributed {
		if completed.Dialect == DialectPostgreSQL {
			return Config{}, fmt.Errorf("%w: a distributed table takes the plain one alone", ErrInvalidDialect)
		}

		completed.Dialect = DialectPlain
	}

	if !given {
		return Config{}, ErrDBIsNil
	}

	return completed, nil
}

func (c *Config) table() store.Table {
	return store.Table{Schema: c.Scheme, Name: c.Table, Distributed: c.Distributed}
}

// margin is the safety margin for a lease of the given TTL.
func (c *Config) margin(ttl time.Duration) time.Duration {
	if c.SafetyMargin > 0 {
		return c.SafetyMargin
	}

	return min(ttl/10, time.Second)
}
