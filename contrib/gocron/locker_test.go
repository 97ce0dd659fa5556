package pglockergocron_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"

	"github.com/ismurov/pglocker"
	pglockergocron "github.com/ismurov/pglocker/contrib/gocron"
	"github.com/ismurov/pglocker/lockertest"
)

// told are the events of a job.
type told struct{ skipped, failed chan error }

// start runs a job at once, and returns its scheduler.
func start(t *testing.T, jobs *pglockergocron.Locker, fn func(context.Context) error, opts ...gocron.JobOption) (gocron.Scheduler, told) {
	t.Helper()

	scheduler, err := gocron.NewScheduler(gocron.WithDistributedLocker(jobs))
	must(t, err)
	t.Cleanup(func() { must(t, scheduler.Shutdown()) })

	events := told{make(chan error, 1), make(chan error, 1)}

	_, err = scheduler.NewJob(gocron.OneTimeJob(gocron.OneTimeJobStartImmediately()), gocron.NewTask(jobs.Task(fn)), append(opts,
		gocron.WithEventListeners(
			gocron.AfterLockError(func(_ uuid.UUID, _ string, err error) { events.skipped <- err }),
			gocron.AfterJobRunsWithError(func(_ uuid.UUID, _ string, err error) { events.failed <- err }),
		))...)
	must(t, err)
	scheduler.Start()

	return scheduler, events
}

func newJobs(t *testing.T, locker *pglocker.Locker) *pglockergocron.Locker {
	t.Helper()

	jobs, err := pglockergocron.NewLocker(locker, "test: ", time.Minute, time.Millisecond)
	must(t, err)

	return jobs
}

func TestTheTaskHearsOfALoss(t *testing.T) {
	t.Parallel()

	locker := newLocker(t, databases.NewDatabase(t).String())
	runs := make(chan context.Context)

	_, events := start(t, newJobs(t, locker), func(ctx context.Context) error {
		runs <- ctx
		<-ctx.Done()

		return nil
	}, gocron.WithName("report"))

	ctx := receive(t, "the job runs", runs)
	if lock, ok := pglocker.FromContext(ctx); !ok || lock.Status().LockID != "test: report" {
		t.Errorf("the lock of the context: %v", lock)
	}

	lockertest.Lose(t, locker, "test: report")

	if err := receive(t, "the job fails", events.failed); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("gocron is told %v", err)
	}
}

// TestShutdown: gocron calls Unlock with a context that has ended.
func TestShutdown(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	runs := make(chan context.Context)

	scheduler, events := start(t, newJobs(t, newLocker(t, url)), func(ctx context.Context) error {
		runs <- ctx
		<-ctx.Done()

		return context.Cause(ctx)
	}, gocron.WithName("report"))

	receive(t, "the job runs", runs)

	// The program may exit when this returns: the lock must be free by then, not by the background.
	must(t, scheduler.Shutdown())
	must(t, newLocker(t, url).Do(t.Context(), "test: report", time.Minute, time.Second, nothing))

	if err := receive(t, "the job ends", events.failed); !errors.Is(err, context.Canceled) {
		t.Errorf("the job's context: %v", err)
	}
}

// TestUnlockAfterTheEnd: the same context, without a scheduler that hides the error.
func TestUnlockAfterTheEnd(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	lock, err := newJobs(t, newLocker(t, databases.NewDatabase(t).String())).Lock(ctx, "report")
	must(t, err)

	cancel()
	must(t, lock.Unlock(ctx))
}

func nothing(context.Context) error { return nil }

func TestWhatIsSkipped(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	jobs := newJobs(t, newLocker(t, url))
	ran := func(context.Context) error {
		t.Error("the job runs")

		return nil
	}

	lockertest.Take(t, db, &pglocker.Config{}, "test: report")

	_, events := start(t, jobs, ran, gocron.WithName("report"))
	if err := receive(t, "the run is skipped", events.skipped); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("of a held lock: %v", err)
	}

	_, events = start(t, jobs, ran)
	if err := receive(t, "the run is skipped", events.skipped); !errors.Is(err, pglockergocron.ErrNoName) {
		t.Errorf("of a job without a name: %v", err)
	}

	_, events = start(t, jobs, ran, gocron.WithName("free"), gocron.WithDisabledDistributedJobLocker(true))
	if err := receive(t, "the job fails", events.failed); !errors.Is(err, pglockergocron.ErrNoLock) {
		t.Errorf("of a job without a lock: %v", err)
	}
}

func TestNewLocker(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		prefix  string
		minHold time.Duration
		want    error
	}{
		{"", time.Second, pglockergocron.ErrNoPrefix},
		{"pglocker:", time.Second, pglocker.ErrReservedLockID},
		{"jobs: ", 0, pglocker.ErrInvalidMinHold},
	} {
		if _, err := pglockergocron.NewLocker(nil, test.prefix, time.Minute, test.minHold); !errors.Is(err, test.want) {
			t.Errorf("prefix %q, minimum hold %s: %v", test.prefix, test.minHold, err)
		}
	}
}
