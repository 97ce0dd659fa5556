package pglocker_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestWriterAmongReaders: readers of two processes follow each other without a gap. A writer of
// either is granted the lock all the same, after those that read when it came.
func TestWriterAmongReaders(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const readers = 3 // for each locker

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		var (
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
			stop   = make(chan struct{})
			all    sync.WaitGroup
			grants atomic.Int64
			locks  []*pglocker.RWLock
		)

		const intent = `SELECT count(*) > 0 FROM pglocker.lock_statuses
			WHERE lock_id = 'pglocker:rwlock:stream:intent' AND expires_at > clock_timestamp()`

		for range 2 {
			rw, err := contract.NewLocker(t, driver, url).NewRWLock("stream")
			contract.Must(t, err)

			locks = append(locks, rw)

			// Each leaves when another has come, or when it sees that a writer stops them.
			for range readers {
				all.Go(func() {
					for {
						reader, err := rw.RLock(ctx, time.Minute)
						if err != nil {
							t.Error(err)

							return
						}

						mine := grants.Add(1)

						contract.Await(t, "another reader or a writer comes", func() bool {
							select {
							case <-stop:
								return true
							default:
								return grants.Load() > mine || contract.Query[bool](t, direct, intent)
							}
						})

						if err := reader.Unlock(ctx); err != nil {
							t.Error(err)

							return
						}

						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
		}

		contract.Await(t, "many read", func() bool { return grants.Load() > 4*readers })

		for _, rw := range locks {
			writer, err := rw.Lock(ctx, time.Minute)
			contract.Must(t, err)

			during := grants.Load()

			if _, err := locks[0].TryRLock(ctx, time.Minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
				t.Errorf("a reader beside a writer: %v", err)
			}

			if now := grants.Load(); now > during+2*readers { // those that were granted before, and say so now
				t.Errorf("%d readers were granted the lock beside a writer", now-during)
			}

			contract.Must(t, writer.Unlock(ctx))
		}

		close(stop)
		all.Wait()
	})
}

// TestWriterBehindReader: a reader comes while a writer that found a reader in its way waits for the row of its
// intent. The writer is served first: it doesn't come to stand behind a reader that its intent keeps out.
func TestWriterBehindReader(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var (
		url    = contract.NewDatabase(t)
		direct = contract.Open(t, "pgx", url)
		w      = contract.NewWatcher()
		served = make(chan string, 2)
	)

	contract.MakeTable(t, direct, "")
	contract.Exec(t, direct, `INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at)
		VALUES ('pglocker:rwlock:a:intent', 1, clock_timestamp())`)

	rw, err := contract.WatchedLocker(t, contract.Open(t, "pgx", url), w).NewRWLock("a", pglocker.WithMaxReaders(1))
	contract.Must(t, err)

	reader, err := rw.RLock(ctx, time.Minute)
	contract.Must(t, err)

	stranger, err := direct.BeginTx(ctx, nil)
	contract.Must(t, err)
	_, err = stranger.ExecContext(ctx, "SELECT FROM pglocker.lock_statuses WHERE lock_id = 'pglocker:rwlock:a:intent' FOR UPDATE")
	contract.Must(t, err)

	take := func(who string, lock func(context.Context, time.Duration, ...pglocker.LockOption) (*pglocker.Access, error)) {
		access, err := lock(ctx, time.Minute)
		if err == nil {
			served <- who
			err = access.Unlock(ctx)
		}

		if err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}

	var all sync.WaitGroup

	all.Go(func() { take("writer", rw.Lock) })
	contract.Await(t, "the writer waits for its intent", func() bool { return contract.RowWaits(t, direct) > 0 })

	select {
	case <-w.InLine():
	default:
		t.Error("the writer leaves an intent before it stands in line")
	}

	all.Go(func() { take("reader", rw.RLock) })
	contract.Receive(t, "the reader in line", w.InLine())
	contract.Must(t, stranger.Rollback())
	contract.Must(t, reader.Unlock(ctx))
	all.Wait()

	if first := contract.Receive(t, "a grant", served); first != "writer" {
		t.Error("the reader was served before the writer, which came first")
	}
}

// TestReaderAmongWriters: writers of two processes follow each other. A reader of either is granted
// the lock all the same.
func TestReaderAmongWriters(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		var (
			url    = contract.NewDatabase(t)
			stop   = make(chan struct{})
			all    sync.WaitGroup
			grants atomic.Int64
			locks  []*pglocker.RWLock
		)

		for range 2 {
			rw, err := contract.NewLocker(t, driver, url).NewRWLock("stream")
			contract.Must(t, err)

			locks = append(locks, rw)

			for range 3 {
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}

						writer, err := rw.Lock(ctx, time.Minute)
						if err != nil {
							t.Error(err)

							return
						}

						grants.Add(1)
						contract.Must(t, writer.Unlock(ctx))
					}
				})
			}
		}

		contract.Await(t, "many write", func() bool { return grants.Load() > 20 })

		for _, rw := range locks {
			reader, err := rw.RLock(ctx, time.Minute)
			contract.Must(t, err)
			contract.Must(t, reader.Unlock(ctx))
		}

		close(stop)
		all.Wait()
	})
}

// TestDeadWaitingWriter: what a writer left that died while it waited stops readers until its
// TTL is over, and no longer.
func TestDeadWaitingWriter(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 2 * time.Second

		var (
			ctx    = t.Context()
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
		)

		rw, err := contract.NewLocker(t, driver, url).NewRWLock("dead")
		contract.Must(t, err)

		reader, err := rw.RLock(ctx, time.Minute)
		contract.Must(t, err)

		// Its database goes away under it, so that it can't say that it leaves.
		gone := contract.Open(t, driver, url)
		dying, err := pglocker.New(gone, &pglocker.Config{})
		contract.Must(t, err)

		other, err := dying.NewRWLock("dead")
		contract.Must(t, err)

		waiting, leave := context.WithCancel(ctx)
		left := make(chan error, 1)

		go func() {
			_, err := other.Lock(waiting, ttl)
			left <- err
		}()

		const intent = "SELECT coalesce(max(expires_at), '-infinity') > clock_timestamp() FROM pglocker.lock_statuses WHERE lock_id = 'pglocker:rwlock:dead:intent'"

		contract.Await(t, "an intent", func() bool { return contract.Query[bool](t, direct, intent) })
		contract.Must(t, gone.Close())
		leave()
		contract.Receive(t, "Lock returns", left)

		last := contract.Now(t, direct)

		next, err := rw.RLock(ctx, time.Minute)
		contract.Must(t, err)

		granted := next.Context()
		if took := contract.Now(t, direct).Sub(last); granted.Err() != nil || took > ttl+2*time.Second {
			t.Errorf("a dead writer stopped readers for %s, with a TTL of %s", took, ttl)
		}

		contract.Must(t, errors.Join(reader.Unlock(ctx), next.Unlock(ctx)))
		contract.CloseLocker(t, dying)
	})
}

// TestDowngradeFails: a downgrade that fails releases the lock.
func TestDowngradeFails(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx    = t.Context()
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
		)

		rw, err := contract.NewLocker(t, driver, url).NewRWLock("down")
		contract.Must(t, err)

		writer, err := rw.Lock(ctx, time.Minute)
		contract.Must(t, err)

		// A guarded transaction has its row, and downgrading waits for that.
		stranger := contract.LockRows(t, direct, "pglocker:rwlock:down:w")
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)

		defer cancel()

		failed := make(chan error, 1)

		go func() { failed <- contract.Second(writer.Downgrade(short)) }()

		contract.Receive(t, "the context ends", short.Done())
		contract.Must(t, stranger.Rollback())

		if err := contract.Receive(t, "Downgrade returns", failed); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Downgrade whose context ends: %v, want context.DeadlineExceeded", err)
		}

		if writer.Context().Err() == nil {
			t.Error("the writer goes on")
		}

		next, err := rw.Lock(ctx, time.Minute)
		contract.Must(t, err)

		// Its lease was taken away.
		contract.Exec(t, direct, "UPDATE pglocker.lock_statuses SET generation = generation + 10 WHERE lock_id = 'pglocker:rwlock:down:w'")

		if _, err := next.Downgrade(ctx); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("Downgrade of what is another's: %v, want ErrLockLost", err)
		}
	})
}

// TestNestedReader: a holder of read access reads again beside a waiting writer of its own process, which waits
// for it. Where as many readers hold the lock as may, it waits for one of the others, before the writer.
func TestNestedReader(t *testing.T) {
	t.Parallel()

	for _, readers := range []int{3, 2} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()

		var (
			url = contract.NewDatabase(t)
			w   = contract.NewWatcher()
			all sync.WaitGroup
		)

		contract.MakeTable(t, contract.Open(t, "pgx", url), "")

		rw, err := contract.WatchedLocker(t, contract.Open(t, "pgx", url), w).NewRWLock("a", pglocker.WithMaxReaders(readers))
		contract.Must(t, err)

		outer, err := rw.RLock(ctx, time.Minute)
		contract.Must(t, err)
		other, err := rw.RLock(ctx, time.Minute)
		contract.Must(t, err)

		all.Go(func() {
			writer, err := rw.Lock(ctx, time.Minute)
			if err == nil {
				err = writer.Unlock(ctx)
			}

			if err != nil {
				t.Errorf("the writer: %v", err)
			}
		})
		contract.Receive(t, "the writer waits", w.InLine())

		all.Go(func() {
			inner, cancel := context.WithCancel(outer.Context())
			defer cancel()

			defer context.AfterFunc(ctx, cancel)()

			nested, err := rw.RLock(inner, time.Minute)
			if err == nil {
				err = nested.Unlock(ctx)
			}

			if err != nil {
				t.Errorf("%d readers at most: a reader under the context of another: %v", readers, err)
			}

			if err := outer.Unlock(ctx); err != nil {
				t.Errorf("the outer reader: %v", err)
			}
		})

		if readers == 2 {
			contract.Receive(t, "the nested reader waits", w.InLine())
		}

		contract.Must(t, other.Unlock(ctx))
		all.Wait()
	}
}

// TestReaderWaitsForItself: a reader that would wait for readers under whose context it asks fails at once.
func TestReaderWaitsForItself(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	contract.MakeTable(t, contract.Open(t, "pgx", url), "")

	rw, err := contract.NewLocker(t, "pgx", url).NewRWLock("a", pglocker.WithMaxReaders(2))
	contract.Must(t, err)

	outer, err := rw.RLock(t.Context(), time.Minute)
	contract.Must(t, err)
	nested, err := rw.RLock(outer.Context(), time.Minute)
	contract.Must(t, err)

	ctx, cancel := context.WithTimeout(nested.Context(), 20*time.Second)
	defer cancel()

	_, err = rw.RLock(ctx, time.Minute)
	if held := new(pglocker.HeldError); !errors.As(err, &held) || ctx.Err() != nil {
		t.Errorf("RLock: %v, want a *HeldError at once", err)
	}
}
