package pglocker_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// refusing is a connector that fails the test when anything is to be sent.
type refusing struct{ t *testing.T }

var errRefused = errors.New("something was to be sent")

func (r refusing) Connect(context.Context) (driver.Conn, error) {
	r.t.Error(errRefused)

	return nil, errRefused
}

func (r refusing) Driver() driver.Driver { return nil }

// TestBadInputIsNotSent: mistakes of the caller are found before the database hears
// of them.
func TestBadInputIsNotSent(t *testing.T) {
	t.Parallel()

	db := sql.OpenDB(refusing{t})
	defer func() { contract.Must(t, db.Close()) }()

	locker, err := pglocker.New(db, &pglocker.Config{})
	contract.Must(t, err)
	contract.BadCalls(t.Context(), t, locker)

	for name, bad := range map[string]*pglocker.Config{
		"no config":                 nil,
		"schema with NUL":           {Scheme: "a\x00b"},
		"table with NUL":            {Table: "\x00"},
		"schema of 64 bytes":        {Scheme: strings.Repeat("x", 64)},
		"table of 64 bytes":         {Table: strings.Repeat("é", 32)},
		"table that is not UTF-8":   {Table: "caf\xe9"},
		"owner with NUL":            {Owner: "a\x00b"},
		"owner that is not UTF-8":   {Owner: "caf\xe9"},
		"owner of 256 bytes":        {Owner: strings.Repeat("x", 256)},
		"margin below zero":         {SafetyMargin: -1},
		"margin far below zero":     {SafetyMargin: math.MinInt64},
		"unknown dialect":           {Dialect: "plain "},
		"both names of 1 MiB":       {Scheme: strings.Repeat("x", 1<<20), Table: strings.Repeat("x", 1<<20)},
		"schema that is not UTF-8":  {Scheme: "\xff"},
		"schema with a NUL and 64b": {Scheme: strings.Repeat("\x00", 64)},
	} {
		want := pglocker.ErrInvalidIdentifier

		switch {
		case bad == nil:
			want = pglocker.ErrConfigIsNil
		case bad.Owner != "":
			want = pglocker.ErrInvalidOwner
		case bad.SafetyMargin != 0:
			want = pglocker.ErrInvalidSafetyMargin
		case bad.Dialect != "":
			want = pglocker.ErrInvalidDialect
		}

		if _, err := pglocker.New(db, bad); !errors.Is(err, want) {
			t.Errorf("New, %s: %v, want %v", name, err, want)
		}

		if _, err := pglocker.NewWithMigrateDB(t.Context(), db, bad); !errors.Is(err, want) {
			t.Errorf("NewWithMigrateDB, %s: %v, want %v", name, err, want)
		}

		if err := pglocker.MigrateDB(t.Context(), db, bad); !errors.Is(err, want) {
			t.Errorf("MigrateDB, %s: %v, want %v", name, err, want)
		}
	}
}

// TestNoDB: no handle is an error, and no configuration is the first error.
func TestNoDB(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		cfg  *pglocker.Config
		want error
	}{
		{nil, pglocker.ErrConfigIsNil},
		{&pglocker.Config{}, pglocker.ErrDBIsNil},
	} {
		if _, err := pglocker.New(nil, test.cfg); !errors.Is(err, test.want) {
			t.Errorf("New: %v, want %v", err, test.want)
		}

		if _, err := pglocker.NewWithMigrateDB(t.Context(), nil, test.cfg); !errors.Is(err, test.want) {
			t.Errorf("NewWithMigrateDB: %v, want %v", err, test.want)
		}

		if err := pglocker.MigrateDB(t.Context(), nil, test.cfg); !errors.Is(err, test.want) {
			t.Errorf("MigrateDB: %v, want %v", err, test.want)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()

	if pglocker.PublicScheme != "public" || pglocker.DefaultScheme != "pglocker" || pglocker.DefaultTable != "lock_statuses" {
		t.Error("the names that users have in their migrations have changed")
	}

	var cfg pglocker.Config

	cfg.SetDefault()

	if want := (pglocker.Config{Scheme: pglocker.DefaultScheme, Table: pglocker.DefaultTable}); cfg != want {
		t.Errorf("defaults are %+v, want %+v", cfg, want)
	}

	cfg = pglocker.Config{Scheme: "s", Table: "t", Owner: "o"}
	cfg.SetDefault()

	if cfg.Scheme != "s" || cfg.Table != "t" || cfg.Owner != "o" {
		t.Errorf("what was set has become %+v", cfg)
	}
}

// TestSafetyMargin: a TTL that leaves nothing beside the margins is refused.
func TestSafetyMargin(t *testing.T) {
	t.Parallel()

	db := sql.OpenDB(refusing{t})
	defer func() { contract.Must(t, db.Close()) }()

	locker, err := pglocker.New(db, &pglocker.Config{SafetyMargin: 10 * time.Second})
	contract.Must(t, err)

	for _, ttl := range []time.Duration{time.Second, 10 * time.Second, 20 * time.Second} {
		if _, err := locker.AcquireLock(t.Context(), "a", ttl); !errors.Is(err, pglocker.ErrInvalidTTL) {
			t.Errorf("AcquireLock for %s with a margin of 10 s: %v, want ErrInvalidTTL", ttl, err)
		}
	}
}
