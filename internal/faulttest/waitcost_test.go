package faulttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestOneStatementPerWaitingProcess: fifty processes wait for one lock, and each release makes each of them ask once,
// until they know that they are a crowd. A request that meets the grant of another before that is committed doesn't
// learn who has the lock, and is made again.
func TestOneStatementPerWaitingProcess(t *testing.T) {
	const (
		processes = 50
		// rounds are so few that no process has seen more than five others have the lock: the first holder, and one more
		// at each release.
		rounds = 5
	)

	type grant struct {
		process int
		lock    *pglocker.Lock
	}

	var (
		ctx, cancel = context.WithCancel(t.Context())
		url         = contract.NewDatabase(t)
		direct      = contract.Open(t, "pgx", url)
		w           = contract.NewWatcher()
		waiting     = make(map[int]*contract.Counted)
		grants      = make(chan grant, processes)
		group       sync.WaitGroup
	)

	lock, err := contract.NewLocker(t, "pgx", url).TryLock(ctx, "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}

	for i := range processes {
		c := contract.NewCounted(t, url, w, 2)
		waiting[i] = c

		group.Go(func() {
			lock, err := c.Locker.Lock(ctx, "a", time.Minute)

			switch {
			case err == nil:
				grants <- grant{i, lock}
			case !errors.Is(err, context.Canceled):
				t.Error(err)
			}
		})
		contract.Receive(t, "somebody waits", w.InLine())
	}

	defer group.Wait()
	defer cancel()

	contract.Await(t, "every process listens", func() bool {
		return contract.Query[int](t, direct, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'LISTEN%'`) == processes
	})

	// Who hasn't heard a notification yet polls, at least every 400 ms.
	sent, since, listens := make(map[int]int64), make(map[int]time.Time), make(map[int]bool)

	contract.Await(t, "nobody polls any more", func() bool {
		for i, c := range waiting {
			if now := c.Statements.Load(); now != sent[i] || since[i].IsZero() {
				sent[i], since[i] = now, time.Now()
			}

			listens[i] = listens[i] || time.Since(since[i]) > time.Second
		}

		return !slices.Contains(slices.Collect(maps.Values(listens)), false)
	})

	var asked, releases, most int64

	for range rounds {
		before := make(map[int]int64)
		for i, c := range waiting {
			before[i] = c.Statements.Load()
		}

		if err := lock.Unlock(ctx); err != nil {
			t.Fatal(err)
		}

		granted := contract.Receive(t, "the next grant", grants)
		delete(waiting, granted.process)

		lock = granted.lock

		contract.Await(t, "every other process has asked", func() bool {
			for i, c := range waiting {
				if c.Statements.Load() == before[i] {
					return false
				}
			}

			return true
		})

		for i, c := range waiting {
			sent := c.Statements.Load() - before[i]
			asked, most = asked+sent, max(most, sent)
			releases++
		}
	}

	if asked > releases*5/4 || most > 3 {
		t.Errorf("%d statements for %d releases that were heard, want one for most; %d by one process for one", asked, releases, most)
	}

	cancel()
	group.Wait()

	if err := lock.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestManyWaitersOneConnection: ten thousand goroutines that wait for a thousand
// locks need one connection beside the pool's.
func TestManyWaitersOneConnection(t *testing.T) {
	const (
		locks      = 1000
		waiters    = 10 // for each lock
		poolLimit  = 3
		waitersApp = "waiters"
	)

	databaseURL := contract.NewDatabase(t)

	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}

	q := u.Query()
	q.Set("application_name", waitersApp)
	u.RawQuery = q.Encode()

	var (
		ctx, cancel = context.WithCancel(t.Context())
		holder      = contract.NewLocker(t, "pgx", databaseURL)
		db          = contract.Open(t, "pgx", u.String())
		direct      = contract.Open(t, "pgx", databaseURL)
		w           = contract.NewWatcher()
		locker      = contract.WatchedLocker(t, db, w)
		held        [locks]*pglocker.LockStatus
		grants      = make(chan *pglocker.Lock, locks*waiters)
		granted     []*pglocker.Lock
		group       sync.WaitGroup
	)

	defer group.Wait()
	defer cancel()

	db.SetMaxOpenConns(poolLimit)

	for i := range held {
		if held[i], err = holder.AcquireLock(ctx, fmt.Sprint(i), 10*time.Minute); err != nil {
			t.Fatal(err)
		}
	}

	for range waiters {
		for i := range held {
			group.Go(func() {
				lock, err := locker.Lock(ctx, fmt.Sprint(i), time.Minute)

				switch {
				case err == nil:
					grants <- lock
				case !errors.Is(err, context.Canceled):
					t.Error(err)
				}
			})
		}
	}

	for range locks * waiters {
		contract.Receive(t, "everybody waits", w.InLine())
	}

	connections := func(condition string) int {
		return contract.Query[int](t, direct,
			"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND "+condition, waitersApp)
	}

	contract.Await(t, "every lock is marked", func() bool {
		return contract.Query[int](t, direct, `SELECT count(*) FROM pglocker.lock_statuses
			WHERE contended_until > clock_timestamp()`) == locks
	})

	if n := connections("true"); n > poolLimit+1 {
		t.Errorf("%d connections, want at most the pool's %d and one", n, poolLimit)
	}

	if n := connections("query LIKE 'LISTEN%'"); n != 1 {
		t.Errorf("%d connections listen, want one", n)
	}

	// And they are heard.
	for _, status := range held[:locks/10] {
		if err := holder.ReleaseLock(ctx, status); err != nil {
			t.Fatal(err)
		}
	}

	for range locks / 10 {
		granted = append(granted, contract.Receive(t, "a grant", grants))
	}

	cancel()
	group.Wait()

	for _, lock := range granted {
		if err := lock.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}

	contract.Await(t, "the server has no other connections than the pool", func() bool {
		return connections("true") == db.Stats().OpenConnections
	})
}
