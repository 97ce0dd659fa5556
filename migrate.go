package pglocker

import (
	"context"
	"database/sql"

	"github.com/ismurov/pglocker/internal/store"
)

// MigrateDB makes the schema and the table that cfg names. To an older table it adds the columns owner,
// acquired_at and contended_until, and those storage parameters that were not set by hand. Rows stay as they
// are. Where everything is in place MigrateDB only reads the catalogs, and needs no right to create anything.
// Any number of processes may call it at once.
//
// It also installs functions by which programs in other languages share the locks (docs/sql.md), and replaces
// older ones. Go programs need none of them. Where this role can't make them, MigrateDB tells [Config.Logger] why,
// at level INFO, and goes on without.
//
// While another transaction keeps the table locked, a dump for example, MigrateDB tries again until ctx ends.
// After half a second, and then every minute, it tells [Config.Logger] which transaction that is. Its error
// names the transaction too.
//
// With [Config.Distributed] it distributes the table by lock_id, after it has made it. The rows that are there keep
// their tokens. The number of shards is that of the setting citus.shard_count. Such a table has none of the functions:
// MigrateDB drops its own. It must be called on the coordinator.
//
// Errors: [ErrDBIsNil]; [ErrConfigIsNil]; [ErrInvalidIdentifier]; [ErrPermissionDenied]; [ErrReadOnly];
// [ErrInvalidTable], if what has that name is not a table, or can't hold locks, or is distributed otherwise;
// [ErrUnsupportedServer], if the table is to be distributed, and the database lacks the extension citus, or Citus
// refuses it, because the table has a history, for example; and what the driver reports. If ctx ends, either
// everything was done or nothing, or the table was made and isn't distributed.
func MigrateDB(ctx context.Context, db *sql.DB, cfg *Config) error {
	completed, err := cfg.complete(db != nil)
	if err != nil {
		return err
	}

	return tidy(store.Migrate(ctx, db, completed.table(), completed.Logger))
}

// PendingMigrations returns the statements that [MigrateDB] would run now, in order, as a role that may do
// everything. Where the table has a history, those of [MigrateHistory] follow. It returns none if nothing is
// missing or older. Of functions of the same names that aren't pglocker's it says nothing, as MigrateDB leaves
// them alone.
//
// PendingMigrations only reads the catalogs. It changes nothing, waits for no lock, and needs no privilege.
//
// Errors: [ErrDBIsNil]; [ErrConfigIsNil]; [ErrInvalidIdentifier]; [ErrInvalidTable], if what has that name is not
// a table, or can't hold locks; ctx's error, when it ends; and what the driver reports.
func PendingMigrations(ctx context.Context, db *sql.DB, cfg *Config) ([]string, error) {
	completed, err := cfg.complete(db != nil)
	if err != nil {
		return nil, err
	}

	pending, err := store.Pending(ctx, db, completed.table())

	return pending, tidy(err)
}
