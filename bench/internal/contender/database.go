package contender

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
)

// openPool opens a pool with all its connections, or the first operations would open them. A pool without a size
// is as database/sql makes it: without a limit, and with no connection at first.
func openPool(ctx context.Context, url string, o Options) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}

	if o.Statements != nil {
		cfg.Tracer = tracer(o.Statements)
	}

	if o.Dial != nil {
		cfg.DialFunc = o.Dial
	}

	db := stdlib.OpenDB(*cfg)
	if o.Pool == 0 {
		return db, nil
	}

	db.SetMaxOpenConns(o.Pool)
	db.SetMaxIdleConns(o.Pool)

	type opened struct {
		conn *sql.Conn
		err  error
	}

	all := make(chan opened, o.Pool)

	for range o.Pool {
		go func() {
			conn, err := db.Conn(ctx)
			all <- opened{conn, err}
		}()
	}

	var conns []*sql.Conn

	for range o.Pool {
		one := <-all
		if one.err != nil {
			err = errors.Join(err, one.err)
		} else {
			conns = append(conns, one.conn)
		}
	}

	for _, conn := range conns {
		err = errors.Join(err, conn.Close())
	}

	if err != nil {
		return nil, errors.Join(err, db.Close())
	}

	return db, nil
}

// tracer is told of statements. Of those that are sent together it is told of the last: pglocker sends a
// setting before each.
type tracer func(text string)

func (t tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	if queued := data.Batch.QueuedQueries; len(queued) > 0 {
		t(queued[len(queued)-1].SQL)
	}

	return ctx
}

func (tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func (t tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	t(data.SQL)

	return ctx
}

func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Table is a table in the schema public that MigrateDB made.
type Table string

// NewTable makes a table with that many locks, named by [ID], all free and never held.
// pglocker has one, and the contenders that are written by hand have another.
func NewTable(ctx context.Context, url, name string, locks int) (Table, error) {
	return newTable(ctx, url, name, locks, func(db *sql.DB) error {
		return pglocker.MigrateDB(ctx, db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: name})
	})
}

// NewTableByHand makes one of three columns, with PostgreSQL's defaults.
func NewTableByHand(ctx context.Context, url, name string, locks int) (Table, error) {
	return newTable(ctx, url, name, locks, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(`
			CREATE TABLE public.%s (
			    lock_id    TEXT COLLATE "C" PRIMARY KEY,
			    generation BIGINT NOT NULL,
			    expires_at TIMESTAMPTZ NOT NULL
			)`, name))

		return err
	})
}

func newTable(ctx context.Context, url, name string, locks int, create func(*sql.DB) error) (_ Table, err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return "", err
	}

	defer func() { err = errors.Join(err, db.Close()) }()

	if err := create(db); err != nil {
		return "", err
	}

	if err := fill(ctx, db, name, 0, locks); err != nil {
		return "", err
	}

	// Autovacuum would otherwise do it in the middle of a measurement.
	_, err = db.ExecContext(ctx, "VACUUM (ANALYZE, FREEZE) public."+name)

	return Table(name), err
}

// Fill adds the locks of the numbers from up to, but not including, to.
func Fill(ctx context.Context, url string, table Table, from, to int) (err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, db.Close()) }()

	return fill(ctx, db, string(table), from, to)
}

func fill(ctx context.Context, db *sql.DB, table string, from, to int) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf(`
		INSERT INTO public.%s (lock_id, generation, expires_at)
		SELECT 'lock-' || n, 1, '-infinity' FROM generate_series($1::int, $2::int - 1) n`, table), from, to)
	if err != nil {
		return fmt.Errorf("filling %s with the locks %d to %d: %w", table, from, to, err)
	}

	return nil
}
