package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"github.com/ismurov/pglocker"
)

// sight is a connection for a command that reads, and what it needs to know of the server and the table.
type sight struct {
	locker *pglocker.Locker
	db     *sql.DB
	close  func()

	serverState
	// owners: the table shows who holds a lock.
	owners bool
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

// renew asks the server again.
func (s *sight) renew(ctx context.Context) (err error) {
	s.serverState, err = serverNow(ctx, s.db)

	return err
}
