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

	ErrUnsupportedDriver   = errors.New("pglocker: unsupported driver")
	ErrUnsupportedEncoding = errors.New("pglocker: unsupported encoding")
)

// SQLSTATE codes that are told apart here or elsewhere in the package.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	codeStringTooLong        = "22001"
	codeDatetimeOverflow     = "22008"
	codeNotInRepertoire      = "22021"
	codeUntranslatable       = "22P05"
	codeReadOnlyTransaction  = "25006"
	codeFailedTransaction    = "25P02"
	codeIdleInTransaction    = "25P03"
	codeTransactionTimeout   = "25P04"
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
	codeQueryCanceled        = "57014"
	codeCannotConnectNow     = "57P03"
	codeInternalError        = "XX000"
)

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

	if errors.Is(err, ErrUnsupportedEncoding) {
		return refused // before it was sent
	}

	if code := sqlState(err); code == "" || provesNothing(code) || fatal(err) {
		return unknown
	}

	return refused
}

// provesNothing reports whether an error may come in place of the reply to a statement that
// was committed. A pooler that loses its connection to the server reports classes 08, 58 and
// XX000; a server that ends a session reports the others. An error of severity FATAL or PANIC,
// which ends the session, proves nothing either.
func provesNothing(code string) bool {
	switch code {
	case codeCompletionUnknown, codeInternalError, codeIdleInTransaction, codeTransactionTimeout:
		return true
	}

	return hasClass(code, "08", "58") || strings.HasPrefix(code, "57P")
}

// Transient reports whether the same request may succeed if it is repeated: the server could
// not be reached, went away or had no room, or refused the request for a reason that passes.
func Transient(err error) bool {
	for _, lasting := range []error{
		ErrInvalidIdentifier, ErrInvalidTable, ErrTableNotFound, ErrPermissionDenied, ErrInvalidTTL,
		ErrUnsupportedDriver, ErrUnsupportedEncoding,
	} {
		if errors.Is(err, lasting) {
			return false
		}
	}

	// database/sql has no name for this one. Nothing comes after it.
	if strings.Contains(err.Error(), "sql: database is closed") {
		return false
	}

	// The code alone decides: a login is refused with severity FATAL, and may be for good.
	code := sqlState(err)

	return code == "" || errors.Is(err, ErrUnknownOutcome) || provesNothing(code) || Passing(err)
}

// Passing reports whether the server refused a request, or a connection, for a reason that
// may pass by itself, or that another connection doesn't meet. The request was not carried out.
func Passing(err error) bool {
	if errors.Is(err, ErrUnknownOutcome) {
		return false
	}

	switch code := sqlState(err); code {
	case codeLockNotAvailable, codeQueryCanceled, codeCannotConnectNow:
		return true
	default:
		return hasClass(code, "53") || retriable(err) || elsewhere(err) || stalePlan(err)
	}
}

// elsewhere reports whether the connection is at fault: it leads to a standby, since it was
// opened during a failover, or its last user left a setting or a failed transaction on it.
func elsewhere(err error) bool {
	switch sqlState(err) {
	case codeReadOnlyTransaction, codeFailedTransaction:
		return true
	case codeFeatureNotSupported, codeNotInState:
		// "cannot set transaction read-write mode during recovery", "recovery is in progress"
		return strings.Contains(field(serverError(err), fieldMessage), "recovery")
	}

	return false
}

// stalePlan reports whether a statement was refused only because the table was altered since
// the connection prepared it. Nothing was executed. The driver prepares it anew next time.
func stalePlan(err error) bool {
	server := serverError(err)

	return field(server, fieldCode) == codeFeatureNotSupported &&
		(field(server, fieldRoutine) == "RevalidateCachedQuery" ||
			strings.Contains(field(server, fieldMessage), "cached plan must not change result type"))
}

// retriable reports whether the server rolled the statement back only because
// of what ran beside it. A role or a database may default to SERIALIZABLE or
// REPEATABLE READ, where this is normal.
func retriable(err error) bool {
	code := sqlState(err)

	return code == codeSerializationFailure || code == codeDeadlockDetected
}

// divisible reports whether a refusal may be due to one of several requests in a
// statement, and the others would succeed without it. Most may: a bad value, a constraint, a
// policy, a trigger, a full queue, a limit of time, a conflict about one of the rows. The other
// refusals are about the connection.
func divisible(err error) bool {
	if errors.Is(err, ErrUnsupportedEncoding) {
		return true // of one id
	}

	switch sqlState(err) {
	case "", codeInvalidStatementName, codeDuplicateStatement:
		return false
	}

	return !elsewhere(err) && !stalePlan(err)
}

// general reports whether a refusal is mostly about the table or the server as a whole: the
// table is gone, or there is no room. A trigger may raise it for one row all the same.
func general(err error) bool {
	switch code := sqlState(err); code {
	case codeUndefinedTable, codeUndefinedColumn, codeUndefinedFunction:
		return true
	default:
		// Authorization, catalogs, resources.
		return hasClass(code, "28", "3D", "53")
	}
}

// sweeping reports whether a refusal may well be about the table as a whole: it is general, or
// a privilege is lacking, or the table is locked for longer than the role waits. The last two
// may just as well be about one row.
func sweeping(err error) bool {
	switch sqlState(err) {
	case codeInsufficientPriv, codeLockNotAvailable, codeQueryCanceled:
		return true
	}

	return general(err)
}

// explain gives an error of the server the name under which pglocker's users
// match it. Errors that need no name are returned as they are.
func (s *Store) explain(err error) error {
	for _, name := range []error{
		ErrTableNotFound, ErrPermissionDenied, ErrReadOnly, ErrInvalidTTL, ErrUnsupportedEncoding,
	} {
		if errors.Is(err, name) {
			return err // it has its name
		}
	}

	switch sqlState(err) {
	case codeUndefinedTable:
		return s.tableNotFound(err)
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
