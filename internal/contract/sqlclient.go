package contract

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker"
)

// SQLClient takes locks with nothing but the functions that MigrateDB makes, as a program in another
// language does. It renews nothing by itself and trusts no lease: that is its user's.
type SQLClient struct {
	db *sql.DB
	// schema has the functions. prefix stands before their names: the table's, for another than the default.
	schema, prefix string
}

// SQLGrant is an answer of acquire_lock.
type SQLGrant struct {
	Acquired bool
	// Token is 0 unless the lock was acquired.
	Token     int64
	ExpiresAt time.Time
	// Holder is the owner as the row has it: this client's, or the other's that has the lock.
	Holder string
	// Remaining is how long the lease runs, by the database's clock.
	Remaining time.Duration
}

// NewSQLClient returns a client of the table that cfg names. It sends nothing.
func NewSQLClient(db *sql.DB, cfg *pglocker.Config) *SQLClient {
	named := *cfg
	named.SetDefault()

	c := &SQLClient{db: db, schema: named.Scheme}
	if named.Table != pglocker.DefaultTable {
		c.prefix = named.Table + "_"
	}

	return c
}

// Function is the quoted name of one of the functions.
func (c *SQLClient) Function(name string) string {
	return quote(c.schema) + "." + quote(c.prefix+name)
}

// interval is a duration as PostgreSQL reads it. Before version 15 it reads no number of microseconds above
// 2^31.
func interval(d time.Duration) string { return fmt.Sprintf("%.6f seconds", d.Seconds()) }

// Acquire calls acquire_lock. An error says nothing about the lock unless it has an SQLSTATE.
func (c *SQLClient) Acquire(ctx context.Context, id string, ttl time.Duration, owner string) (g SQLGrant, err error) {
	var (
		token  sql.NullInt64
		holder sql.NullString
		us     int64
	)

	err = c.db.QueryRowContext(ctx, `SELECT acquired, token, expires_at, holder, (extract(epoch FROM remaining) OPERATOR(pg_catalog.*) 1000000)::bigint
		FROM `+c.Function("acquire_lock")+`($1, $2::interval, $3)`, id, interval(ttl), owner).
		Scan(&g.Acquired, &token, &g.ExpiresAt, &holder, &us)
	g.Token, g.Holder, g.Remaining = token.Int64, holder.String, time.Duration(us)*time.Microsecond

	return g, err
}

// Renew calls renew_lock. held is false if the lock is lost, which is final.
func (c *SQLClient) Renew(ctx context.Context, id string, token int64, ttl time.Duration) (expiresAt time.Time, held bool, err error) {
	var until sql.NullTime

	err = c.db.QueryRowContext(ctx, `SELECT `+c.Function("renew_lock")+`($1, $2, $3::interval)`, id, token, interval(ttl)).Scan(&until)

	return until.Time, until.Valid, err
}

// Release calls release_lock. held is false if the token was not the lock's any more.
func (c *SQLClient) Release(ctx context.Context, id string, token int64) (held bool, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT `+c.Function("release_lock")+`($1, $2)`, id, token).Scan(&held)

	return held, err
}

// AssertHeld calls assert_held in a transaction.
func (c *SQLClient) AssertHeld(ctx context.Context, tx *sql.Tx, id string, token int64) error {
	_, err := tx.ExecContext(ctx, `SELECT `+c.Function("assert_held")+`($1, $2)`, id, token)

	return err
}

// SQLState is the code of a server's error, or "".
func SQLState(err error) string {
	var server interface{ SQLState() string }
	if errors.As(err, &server) {
		return server.SQLState()
	}

	return ""
}
