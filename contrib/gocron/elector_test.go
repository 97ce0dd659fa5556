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

	c.elector = pglockergocron.StartElector(t.Context(), election)

	c.scheduler, err = gocron.NewScheduler(gocron.WithDistributedElector(c.elector))
	must(t, err)
	t.Cleanup(func() {
		must(t, c.scheduler.Shutdown())
		must(t, c.elector.Stop())
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
		must(t, a.elector.Stop())
	case <-b.runs:
		next = a
		must(t, b.scheduler.Shutdown())
		must(t, b.elector.Stop())
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

	elector := pglockergocron.StartElector(t.Context(), election)
	if err := elector.Task(nothing)(t.Context()); !errors.Is(err, pglocker.ErrNotLeader) {
		t.Errorf("a task without a leader: %v", err)
	}

	for deadline := time.Now().Add(time.Minute); !errors.Is(elector.IsLeader(t.Context()), pglocker.ErrTableNotFound); {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't say that there is no table:", elector.IsLeader(t.Context()))
		}

		time.Sleep(5 * time.Millisecond)
	}

	if err := elector.Stop(); !errors.Is(err, pglocker.ErrTableNotFound) {
		t.Errorf("stop: %v", err)
	}
}
