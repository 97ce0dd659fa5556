package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"github.com/ismurov/pglocker"
)

// sight is a connection for a command that reads, and what it needs to know of the server and the table.
type sight struct {
	locker *pglocker.Locker
	db     *sql.DB
	close  func()

	// owners: the table shows who holds a lock.
	owners bool
	// standby: the server is one.
	standby bool

	now   time.Time // by the database's clock, when it was asked
	asked time.Time
}

// look connects for a command that reads, and says what can't be shown.
func (a *app) look(ctx context.Context, command string) (*sight, error) {
	// What the library would warn of, such a command says itself.
	level := slog.LevelError
	if a.verbose {
		level = slog.LevelDebug
	}

	locker, db, closeAll, err := a.openLockerThatTells(ctx, command, slog.New(newLines(a.stderr, level)))
	if err != nil {
		return nil, err
	}

	s := &sight{locker: locker, db: db, close: closeAll}

	if err = s.renew(ctx); err == nil {
		s.owners, err = locker.HasOwners(ctx)
	}

	if err != nil {
		closeAll()

		return nil, err
	}

	if s.standby {
		fmt.Fprintln(a.stderr, "pglocker: this server is a standby: what it shows may be old, and it can't release a lock")
	}

	if !s.owners {
		fmt.Fprintln(a.stderr, "pglocker: the table lacks the columns owner and acquired_at: "+
			"who holds a lock, since when, and whether the holder crashed isn't known (`pglocker migrate` adds them)")
	}

	return s, nil
}

// renew asks the server for its clock. The library's DatabaseTime doesn't ask a standby.
func (s *sight) renew(ctx context.Context) error {
	asked := time.Now()

	err := s.db.QueryRowContext(ctx, `SELECT pg_catalog.clock_timestamp(), pg_catalog.pg_is_in_recovery()`).Scan(&s.now, &s.standby)
	s.asked = asked

	return err
}

// clock is the time by the database's clock.
func (s *sight) clock() time.Time { return s.now.Add(time.Since(s.asked)).UTC() }
