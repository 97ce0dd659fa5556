package faulttest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// earlyBackoff has a candidate campaign again at once.
func earlyBackoff() pglocker.ElectionOption {
	return pglocker.WithBackoff(time.Millisecond, 50*time.Millisecond)
}

// beliefs asks a candidate again and again whether it leads, until the test ends.
type beliefs struct {
	mu sync.Mutex
	// last is when it was last asked and said so.
	last time.Time
}

func watchBeliefs(t *testing.T, election *pglocker.Election) *beliefs {
	t.Helper()

	var (
		b         = new(beliefs)
		done      sync.WaitGroup
		ctx, stop = context.WithCancel(context.Background())
	)

	done.Go(func() {
		for ctx.Err() == nil {
			if asked := time.Now(); election.IsLeader(ctx) == nil {
				b.mu.Lock()
				b.last = asked
				b.mu.Unlock()
			}

			time.Sleep(time.Millisecond) // between two questions
		}
	})

	t.Cleanup(func() {
		stop()
		done.Wait()
	})

	return b
}

func (b *beliefs) lastTime() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.last
}

// TestLeaderCutOff: a leader that loses contact has stopped, and says that it doesn't lead, before another can
// lead. When it is back it isn't a second leader: it waits for its turn.
func TestLeaderCutOff(t *testing.T) {
	t.Parallel()

	const ttl = 2 * time.Second

	for name, breaks := range map[string]func(p *proxy){
		"silence": func(p *proxy) { p.onAnswer(func() fate { return mute }) },
		"refused": func(p *proxy) {
			p.refuse(true)
			p.cutAll()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contract.EachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				url := contract.NewDatabase(t)
				p, through := newProxy(t, url)
				other := contract.NewLocker(t, driver, url)
				w := contract.NewWatcher()
				first := contract.StartCandidate(t, contract.WatchedLocker(t, contract.Open(t, driver, through), w), "a", ttl, earlyBackoff())
				believed := watchBeliefs(t, first.Election)

				for range 2 {
					led := contract.Receive(t, "the first leads", first.Elected)
					second := contract.StartCandidate(t, other, "a", ttl)

					contract.Await(t, "it says so", func() bool { return first.IsLeader(t.Context()) == nil })
					breaks(p)

					next := contract.Receive(t, "the second leads", second.Elected)
					if last := believed.lastTime(); !last.Before(next.At) {
						t.Errorf("the first believed at %s, and the second led at %s", last, next.At)
					}

					if cause := context.Cause(led.Ctx); !errors.Is(cause, pglocker.ErrLockLost) {
						t.Errorf("the first's term ended for %v, want ErrLockLost", cause)
					}

					contract.Receive(t, "the loss is told", first.Told)
					p.onAnswer(nil)
					p.refuse(false)
					p.cutAll()

					contract.Receive(t, "the first waits", w.InLine())

					if err := first.IsLeader(t.Context()); !errors.Is(err, pglocker.ErrNotLeader) || len(first.Elected) > 0 || next.Ctx.Err() != nil {
						t.Errorf("IsLeader: %v, and the second leads: %t", err, next.Ctx.Err() == nil)
					}

					second.End(t)
				}

				led := contract.Receive(t, "the first leads", first.Elected)
				if lock, _ := pglocker.FromContext(led.Ctx); lock.Context().Err() != nil {
					t.Error("it leads under a term that is over")
				}

				first.End(t)
			})
		})
	}
}

// TestCandidateLosesItsSessions: a candidate whose connections are gone, or hang, while it waits, notices, and
// leads when it is its turn.
func TestCandidateLosesItsSessions(t *testing.T) {
	t.Parallel()

	const ttl = 2 * time.Second

	for name, breaks := range map[string]func(p *proxy){
		"gone":    func(p *proxy) { p.cutAll() },
		"silence": func(p *proxy) { p.onAnswer(func() fate { return mute }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			contract.EachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				url := contract.NewDatabase(t)
				p, through := newProxy(t, url)
				leader := contract.StartCandidate(t, contract.NewLocker(t, driver, url), "a", ttl)
				w := contract.NewWatcher()

				contract.Receive(t, "it leads", leader.Elected)

				candidate := contract.StartCandidate(t, contract.WatchedLocker(t, contract.Open(t, driver, through), w), "a", ttl)

				contract.Receive(t, "the candidate waits", w.InLine())
				breaks(p)
				leader.End(t) // the candidate doesn't hear of it
				p.onAnswer(nil)

				ended := time.Now()
				led := contract.Receive(t, "the candidate leads", candidate.Elected)

				// A claim that isn't answered is repeated after the TTL.
				if late := led.At.Sub(ended); late > 2*ttl+4*time.Second {
					t.Errorf("it leads %s after the last leader has resigned", late)
				}

				candidate.End(t)
			})
		})
	}
}

// TestNeverLed: a candidate that was never elected is told of no term and of no loss, whatever happens to its
// connections, and to nobody does it look like a leader.
func TestNeverLed(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 2 * time.Second

		var (
			url        = contract.NewDatabase(t)
			p, through = newProxy(t, url)
			leader     = contract.StartCandidate(t, contract.NewLocker(t, driver, url), "a", ttl)
			led        = contract.Receive(t, "it leads", leader.Elected)
			log        = new(contract.Journal)
		)

		p.refuse(true)

		locker, err := pglocker.New(contract.Open(t, driver, through), &pglocker.Config{Logger: slog.New(log)})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		candidate := contract.StartCandidate(t, locker, "a", ttl, earlyBackoff())
		believed := watchBeliefs(t, candidate.Election)

		// Run goes on although the server can't be reached at its beginning.
		contract.Receive(t, "the first error is told", candidate.Told)
		contract.Receive(t, "the second error is told", candidate.Told)
		p.refuse(false)
		contract.Await(t, "it waits for a time", func() bool { return len(log.Of("waiting for a lock")) > 0 })
		p.refuse(true)
		p.cutAll()
		contract.Await(t, "its listener, or a poll, fails", func() bool {
			_, err := candidate.Leader(t.Context())

			return err != nil
		})

		candidate.End(t)

		if last := believed.lastTime(); !last.IsZero() || len(candidate.Elected) > 0 {
			t.Errorf("it believed at %s, and was elected %d times", last, len(candidate.Elected))
		}

		for len(candidate.Told) > 0 {
			if err := <-candidate.Told; errors.Is(err, pglocker.ErrLockLost) {
				t.Errorf("told of %v", err)
			}
		}

		if lost := log.Of("a lock was lost"); len(lost) > 0 {
			t.Errorf("logged %+v", lost)
		}

		if term, err := leader.Leader(t.Context()); err != nil || term != led.Term {
			t.Errorf("Leader: %+v, %v, want %+v", term, err, led.Term)
		}

		leader.End(t)
	})
}

// TestObserveInTrouble: an observer yields what keeps it from looking, and goes on when that has passed, with
// all that it can still see.
func TestObserveInTrouble(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		p, through := newProxy(t, url)
		leader := contract.StartCandidate(t, contract.NewLocker(t, driver, url), "a", time.Minute, earlyBackoff())
		first := contract.Receive(t, "it leads", leader.Elected)

		observer, err := contract.NewLocker(t, driver, through).NewElection("a", time.Minute)
		contract.Must(t, err)

		ctx, stop := context.WithCancel(t.Context())
		terms, errs, ended := make(chan pglocker.Term, 100), make(chan error, 1000), make(chan struct{})

		go func() {
			defer close(ended)

			for term, err := range observer.Observe(ctx) {
				if err != nil {
					errs <- err
				} else {
					terms <- term
				}
			}
		}()

		if got := contract.Receive(t, "the first term is seen", terms); got != first.Term {
			t.Errorf("seen %+v, want %+v", got, first.Term)
		}

		p.refuse(true)
		p.cutAll()

		for range 2 {
			if err := contract.Receive(t, "an error is yielded", errs); errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("yielded %v, but the caller's context has not ended", err)
			}
		}

		first.Leave <- nil
		second := contract.Receive(t, "it leads again", leader.Elected)
		p.refuse(false)

		got := contract.Receive(t, "the next term is seen", terms)
		if got.Vacant() { // it came back in between
			got = contract.Receive(t, "the next term is seen", terms)
		}

		if got != second.Term {
			t.Errorf("seen %+v, want %+v", got, second.Term)
		}

		stop()
		contract.Receive(t, "the sequence ends", ended)
		leader.End(t)
	})
}

// TestElectionPrivileges: an election needs what locks need, and no more. Where that is lacking, or the table,
// Run and Observe end at once and say so.
func TestElectionPrivileges(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		admin := contract.Open(t, driver, url)
		role, db := newRole(t, admin, driver, url)

		locker, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		refused := func(want error) {
			t.Helper()

			c := contract.StartCandidate(t, locker, "a", time.Minute)
			if err := contract.Receive(t, "Run returns", c.Returned); !errors.Is(err, want) {
				t.Errorf("Run: %v, want %v", err, want)
			}

			errs := make(chan error, 10)

			go func() {
				for _, err := range c.Observe(t.Context()) {
					errs <- err
				}

				close(errs)
			}()

			if err := contract.Receive(t, "Observe yields", errs); !errors.Is(err, want) {
				t.Errorf("Observe: %v, want %v", err, want)
			}

			if err, more := <-errs; more {
				t.Errorf("Observe goes on with %v", err)
			}

			if _, err := c.Leader(t.Context()); !errors.Is(err, want) {
				t.Errorf("Leader: %v, want %v", err, want)
			}

			if err := c.RequestResign(t.Context(), 2); !errors.Is(err, want) {
				t.Errorf("RequestResign: %v, want %v", err, want)
			}
		}

		refused(pglocker.ErrTableNotFound)
		contract.Must(t, pglocker.MigrateDB(t.Context(), admin, &pglocker.Config{}))
		refused(pglocker.ErrPermissionDenied)
		contract.Exec(t, admin, "GRANT USAGE ON SCHEMA pglocker TO "+role)
		contract.Exec(t, admin, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+role)

		c := contract.StartCandidate(t, locker, "a", time.Minute, earlyBackoff())
		first := contract.Receive(t, "it leads", c.Elected)

		contract.Must(t, c.RequestResign(t.Context(), first.Token))
		contract.Receive(t, "it leads again", c.Elected)
		c.End(t)
	})
}
