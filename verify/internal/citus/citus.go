// Package citus is a coordinator and its workers: servers of a PostgreSQL that has the extension Citus.
package citus

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/replica"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// ErrMissing: the installed PostgreSQL lacks the extension.
var ErrMissing = errors.New("the extension citus is not installed")

// workers is how many there are.
const workers = 2

// Cluster is the servers.
type Cluster struct {
	Coordinator *pgtesting.Server
	// Alone are the workers without a standby. Pair is the one that has one, or nil.
	Alone []*pgtesting.Server
	Pair  *replica.Pair

	database string
}

// settings of each server. Servers connect to each other with one password, which all roles have. Transactions that
// Citus would leave open for a minute after a crash are recovered within a second, so that a run needn't last for minutes.
func settings() []pgtesting.ServerOption {
	options := []pgtesting.ServerOption{pgtesting.WithEnv("PGPASSWORD=postgres")}

	for name, value := range map[string]string{
		"shared_preload_libraries":              "citus",
		"wal_level":                             "logical",
		"max_prepared_transactions":             "200",
		"max_worker_processes":                  "32",
		"citus.node_conninfo":                   "sslmode=disable",
		"citus.enable_unsafe_triggers":          "on", // the audit's
		"citus.enable_statistics_collection":    "off",
		"citus.recover_2pc_interval":            "1s",
		"citus.shard_count":                     "8",
		"citus.defer_shard_delete_interval":     "1s",
		"citus.max_cached_conns_per_worker":     "1",
		"citus.max_adaptive_executor_pool_size": "4",
	} {
		options = append(options, pgtesting.WithSetting(name, value))
	}

	return options
}

// Standby is what one of the workers has.
type Standby string

// The kinds of it.
const (
	NoStandby    Standby = "none"
	Synchronous  Standby = "synchronous"
	Asynchronous Standby = "asynchronous"
)

// Start starts the servers. Stop ends them.
func Start(ctx context.Context, standby Standby, options ...pgtesting.ServerOption) (started *Cluster, err error) {
	if err := look(ctx, options); err != nil {
		return nil, err
	}

	c := &Cluster{}

	defer func() {
		if err != nil {
			started, err = nil, errors.Join(err, c.Stop())
		}
	}()

	options = append(slices.Clone(options), settings()...)

	if c.Coordinator, err = pgtesting.StartServer(ctx, options...); err != nil {
		return nil, fmt.Errorf("citus: %w", err)
	}

	if standby != NoStandby {
		if c.Pair, err = replica.Start(ctx, standby == Synchronous, options...); err != nil {
			return nil, fmt.Errorf("citus: %w", err)
		}
	}

	for len(c.workers()) < workers {
		server, err := pgtesting.StartServer(ctx, options...)
		if err != nil {
			return nil, fmt.Errorf("citus: %w", err)
		}

		c.Alone = append(c.Alone, server)
	}

	return c, nil
}

// look starts a server without the extension, and asks it for that.
func look(ctx context.Context, options []pgtesting.ServerOption) (err error) {
	server, err := pgtesting.StartServer(ctx, options...)
	if err != nil {
		return fmt.Errorf("citus: %w", err)
	}

	defer func() { err = errors.Join(err, server.Stop()) }()

	there := false

	err = on(ctx, server.URL(), func(db *sql.DB) error {
		return db.QueryRowContext(ctx, `SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'citus'`).Scan(&there)
	})
	if err == nil && !there {
		return fmt.Errorf("citus: %w", ErrMissing)
	}

	return err
}

// Stop ends all servers.
func (c *Cluster) Stop() error {
	var errs []error

	for _, server := range append(slices.Clone(c.Alone), c.Coordinator) {
		if server != nil {
			errs = append(errs, server.Stop())
		}
	}

	if c.Pair != nil {
		errs = append(errs, c.Pair.Stop())
	}

	return errors.Join(errs...)
}

// workers are the servers that have the rows.
func (c *Cluster) workers() []*pgtesting.Server {
	all := slices.Clone(c.Alone)
	if c.Pair != nil {
		all = append(all, c.Pair.Primary)
	}

	return all
}

// Create makes a database on each server, and the cluster of it.
func (c *Cluster) Create(ctx context.Context, database string) error {
	c.database = database

	for _, server := range c.servers() {
		err := on(ctx, server.URL(), func(db *sql.DB) error { return execute(ctx, db, `CREATE DATABASE `+database) })
		if err != nil {
			return err
		}

		err = on(ctx, c.url(server), func(db *sql.DB) error {
			return execute(ctx, db, `CREATE EXTENSION citus`, `SET citus.enable_ddl_propagation = off;`+audit.ServerSQL(`session_user`))
		})
		if err != nil {
			return err
		}
	}

	return c.Command(ctx, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `SELECT citus_set_coordinator_host('127.0.0.1', $1)`, c.Coordinator.Port())

		for _, worker := range c.workers() {
			if err == nil {
				_, err = db.ExecContext(ctx, `SELECT citus_add_node('127.0.0.1', $1)`, worker.Port())
			}
		}

		return err
	})
}

// Spread makes the audit's triggers, and spreads the counters: they are on the servers of their locks, and what
// is written of each write on those of the clients. So a write is committed by one server, or by two. No client awaits
// the standby when it commits, and a promotion might lose a part of a write. So where there is one, it is all on one
// server.
func (c *Cluster) Spread(ctx context.Context, db *sql.DB) error {
	writes := `SELECT create_distributed_table('writes', 'client', colocate_with := 'none')`
	if c.Pair != nil {
		writes = `SELECT create_distributed_table('writes', 'lock_id', colocate_with := 'counters')`
	}

	// Citus passes the text of such a statement on, with all that was sent with it.
	if err := execute(ctx, db, strings.Split(strings.TrimRight(audit.TriggersSQL, ";\n"), ";")...); err != nil {
		return err
	}

	return execute(ctx, db, traffic.CountersSQL,
		`SELECT create_distributed_table('counters', 'lock_id', colocate_with := 'pglocker.lock_statuses')`,
		writes)
}

// Audit reads the transitions from all servers, and puts them in the order of their times. Those of one lock are
// in the order in which they took effect: each server has the clock of this machine.
func (c *Cluster) Audit(ctx context.Context) ([]*audit.Transition, error) {
	var parts [][]*audit.Transition

	for _, server := range c.servers() {
		err := on(ctx, c.url(server), func(db *sql.DB) error {
			part, err := audit.Load(ctx, db)
			parts = append(parts, part)

			return err
		})
		if err != nil {
			return nil, err
		}
	}

	return join(parts), nil
}

// join puts the transitions of several servers in order, and numbers them. Each server has numbers of its own for
// its transactions, too.
func join(parts [][]*audit.Transition) []*audit.Transition {
	for n, part := range parts {
		for _, t := range part {
			t.XID = t.XID*int64(len(parts)) + int64(n)
		}
	}

	all := slices.Concat(parts...)
	slices.SortStableFunc(all, func(a, b *audit.Transition) int { return cmp.Compare(a.At, b.At) })

	for n, t := range all {
		t.Seq = int64(n + 1)
	}

	return all
}

// MoveWorker tells the cluster that another server has a worker's place.
func (c *Cluster) MoveWorker(ctx context.Context, from, to *pgtesting.Server) error {
	return c.Command(ctx, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `
			SELECT citus_update_node(nodeid, '127.0.0.1', $2) FROM pg_dist_node WHERE nodeport = $1`, from.Port(), to.Port())

		return err
	})
}

// MoveShard moves the shard of a lock, and what is spread with it, to the other worker.
func (c *Cluster) MoveShard(ctx context.Context, lock string) error {
	return c.Command(ctx, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, `
			SELECT citus_move_shard_placement(s.shardid, s.nodename, s.nodeport, n.nodename, n.nodeport, 'force_logical')
			  FROM citus_shards AS s JOIN pg_dist_node AS n ON n.shouldhaveshards AND n.nodeport <> s.nodeport
			 WHERE s.shardid = get_shard_id_for_distribution_column('pglocker.lock_statuses', $1::text)`, lock)

		return err
	})
}

// Command gives a database of the coordinator to ask, as the superuser.
func (c *Cluster) Command(ctx context.Context, do func(db *sql.DB) error) error {
	return on(ctx, c.url(c.Coordinator), do)
}

func (c *Cluster) servers() []*pgtesting.Server {
	return append(c.workers(), c.Coordinator)
}

func (c *Cluster) url(server *pgtesting.Server) string {
	return fmt.Sprintf("postgres://postgres:postgres@%s/%s?sslmode=disable&application_name=coordinator", replica.Address(server), c.database)
}

func on(ctx context.Context, url string, do func(db *sql.DB) error) error {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return fmt.Errorf("citus: %w", err)
	}

	db.SetMaxOpenConns(1) // what one statement sets, counts for the next

	if err := do(db); err != nil {
		err = fmt.Errorf("citus: %w", err)

		return errors.Join(err, db.Close())
	}

	return db.Close()
}

func execute(ctx context.Context, db *sql.DB, statements ...string) error {
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}

	return nil
}
