package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// The package pglocker exports these under the same names; what they mean to
// its users is said there.
var (
	ErrInvalidIdentifier = errors.New("pglocker: invalid schema or table name")
	ErrInvalidTable      = errors.New("pglocker: table can't hold locks")
	ErrTableNotFound     = errors.New("pglocker: table not found")
	ErrPermissionDenied  = errors.New("pglocker: permission denied")
	ErrReadOnly          = errors.New("pglocker: database is read-only")
	ErrInvalidTTL        = errors.New("pglocker: invalid TTL")
	ErrUnknownOutcome    = errors.New("pglocker: outcome unknown")
)

// SQLSTATE codes that are told apart here or elsewhere in the package.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeDatetimeOverflow     = "22008"
	codeReadOnlyTransaction  = "25006"
	codeInvalidStatementName = "26000"
	codeSerializationFailure = "40001"
	codeCompletionUnknown    = "40003"
	codeDeadlockDetected     = "40P01"
	codeInsufficientPriv     = "42501"
	codeUndefinedColumn      = "42703"
	codeUndefinedFunction    = "42883"
	codeUndefinedTable       = "42P01"
	codeDuplicateStatement   = "42P05"
	codeFeatureNotSupported  = "0A000"
	codeNotInState           = "55000"
	codeLockNotAvailable     = "55P03"
)

// sqlState is the SQLSTATE of a server's error, or "" for any other error. Both
// pgx and lib/pq offer it under this method.
func sqlState(err error) string {
	var server interface{ SQLState() string }
	if errors.As(err, &server) {
		return server.SQLState()
	}

	return ""
}

// outcome says what a failed statement may have done.
type outcome int

const (
	// nothingSent: the statement did not reach the server. Asking again is safe.
	nothingSent outcome = iota
	// refused: the server answered with an error and rolled back.
	refused
	// unknown: it was sent, and may have been committed or be about to be.
	unknown
)

// judge reads an error of a statement that was handed to a connection.
// trustBadConn says whether this driver returns driver.ErrBadConn only when
// nothing was sent, as database/sql demands. pgx does; lib/pq also returns it
// for a connection that broke while the answer was under way.
func judge(err error, trustBadConn bool) outcome {
	if pgconn.SafeToRetry(err) {
		return nothingSent
	}

	if errors.Is(err, driver.ErrBadConn) {
		if trustBadConn {
			return nothingSent
		}

		return unknown
	}

	code := sqlState(err)

	switch {
	case code == "",
		code == codeCompletionUnknown,
		strings.HasPrefix(code, "08"),  // connection exceptions, a pooler's among them
		strings.HasPrefix(code, "57P"), // the backend is being ended: possibly after the commit
		strings.HasPrefix(code, "58"):  // system errors: possibly while the commit was written
		return unknown
	}

	return refused
}

// Transient reports whether the same request may be answered soon: the server
// could not be reached, went away or had no room, rather than refused it.
func Transient(err error) bool {
	for _, lasting := range []error{
		ErrInvalidIdentifier, ErrInvalidTable, ErrTableNotFound, ErrPermissionDenied, ErrReadOnly, ErrInvalidTTL,
	} {
		if errors.Is(err, lasting) {
			return false
		}
	}

	// database/sql has no name for this one. Nothing comes after it.
	if strings.Contains(err.Error(), "sql: database is closed") {
		return false
	}

	return judge(err, false) != refused || retriable(err) || strings.HasPrefix(sqlState(err), "53")
}

// retriable reports whether the server rolled the statement back only because
// of what ran beside it. A role or a database may default to SERIALIZABLE or
// REPEATABLE READ, where this is normal.
func retriable(err error) bool {
	code := sqlState(err)

	return code == codeSerializationFailure || code == codeDeadlockDetected
}

// divisible reports whether a refusal may be due to one of several requests in a
// statement, and the others would succeed without it. Most may: what is wrong with a
// value, a constraint, a policy, a trigger, what takes too long or runs beside one of
// the rows. The others are about the table or the server as a whole.
func divisible(err error) bool {
	switch code := sqlState(err); code {
	case "", codeUndefinedTable, codeUndefinedColumn, codeReadOnlyTransaction,
		codeInvalidStatementName, codeDuplicateStatement:
		return false
	default:
		// Connections, authorization, catalogs, resources, limits, operators, systems.
		for _, class := range []string{"08", "28", "3D", "53", "54", "57P", "58"} {
			if strings.HasPrefix(code, class) {
				return false
			}
		}
	}

	return true
}

// explain gives an error of the server the name under which pglocker's users
// match it. Errors that need no name are returned as they are.
func (s *Store) explain(err error) error {
	switch sqlState(err) {
	case codeUndefinedTable:
		return s.tableNotFound(err)
	case codeInsufficientPriv:
		return fmt.Errorf("%w: %w (the role needs USAGE on the schema and SELECT, INSERT, UPDATE on the table)",
			ErrPermissionDenied, err)
	case codeReadOnlyTransaction:
		return fmt.Errorf("%w: %w (a standby, or default_transaction_read_only; locks need the primary)",
			ErrReadOnly, err)
	case codeDatetimeOverflow:
		return fmt.Errorf("%w: %w", ErrInvalidTTL, err)
	}

	return err
}

func (s *Store) tableNotFound(cause error) error {
	err := fmt.Errorf("%w: %s (create it with pglocker.MigrateDB, or apply the SQL under migrations/)",
		ErrTableNotFound, s.table)
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}

	return err
}

// ended is the error of a call whose context is over before anything was sent.
func ended(ctx context.Context) error {
	return fmt.Errorf("pglocker: nothing was sent: %w", ctxError(ctx))
}

// ended is the same for a call that waited for a connection, and says what was in the
// way of that.
func (s *Store) ended(ctx context.Context) error {
	if obstacle := s.handle.obstacle(); obstacle != "" {
		return fmt.Errorf("pglocker: nothing was sent, %s: %w", obstacle, ctxError(ctx))
	}

	return ended(ctx)
}

// ctxError is why ctx ended: context.Canceled or context.DeadlineExceeded, and
// the cause besides where the caller gave one.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}

	return fmt.Errorf("%w: %w", err, cause)
}

// withContext adds to an error why ctx ended, if it has: lib/pq says only that the
// server cancelled the statement, and a network that has ctx's deadline may say
// that it has passed before ctx does.
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
