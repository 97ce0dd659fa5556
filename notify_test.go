package pglocker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// ear hears what is notified about the locks of the default table.
type ear struct {
	conn    *pgx.Conn
	channel string
}

func newEar(t *testing.T, url string) *ear {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })

	e := &ear{conn, store.Table{Schema: pglocker.DefaultScheme, Name: pglocker.DefaultTable}.Channel()}
	if _, err := conn.Exec(t.Context(), "LISTEN "+e.channel); err != nil {
		t.Fatal(err)
	}

	return e
}

// heard returns the payloads of all notifications so far. Those of one database
// arrive in the order of their commits, so what comes before a last one is all.
func (e *ear) heard(t *testing.T) (payloads []string) {
	t.Helper()

	const last = "the last"

	if _, err := e.conn.Exec(t.Context(), "SELECT pg_notify($1::text, $2::text)", e.channel, last); err != nil {
		t.Fatal(err)
	}

	for {
		n, err := e.conn.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		if n.Payload == last {
			return payloads
		}

		payloads = append(payloads, n.Payload)
	}
}

// TestNotify: a release notifies where another process waits, once, and never where
// nobody does, or who does is in the same process.
func TestNotify(t *testing.T) {
	t.Parallel()

	var (
		ctx    = t.Context()
		url    = contract.NewDatabase(t)
		locker = contract.NewLocker(t, "pgx", url)
		w      = contract.NewWatcher()
		other  = contract.WatchedLocker(t, contract.Open(t, "pgx", url), w)
		direct = contract.Open(t, "pgx", url)
		e      = newEar(t, url)
	)

	// fails is for what can't fail here.
	fails := func(err error) {
		t.Helper()

		if err != nil {
			t.Fatal(err)
		}
	}
	tryLock := func(opts ...pglocker.LockOption) *pglocker.Lock {
		t.Helper()

		lock, err := locker.TryLock(ctx, "a", time.Minute, opts...)
		fails(err)

		return lock
	}
	waits := func(l *pglocker.Locker) <-chan *pglocker.Lock {
		locks := make(chan *pglocker.Lock, 1)

		go func() {
			lock, err := l.Lock(ctx, "a", time.Minute)
			if err != nil {
				t.Error(err)
			}

			locks <- lock
		}()

		return locks
	}
	marked := func() bool {
		return contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp(), false)
			FROM pglocker.lock_statuses WHERE lock_id = 'a'`)
	}

	for range 20 {
		fails(tryLock().Unlock(ctx))
		fails(locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error { return nil }))

		status, err := locker.AcquireLock(ctx, "a", time.Minute)
		fails(err)
		fails(locker.ReleaseLock(ctx, status))
	}

	if got := e.heard(t); len(got) > 0 {
		t.Errorf("with nobody waiting, releases notified %q", got)
	}

	// One in another process waits, and has said so.
	lock := tryLock()
	granted := waits(other)

	contract.Await(t, "the waiter leaves its mark", marked)

	if got := e.heard(t); len(got) > 0 {
		t.Errorf("waiting notified %q", got)
	}

	fails(lock.Unlock(ctx))

	lock = contract.Receive(t, "the grant", granted)
	if got := e.heard(t); len(got) != 1 || got[0] != "a" {
		t.Errorf("a release that somebody waited for notified %q, want the lock's id, once", got)
	}

	// The mark of one that waits no more is forgotten in time.
	contract.Exec(t, direct, `UPDATE pglocker.lock_statuses SET contended_until = clock_timestamp()`)
	fails(lock.Unlock(ctx))

	if got := e.heard(t); len(got) > 0 {
		t.Errorf("a release whose mark had passed notified %q", got)
	}

	// One in the same process is handed the lock, mark or not.
	lock, err := other.TryLock(ctx, "a", time.Minute)
	fails(err)

	granted = waits(other)

	contract.Await(t, "the waiter leaves its mark", marked)
	fails(lock.Unlock(ctx))
	contract.Exec(t, direct, `UPDATE pglocker.lock_statuses SET contended_until = clock_timestamp()`)
	fails(contract.Receive(t, "the grant", granted).Unlock(ctx))

	if got := e.heard(t); len(got) > 0 {
		t.Errorf("a hand-over inside of a process notified %q", got)
	}
}

// TestReleaseWakes: who waits in another process has the lock right after its
// release, without a poll, also if it has just begun to wait.
func TestReleaseWakes(t *testing.T) {
	t.Parallel()

	var (
		ctx    = t.Context()
		url    = contract.NewDatabase(t)
		holder = contract.NewLocker(t, "pgx", url)
		direct = contract.Open(t, "pgx", url)
	)

	for range 3 {
		waiter := contract.NewLocker(t, "pgx", url)
		lock, err := holder.TryLock(ctx, "a", time.Minute)
		contract.Must(t, err)

		granted := make(chan time.Time, 1)
		began := time.Now()

		go func() {
			next, err := waiter.Lock(ctx, "a", time.Minute)
			at := time.Now()

			if err == nil {
				err = next.Unlock(ctx)
			}

			if err != nil {
				t.Error(err)
			}

			granted <- at // after the Unlock, which a Close would do instead
		}()

		contract.Await(t, "the waiter asks to be notified", func() bool {
			return contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
				FROM pglocker.lock_statuses WHERE lock_id = 'a'`)
		})

		// Not only when a mark is renewed, which is after four seconds.
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s to ask", took)
		}

		released := time.Now()

		contract.Must(t, lock.Unlock(ctx))

		// Without the notification it would look after two to four seconds.
		if took := contract.Receive(t, "the waiter has the lock", granted).Sub(released); took > time.Second {
			t.Errorf("the waiter had the lock %s after its release", took)
		}

		contract.Must(t, waiter.Close(ctx))
	}
}

// TestReleaseWakesBesidePolling: a process that polls, and comes to wait for the same lock,
// doesn't keep a release from notifying one that listens.
func TestReleaseWakesBesidePolling(t *testing.T) {
	t.Parallel()

	var (
		ctx    = t.Context()
		url    = contract.NewDatabase(t)
		holder = contract.NewLocker(t, "pgx", url)
		direct = contract.Open(t, "pgx", url)
		e      = newEar(t, url)
		locks  = make(chan *pglocker.Lock, 2)
	)

	lock, err := holder.TryLock(ctx, "a", time.Minute)
	contract.Must(t, err)

	waits := func(driver string) {
		l := contract.NewLocker(t, driver, url)

		go func() {
			lock, err := l.Lock(ctx, "a", time.Minute)
			if err != nil {
				t.Error(err)
			}

			locks <- lock
		}()
	}
	mark := func() (until string, notifies bool) {
		until = contract.Query[string](t, direct, `SELECT coalesce(contended_until::text, '') FROM pglocker.lock_statuses`)
		notifies = contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
			FROM pglocker.lock_statuses`)

		return until, notifies
	}

	waits("pgx")

	var listening string

	contract.Await(t, "one asks to be notified", func() (notifies bool) {
		listening, notifies = mark()

		return notifies
	})

	waits("postgres") // lib/pq

	contract.Await(t, "the other leaves its mark", func() bool {
		until, _ := mark()

		return until != listening
	})

	if until, notifies := mark(); !notifies {
		t.Errorf("after the mark of who polls, a release notifies until %s, and before until %s", until, listening)
	}

	contract.Must(t, lock.Unlock(ctx))

	if got := e.heard(t); len(got) == 0 {
		t.Error("the release notified nobody")
	}

	for range 2 {
		contract.Must(t, contract.Receive(t, "one who waited has the lock", locks).Unlock(ctx))
	}
}

// TestLocksWaitedFor: a held lock is listed as waited for while a waiter of another Locker listens.
func TestLocksWaitedFor(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

	holder, other := contract.NewLocker(t, "pgx", url), contract.NewLocker(t, "pgx", url)
	_, err := holder.AcquireLock(t.Context(), "a", time.Minute)
	contract.Must(t, err)

	waited := func() (waited bool) {
		for status, err := range other.Locks(t.Context(), pglocker.LocksFilter{Held: true}) {
			contract.Must(t, err)

			waited = status.Waited
		}

		return waited
	}

	if waited() {
		t.Error("it is waited for, and there is no waiter")
	}

	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)

	go func() {
		_, err := other.Lock(ctx, "a", time.Minute)
		left <- err
	}()

	contract.Await(t, "the waiter has left a mark", waited)
	leave()

	if err := contract.Receive(t, "it leaves", left); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v, want context.Canceled", err)
	}
}
