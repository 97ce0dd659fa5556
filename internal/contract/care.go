package contract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// another is the same setup on an empty table of its own.
func (e *env) another(t *testing.T, name string) *env {
	t.Helper()

	other := *e
	other.Table = name
	other.makeTable(t, other.config())
	other.locker = other.newLocker(t)

	return &other
}

// expire ends the lease of a lock that long ago, as if its holder had crashed.
func (e *env) expire(t *testing.T, id string, ago time.Duration) {
	t.Helper()
	Exec(t, e.direct, "UPDATE "+e.table()+" SET expires_at = statement_timestamp() - $2 * interval '1 microsecond' WHERE lock_id = $1",
		id, ago.Microseconds())
}

// insert makes free rows.
func (e *env) insert(t *testing.T, ids ...string) {
	t.Helper()

	for _, id := range ids {
		Exec(t, e.direct, "INSERT INTO "+e.table()+" (lock_id, generation, expires_at) VALUES ($1, 7, clock_timestamp())", id)
	}
}

func listed(t *testing.T, e *env, filter pglocker.LocksFilter) (ids []string) {
	t.Helper()

	for status, err := range e.locker.Locks(withinContext(t), filter) {
		Must(t, err)

		ids = append(ids, status.LockID)
	}

	return ids
}

// testLocks: each filter lists what it asks for, once, in the order of the column.
func testLocks(t *testing.T, e *env) {
	e = e.another(t, "care_locks")
	ctx := withinContext(t)

	if ids := listed(t, e, pglocker.LocksFilter{}); len(ids) > 0 {
		t.Errorf("an empty table lists %q", ids)
	}

	e.insert(t, "job-free", "JOB-upper", "job", "jobs", "ıssız", "issue", "\u200bzero width", `back\slash`,
		"pglocker:semaphore:s", "pglocker:semaphore:s:1", "pglocker:rwlock:r", "pglocker:election:e", "pglocker:watermark")
	e.insert(t, OddLockIDs()...)

	held := e.acquire(t, "job-held", minute)
	crashed := e.acquire(t, "job-crashed", minute)
	e.expire(t, crashed.LockID, time.Second)

	names := func(filter pglocker.LocksFilter, want ...string) {
		t.Helper()

		got := listed(t, e, filter)
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%+v lists %q, want %q", filter, got, want)
		}
	}

	// The server's order, and all of it.
	rows, err := e.direct.QueryContext(ctx, "SELECT lock_id FROM "+e.table()+" ORDER BY lock_id")
	Must(t, err)

	var all []string

	for rows.Next() {
		var id string

		Must(t, rows.Scan(&id))

		all = append(all, id)
	}

	Must(t, rows.Err())
	Must(t, rows.Close())

	if got := listed(t, e, pglocker.LocksFilter{}); !slices.Equal(got, all) {
		t.Errorf("listed %q, want %q", got, all)
	}

	for n, id := range all {
		if got := listed(t, e, pglocker.LocksFilter{After: id}); !slices.Equal(got, all[n+1:]) {
			t.Errorf("after %q: listed %q, want %q", id, got, all[n+1:])
		}
	}

	jobs := listed(t, e, pglocker.LocksFilter{Prefix: "job"})
	if got := listed(t, e, pglocker.LocksFilter{Prefix: "job", After: jobs[1]}); !slices.Equal(got, jobs[2:]) {
		t.Errorf("after %q: listed %q of %q", jobs[1], got, jobs)
	}

	names(pglocker.LocksFilter{Prefix: "job"}, "job", "job-crashed", "job-free", "job-held", "jobs")
	names(pglocker.LocksFilter{Prefix: "job-"}, "job-crashed", "job-free", "job-held")
	names(pglocker.LocksFilter{Prefix: `back\`}, `back\slash`)
	names(pglocker.LocksFilter{Held: true}, held.LockID)
	names(pglocker.LocksFilter{Held: true, Prefix: "no such"})
	names(pglocker.LocksFilter{Kind: pglocker.KindSemaphore}, "pglocker:semaphore:s", "pglocker:semaphore:s:1")
	names(pglocker.LocksFilter{Kind: pglocker.KindSemaphore, Prefix: "pglocker:semaphore:s:"}, "pglocker:semaphore:s:1")
	names(pglocker.LocksFilter{Kind: pglocker.KindRWLock, Prefix: "pglocker:"}, "pglocker:rwlock:r")
	names(pglocker.LocksFilter{Kind: pglocker.KindElection}, "pglocker:election:e")
	names(pglocker.LocksFilter{Kind: pglocker.KindInternal}, "pglocker:watermark")
	names(pglocker.LocksFilter{Kind: pglocker.KindElection, Prefix: "job"})

	if got := listed(t, e, pglocker.LocksFilter{Kind: pglocker.KindLock}); len(got) != len(all)-5 ||
		slices.ContainsFunc(got, func(id string) bool { return strings.HasPrefix(id, pglocker.ReservedPrefix) }) {
		t.Errorf("plain locks: %q of %q", got, all)
	}

	testLocksByOwner(t, e, held, crashed, names)

	for status, err := range e.locker.Locks(ctx, pglocker.LocksFilter{Prefix: held.LockID}) {
		Must(t, err)

		now, err := e.locker.DatabaseTime(ctx)
		Must(t, err)

		if status != *held || !status.HeldAt(now) || status.HeldAt(now.Add(time.Hour)) {
			t.Errorf("listed %+v, held %t, want %+v", status, status.HeldAt(now), *held)
		}
	}

	for range e.locker.Locks(ctx, pglocker.LocksFilter{}) {
		break // ends the listing
	}

	listFails(t, e, pglocker.LocksFilter{Held: true, Crashed: true}, pglocker.ErrInvalidFilter)
	listFails(t, e, pglocker.LocksFilter{Kind: "mutex"}, pglocker.ErrInvalidFilter)
	listFails(t, e, pglocker.LocksFilter{Prefix: "a\x00"}, pglocker.ErrInvalidFilter)
	listFails(t, e, pglocker.LocksFilter{Owner: "\xff"}, pglocker.ErrInvalidFilter)
	listFails(t, e, pglocker.LocksFilter{After: "\xff"}, pglocker.ErrInvalidFilter)
}

func testLocksByOwner(t *testing.T, e *env, held, crashed *pglocker.LockStatus, names func(pglocker.LocksFilter, ...string)) {
	t.Helper()

	has, err := e.locker.HasOwners(withinContext(t))
	Must(t, err)

	if has != e.hasOwners() {
		t.Errorf("HasOwners: %t", has)
	}

	if !e.hasOwners() {
		listFails(t, e, pglocker.LocksFilter{Owner: "contract"}, pglocker.ErrNoOwners)
		listFails(t, e, pglocker.LocksFilter{Crashed: true}, pglocker.ErrNoOwners)

		return
	}

	locker, _, _ := strings.Cut(held.Owner, ".")

	names(pglocker.LocksFilter{Crashed: true}, crashed.LockID)
	names(pglocker.LocksFilter{Owner: "contract"}, held.LockID, crashed.LockID)
	names(pglocker.LocksFilter{Owner: locker, Held: true}, held.LockID)
	names(pglocker.LocksFilter{Owner: crashed.Owner}, crashed.LockID)
	names(pglocker.LocksFilter{Owner: "contr"})
}

// listFails fails the test unless listing yields the error, and nothing else.
func listFails(t *testing.T, e *env, filter pglocker.LocksFilter, want error) {
	t.Helper()

	rounds := 0

	for status, err := range e.locker.Locks(withinContext(t), filter) {
		rounds++

		if !errors.Is(err, want) || status != (pglocker.LockStatus{}) {
			t.Errorf("%+v: %+v, %v, want %v", filter, status, err, want)
		}
	}

	if rounds != 1 {
		t.Errorf("%+v: %d rounds, want one with an error", filter, rounds)
	}
}

// testForceRelease: it ends that tenure alone, for the holder too, and the waiters here and elsewhere get the
// lock.
func testForceRelease(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	var log Journal

	cfg := e.config()
	cfg.Logger = slog.New(&log)

	admin := e.open(t, cfg)
	t.Cleanup(func() { CloseLocker(t, admin) })

	force := func(locker *pglocker.Locker, id string, token int64, want error) {
		t.Helper()

		if err := locker.ForceRelease(ctx, id, token, "stuck"); !errors.Is(err, want) {
			t.Errorf("ForceRelease of %q, token %d: %v, want %v", id, token, err, want)
		}
	}

	force(admin, id, 1, pglocker.ErrLockNotFound)
	force(admin, "", 1, pglocker.ErrInvalidLockID)
	force(admin, "pglocker:watermark", 1, pglocker.ErrReservedLockID)

	// The holder in another Locker learns of it by its next renewal.
	elsewhere, err := e.locker.TryLock(ctx, id, minute, pglocker.WithRelockInterval(50*time.Millisecond))
	Must(t, err)

	force(admin, id, elsewhere.Token()-1, pglocker.ErrWrongGeneration)
	force(admin, id, elsewhere.Token()+1, pglocker.ErrWrongGeneration)

	if elsewhere.Context().Err() != nil {
		t.Fatal("a lock was lost by a ForceRelease of another token")
	}

	// A waiter in each: here and elsewhere.
	waiters := []asked{lockAsync(ctx, e.locker, id), lockAsync(ctx, admin, id)}

	force(admin, id, elsewhere.Token(), nil)
	Receive(t, "the holder loses the lock", elsewhere.Context().Done())

	if cause := context.Cause(elsewhere.Context()); !errors.Is(cause, pglocker.ErrLockLost) {
		t.Errorf("the holder's context ended for %v, want ErrLockLost", cause)
	}

	unlockLost(t, elsewhere)

	for len(waiters) > 0 {
		i, lock := oneOf(t, waiters)
		if lock.PreviousHolderCrashed() {
			t.Error("a lock that was released by force shows a crash")
		}

		unlock(t, lock)

		waiters = slices.Delete(waiters, i, i+1)
	}

	entry := log.One(t, slog.LevelWarn, "released by force")
	if got := entry.Attrs; got["lock"].String() != id || got["token"].Int64() != elsewhere.Token() ||
		got["reason"].String() != "stuck" || !strings.HasPrefix(got["by"].String(), "contract#") ||
		got["holder"].String() != elsewhere.Status().Owner {
		t.Errorf("logged %v", got)
	}

	// One that is held through the same Locker ends before the row is free.
	here := tryLock(t, admin, id)
	force(admin, id, here.Token(), nil)

	if !errors.Is(context.Cause(here.Context()), pglocker.ErrLockLost) {
		t.Errorf("ForceRelease has returned, and the holder's context here: %v", context.Cause(here.Context()))
	}

	unlockLost(t, here)
	e.isFree(t, id)

	// A slot of a recipe.
	slot := "pglocker:semaphore:" + id + ":1"
	e.insert(t, slot)
	e.take(t, slot)
	force(admin, slot, 8, nil)
	e.isFree(t, slot)
}

// oneOf returns the first of several that is granted the lock.
func oneOf(t *testing.T, waiters []asked) (int, *pglocker.Lock) {
	t.Helper()

	var (
		got  *pglocker.Lock
		from int
	)

	Await(t, "a waiter is granted the lock", func() bool {
		for i, w := range waiters {
			select {
			case got = <-w.locks:
				from = i

				return true
			case err := <-w.errs:
				t.Fatal(err)
			default:
			}
		}

		return false
	})

	return from, got
}

// testPreviousHolderCrashed: for each way to be granted a lock, after each way in which the tenure before ended.
func testPreviousHolderCrashed(t *testing.T, e *env) {
	ctx := withinContext(t)

	tryIt := func(id string) *pglocker.Lock { return tryLock(t, e.locker, id) }
	ways := map[string]func(id string) *pglocker.Lock{
		"TryLock": tryIt,
		"TryLock beside others": func(id string) *pglocker.Lock {
			var beside []asked
			for i := range 20 {
				beside = append(beside, lockAsync(ctx, e.locker, fmt.Sprintf("%s beside %d", id, i)))
			}

			lock := tryIt(id)

			for _, b := range beside {
				if other := b.get(t); other.PreviousHolderCrashed() {
					t.Error("a first grant shows a crash")
				} else {
					unlock(t, other)
				}
			}

			return lock
		},
	}

	for name, take := range ways {
		check := func(how, id string, want bool) *pglocker.Lock {
			t.Helper()

			lock := take(id)
			if got := lock.PreviousHolderCrashed(); got != want {
				t.Errorf("%s, %s: %t, want %t", name, how, got, want)
			}

			return lock
		}

		id := newID()
		unlock(t, check("the first grant", id, false))
		unlock(t, check("after a release", id, false))

		e.acquire(t, id, minute)
		e.expire(t, id, time.Second)
		unlock(t, check("after a lease that ended", id, e.hasOwners()))
		unlock(t, check("after the release that followed", id, false))

		minHold := tryLock(t, e.locker, id, pglocker.WithMinHold(50*time.Millisecond))
		unlock(t, minHold)
		Await(t, "the minimum hold ends", func() bool { return !e.get(t, id).HeldAt(Now(t, e.direct)) })

		lock := check("after a minimum hold", id, false)

		// Handed over to a waiter of this Locker.
		waiter := lockAsync(ctx, e.locker, id)
		unlock(t, lock)

		if lock = waiter.get(t); lock.PreviousHolderCrashed() {
			t.Errorf("%s: a lock that was handed over shows a crash", name)
		}

		unlock(t, lock)
	}

	// A waiter finds the lock when a lease ends.
	id := newID()

	_, err := e.newLocker(t).AcquireLock(ctx, id, 500*time.Millisecond)
	Must(t, err)

	lock := lockAsync(ctx, e.locker, id).get(t)
	if got := lock.PreviousHolderCrashed(); got != e.hasOwners() {
		t.Errorf("a waiter after a lease that ended: %t, want %t", got, e.hasOwners())
	}

	unlock(t, lock)
}

// testPrune: what was idle for long enough goes, and nothing else. Tokens go on growing.
func testPrune(t *testing.T, e *env) {
	e = e.another(t, "care_prune")
	ctx := withinContext(t)

	prune := func(idle time.Duration, want int64) {
		t.Helper()

		if removed, err := e.locker.Prune(ctx, idle); err != nil || removed != want {
			t.Errorf("Prune(%s): %d rows, %v, want %d", idle, removed, err, want)
		}
	}

	for _, idle := range []time.Duration{-1, pglocker.MaxTTL + 1} {
		if _, err := e.locker.Prune(ctx, idle); !errors.Is(err, pglocker.ErrInvalidIdle) {
			t.Errorf("Prune(%s): %v, want ErrInvalidIdle", idle, err)
		}
	}

	prune(0, 0) // makes the watermark

	stays := []string{"pglocker:semaphore:s", "pglocker:semaphore:s:1", "pglocker:rwlock:r:1", "pglocker:watermark"}
	e.insert(t, stays[:3]...)

	old := e.acquire(t, "old", minute)
	e.expire(t, "old", time.Hour)
	e.insert(t, "pglocker:election:e")
	e.expire(t, "pglocker:election:e", time.Hour)

	fresh := e.acquire(t, "fresh", minute)
	e.expire(t, "fresh", time.Minute)

	e.acquire(t, "held", minute)

	prune(minute*30, 2)

	if got := listed(t, e, pglocker.LocksFilter{}); len(got) != 2+len(stays) {
		t.Errorf("left are %q", got)
	}

	// What an old status of a pruned lock is worth.
	stale := func(want error) {
		t.Helper()

		if _, err := e.locker.RefreshLock(ctx, old, minute); !errors.Is(err, want) {
			t.Errorf("RefreshLock: %v, want %v", err, want)
		}

		if err := e.locker.ReleaseLock(ctx, old); !errors.Is(err, want) {
			t.Errorf("ReleaseLock: %v, want %v", err, want)
		}
	}

	stale(pglocker.ErrLockNotFound)

	again := e.acquire(t, "old", minute)
	if again.Generation <= old.Generation {
		t.Errorf("token %d after %d was pruned", again.Generation, old.Generation)
	}

	stale(pglocker.ErrWrongGeneration)

	// The largest token that was ever pruned counts, for created locks and for many at once.
	Exec(t, e.direct, "UPDATE "+e.table()+" SET generation = generation + 1000 WHERE lock_id = 'fresh'")
	prune(time.Second, 1)

	created, err := e.locker.CreateLock(ctx, "created")
	Must(t, err)

	if least := fresh.Generation + 1000; created.Generation <= least {
		t.Errorf("created with generation %d, and %d was pruned", created.Generation, least)
	}

	var many []asked
	for i := range 20 {
		many = append(many, lockAsync(ctx, e.locker, fmt.Sprint("many ", i)))
	}

	for _, m := range many {
		lock := m.get(t)
		if least := fresh.Generation + 1000; lock.Token() <= least || lock.PreviousHolderCrashed() {
			t.Errorf("token %d after %d was pruned, crashed %t", lock.Token(), least, lock.PreviousHolderCrashed())
		}

		unlock(t, lock)
	}

	testPruneHeld(t, e)
	testCareClosed(t, e)
}

// testCareClosed: a Locker that is closed lists, releases and prunes nothing.
func testCareClosed(t *testing.T, e *env) {
	t.Helper()

	ctx := withinContext(t)
	closed := e.another(t, "care_closed")
	CloseLocker(t, closed.locker)

	listFails(t, closed, pglocker.LocksFilter{}, pglocker.ErrClosed)

	for name, err := range map[string]error{
		"ForceRelease": closed.locker.ForceRelease(ctx, "a", 1, ""),
		"Prune":        Second(closed.locker.Prune(ctx, time.Hour)),
		"DatabaseTime": Second(closed.locker.DatabaseTime(ctx)),
	} {
		if !errors.Is(err, pglocker.ErrClosed) {
			t.Errorf("%s of a closed Locker: %v, want ErrClosed", name, err)
		}
	}
}

// testPruneHeld: a holder whose lease has ended and whose row was pruned has lost the lock.
func testPruneHeld(t *testing.T, e *env) {
	t.Helper()

	lock := tryLock(t, e.locker, "pruned", pglocker.WithRelockInterval(minute/2))
	e.expire(t, "pruned", time.Hour)
	Must(t, Second(e.locker.Prune(withinContext(t), time.Minute)))

	tx := begin(t, e.db, 0)
	if err := lock.Guard(withinContext(t), tx); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard of a pruned lock: %v, want ErrLockLost", err)
	}

	Must(t, tx.Rollback())
	unlockLost(t, lock)

	lock = tryLock(t, e.locker, "pruned", pglocker.WithRelockInterval(50*time.Millisecond))
	e.expire(t, "pruned", time.Hour)
	Exec(t, e.direct, "DELETE FROM "+e.table()+" WHERE lock_id = 'pruned'")
	Receive(t, "the holder of a lock without a row loses it", lock.Context().Done())
	unlockLost(t, lock)
}
