package pglocker

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/store"
)

// Answers of the database about a lock. Match them with [errors.Is].
var (
	// ErrAlreadyLocked: another holds the lock. The error is also a [*HeldError].
	ErrAlreadyLocked = errors.New("pglocker: already locked")

	// ErrTooManyReaders: as many readers as [WithMaxReaders] says have read access. The error is also a
	// [*HeldError].
	ErrTooManyReaders = errors.New("pglocker: too many readers")

	// ErrWrongGeneration: the lock was granted, refreshed or released since the [LockStatus] was read. The
	// status is no longer valid.
	ErrWrongGeneration = handover.ErrWrongGeneration

	// ErrLockNotFound: there is no lock of that id.
	ErrLockNotFound = handover.ErrLockNotFound

	// ErrLockLost: a lock that was held can't be trusted any more. Either the database said so, or no renewal
	// was acknowledged in time. It is the cause of the lock's cancelled context ([context.Cause]). The error
	// says what kept renewals from succeeding, and wraps the last error of the server or the network. It
	// doesn't match [context.Canceled] or [context.DeadlineExceeded].
	ErrLockLost = errors.New("pglocker: lock lost")

	// ErrAlreadyUnlocked: [Lock.Unlock], [Locker.Do] or [Locker.Close] has unlocked the lock before.
	ErrAlreadyUnlocked = errors.New("pglocker: lock already unlocked")

	// ErrUnknownOutcome: a statement was sent, and its reply was lost, or the caller's context ended before the
	// reply. The lock may have been granted, refreshed or released, or the server may still do it. Take the
	// lock neither as held nor as free. The error of the connection or of the context is wrapped too.
	ErrUnknownOutcome = store.ErrUnknownOutcome

	// ErrNotReleased: the lock was held until [Lock.Unlock], [Locker.Do] or [Locker.StartRelocker] released
	// it, but the database didn't acknowledge the release. It is free when its lease ends, at the latest.
	ErrNotReleased = errors.New("pglocker: lock not released")
)

// Answers of the history.
var (
	// ErrHistoryNotFound: the table of the history isn't there. [MigrateHistory] makes it. If locks answer with
	// this error, the table was dropped and its triggers were not.
	ErrHistoryNotFound = store.ErrHistoryNotFound

	// ErrNoHolder: the lock was free at that time.
	ErrNoHolder = errors.New("pglocker: no holder")
)

// Mistakes of the caller, found before anything is sent.
var (
	// ErrConfigIsNil: a function that needs a [Config] got none.
	ErrConfigIsNil = errors.New("pglocker: config is nil")
	// ErrDBIsNil: a function that needs a database handle, or a pool, got none.
	ErrDBIsNil = errors.New("pglocker: db is nil")
	// ErrStatusIsNil: a method that needs a [LockStatus] got none.
	ErrStatusIsNil = errors.New("pglocker: lock status is nil")
	// ErrNoLock: the context given to [Guard], [GuardPgx] or [GuardTx] isn't that of a lock, or of several, a
	// permit or an access.
	ErrNoLock = errors.New("pglocker: no lock in the context")
	// ErrNoTransaction: a guard was given no transaction, or what isn't one. Outside of a transaction a guard
	// proves nothing.
	ErrNoTransaction = store.ErrNoTransaction
	// ErrFuncIsNil: [Locker.Do], or another method that runs a function, got none.
	ErrFuncIsNil = errors.New("pglocker: func is nil")
	// ErrInvalidLockID: a lock id is 1 to [MaxLockIDBytes] bytes of valid UTF-8 without NUL.
	ErrInvalidLockID = errors.New("pglocker: invalid lock id")
	// ErrReservedLockID: a lock id begins with [ReservedPrefix].
	ErrReservedLockID = errors.New("pglocker: reserved lock id")
	// ErrInvalidName: the name of a recipe is at least one byte of valid UTF-8 without NUL, and about a thousand
	// at most: with the prefix and a slot it makes a lock id.
	ErrInvalidName = errors.New("pglocker: invalid name")
	// ErrInvalidPermits: a semaphore has 1 to [MaxPermits] permits, and a request takes 1 to as many.
	ErrInvalidPermits = errors.New("pglocker: invalid number of permits")
	// ErrInvalidReaders: an [RWLock] has 1 to [MaxPermits] readers.
	ErrInvalidReaders = errors.New("pglocker: invalid number of readers")
	// ErrUpgrade: a holder of read access asks for write access to the same [RWLock]. Two that do so would wait
	// for each other.
	ErrUpgrade = errors.New("pglocker: read access can't be upgraded")
	// ErrNotWriting: [Access.Downgrade] of read access.
	ErrNotWriting = errors.New("pglocker: not write access")
	// ErrNoLockIDs: a call for several locks, such as [Locker.LockAll], was given none.
	ErrNoLockIDs = errors.New("pglocker: no lock ids")
	// ErrTooManyLockIDs: such a call was given more than [MaxLockIDs].
	ErrTooManyLockIDs = errors.New("pglocker: too many lock ids")
	// ErrInvalidTTL: a TTL is at least [MinTTL], at most [MaxTTL], and longer than twice
	// [Config.SafetyMargin] where that is set.
	ErrInvalidTTL = store.ErrInvalidTTL
	// ErrInvalidRelockInterval: an interval between renewals is above zero and below the TTL.
	ErrInvalidRelockInterval = errors.New("pglocker: invalid relock interval")
	// ErrInvalidWait: the time of [WithWait] is negative.
	ErrInvalidWait = errors.New("pglocker: invalid wait")
	// ErrInvalidMinHold: the time of [WithMinHold] is negative or above [MaxTTL].
	ErrInvalidMinHold = errors.New("pglocker: invalid minimum hold")
	// ErrInvalidIdentifier: a schema or table name is 1 to 63 bytes of valid UTF-8 without NUL.
	ErrInvalidIdentifier = store.ErrInvalidIdentifier
	// ErrInvalidOwner: [Config.Owner] is at most 255 bytes of valid UTF-8 without NUL.
	ErrInvalidOwner = errors.New("pglocker: invalid owner")
	// ErrInvalidSafetyMargin: [Config.SafetyMargin] is negative.
	ErrInvalidSafetyMargin = errors.New("pglocker: invalid safety margin")
	// ErrInvalidDialect: [Config.Dialect] is none of the dialects, or not the one of [Config.Distributed].
	ErrInvalidDialect = errors.New("pglocker: invalid dialect")
	// ErrInvalidFilter: a [LocksFilter] has an unknown kind, both Held and Crashed, or text that isn't valid UTF-8
	// without NUL.
	ErrInvalidFilter = errors.New("pglocker: invalid filter")
	// ErrInvalidIdle: the time given to [Locker.Prune] is negative or above [MaxTTL].
	ErrInvalidIdle = errors.New("pglocker: invalid idle time")
	// ErrInvalidAge: an age is negative.
	ErrInvalidAge = errors.New("pglocker: invalid age")
	// ErrClosed: the Locker was closed.
	ErrClosed = errors.New("pglocker: locker is closed")
)

// States of the database in which locks don't work. The Locker works again once they are corrected.
var (
	// ErrTableNotFound: the table isn't there. [MigrateDB] makes it, and so does the SQL in the folder
	// migrations.
	ErrTableNotFound = store.ErrTableNotFound

	// ErrInvalidTable: the table can't hold locks. It lacks a column, or has one of a wrong type; it is of a
	// wrong kind; or its trigger shortens leases to no more than the safety margin. The error says which.
	ErrInvalidTable = store.ErrInvalidTable

	// ErrNoOwners: a [LocksFilter] asks for what only the column owner tells, and the table lacks that column.
	ErrNoOwners = store.ErrNoOwners

	// ErrPermissionDenied: the role lacks a privilege, which the error names, or row-level security keeps
	// rows from it. Locks need USAGE on the schema and SELECT, INSERT, UPDATE on the table.
	ErrPermissionDenied = store.ErrPermissionDenied

	// ErrReadOnly: the server is a standby, or transactions are read-only by default. Other connections of the
	// pool were tried too. Waiters, renewals and releases keep trying in spite of it.
	ErrReadOnly = store.ErrReadOnly

	// ErrUnsupportedDriver: the driver doesn't tell the SQLSTATE of the server's errors, so pglocker can't know
	// what they mean. Use pgx or lib/pq, or a wrapper that passes on their errors.
	ErrUnsupportedDriver = store.ErrUnsupportedDriver

	// ErrUnsupportedServer: the server takes only the plain dialect, which lacks what the call needs: a
	// [Semaphore], an [RWLock], [Locker.Prune], or a history. See [Config.Dialect]. Or the server can't distribute the
	// table, see [Config.Distributed].
	ErrUnsupportedServer = store.ErrUnsupportedServer

	// ErrUnsupportedEncoding: a lock id or a name can't be sent to the database unchanged. Either the database's
	// encoding lacks a character. Or the text isn't ASCII and the connection's client_encoding isn't UTF8: pgx
	// uses the database's encoding unless client_encoding=UTF8 is in the URL.
	ErrUnsupportedEncoding = store.ErrUnsupportedEncoding
)

// Answers about elections, and mistakes of their callers.
var (
	// ErrNotLeader: this [Election] doesn't lead, or can't be sure that it does.
	ErrNotLeader = errors.New("pglocker: not the leader")
	// ErrNoLeader: no candidate leads at present.
	ErrNoLeader = errors.New("pglocker: no leader")
	// ErrResignRequested is the cause of a leader's cancelled context after [Election.RequestResign].
	ErrResignRequested = errors.New("pglocker: asked to resign")
	// ErrUnhealthy is the cause of a leader's cancelled context after its health check has failed. The error
	// wraps that of the check.
	ErrUnhealthy = errors.New("pglocker: health check failed")
	// ErrElectionRunning: [Election.Run] is under way for this Election.
	ErrElectionRunning = errors.New("pglocker: election is running")
	// ErrObserveOnly: [Election.Run] was called in spite of [WithObserveOnly].
	ErrObserveOnly = errors.New("pglocker: election is for observing only")
	// ErrInvalidInterval: an interval of an election's option is not above zero.
	ErrInvalidInterval = errors.New("pglocker: invalid interval")
	// ErrInvalidBackoff: the pauses of [WithBackoff] are not 0 < shortest <= longest.
	ErrInvalidBackoff = errors.New("pglocker: invalid backoff")
)

// failed adds to an error what was asked of which lock.
func failed(verb, lockID string, err error) error {
	if err == nil {
		return nil
	}

	if _, held := errors.AsType[*HeldError](err); held {
		return tidy(err) // it says so itself
	}

	return tidy(fmt.Errorf("%w (%s %q)", err, verb, lockID))
}

const errorPrefix = "pglocker: "

// tidy has the text of an error begin with "pglocker: ", and say so once. What the error matches stays.
func tidy(err error) error {
	if err == nil {
		return nil
	}

	if text := err.Error(); strings.HasPrefix(text, errorPrefix) && strings.Count(text, errorPrefix) == 1 {
		return err
	}

	return tidied{err}
}

type tidied struct{ err error }

func (t tidied) Error() string {
	return errorPrefix + strings.ReplaceAll(t.err.Error(), errorPrefix, "")
}

func (t tidied) Unwrap() error { return t.err }
