package pglocker

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// MigrateHistory adds a history to the table that cfg names: a table beside it, lock_history for the default
// table and NAME_history for a table NAME, and triggers that write each [Event] to it, in the transaction of
// the event. Renewals aren't written. Roles that use locks need no right on the history.
//
// MigrateHistory needs to own the table, and CREATE on the schema. Where everything is in place it only reads
// the catalogs and needs no right. Call it after [MigrateDB], and again when MigrateDB has added columns to an
// older table. Any number of processes may call it at once. It waits for other transactions as MigrateDB does.
//
// Errors: [ErrTableNotFound], if the table of the locks isn't there; [ErrDBIsNil]; [ErrConfigIsNil];
// [ErrInvalidIdentifier], also if the name of the table is longer than 55 bytes; [ErrPermissionDenied];
// [ErrReadOnly]; [ErrInvalidTable], if the table can't hold locks, or another table has the name of the history;
// [ErrUnsupportedServer], if Citus distributes the table, which takes no triggers then; and what the driver reports.
// If ctx ends, either everything was done or nothing.
func MigrateHistory(ctx context.Context, db *sql.DB, cfg *Config) error {
	completed, err := cfg.complete(db != nil)
	if err != nil {
		return err
	}

	return tidy(store.MigrateHistory(ctx, db, completed.table(), completed.Logger))
}

// EventKind is what happened to a lock.
type EventKind string

// The kinds of events. A tenure begins with EventGranted or EventRefreshed.
const (
	// EventGranted: the lock was granted. A hand-over to a waiter is an EventReleased and an EventGranted.
	EventGranted EventKind = "granted"
	// EventRefreshed: the holder's token was replaced by the next one ([Locker.RefreshLock]). On a table of
	// three columns a hand-over, and a release with a minimum hold, look the same.
	EventRefreshed EventKind = "refreshed"
	// EventReleased: the lock was released. If an EventExpired of the same token stands before it, the holder
	// came too late, but had not crashed.
	EventReleased EventKind = "released"
	// EventExpired: the lease ended and was not released: the holder crashed, or lost the database. It is
	// written with the next event of the lock, and its At is the end of the lease.
	EventExpired EventKind = "expired"
	// EventForced: the lock was released by force, for [Event.Reason].
	EventForced EventKind = "forced"
	// EventDeleted: the row was deleted, by Prune or by hand.
	EventDeleted EventKind = "deleted"
)

// Event is one event of a lock.
type Event struct {
	Kind   EventKind
	LockID string
	// Token is the fencing token of the tenure that begins or ends. Of a free lock that is deleted, it is the
	// generation.
	Token int64
	// PreviousToken is the generation of the row before the event. 0 if there was no row.
	PreviousToken int64
	// Owner is who was granted the lock, or who held it, see [LockStatus]. "" on a table without that column.
	Owner string
	// At is when it happened, by the database's clock, in UTC.
	At time.Time
	// ExpiresAt is when the lease ends, as granted: renewals aren't written. Of a release, it is when the lock
	// is free: later than At if the release keeps a minimum hold.
	ExpiresAt time.Time
	// Reason is that of an EventForced.
	Reason string
}

// History yields the events of a lock from since on, in the order of its tokens. With lockID "" it yields the
// events of all locks, lock by lock. The zero time is the beginning of the history. Recipes' rows have
// events too: see [ReservedPrefix].
//
// It reads [HistoryPage] events at a time, by one statement each, and holds no connection in between. Events
// that happen meanwhile are yielded too. A standby may answer.
//
// After an error it yields nothing more: [ErrHistoryNotFound], if [MigrateHistory] was not called;
// [ErrPermissionDenied], if the role lacks SELECT on the history; [ErrInvalidLockID]; [ErrClosed]; those of the
// database's state; ctx's; and what the driver reports.
func (l *Locker) History(ctx context.Context, lockID string, since time.Time) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		end, err := l.beginHistory(lockID, lockID == "")
		if err != nil {
			yield(Event{}, err)

			return
		}
		defer end()

		cursor := store.NewHistoryCursor(lockID, since)

		for {
			events, err := l.store.ReadHistory(ctx, cursor)
			if err != nil {
				yield(Event{}, failed("history", lockID, err))

				return
			}

			for _, e := range events {
				if !yield(newEvent(e), nil) {
					return
				}
			}

			if len(events) < HistoryPage {
				return
			}
		}
	}
}

// HistoryPage is how many events one statement of [Locker.History] reads.
const HistoryPage = store.HistoryPage

func newEvent(e store.HistoryEvent) Event {
	return Event{
		Kind: EventKind(e.Kind), LockID: e.LockID, Token: e.Token, PreviousToken: e.PreviousToken,
		Owner: e.Owner, At: e.At, ExpiresAt: e.ExpiresAt, Reason: e.Reason,
	}
}

// PruneHistory deletes the events that are older than age, by the database's clock, and returns how many. It
// deletes 5,000 at a time, each time in a transaction of its own. If ctx ends, some may be left.
//
// The role needs SELECT and DELETE on the history. Errors: [ErrInvalidAge], if age is negative;
// [ErrHistoryNotFound]; [ErrPermissionDenied]; [ErrReadOnly]; [ErrClosed]; and what the driver reports.
func (l *Locker) PruneHistory(ctx context.Context, age time.Duration) (deleted int64, err error) {
	if age < 0 {
		return 0, fmt.Errorf("%w: %s", ErrInvalidAge, age)
	}

	end, err := l.desk.Begin()
	if err != nil {
		return 0, err
	}
	defer end()

	deleted, err = l.store.PruneHistory(ctx, age)

	return deleted, tidy(err)
}

// Tenure is a time during which one holder had a lock, as the history shows it.
type Tenure struct {
	LockID string
	Token  int64
	Owner  string
	// Since is when the lock was granted, by the database's clock, in UTC.
	Since time.Time
	// Until is when the tenure ended. If it hasn't, it is when the lease ends, unless it is renewed.
	Until time.Time
	// End is the kind of the event that ended the tenure, EventExpired after a crash of the holder. "" if the
	// tenure has not ended.
	End EventKind
}

// HolderAt returns who held a lock at that time, by the database's clock.
//
// Errors: [ErrNoHolder], if the lock was free then, or the history doesn't go back that far; [ErrHistoryNotFound];
// [ErrPermissionDenied]; [ErrInvalidLockID]; [ErrClosed]; those of the database's state; and what the driver
// reports.
func (l *Locker) HolderAt(ctx context.Context, lockID string, at time.Time) (*Tenure, error) {
	end, err := l.beginHistory(lockID, false)
	if err != nil {
		return nil, err
	}
	defer end()

	h, err := l.store.HolderAt(ctx, lockID, at)

	switch {
	case err != nil:
	case h == nil:
		err = fmt.Errorf("%w: the history has no grant before %s", ErrNoHolder, at.UTC().Format(time.RFC3339Nano))
	case !h.Until.After(at):
		err = fmt.Errorf("%w: the last tenure had ended at %s (%s)", ErrNoHolder, h.Until.UTC().Format(time.RFC3339Nano), h.End)
	default:
		return &Tenure{
			LockID: lockID, Token: h.Token, Owner: h.Owner, Since: h.Since, Until: h.Until, End: EventKind(h.End),
		}, nil
	}

	return nil, failed("holder of", lockID, err)
}

// beginHistory checks what each method that reads the history checks. Recipes' rows may be read.
func (l *Locker) beginHistory(lockID string, all bool) (end func(), err error) {
	if err := validateLockID(lockID); err != nil && !all {
		return nil, err
	}

	return l.desk.Begin()
}
