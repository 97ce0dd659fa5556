package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// admin sends the statements that create and drop databases. Names are the
// package's own and need no quoting beyond the quotes.
type admin struct {
	db         *sql.DB
	versionNum int
}

func newAdmin(ctx context.Context, db *sql.DB) (admin, error) {
	a := admin{db: db}
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&a.versionNum)
	if err != nil {
		return admin{}, fmt.Errorf("pgtesting: connecting to the server: %w", err)
	}
	if a.versionNum < oldestVersion {
		return admin{}, fmt.Errorf("pgtesting: the server is older than PostgreSQL %d: %d", oldestVersion/10000, a.versionNum)
	}
	return a, nil
}

// create makes a database; template "" means the server's default.
func (a admin) create(ctx context.Context, name, template string) error {
	statement := `CREATE DATABASE "` + name + `"`
	if template != "" {
		statement += ` TEMPLATE "` + template + `"`
	}
	return a.session(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, statement)
		return err
	})
}

// seal makes a database a template to which nobody can connect: copying fails as
// long as anybody is connected.
func (a admin) seal(ctx context.Context, name string) error {
	return a.session(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH ALLOW_CONNECTIONS false IS_TEMPLATE true`)
		if err != nil {
			return err
		}
		return disconnect(ctx, conn, name)
	})
}

// drop removes a database, if there is one, with whatever is connected to it.
func (a admin) drop(ctx context.Context, name string) error {
	return a.session(ctx, func(conn *sql.Conn) error {
		var isTemplate bool
		err := conn.QueryRowContext(ctx, `SELECT datistemplate FROM pg_database WHERE datname = $1`, name).Scan(&isTemplate)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if isTemplate {
			if _, err := conn.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH IS_TEMPLATE false`); err != nil {
				return err
			}
		}
		if a.versionNum >= 130000 {
			_, err := conn.ExecContext(ctx, `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`)
			return err
		}
		if _, err := conn.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH ALLOW_CONNECTIONS false`); err != nil {
			return err
		}
		if err := disconnect(ctx, conn, name); err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, `DROP DATABASE IF EXISTS "`+name+`"`)
		return err
	})
}

// disconnect ends the sessions in a database and waits until they are gone. A
// closed pool's may take a moment, and a migration may have forgotten some.
// Autovacuum workers, which have no user, make way by themselves.
func disconnect(ctx context.Context, conn *sql.Conn, name string) error {
	for {
		var sessions int
		err := conn.QueryRowContext(ctx, `
			SELECT count(pg_terminate_backend(pid))
			  FROM pg_stat_activity
			 WHERE datname = $1 AND usename IS NOT NULL`, name).Scan(&sessions)
		if err != nil || sessions == 0 {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%d sessions do not end: %w", sessions, err)
		}
	}
}

// session runs do on one connection. What others stand in the way of is repeated
// until ctx ends, for half a minute at most.
func (a admin) session(ctx context.Context, do func(*sql.Conn) error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := a.once(ctx, do)
		if err == nil || !transient(err) || time.Now().After(deadline) {
			return err
		}
		if pauseErr := pause(ctx, 50*time.Millisecond); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
}

func (a admin) once(ctx context.Context, do func(*sql.Conn) error) error {
	conn, err := a.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

// pause waits for d and up to as much again, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// transient tells whether the same statement may succeed later:
//
//	55006  the template, or the database to drop, is in use (an autovacuum worker,
//	       a session that is just ending)
//	40P01  a deadlock with another CREATE or DROP DATABASE
//	57P03  the server is starting
//	53300  the tests have taken all connections
//	XX000  "tuple concurrently updated", of two ALTER DATABASE at a time
func transient(err error) bool {
	var state interface{ SQLState() string } // of pgx and of lib/pq
	if !errors.As(err, &state) {
		return false
	}
	switch state.SQLState() {
	case "55006", "40P01", "57P03", "53300":
		return true
	case "XX000":
		return strings.Contains(err.Error(), "tuple concurrently")
	}
	return false
}
