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
	return retry(ctx, func() error {
		_, err := a.db.ExecContext(ctx, statement)
		return err
	})
}

// seal makes a database a template to which nobody can connect: copying fails as
// long as anybody is connected.
func (a admin) seal(ctx context.Context, name string) error {
	_, err := a.db.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH ALLOW_CONNECTIONS false IS_TEMPLATE true`)
	if err != nil {
		return err
	}
	return a.disconnect(ctx, name)
}

// disconnect ends the sessions in a database and waits until they are gone. A
// closed pool's may take a moment, and a migration may have forgotten some.
func (a admin) disconnect(ctx context.Context, name string) error {
	for {
		var sessions int
		err := a.db.QueryRowContext(ctx, `
			SELECT count(pg_terminate_backend(pid))
			  FROM pg_stat_activity
			 WHERE datname = $1 AND backend_type = 'client backend'`, name).Scan(&sessions)
		if err != nil || sessions == 0 {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d sessions do not end: %w", sessions, err)
		}
	}
}

// drop removes a database, if there is one, with whatever is connected to it.
func (a admin) drop(ctx context.Context, name string) error {
	return retry(ctx, func() error {
		var isTemplate bool
		err := a.db.QueryRowContext(ctx, `SELECT datistemplate FROM pg_database WHERE datname = $1`, name).Scan(&isTemplate)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if isTemplate {
			if _, err := a.db.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH IS_TEMPLATE false`); err != nil {
				return err
			}
		}
		if a.versionNum >= 130000 {
			_, err := a.db.ExecContext(ctx, `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`)
			return err
		}
		if _, err := a.db.ExecContext(ctx, `ALTER DATABASE "`+name+`" WITH ALLOW_CONNECTIONS false`); err != nil {
			return err
		}
		if err := a.disconnect(ctx, name); err != nil {
			return err
		}
		_, err = a.db.ExecContext(ctx, `DROP DATABASE IF EXISTS "`+name+`"`)
		return err
	})
}

// retry repeats what another session stood in the way of until ctx ends, for
// half a minute at most.
func retry(ctx context.Context, do func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := do()
		if err == nil || !transient(err) || time.Now().After(deadline) {
			return err
		}
		if pauseErr := pause(ctx); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
}

// pause waits a tenth of a second, more or less, or until ctx ends.
func pause(ctx context.Context) error {
	timer := time.NewTimer(50*time.Millisecond + rand.N(100*time.Millisecond))
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
//	XX000  "tuple concurrently updated", of two ALTER DATABASE at a time
func transient(err error) bool {
	var state interface{ SQLState() string } // of pgx and of lib/pq
	if !errors.As(err, &state) {
		return false
	}
	switch state.SQLState() {
	case "55006", "40P01":
		return true
	case "XX000":
		return strings.Contains(err.Error(), "tuple concurrently")
	}
	return false
}
