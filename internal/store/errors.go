package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The package pglocker exports these under the same names, and says what they mean.
var (
	ErrInvalidIdentifier = errors.New("pglocker: invalid schema or table name")
	ErrInvalidTable      = errors.New("pglocker: table can't hold locks")
	ErrTableNotFound     = errors.New("pglocker: table not found")
	ErrPermissionDenied  = errors.New("pglocker: permission denied")
	ErrReadOnly          = errors.New("pglocker: database is read-only")
	ErrInvalidTTL        = errors.New("pglocker: invalid TTL")
	ErrUnknownOutcome    = errors.New("pglocker: outcome unknown")

	ErrNoOwners      = errors.New("pglocker: the table shows no owners")
	ErrNoTransaction = errors.New("pglocker: not a transaction")

	ErrUnsupportedDriver   = errors.New("pglocker: unsupported driver")
	ErrUnsupportedEncoding = errors.New("pglocker: unsupported encoding")
)

func isAny(err error, names ...error) bool {
	return slices.ContainsFunc(names, func(name error) bool { return errors.Is(err, name) })
}

// explain adds to an error of the server the name by which pglocker's users match it.
func (s *Store) explain(err error) error {
	if isAny(err, ErrTableNotFound, ErrHistoryNotFound, ErrPermissionDenied, ErrReadOnly, ErrInvalidTTL, ErrUnsupportedEncoding) {
		return err // it has its name
	}

	switch sqlState(err) {
	case codeUndefinedTable:
		if strings.Contains(field(serverError(err), fieldMessage), s.table.HistoryName()) {
			return s.historyNotFound(err)
		}

		return fmt.Errorf("%w: %w", s.tableNotFound(), err)
	case codeInsufficientPriv:
		return fmt.Errorf("%w: %w (the role needs USAGE on the schema and SELECT, INSERT, UPDATE on the table)",
			ErrPermissionDenied, err)
	case codeReadOnlyTransaction:
		return fmt.Errorf("%w: %w (a standby, or default_transaction_read_only; locks need the primary. "+
			"A connection may be stale that was opened to a standby during a failover: set "+
			"target_session_attrs=read-write in the connection string, and SetConnMaxLifetime)", ErrReadOnly, err)
	case codeStringTooLong:
		return fmt.Errorf("%w (a column of %s is too short: lock_id for the lock's id, or owner for the name of its holder; "+
			"both should be TEXT)", err, s.table)
	case codeNotInRepertoire, codeUntranslatable:
		return fmt.Errorf("%w: %w (the encoding of the database lacks a character of the lock's id or of Config.Owner)",
			ErrUnsupportedEncoding, err)
	case codeInvalidStatementName, codeDuplicateStatement:
		return fmt.Errorf("%w (a pooler in transaction mode lost a prepared statement: with pgx set "+
			"default_query_exec_mode=exec in the connection string)", err)
	case codeDatetimeOverflow:
		return fmt.Errorf("%w: %w", ErrInvalidTTL, err)
	}

	return err
}

func (s *Store) tableNotFound() error {
	return fmt.Errorf("%w: %s (create it with pglocker.MigrateDB, or apply the SQL under migrations/)", ErrTableNotFound, s.table)
}

// ended is the error of a call whose context ended before anything was sent.
func ended(ctx context.Context) error {
	return fmt.Errorf("pglocker: nothing was sent: %w", ctxError(ctx))
}

// ended is the same for a call that waited for a connection, and names the obstacle.
func (s *Store) ended(ctx context.Context) error {
	if obstacle := s.handle.obstacle(); obstacle != "" {
		return fmt.Errorf("pglocker: nothing was sent, %s: %w", obstacle, ctxError(ctx))
	}

	return ended(ctx)
}

// ctxError is why ctx ended: context.Canceled or context.DeadlineExceeded, and the caller's cause.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}

	return fmt.Errorf("%w: %w", err, cause)
}

// withContext adds to an error why ctx ended, if it has. lib/pq says only that the server cancelled
// the statement. A network that has ctx's deadline may end before ctx does.
func withContext(ctx context.Context, err error) error {
	why := ctx.Err()
	if deadline, ok := ctx.Deadline(); why == nil && ok && !time.Now().Before(deadline) {
		why = context.DeadlineExceeded
	}

	switch {
	case err == nil || why == nil || errors.Is(err, why):
		return err
	case ctx.Err() != nil:
		why = ctxError(ctx)
	}

	return fmt.Errorf("%w: %w", why, err)
}
