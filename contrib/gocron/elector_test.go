package pglockergocron_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/ismurov/pglocker"
	pglockergocron "github.com/ismurov/pglocker/contrib/gocron"
	"github.com/ismurov/pglocker/lockertest"
)

// candidate is a scheduler that runs its job while it leads.
type candidate struct {
	elector   *pglockergocron.Elector
	scheduler gocron.Scheduler
	locker    *pglocker.Locker
	// runs has the context of each run. The run ends with it.
	runs chan context.Context
}

func newCandidate(t *testing.T, url string) *candidate {
	t.Helper()

	c := &candidate{locker: newLocker(t, url), runs: make(chan context.Context)}

	election, err := c.locker.NewElection("scheduler", 5*time.Second)
	must(t, err)

	c.elector = pglockergocron.StartElector(t.Context(), election, 0)

	c.scheduler, err = gocron.NewScheduler(gocron.WithDistributedElector(c.elector))
	must(t, err)
	t.Cleanup(func() {
		must(t, c.scheduler.Shutdown())
		must(t, c.elector.Stop(context.Background()))
	})

	_, err = c.scheduler.NewJob(gocron.DurationJob(20*time.Millisecond), gocron.NewTask(c.elector.Task(func(ctx context.Context) error {
		select {
		case c.runs <- ctx:
			<-ctx.Done()
		case <-ctx.Done():
		}

		return context.Cause(ctx)
	})), gocron.WithSingletonMode(gocron.LimitModeReschedule))
	must(t, err)
	c.scheduler.Start()

	return c
}

func TestTheLeaderRunsAllJobs(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	a := newCandidate(t, url)

	run := receive(t, "the only candidate runs the job", a.runs)
	must(t, a.elector.IsLeader(t.Context()))

	if _, ok := pglocker.Token(run); !ok {
		t.Error("the leader's lock isn't in the context of the run")
	}

	b := newCandidate(t, url)
	if err := b.elector.IsLeader(t.Context()); !errors.Is(err, pglocker.ErrNotLeader) {
		t.Errorf("of the other: %v", err)
	}

	// A loss ends the run.
	lockertest.Lose(t, a.locker, pglocker.ReservedPrefix+"election:scheduler")
	receive(t, "the run ends", run.Done())

	if err := context.Cause(run); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("the context of the run: %v", err)
	}

	// Either may lead now. One that shuts down lets the other lead.
	var next *candidate

	select {
	case <-a.runs:
		next = b
		must(t, a.scheduler.Shutdown())
		must(t, a.elector.Stop(t.Context()))
	case <-b.runs:
		next = a
		must(t, b.scheduler.Shutdown())
		must(t, b.elector.Stop(t.Context()))
	}

	receive(t, "the other runs the job", next.runs)
}

func TestTheElectorSaysWhyItLeft(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	locker, err := pglocker.New(databases.Open(t, url), &pglocker.Config{Table: "none"})
	must(t, err)

	election, err := locker.NewElection("scheduler", time.Minute)
	must(t, err)

	elector := pglockergocron.StartElector(t.Context(), election, 0)
	if err := elector.Task(nothing)(t.Context()); !errors.Is(err, pglocker.ErrNotLeader) {
		t.Errorf("a task without a leader: %v", err)
	}

	for deadline := time.Now().Add(time.Minute); !errors.Is(elector.IsLeader(t.Context()), pglocker.ErrTableNotFound); {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't say that there is no table:", elector.IsLeader(t.Context()))
		}

		time.Sleep(5 * time.Millisecond)
	}

	if err := elector.Stop(t.Context()); !errors.Is(err, pglocker.ErrTableNotFound) {
		t.Errorf("stop: %v", err)
	}
}

// TestALeaderRunsTasks: while IsLeader says nil, a task runs.
func TestALeaderRunsTasks(t *testing.T) {
	t.Parallel()

	locker := newLocker(t, databases.NewDatabase(t).String())
	election, err := locker.NewElection("scheduler", time.Minute)
	must(t, err)

	// Between the election and the elector's first term.
	elector := pglockergocron.Untold(election)
	ctx, cancel := context.WithCancel(t.Context())
	elected, left := make(chan struct{}), make(chan struct{})

	go func() {
		defer close(left)

		_ = election.Run(ctx, func(ctx context.Context, _ pglocker.Term) error { // says that ctx has ended
			close(elected)
			<-ctx.Done()

			return nil
		})
	}()

	receive(t, "it is elected", elected)
	must(t, election.IsLeader(ctx))

	if is, ran := elector.IsLeader(ctx), elector.Task(nothing)(ctx); !errors.Is(is, pglocker.ErrNotLeader) || !errors.Is(ran, pglocker.ErrNotLeader) {
		t.Errorf("before the term is told: IsLeader says %v, a task %v", is, ran)
	}

	cancel()
	receive(t, "it leaves", left)

	started := pglockergocron.StartElector(t.Context(), election, 0)

	for deadline := time.Now().Add(time.Minute); started.IsLeader(t.Context()) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't lead:", started.IsLeader(t.Context()))
		}
	}

	must(t, started.Task(nothing)(t.Context()))
	must(t, started.Stop(t.Context()))
}

// TestStopIsBounded: a task that doesn't heed its context keeps the leadership, but not the caller of Stop.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	election, err := newLocker(t, url).NewElection("scheduler", time.Minute)
	must(t, err)

	elector := pglockergocron.StartElector(t.Context(), election, 0)
	runs, finish, ran := make(chan struct{}), make(chan struct{}), make(chan error, 1)

	task := elector.Task(func(context.Context) error {
		close(runs)
		<-finish

		return nil
	})

	for deadline := time.Now().Add(time.Minute); elector.IsLeader(t.Context()) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't lead:", elector.IsLeader(t.Context()))
		}
	}

	go func() { ran <- task(t.Context()) }()

	receive(t, "the task runs", runs)

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()

	if err := elector.Stop(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while a task runs, Stop returns %v", err)
	}

	other, err := newLocker(t, url).NewElection("scheduler", time.Minute)
	must(t, err)

	if _, err := other.Leader(t.Context()); err != nil {
		t.Errorf("the leadership was released under the task: %v", err)
	}

	close(finish)
	must(t, receive(t, "the task ends", ran))
	must(t, elector.Stop(t.Context()))

	if _, err := other.Leader(t.Context()); !errors.Is(err, pglocker.ErrNoLeader) {
		t.Errorf("after Stop: %v", err)
	}

	// There is nothing left to wait for.
	over, end := context.WithCancel(t.Context())
	end()

	for range 100 {
		must(t, elector.Stop(over))
	}
}

// TestTheLastTickIsKept: nobody leads while the last tick is still to come by other clocks.
func TestTheLastTickIsKept(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	stop := func(t *testing.T, _ *pglocker.Election, e *pglockergocron.Elector, _ int64) {
		must(t, e.Stop(t.Context()))
	}

	for name, test := range map[string]struct {
		leave  func(t *testing.T, election *pglocker.Election, elector *pglockergocron.Elector, token int64)
		ticks  bool
		clocks time.Duration
	}{
		"a stop": {stop, true, 2 * time.Second},
		"a resignation": {func(t *testing.T, e *pglocker.Election, _ *pglockergocron.Elector, token int64) {
			must(t, e.RequestResign(t.Context(), token))
		}, true, 2 * time.Second},
		"a stop without a tick": {stop, false, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			election, err := newLocker(t, url).NewElection(name, time.Minute)
			must(t, err)

			other, err := newLocker(t, url).NewElection(name, time.Minute)
			must(t, err)

			elector := pglockergocron.StartElector(t.Context(), election, test.clocks)
			term := awaitTerm(t, other)

			// The lease is so long that its end isn't what is seen below.
			start := time.Now()

			for deadline := start.Add(time.Minute / 2); test.ticks; time.Sleep(time.Millisecond) {
				start = time.Now() // before the tick, or a stall after it would count as time that wasn't kept

				if elector.IsLeader(t.Context()) == nil {
					break
				}

				if start.After(deadline) {
					t.Fatal("it doesn't lead")
				}
			}

			test.leave(t, election, elector, term.Token)

			for {
				now, err := other.Leader(t.Context())
				if errors.Is(err, pglocker.ErrNoLeader) || err == nil && now.Token != term.Token {
					break
				}

				must(t, err)
				time.Sleep(time.Millisecond)
			}

			took := time.Since(start)
			if test.ticks && took < test.clocks || took > time.Minute/2 {
				t.Errorf("the leadership ended after %s", took)
			}

			must(t, elector.Stop(t.Context()))
		})
	}
}

func awaitTerm(t *testing.T, election *pglocker.Election) pglocker.Term {
	t.Helper()

	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if term, err := election.Leader(t.Context()); err == nil {
			return term
		} else if time.Now().After(deadline) {
			t.Fatal("nobody leads:", err)
		}
	}
}
