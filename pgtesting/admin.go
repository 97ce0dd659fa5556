package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

// admin creates and drops databases. Their names are the package's own: quotes around them
// are enough.
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

// seal makes a database a template and closes it to connections: while there are any, it
// can't be copied.
func (a admin) seal(ctx context.Context, name string) error {
	return a.session(ctx, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH ALLOW_CONNECTIONS false IS_TEMPLATE true`)
		if err != nil {
			return err
		}
		return disconnect(ctx, conn, name)
	})
}

// drop drops a database if it exists, and cuts the connections to it.
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

// disconnect ends the sessions in a database and waits until they are gone. Autovacuum
// workers, which have no user, end by themselves.
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
		if !pause.Sleep(ctx, pause.Jitter(20*time.Millisecond, 2)) {
			return fmt.Errorf("%d sessions do not end: %w", sessions, context.Cause(ctx))
		}
	}
}

// session runs do on one connection. It repeats do after a transient error, for 30 seconds
// or until ctx ends.
func (a admin) session(ctx context.Context, do func(*sql.Conn) error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := a.once(ctx, do)
		if err == nil || !transient(err) || time.Now().After(deadline) {
			return err
		}
		if !pause.Sleep(ctx, pause.Jitter(100*time.Millisecond, 2)) {
			return errors.Join(err, context.Cause(ctx))
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

// transient reports whether the statement may succeed later:
//
//	55006  the database is in use, by an autovacuum worker or a session that is ending
//	40P01  a deadlock with another CREATE or DROP DATABASE
//	57P03  the server is starting
//	53300  the tests have taken all connections
//	XX000  "tuple concurrently updated": another ALTER DATABASE
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
