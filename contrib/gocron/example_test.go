package pglockergocron_test

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"

	"github.com/ismurov/pglocker"
	pglockergocron "github.com/ismurov/pglocker/contrib/gocron"
)

// The processes share the jobs. Each tick runs in one of them.
func ExampleLocker() {
	_ = func(ctx context.Context, locker *pglocker.Locker, report func(context.Context) error) error {
		// A lease of 30 seconds. The clocks differ by less than five.
		jobs, err := pglockergocron.NewLocker(locker, "reports: ", 30*time.Second, 5*time.Second)
		if err != nil {
			return err
		}

		scheduler, err := gocron.NewScheduler(gocron.WithDistributedLocker(jobs))
		if err != nil {
			return err
		}

		// Without these, gocron says nothing.
		listeners := gocron.WithEventListeners(
			gocron.AfterLockError(func(_ uuid.UUID, name string, err error) {
				if !errors.Is(err, pglocker.ErrAlreadyLocked) { // another process runs the job
					log.Printf("%s was skipped: %v", name, err)
				}
			}),
			gocron.AfterJobRunsWithError(func(_ uuid.UUID, name string, err error) { log.Printf("%s: %v", name, err) }),
		)

		// The lock's id is "reports: hourly". The context given to report ends with the lock.
		_, err = scheduler.NewJob(gocron.CronJob("0 * * * *", false), gocron.NewTask(jobs.Task(report)), gocron.WithName("hourly"), listeners)
		if err != nil {
			return err
		}

		scheduler.Start()
		<-ctx.Done()

		return scheduler.Shutdown()
	}
}

// One process, the leader, runs all jobs.
func ExampleElector() {
	_ = func(ctx context.Context, locker *pglocker.Locker, report func(context.Context) error) error {
		election, err := locker.NewElection("reports", 30*time.Second)
		if err != nil {
			return err
		}

		// The clocks differ by less than five seconds. It doesn't end with ctx, but after the scheduler.
		elector := pglockergocron.StartElector(context.WithoutCancel(ctx), election, 5*time.Second)

		scheduler, err := gocron.NewScheduler(gocron.WithDistributedElector(elector))
		if err != nil {
			return errors.Join(err, elector.Stop(context.WithoutCancel(ctx)))
		}

		_, err = scheduler.NewJob(gocron.CronJob("0 * * * *", false), gocron.NewTask(elector.Task(report)))
		if err == nil {
			scheduler.Start()
			<-ctx.Done()
		}

		return errors.Join(err, scheduler.Shutdown(), elector.Stop(context.WithoutCancel(ctx)))
	}
}
