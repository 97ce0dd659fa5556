package pglocker_test

import (
	"testing"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/race"
)

// oddName is a name that is right only when it is quoted as PostgreSQL does.
const oddName = "we\"ird.sch\\ema 🔒'%s\n\"\""

// TestContract runs what users rely on with each driver, on each shape of table.
func TestContract(t *testing.T) {
	t.Parallel()

	for _, driver := range contract.Drivers {
		for _, setup := range []contract.Setup{
			{Name: "migrated"},
			{Name: "migrated, odd names", Scheme: oddName, Table: oddName},
			{Name: "migrated, pool of one", MaxOpenConns: 1},
			{Name: "own table in public", Scheme: pglocker.PublicScheme, Columns: contract.ThreeColumns},
			{
				Name: "own table elsewhere, pool of one", Scheme: "Own Schema", Table: "Own.Table",
				Columns: contract.ThreeColumns, MaxOpenConns: 1,
			},
			{
				Name: "own table, the database's collation", Scheme: pglocker.PublicScheme,
				Columns: `expires_at TIMESTAMPTZ NOT NULL DEFAULT now(), note TEXT, generation BIGINT NOT NULL,
					lock_id VARCHAR(1024) PRIMARY KEY`,
			},
			{
				Name: "own table, a collation of ICU", Scheme: pglocker.PublicScheme,
				Requires: `SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'tr-x-icu')`,
				Columns: `lock_id TEXT COLLATE "tr-x-icu" PRIMARY KEY, generation BIGINT NOT NULL,
					expires_at TIMESTAMPTZ NOT NULL`,
			},
			{Name: "migrated, through pgbouncer", Via: contract.ThroughPgBouncer},
			{
				Name: "own table, through pgbouncer", Scheme: pglocker.PublicScheme,
				Columns: contract.ThreeColumns, Via: contract.ThroughPgBouncer,
			},
		} {
			setup.Name = driver + ", " + setup.Name
			setup.Driver = driver

			contract.Run(t, setup, contract.NewDatabase)
		}
	}

	for _, setup := range []contract.Setup{
		{Name: "pgxpool"},
		{Name: "pgxpool, pool of one", MaxOpenConns: 1},
		{Name: "pgxpool, plain", Dialect: pglocker.DialectPlain},
		{Name: "pgxpool, own table, through pgbouncer", Columns: contract.ThreeColumns, Via: contract.ThroughPgBouncer, Scheme: pglocker.PublicScheme},
	} {
		setup.Driver, setup.Pool = "pgx", true

		contract.Run(t, setup, contract.NewDatabase)
	}

	for _, driver := range contract.Drivers {
		contract.Run(t, contract.Setup{Name: driver + ", plain", Driver: driver, Dialect: pglocker.DialectPlain}, contract.NewDatabase)
		contract.Run(t, contract.Setup{
			Name: driver + ", plain, own table", Driver: driver, Dialect: pglocker.DialectPlain,
			Scheme: pglocker.PublicScheme, Columns: contract.ThreeColumns,
		}, contract.NewDatabase)
	}

	contract.Run(t, contract.Setup{
		Name: "pgx, plain, through pgbouncer", Driver: "pgx", Dialect: pglocker.DialectPlain, Via: contract.ThroughPgBouncer,
	}, contract.NewDatabase)

	for _, engine := range []string{
		contract.LikeAurora, contract.LikeLimitless, contract.LikeCitus, contract.LikeYugabyte, contract.LikeCockroach, contract.Poorest,
	} {
		if race.Enabled && engine != contract.Poorest {
			continue // it keeps the processor busy with the same code
		}

		contract.Run(t, contract.Setup{Name: engine, Driver: engine}, contract.NewDatabase)
	}

	for _, driver := range []string{contract.Traced, contract.Opaque, contract.TracedPq, contract.OpaquePq} {
		contract.Run(t, contract.Setup{Name: driver, Driver: driver}, contract.NewDatabase)
	}
}

// TestContractWithHistory: the same holds on tables with a history.
func TestContractWithHistory(t *testing.T) {
	t.Parallel()

	contract.Run(t, contract.Setup{Name: "pgx", Driver: "pgx", History: true}, contract.NewDatabase)
	contract.Run(t, contract.Setup{
		Name: "own table", Driver: "postgres", Scheme: pglocker.PublicScheme,
		Columns: contract.ThreeColumns, History: true,
	}, contract.NewDatabase)
}
