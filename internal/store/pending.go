package store

import (
	"context"
	"database/sql"
	"fmt"
)

// Pending returns the statements that Migrate would run, and MigrateHistory where there is a history. It
// reads the catalogs alone.
func Pending(ctx context.Context, db *sql.DB, table Table) ([]string, error) {
	s := New(db, table, nil)
	s.unnamed.Store(true) // each text is sent once

	pending, err := s.pending(ctx)
	if err != nil {
		return nil, fmt.Errorf("pglocker: looking for what %s lacks: %w", table, withContext(ctx, s.explain(err)))
	}

	return pending, nil
}

func (s *Store) pending(ctx context.Context) ([]string, error) {
	if err := s.meet(ctx); err != nil {
		return nil, err
	}

	if err := s.acquaint(ctx); err != nil {
		return nil, err
	}

	locks, err := s.description(ctx)
	if err != nil {
		return nil, err
	}

	pending, err := s.missing(locks)
	if err != nil {
		return nil, err
	}

	if s.table.Distributed {
		distribution, err := s.pendingDistribution(ctx)

		return append(pending, distribution...), err
	}

	functions, err := s.pendingFunctions(ctx)
	if err != nil {
		return nil, err
	}

	var history []string
	if locks.table {
		history, err = s.pendingHistory(ctx)
	}

	return append(append(pending, functions...), history...), err
}

// pendingFunctions returns what a role would run that may do everything.
func (s *Store) pendingFunctions(ctx context.Context) ([]string, error) {
	args, err := s.askInstalled()
	if err != nil { // no role can make them
		return nil, nil
	}

	there, err := read(ctx, s, onPrimary(sqlInstalled), args, scanInstalled)
	if err != nil {
		return nil, err
	}

	ddl, err := functionDDL(s.table, there, isForAll)
	if _, never := err.(notInstalled); never {
		return nil, nil
	}

	return ddl, err
}

// pendingHistory is empty where there is no history. The table has six columns once Migrate has run.
func (s *Store) pendingHistory(ctx context.Context) ([]string, error) {
	if validateIdentifier("history table", s.table.HistoryName()) != nil {
		return nil, nil
	}

	found, err := s.historyDescription(ctx)
	if err != nil || !found.there {
		return nil, err
	}

	return s.historyDue(true, found)
}
