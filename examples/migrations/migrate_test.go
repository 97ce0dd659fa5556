package migrations_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/pgx/v5" // pgx5
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/ismurov/pglocker"
)

// migrateUp runs the migrations that are missing, in one process at a time. Every process calls it at its
// start. All but the first find nothing to do.
//
// It calls open under the lock, because golang-migrate takes an advisory lock when it is made, and waits for
// that without a context.
func migrateUp(ctx context.Context, locker *pglocker.Locker, open func() (*migrate.Migrate, error)) error {
	return locker.Do(ctx, "migrations", time.Minute, 20*time.Second, func(ctx context.Context) error {
		m, err := open()
		if err != nil {
			return err
		}

		// Up takes no context either. It returns nil after the migration that runs.
		stop := context.AfterFunc(ctx, func() { m.GracefulStop <- true })

		err = m.Up()
		if errors.Is(err, migrate.ErrNoChange) {
			err = nil
		}

		stop()

		source, database := m.Close()

		return errors.Join(err, ctx.Err(), source, database)
	}, pglocker.WithWait(pglocker.Forever))
}

// openMigrate is for migrateUp. The URL begins with pgx5, the name of golang-migrate's driver.
func openMigrate(files fs.FS, url string) (*migrate.Migrate, error) {
	source, err := iofs.New(files, ".")
	if err != nil {
		return nil, err
	}

	return migrate.NewWithSourceInstance("iofs", source, strings.Replace(url, "postgres://", "pgx5://", 1))
}

// The second stops at the gate.
var migrateFiles = fstest.MapFS{
	"1_first.up.sql":  {Data: []byte("CREATE TABLE first ()")},
	"2_second.up.sql": {Data: []byte("CREATE TABLE second AS TABLE gate")},
	"3_third.up.sql":  {Data: []byte("CREATE TABLE third ()")},
}

func TestMigrateUp(t *testing.T) {
	t.Parallel()
	takesTurns(t, func(ctx context.Context, locker *pglocker.Locker, url string) error {
		return migrateUp(ctx, locker, func() (*migrate.Migrate, error) { return openMigrate(migrateFiles, url) })
	})
}

// TestMigrateUpStops: when the lock is lost, the migration that runs ends, and no other begins.
func TestMigrateUpStops(t *testing.T) {
	t.Parallel()

	made := make(chan *migrate.Migrate, 1)

	got := losesTheLock(t, func(ctx context.Context, locker *pglocker.Locker, url string) error {
		return migrateUp(ctx, locker, func() (*migrate.Migrate, error) {
			m, err := openMigrate(migrateFiles, url)
			made <- m

			return m, err
		})
	}, func() {
		m := <-made
		eventually(t, "Up is told to stop", func() bool { return len(m.GracefulStop) > 0 })
	})

	if got != "first second" {
		t.Errorf("tables: %s, want the first and the second", got)
	}
}
