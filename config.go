package pglocker

import (
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

// Config says where the locks are. The zero value means the defaults.
type Config struct {
	// Scheme is the database schema of the table. Default: [DefaultScheme].
	// Any name of 1 to 63 bytes will do; it is quoted.
	Scheme string

	// Table is the table that holds the locks. Default: [DefaultTable].
	Table string

	// Owner is how others see who holds a lock ([HeldError], [LockStatus]). To it
	// the Locker adds a random id of its own and a number for each grant.
	// Default: host name and process id.
	Owner string

	// SafetyMargin is how long before the end of its lease a holder stops
	// trusting it. Steps of the database's clock, and the drift of its rate against
	// the holder's within one TTL, must stay below it for a lock to be exclusive.
	// Default: a tenth of the TTL, at most a second.
	SafetyMargin time.Duration

	// Observer is told of operations and of losses. Default: nobody is.
	Observer Observer

	// Logger is told of each lock that is lost, and what nobody else reports:
	// renewals and releases that failed and are repeated, and what becomes of the
	// connection that listens for released locks. Default: silence.
	Logger *slog.Logger
}

// SetDefault fills Scheme, Table, Owner and Logger where they are empty.
func (c *Config) SetDefault() {
	if c.Scheme == "" {
		c.Scheme = DefaultScheme
	}

	if c.Table == "" {
		c.Table = DefaultTable
	}

	if c.Owner == "" {
		c.Owner = defaultOwner()
	}

	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// complete returns a checked copy with the defaults filled in.
func (c *Config) complete() (Config, error) {
	if c == nil {
		return Config{}, ErrConfigIsNil
	}

	completed := *c
	completed.SetDefault()

	if err := completed.table().Validate(); err != nil {
		return Config{}, err
	}

	if o := completed.Owner; len(o) > maxOwnerBytes || !utf8.ValidString(o) || strings.ContainsRune(o, 0) {
		return Config{}, fmt.Errorf("%w: %q", ErrInvalidOwner, o)
	}

	if completed.SafetyMargin < 0 {
		return Config{}, fmt.Errorf("%w: %s is negative", ErrInvalidSafetyMargin, completed.SafetyMargin)
	}

	return completed, nil
}

func (c *Config) table() store.Table {
	return store.Table{Schema: c.Scheme, Name: c.Table}
}

// margin is the safety margin for a lease of the given TTL.
func (c *Config) margin(ttl time.Duration) time.Duration {
	if c.SafetyMargin > 0 {
		return c.SafetyMargin
	}

	return min(ttl/10, time.Second)
}

func defaultOwner() string {
	host, err := os.Hostname()
	if err != nil || !utf8.ValidString(host) {
		host = "unknown-host"
	}

	return fmt.Sprintf("%s:%d", host, os.Getpid())
}
