package migrations_test

import (
	"context"
	"database/sql"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/ismurov/pglocker"
)

// gooseUp runs the migrations that are missing, in one process at a time. Every process calls it at its
// start. All but the first find nothing to do.
func gooseUp(ctx context.Context, locker *pglocker.Locker, db *sql.DB, files fs.FS) error {
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		return err
	}

	return locker.Do(ctx, "migrations", time.Minute, 20*time.Second, func(ctx context.Context) error {
		_, err := provider.Up(ctx) // it rolls back when ctx ends

		return err
	}, pglocker.WithWait(pglocker.Forever))
}

// The second stops at the gate.
var gooseFiles = fstest.MapFS{
	"1_first.sql":  {Data: []byte("-- +goose Up\nCREATE TABLE first ();")},
	"2_second.sql": {Data: []byte("-- +goose Up\nCREATE TABLE second AS TABLE gate;")},
	"3_third.sql":  {Data: []byte("-- +goose Up\nCREATE TABLE third ();")},
}

func TestGooseUp(t *testing.T) {
	t.Parallel()
	takesTurns(t, func(ctx context.Context, locker *pglocker.Locker, url string) error {
		return gooseUp(ctx, locker, databases.Open(t, url), gooseFiles)
	})
}

// TestGooseUpStops: when the lock is lost, the migration that runs is rolled back.
func TestGooseUpStops(t *testing.T) {
	t.Parallel()

	got := losesTheLock(t, func(ctx context.Context, locker *pglocker.Locker, url string) error {
		return gooseUp(ctx, locker, databases.Open(t, url), gooseFiles)
	}, nil)

	if got != "first" {
		t.Errorf("tables: %s, want the first alone", got)
	}
}
