package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	// All contenders on PostgreSQL use this driver.
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/pgtesting"
)

// Database is the contenders' database. Questions about it go to another, so its statistics
// count the contenders alone.
const Database = "bench"

// maxConnections is enough for the processes of W12, each with a few connections.
const maxConnections = "1000"

// Postgres is a server that flushes to disk, as PostgreSQL does by default.
type Postgres struct {
	server *pgtesting.Server
	admin  *sql.DB // one connection to the database "postgres"
	pid    int
}

// StartPostgres starts a server with the database [Database]. Its durability is
// PostgreSQL's default, which pgtesting's servers don't have.
func StartPostgres(ctx context.Context) (_ *Postgres, err error) {
	s, err := pgtesting.StartServer(ctx,
		pgtesting.WithSetting("fsync", "on"),
		pgtesting.WithSetting("synchronous_commit", "on"),
		pgtesting.WithSetting("full_page_writes", "on"),
		pgtesting.WithSetting("max_connections", maxConnections),
		pgtesting.WithProgress(os.Stderr))
	if err != nil {
		return nil, err
	}

	p := &Postgres{server: s}

	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()

	if p.admin, err = sql.Open("pgx", s.URL()); err != nil {
		return nil, err
	}

	p.admin.SetMaxOpenConns(1)

	if _, err := p.admin.ExecContext(ctx, "CREATE DATABASE "+Database); err != nil {
		return nil, err
	}

	text, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return nil, err
	}

	line, _, _ := strings.Cut(string(text), "\n")
	p.pid, err = strconv.Atoi(line)

	return p, err
}

func (p *Postgres) URL() string {
	u, err := url.Parse(p.server.URL())
	if err != nil {
		panic("bench: pgtesting's URL is none: " + err.Error())
	}

	u.Path = "/" + Database

	return u.String()
}

func (p *Postgres) Version() string { return p.server.Version() }

// Program finds one of the programs that come with the server.
func (p *Postgres) Program(name string) (string, error) {
	return exec.LookPath(filepath.Join(p.server.BinDir(), name))
}

// CPU is what all processes of the server have used so far. It returns false if the system
// doesn't tell.
func (p *Postgres) CPU() (time.Duration, bool) { return processCPU(p.pid) }

func (p *Postgres) Stop() error {
	var err error
	if p.admin != nil {
		err = p.admin.Close()
	}

	return errors.Join(err, p.server.Stop())
}

func (p *Postgres) Setting(ctx context.Context, name string) (string, error) {
	var value string
	err := p.admin.QueryRowContext(ctx, "SELECT current_setting($1)", name).Scan(&value)

	return value, err
}

func (p *Postgres) Checkpoint(ctx context.Context) error {
	_, err := p.admin.ExecContext(ctx, "CHECKPOINT")

	return err
}

// WAL is the position of the next record, in bytes.
func (p *Postgres) WAL(ctx context.Context) (int64, error) {
	var position int64
	err := p.admin.QueryRowContext(ctx, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&position)

	return position, err
}

// Connections counts the connections to [Database].
func (p *Postgres) Connections(ctx context.Context) (int, error) {
	var n int
	err := p.admin.QueryRowContext(ctx,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = $1", Database).Scan(&n)

	return n, err
}

// Counters are the server's own, since its start.
type Counters struct {
	Transactions int64
	WAL          int64 // bytes
	// Syncs counts flushes of the WAL, and is -1 before PostgreSQL 14.
	Syncs int64
}

// Counters reads the counters when no client is connected to [Database]: a backend reports
// the last of its counts when it ends.
func (p *Postgres) Counters(ctx context.Context) (c Counters, err error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := p.Connections(ctx)
		if err != nil {
			return c, err
		}

		if n == 0 {
			break
		}

		if time.Now().After(deadline) {
			return c, fmt.Errorf("%d connections to the database %s are still open", n, Database)
		}

		time.Sleep(2 * time.Millisecond)
	}

	syncs := "-1::bigint"

	switch v := p.server.VersionNum(); {
	case v >= 180000:
		syncs = "(SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal')"
	case v >= 140000:
		syncs = "(SELECT wal_sync FROM pg_stat_wal)"
	}

	err = p.admin.QueryRowContext(ctx, `
		SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = $1),
		       (pg_current_wal_insert_lsn() - '0/0')::bigint, `+syncs, Database).
		Scan(&c.Transactions, &c.WAL, &c.Syncs)

	return c, err
}
