package pglocker

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ismurov/pglocker/internal/store"
)

// LocksFilter says which locks [Locker.Locks] lists: those with all that it asks for. The zero value asks for
// nothing, and lists every row, those of recipes included.
type LocksFilter struct {
	// Prefix is what the lock id begins with.
	Prefix string
	// Kind is the kind of the row. "" is any.
	Kind Kind
	// Held lists locks whose lease runs, by the database's clock. A minimum hold ([WithMinHold]) counts as one.
	Held bool
	// Crashed lists locks whose lease ended without a release: mostly the holder has crashed. Such a lock is
	// free. The table must have the column owner.
	Crashed bool
	// Owner lists locks that are, or were last, of this owner. It is [Config.Owner], the name of a Locker, or
	// all of [LockStatus.Owner]. The table must have the column owner.
	Owner string
}

// prefixes is the prefix that all ids have, and those that none has. ok is false if no id can have what is asked
// for.
func (f LocksFilter) prefixes() (prefix string, without []string, ok bool) {
	recipe := func(k Kind) string { return ReservedPrefix + string(k) + ":" }

	switch f.Kind {
	case KindLock:
		without = []string{ReservedPrefix}
	case KindSemaphore, KindRWLock, KindElection:
		prefix = recipe(f.Kind)
	case KindInternal:
		prefix, without = ReservedPrefix, []string{recipe(KindSemaphore), recipe(KindRWLock), recipe(KindElection)}
	}

	if f.Crashed && f.Kind == "" { // copies of terms, which nobody held
		without = append(without, ReservedPrefix+"term:")
	}

	if strings.HasPrefix(f.Prefix, prefix) {
		return f.Prefix, without, true
	}

	return prefix, without, strings.HasPrefix(prefix, f.Prefix)
}

func (f LocksFilter) validate() error {
	switch f.Kind {
	case "", KindLock, KindSemaphore, KindRWLock, KindElection, KindInternal:
	default:
		return fmt.Errorf("%w: unknown kind %q", ErrInvalidFilter, f.Kind)
	}

	if f.Held && f.Crashed {
		return fmt.Errorf("%w: no lock is held and expired", ErrInvalidFilter)
	}

	for _, text := range []string{f.Prefix, f.Owner} {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return fmt.Errorf("%w: not valid UTF-8 without NUL: %q", ErrInvalidFilter, text)
		}
	}

	return nil
}

// Locks lists the locks that the filter lets through, in the order of the column lock_id. For information only:
// a lock may have changed when you read it.
//
// Locks reads page after page while the loop goes on, and keeps one page in memory: 1,000 rows, or with a filter
// what matches among 10,000. Each page is a statement of its own, which shows the table as it is then. A lock
// that exists all the time is listed once. One that is created or pruned meanwhile may be missing. No connection
// is in use while the loop's body runs.
//
// After an error the loop ends: its last round has the error, and a zero status. Errors: [ErrInvalidFilter];
// [ErrNoOwners]; [ErrClosed]; those of the database's state; ctx's error, when it ends; and what the driver reports.
func (l *Locker) Locks(ctx context.Context, filter LocksFilter) iter.Seq2[LockStatus, error] {
	return func(yield func(LockStatus, error) bool) {
		if err := l.list(ctx, filter, yield); err != nil {
			yield(LockStatus{}, tidy(fmt.Errorf("%w (list locks)", err)))
		}
	}
}

// list calls yield until it is false, or no lock is left.
func (l *Locker) list(ctx context.Context, filter LocksFilter, yield func(LockStatus, error) bool) error {
	if err := filter.validate(); err != nil {
		return err
	}

	prefix, without, ok := filter.prefixes()
	if !ok {
		return nil
	}

	f := store.ListFilter{Prefix: prefix, Without: without, Owner: filter.Owner}

	switch {
	case filter.Held:
		f.State = store.ListHeld
	case filter.Crashed:
		f.State = store.ListCrashed
	}

	var listing *store.Listing

	for more := true; more; {
		rows, err := l.nextPage(ctx, f, &listing, &more)
		if err != nil {
			return err
		}

		for _, r := range rows {
			status := newStatus(r.ID, r.Row)
			status.Waited = r.Row.ContendedUntil.After(r.Row.Now)

			if !yield(*status, nil) {
				return nil
			}
		}
	}

	return nil
}

// nextPage reads a page. Close waits for it, and not for the loop.
func (l *Locker) nextPage(ctx context.Context, f store.ListFilter, listing **store.Listing, more *bool) ([]store.Listed, error) {
	end, err := l.desk.Begin()
	if err != nil {
		return nil, err
	}
	defer end()

	if *listing == nil {
		if *listing, err = l.store.List(ctx, f); err != nil {
			return nil, err
		}
	}

	rows, goOn, err := (*listing).Next(ctx)
	*more = goOn

	return rows, err
}

// HeldAt reports whether the lease runs at the time now, by the database's clock: see [Locker.DatabaseTime].
func (s LockStatus) HeldAt(now time.Time) bool { return s.ExpiresAt.After(now) }

// DatabaseTime reads the database's clock, by which leases end. It is in UTC, and already past when it is
// returned.
//
// Errors: [ErrClosed], those of the database's state, ctx's error, and what the driver reports.
func (l *Locker) DatabaseTime(ctx context.Context) (time.Time, error) {
	end, err := l.desk.Begin()
	if err != nil {
		return time.Time{}, err
	}
	defer end()

	now, err := l.store.Clock(ctx)

	return now, tidy(err)
}

// PreviousHolderCrashed reports whether the tenure before this one ended without a release: its lease ran out, as
// that of a crashed or paused holder does. What the previous holder was working on may be half done. It is false
//
//   - for the first grant of a lock, and for one that was pruned since;
//   - after a release, by [Locker.ForceRelease] too, and for a lock that was handed over;
//   - where it isn't known: on a table without the column owner, or if the reply to the grant was lost and the
//     grant was found later.
func (lk *Lock) PreviousHolderCrashed() bool { return lk.afterCrash }
