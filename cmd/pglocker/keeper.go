package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker"
)

// keeper takes locks for a command that a signal may interrupt at any moment.
//
// What the library is granted after its caller has left, it returns within two seconds, but once it is closed it has
// one for that, and leaves the rest to the lease. So a signal doesn't cut the first request for a lock short:
// [keeper.outlast]. And the library is closed when it has returned what it can: [keeper.settle]. In the end
// [keeper.interrupted] says what may stay held all the same.
type keeper struct {
	locker *pglocker.Locker
	app    *app
	db     *sql.DB
	config pglocker.Config
	ttl    time.Duration
	began  time.Time
	// named: the user has chosen the owner's name, and other processes may have the same.
	named bool
	// signalled ends by the signal that interrupts the command. again ends tellAfter after another one: service
	// managers send two at once.
	signalled, again context.Context

	// mu guards the rest.
	mu sync.Mutex
	// limit is until when an interrupted command may take, zero if none has interrupted it.
	limit time.Time
	// underWay counts first requests for a lock. answered is told of the last one's end, and of the end of the
	// time for it.
	underWay int
	answered *sync.Cond
	// silent: the database hasn't answered within that time.
	silent bool

	// told: the user was told that the command waits.
	told sync.Once
}

// newKeeper connects to the database. The caller ends it by close or interrupted.
func (a *app) newKeeper(
	ctx, again context.Context, command string, ttl time.Duration, configure func(*pglocker.Config, *sql.DB),
) (*keeper, error) {
	db, err := a.open(ctx, command)
	if err != nil {
		return nil, err
	}

	k := &keeper{app: a, db: db, config: *a.connection.config(a.logger()), ttl: ttl, began: time.Now(), signalled: ctx}
	k.answered = sync.NewCond(&k.mu)

	context.AfterFunc(ctx, func() { k.until() })

	hurried, hurry := context.WithCancelCause(context.WithoutCancel(again))
	k.again = hurried

	context.AfterFunc(again, func() { time.AfterFunc(tellAfter, func() { hurry(context.Cause(again)) }) })

	k.config.Observer = k
	configure(&k.config, db)

	if k.named = k.config.Owner != ""; !k.named {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown-host"
		}

		k.config.Owner = fmt.Sprintf("%s:%d", strings.ToValidUTF8(host, ""), os.Getpid())
	}

	if k.locker, err = pglocker.New(db, &k.config); err != nil {
		_ = db.Close()

		return nil, err
	}

	return k, nil
}

// OperationStart counts requests.
func (k *keeper) OperationStart(ctx context.Context, start pglocker.OperationStart) context.Context {
	if start.Operation == pglocker.OperationAcquire {
		k.mu.Lock()
		defer k.mu.Unlock()

		k.underWay++
	}

	return ctx
}

// OperationEnd counts requests.
func (k *keeper) OperationEnd(_ context.Context, end pglocker.OperationEnd) {
	if end.Operation == pglocker.OperationAcquire {
		k.mu.Lock()
		defer k.mu.Unlock()

		if k.underWay--; k.underWay == 0 {
			k.answered.Broadcast()
		}
	}
}

// LockLost does nothing.
func (k *keeper) LockLost(pglocker.LockLost) {}

// lastly is a context for a last request. It ends at the time of until, and by another signal.
func (k *keeper) lastly() (context.Context, context.CancelFunc) {
	return context.WithDeadline(k.again, k.until())
}

// until is when a last request must have ended: after [connection.patience]. A signal begins that time for all that
// is left to do.
func (k *keeper) until() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()

	limit := time.Now().Add(k.app.connection.patience)

	switch {
	case k.signalled.Err() == nil:
		return limit
	case k.limit.IsZero():
		k.limit = limit
	}

	return k.limit
}

// outlast returns a context to take a lock under. It ends with ctx, if no first request is under way then, and
// otherwise when that has been answered.
func (k *keeper) outlast(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { k.endAnswered(func() { cancel(context.Cause(ctx)) }) })

	return lasting, func() {
		stop()
		cancel(nil)
	}
}

// tellAfter is how long a command that was interrupted waits in silence.
const tellAfter = time.Second

// endAnswered calls end as soon as no first request is under way. None begins meanwhile.
func (k *keeper) endAnswered(end func()) {
	limit, cancel := k.lastly()
	defer cancel()

	defer k.tellLater()()

	defer context.AfterFunc(limit, func() {
		k.mu.Lock()
		defer k.mu.Unlock()

		k.answered.Broadcast()
	})()

	k.mu.Lock()
	defer k.mu.Unlock()

	for k.underWay > 0 && limit.Err() == nil {
		k.answered.Wait()
	}

	k.silent = k.underWay > 0

	end()
}

// tellLater tells the user, unless stop is called within [tellAfter], that the command waits.
func (k *keeper) tellLater() (stop func() bool) {
	return time.AfterFunc(tellAfter, func() {
		k.told.Do(func() {
			fmt.Fprintln(k.app.stderr, "pglocker: waiting for the database to say whether it has granted the lock. Another signal ends that.")
		})
	}).Stop
}

// close releases what is still held, and waits for what is under way. It returns when ctx ends.
func (k *keeper) close(ctx context.Context) error {
	err := k.locker.Close(ctx)
	if err == nil {
		_ = k.db.Close()
	}

	return err
}

// interrupted closes the keeper after a signal, and says what may stay held of the given rows. One that ends with
// ":" stands for all that begin so. doubt is that of [inDoubt]: without it, what another may hold as well isn't told.
func (k *keeper) interrupted(rows []string, doubt bool) {
	if !k.silent {
		k.settle(rows, doubt)
	}

	ctx, cancel := k.lastly()
	defer cancel()

	closed := k.locker.Close(ctx)

	for _, row := range rows {
		var (
			found []pglocker.LockStatus
			err   = closed
		)

		if err == nil && !k.silent {
			found, err = k.leftClosed(ctx, row, doubt)
		}

		if err != nil || k.silent {
			fmt.Fprintf(k.app.stderr, "pglocker: whether %s was granted isn't known. If it was, it stays held until %s at the latest. "+
				"See `pglocker ls %[1]s`, and `pglocker free` to end it.\n", printable(row), utc(time.Now().Add(k.ttl)))
		}

		for _, s := range found {
			by := ""
			if s.Owner != "" {
				by = " by " + printable(s.Owner)
			}

			fmt.Fprintf(k.app.stderr, "pglocker: %s is held until %s%s. Whether by this command isn't known: see `pglocker show %[1]s`.\n",
				printable(s.LockID), utc(s.ExpiresAt), by)
		}
	}
}

// inDoubt reports whether what was asked for may be held, as the error of the request or the release says.
func inDoubt(err error) bool {
	return isAny(err, pglocker.ErrUnknownOutcome, pglocker.ErrNotReleased)
}

// settleLook is how often [keeper.settle] looks.
const settleLook = 50 * time.Millisecond

// settle waits while the rows show what the library is about to return.
func (k *keeper) settle(rows []string, doubt bool) {
	ctx, cancel := k.lastly()
	defer cancel()

	// Without owners, the library can't find it either.
	if owners, err := k.locker.HasOwners(ctx); err != nil || !owners {
		return
	}

	defer k.tellLater()()

	look := time.NewTicker(settleLook)
	defer look.Stop()

	shown := func(row string) bool {
		found, err := k.left(ctx, k.locker, row, doubt)

		return err == nil && len(found) > 0
	}

	for slices.ContainsFunc(rows, shown) {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// leftClosed is left when the Locker is closed.
func (k *keeper) leftClosed(ctx context.Context, row string, doubt bool) ([]pglocker.LockStatus, error) {
	locker, err := pglocker.New(k.db, &k.config)
	if err != nil {
		return nil, err
	}

	return k.left(ctx, locker, row, doubt)
}

// left returns what is held of a row, or of those that begin so, by what may have been this command. Without doubt, only
// a name that no other process has says so.
func (k *keeper) left(ctx context.Context, locker *pglocker.Locker, row string, doubt bool) (found []pglocker.LockStatus, err error) {
	owners, err := locker.HasOwners(ctx)
	if err != nil {
		return nil, err
	}

	now, err := locker.DatabaseTime(ctx)
	if err != nil {
		return nil, err
	}

	began := now.Add(-time.Since(k.began))

	mine := func(s pglocker.LockStatus) bool {
		if owners && (!strings.HasPrefix(s.Owner, k.config.Owner+"#") || !s.AcquiredAt.After(began)) {
			return false
		}

		return s.HeldAt(now) && (doubt || owners && !k.named)
	}

	if !strings.HasSuffix(row, ":") {
		status, err := locker.GetLockStatus(ctx, row)
		if err == nil && mine(*status) {
			found = append(found, *status)
		}

		return found, unless(err, pglocker.ErrLockNotFound)
	}

	for status, err := range locker.Locks(ctx, pglocker.LocksFilter{Prefix: row, Held: true}) {
		if err != nil {
			return nil, err
		}

		if mine(status) {
			found = append(found, status)
		}
	}

	return found, nil
}

func utc(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }
