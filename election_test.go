package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestBadElections: mistakes of the caller are found before the database hears of them.
func TestBadElections(t *testing.T) {
	t.Parallel()

	db := sql.OpenDB(refusing{t})
	defer func() { contract.Must(t, db.Close()) }()

	locker, err := pglocker.New(db, &pglocker.Config{SafetyMargin: time.Second})
	contract.Must(t, err)

	check := func(context.Context) error { return nil }

	for name, bad := range map[string]struct {
		name string
		ttl  time.Duration
		opt  pglocker.ElectionOption
		want error
	}{
		"no name":                         {"", time.Minute, nil, pglocker.ErrInvalidName},
		"a name of a lock id's length":    {strings.Repeat("x", pglocker.MaxLockIDBytes), time.Minute, nil, pglocker.ErrInvalidName},
		"a name with NUL":                 {"a\x00", time.Minute, nil, pglocker.ErrInvalidName},
		"no TTL":                          {"a", 0, nil, pglocker.ErrInvalidTTL},
		"a TTL that leaves no term":       {"a", 2 * time.Second, nil, pglocker.ErrInvalidTTL},
		"a TTL above the longest":         {"a", pglocker.MaxTTL + 1, nil, pglocker.ErrInvalidTTL},
		"a relock interval of zero":       {"a", time.Minute, pglocker.WithElectionRelockInterval(0), pglocker.ErrInvalidRelockInterval},
		"a relock interval of the TTL":    {"a", time.Minute, pglocker.WithElectionRelockInterval(time.Minute), pglocker.ErrInvalidRelockInterval},
		"no backoff":                      {"a", time.Minute, pglocker.WithBackoff(0, time.Second), pglocker.ErrInvalidBackoff},
		"a backoff that shrinks":          {"a", time.Minute, pglocker.WithBackoff(2, 1), pglocker.ErrInvalidBackoff},
		"no time between looks":           {"a", time.Minute, pglocker.WithObserveInterval(0), pglocker.ErrInvalidInterval},
		"no time between health checks":   {"a", time.Minute, pglocker.WithHealthCheck(0, check), pglocker.ErrInvalidInterval},
		"a health check that isn't there": {"a", time.Minute, pglocker.WithHealthCheck(time.Second, nil), pglocker.ErrFuncIsNil},
	} {
		if _, err := locker.NewElection(bad.name, bad.ttl, bad.opt); !errors.Is(err, bad.want) {
			t.Errorf("%s: %v, want %v", name, err, bad.want)
		}
	}

	election, err := locker.NewElection(strings.Repeat("x", 900), time.Minute)
	contract.Must(t, err)

	if err := election.Run(t.Context(), nil); !errors.Is(err, pglocker.ErrFuncIsNil) {
		t.Errorf("Run without a function: %v, want ErrFuncIsNil", err)
	}

	if err := election.IsLeader(t.Context()); !errors.Is(err, pglocker.ErrNotLeader) {
		t.Errorf("IsLeader before Run: %v, want ErrNotLeader", err)
	}
}

// TestElectionIsHeard: an observer that hears of a new term and of its end doesn't look for them.
func TestElectionIsHeard(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	contract.NewLocker(t, "pgx", url) // makes the table

	c := contract.NewCounted(t, url, nil, 5)
	observer, err := c.Locker.NewElection("a", time.Hour, pglocker.WithObserveInterval(time.Hour))
	contract.Must(t, err)

	ctx, stop := context.WithCancel(t.Context())
	seen := make(chan pglocker.Term, 100)
	ended := make(chan struct{})

	go func() {
		defer close(ended)

		for term, err := range observer.Observe(ctx) {
			if err != nil { // a busy machine may take longer than a look
				t.Logf("Observe: %v", err)

				continue
			}

			seen <- term
		}
	}()

	contract.Receive(t, "the beginning", seen)

	candidate := contract.StartCandidate(t, contract.NewLocker(t, "pgx", url), "a", time.Hour,
		pglocker.WithBackoff(time.Millisecond, time.Millisecond))

	contract.Receive(t, "the observer sees that it hears", seen) // which takes a look, and finds the first term

	for range 3 {
		led := contract.Receive(t, "it leads", candidate.Elected)
		began := time.Now()
		led.Leave <- nil

		for contract.Receive(t, "the next change is seen", seen).Token <= led.Token { // its end, mostly
		}

		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("seen %s after the end of the last term, want it to be heard", took)
		}
	}

	candidate.End(t)
	stop()
	contract.Receive(t, "the sequence ends", ended)
}

// TestIsLeaderAsksNobody: IsLeader sends nothing and allocates nothing, whether it leads or not.
func TestIsLeaderAsksNobody(t *testing.T) { // not in parallel: it counts allocations
	// On three columns no new leader is announced, which could come late.
	url := contract.NewDatabase(t)
	contract.MakeTable(t, contract.Open(t, "pgx", url), contract.ThreeColumns)

	c := contract.NewCounted(t, url, nil, 5)
	leader := contract.StartCandidate(t, c.Locker, "a", time.Hour)
	bystander, err := c.Locker.NewElection("a", time.Hour)
	contract.Must(t, err)

	contract.Receive(t, "it leads", leader.Elected)

	before := c.Statements.Load()

	allocated := testing.AllocsPerRun(10_000, func() {
		if leader.IsLeader(t.Context()) != nil || bystander.IsLeader(t.Context()) == nil {
			t.Error("IsLeader is wrong")
		}
	})

	if sent := c.Statements.Load() - before; allocated > 0 || sent > 0 {
		t.Errorf("%d statements and %g allocations, want none", sent, allocated)
	}

	leader.End(t)
}

// TestFunctionThatStays: a function that goes on after its context has ended is no leader any more, and no other
// candidate is one before it returns.
func TestFunctionThatStays(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	election, err := contract.NewLocker(t, "pgx", url).NewElection("a", time.Minute)
	contract.Must(t, err)

	ctx, stop := context.WithCancel(t.Context())
	led, leave, returned := make(chan *contract.Leading, 10), make(chan struct{}), make(chan error, 1)

	go func() {
		returned <- election.Run(ctx, func(ctx context.Context, term pglocker.Term) error {
			led <- &contract.Leading{Term: term, Ctx: ctx}
			<-leave

			return nil
		})
	}()

	stays := contract.Receive(t, "it leads", led)
	contract.Must(t, election.IsLeader(ctx))

	w := contract.NewWatcher()
	next := contract.StartCandidate(t, contract.WatchedLocker(t, contract.Open(t, "pgx", url), w), "a", time.Minute)

	contract.Receive(t, "the next waits", w.InLine())
	contract.Must(t, election.RequestResign(ctx, stays.Token))
	contract.Receive(t, "the term ends", stays.Ctx.Done())

	if err := election.IsLeader(ctx); !errors.Is(err, pglocker.ErrNotLeader) || !errors.Is(err, pglocker.ErrResignRequested) {
		t.Errorf("IsLeader: %v, want ErrNotLeader, and why", err)
	}

	if term, err := next.Leader(ctx); err != nil || term != stays.Term || len(next.Elected) > 0 {
		t.Errorf("Leader: %+v, %v, want %+v as long as the function runs", term, err, stays.Term)
	}

	stop()
	close(leave)

	if err := contract.Receive(t, "Run returns", returned); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v, want context.Canceled", err)
	}

	contract.Receive(t, "the next leads", next.Elected)
	next.End(t)
}

// TestUnhealthyLeaderResigns: a leader whose check fails, or hangs, resigns, and the other one leads. It doesn't
// campaign before its check succeeds.
func TestUnhealthyLeaderResigns(t *testing.T) {
	t.Parallel()

	// A check that returns at once must not count as one that hangs, on a busy machine neither.
	const interval = 400 * time.Millisecond

	var (
		url    = contract.NewDatabase(t)
		broken = errors.New("disk full")
		state  atomic.Pointer[func(context.Context) error]
		checks = make(chan struct{}, 100_000)
	)

	be := func(check func(context.Context) error) { state.Store(&check) }
	hangs := func(ctx context.Context) error {
		<-ctx.Done()

		return ctx.Err()
	}

	be(func(context.Context) error { return broken })

	other := contract.NewLocker(t, "pgx", url)
	w := contract.NewWatcher()
	first := contract.StartCandidate(t, contract.WatchedLocker(t, contract.Open(t, "pgx", url), w), "a", time.Minute,
		pglocker.WithBackoff(time.Millisecond, time.Millisecond),
		pglocker.WithHealthCheck(interval, func(ctx context.Context) error {
			checks <- struct{}{}

			return (*state.Load())(ctx)
		}))

	if err := contract.Receive(t, "the first failure is told", first.Told); !errors.Is(err, pglocker.ErrUnhealthy) || !errors.Is(err, broken) {
		t.Errorf("told of %v, want ErrUnhealthy", err)
	}

	for range 2 {
		contract.Receive(t, "a check", checks)
	}

	if _, err := first.Leader(t.Context()); !errors.Is(err, pglocker.ErrNoLeader) || len(first.Elected) > 0 {
		t.Errorf("Leader while the only candidate is unhealthy: %v, want ErrNoLeader", err)
	}

	be(func(context.Context) error { return nil })

	led := contract.Receive(t, "the first leads", first.Elected)
	second := contract.StartCandidate(t, other, "a", time.Minute)

	be(hangs)
	contract.Receive(t, "the term ends", led.Ctx.Done())

	if cause := context.Cause(led.Ctx); !errors.Is(cause, pglocker.ErrUnhealthy) || errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("the term ended for %v, want ErrUnhealthy alone", cause)
	}

	next := contract.Receive(t, "the second leads", second.Elected)
	if next.Token <= led.Token {
		t.Errorf("token %d after %d", next.Token, led.Token)
	}

	for len(w.InLine()) > 0 { // before it led
		<-w.InLine()
	}

	// It is healthy, and waits in line. It leaves when it is unhealthy again.
	be(func(context.Context) error { return nil })
	contract.Receive(t, "the second failure is told", first.Told)
	contract.Receive(t, "it waits in line", w.InLine())
	be(func(context.Context) error { return broken })

	if err := contract.Receive(t, "the third failure is told", first.Told); !errors.Is(err, broken) {
		t.Errorf("told of %v, want the check's error", err)
	}

	second.End(t)

	if _, err := first.Leader(t.Context()); !errors.Is(err, pglocker.ErrNoLeader) || len(first.Elected) > 0 {
		t.Errorf("Leader while the only candidate is unhealthy: %v, want ErrNoLeader", err)
	}

	first.End(t)

	if told := len(first.Told); told > 0 {
		t.Errorf("told of %d more errors: %v", told, <-first.Told)
	}
}

// TestElectionGuard: the guard and the token work in the context of a term.
func TestElectionGuard(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	db := contract.Open(t, "pgx", url)
	c := contract.StartCandidate(t, contract.NewLocker(t, "pgx", url), "a", time.Minute)
	led := contract.Receive(t, "it leads", c.Elected)

	guard := func() error {
		tx, err := db.BeginTx(t.Context(), nil)
		contract.Must(t, err)

		defer func() { _ = tx.Rollback() }()

		return pglocker.Guard(led.Ctx, tx)
	}

	contract.Must(t, guard())

	if token, ok := pglocker.Token(led.Ctx); !ok || token != led.Token {
		t.Errorf("token %d, %t in the context of token %d", token, ok, led.Token)
	}

	c.End(t)

	if err := guard(); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard after the term: %v, want ErrLockLost", err)
	}
}
