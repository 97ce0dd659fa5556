package store

import (
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// outcome says what a failed statement may have done.
type outcome int

const (
	// nothingSent: the statement did not reach the server.
	nothingSent outcome = iota
	// refused: the server answered with an error and rolled back.
	refused
	// unknown: it was sent, and may have been committed or be about to be.
	unknown
)

// judge reads an error of a statement that was handed to a connection. trustBadConn: the driver
// returns driver.ErrBadConn only when nothing was sent, as pgx does. lib/pq also returns it for a
// connection that broke while the answer was under way.
func judge(err error, trustBadConn bool) outcome {
	badConn := errors.Is(err, driver.ErrBadConn)

	switch {
	case pgconn.SafeToRetry(err) || badConn && trustBadConn:
		return nothingSent
	case badConn:
		return unknown
	case errors.Is(err, ErrUnsupportedEncoding):
		return refused // before it was sent
	}

	switch field(serverError(err), fieldSeverity) {
	case "FATAL", "PANIC": // the server ended the session
		return unknown
	}

	if sqlState(err) == "" || provesNothing(err) {
		return unknown
	}

	return refused
}

// provesNothing reports whether an error may come in place of the reply to a committed statement. A
// pooler that loses its connection to the server reports classes 08, 58 and XX000. A server that
// ends a session reports the others.
func provesNothing(err error) bool {
	return hasState(err, "08", "58", "57P", codeCompletionUnknown, codeInternalError, codeIdleInTransaction,
		codeTransactionTimeout)
}

// Transient reports whether the same request may succeed if it is repeated: the server could not be
// reached, had no room, or refused the request for a reason that passes.
func Transient(err error) bool {
	if isAny(err, ErrInvalidIdentifier, ErrInvalidTable, ErrTableNotFound, ErrHistoryNotFound, ErrPermissionDenied, ErrInvalidTTL,
		ErrUnsupportedDriver, ErrUnsupportedEncoding, ErrUnsupportedServer) || isClosed(err) {
		return false
	}

	// The code alone decides: a login is refused with severity FATAL, and may be for good.
	return sqlState(err) == "" || errors.Is(err, ErrUnknownOutcome) || provesNothing(err) || Passing(err)
}

// isClosed reports whether the user has closed the handle or the pool. Neither database/sql nor pgxpool has a name
// for that. A server may say the same of something else.
func isClosed(err error) bool {
	if sqlState(err) != "" {
		return false
	}

	text := err.Error()

	return strings.Contains(text, "sql: database is closed") || strings.Contains(text, "closed pool")
}

// Passing reports whether the server refused a request, or a connection, for a reason that passes,
// or that another connection doesn't meet. The request was not carried out.
func Passing(err error) bool {
	return !errors.Is(err, ErrUnknownOutcome) &&
		(hasState(err, "53", codeLockNotAvailable, codeQueryCanceled, codeCannotConnectNow) ||
			retriable(err) || elsewhere(err) || stalePlan(err))
}

// elsewhere reports whether the connection is at fault: it leads to a standby, or its last user left a
// setting or a failed transaction on it.
func elsewhere(err error) bool {
	// "cannot set transaction read-write mode during recovery", "recovery is in progress"
	return hasState(err, codeReadOnlyTransaction, codeFailedTransaction) ||
		hasState(err, codeFeatureNotSupported, codeNotInState) && strings.Contains(field(serverError(err), fieldMessage), "recovery")
}

// stalePlan reports whether a statement was refused only because the table was altered. The driver
// prepares it anew next time.
func stalePlan(err error) bool {
	server := serverError(err)

	return field(server, fieldCode) == codeFeatureNotSupported &&
		(field(server, fieldRoutine) == "RevalidateCachedQuery" ||
			strings.Contains(field(server, fieldMessage), "cached plan must not change result type"))
}

// retriable reports whether the server rolled back only for the sake of others, as is normal where
// SERIALIZABLE or REPEATABLE READ is the default.
func retriable(err error) bool { return hasState(err, codeSerializationFailure, codeDeadlockDetected) }

// divisible reports whether a refusal may be due to one of several requests: a bad value, a
// constraint, a policy, a trigger, a full queue, a limit of time, a conflict about a row. The other
// refusals are about the connection.
func divisible(err error) bool {
	if errors.Is(err, ErrUnsupportedEncoding) {
		return true // of one id
	}

	return sqlState(err) != "" && !lostName(err) && !elsewhere(err) && !stalePlan(err)
}

// general reports whether a refusal is mostly about the table or the server as a whole. A trigger
// may raise it for one row all the same.
func general(err error) bool {
	// Authorization, catalogs, resources.
	return hasState(err, "28", "3D", "53", codeUndefinedTable, codeUndefinedColumn, codeUndefinedFunction)
}

// sweeping reports whether a refusal may be about the table as a whole: it is general, a privilege
// is lacking, or the table is locked for longer than the role waits. The last two may be about one
// row.
func sweeping(err error) bool {
	return general(err) || hasState(err, codeInsufficientPriv, codeLockNotAvailable, codeQueryCanceled)
}
