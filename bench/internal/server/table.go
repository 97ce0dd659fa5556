package server

import (
	"context"
	"database/sql"
	"errors"
)

func (p *Postgres) Exec(ctx context.Context, query string) error {
	return p.inside(func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, query)

		return err
	})
}

// TableSize is the size of a table without its index, in bytes.
func (p *Postgres) TableSize(ctx context.Context, table string) (bytes int64, err error) {
	err = p.inside(func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "SELECT pg_relation_size($1::regclass)", table).Scan(&bytes)
	})

	return bytes, err
}

// HotShare is the share of the updates of a table that needed no new index entry.
func (p *Postgres) HotShare(ctx context.Context, table string) (share float64, err error) {
	err = p.inside(func(db *sql.DB) error {
		return db.QueryRowContext(ctx, `
			SELECT n_tup_hot_upd::float8 / greatest(n_tup_upd, 1)
			  FROM pg_stat_user_tables WHERE relid = $1::regclass`, table).Scan(&share)
	})

	return share, err
}

func (p *Postgres) inside(f func(*sql.DB) error) error {
	db, err := sql.Open("pgx", p.URL())
	if err != nil {
		return err
	}

	return errors.Join(f(db), db.Close())
}
