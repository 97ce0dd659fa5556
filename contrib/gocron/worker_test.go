package pglockergocron_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/jonboulle/clockwork"

	"github.com/ismurov/pglocker"
	pglockergocron "github.com/ismurov/pglocker/contrib/gocron"
)

// The environment of a worker: by how much its clock is ahead, the database, and what runs each tick once.
const (
	envWorker = "PGLOCKERGOCRON_AHEAD"
	envURL    = "PGLOCKERGOCRON_URL"
	envWay    = "PGLOCKERGOCRON_WAY"

	wayLocker  = "a Locker"
	wayElector = "an Elector"

	electionName = "scheduler"
)

const (
	interval = 10 * time.Second
	// aheadMost is by how much the clocks differ.
	aheadMost = 2 * time.Second
	// hold is longer than the clocks differ, and shorter than the time between ticks less that.
	hold = 6 * time.Second
	// takes is how long the job takes at the second tick, during which its process is killed. At others it is done
	// before the tick comes by the other clocks.
	takes = 3 * time.Second
)

// ahead is a clock that is ahead of the machine's.
type ahead struct {
	clockwork.Clock
	by time.Duration
}

func (c ahead) Now() time.Time                  { return c.Clock.Now().Add(c.by) }
func (c ahead) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
func (c ahead) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

// workerMain runs a scheduler whose job writes down each of its runs. It ends when its standard input does: the test
// has closed it, or is gone.
func workerMain() int {
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	return 0
}

func work() error {
	by, err := time.ParseDuration(os.Getenv(envWorker))
	if err != nil {
		return err
	}

	db, err := sql.Open("pgx", os.Getenv(envURL))
	if err != nil {
		return err
	}
	defer db.Close()

	locker, err := pglocker.New(db, &pglocker.Config{})
	if err != nil {
		return err
	}

	clock := ahead{clockwork.NewRealClock(), by}

	distributed, under, leave, err := distribute(locker, os.Getenv(envWay))
	if err != nil {
		return err
	}

	scheduler, err := gocron.NewScheduler(distributed, gocron.WithClock(clock))
	if err != nil {
		return err
	}

	_, err = scheduler.NewJob(gocron.CronJob("*/10 * * * * *", true), gocron.NewTask(under(func(ctx context.Context) error {
		tick := tickOf(clock.Now())

		var second bool

		err := db.QueryRowContext(ctx, `
			WITH run AS (INSERT INTO runs VALUES ($1, $2))
			SELECT count(DISTINCT tick) = 1 FROM runs WHERE tick < $1`, tick, os.Getpid()).Scan(&second)
		if err != nil || !second {
			return err
		}

		select {
		case <-time.After(takes):
		case <-ctx.Done():
		}

		return nil
	})), gocron.WithName("write down"))
	if err != nil {
		return err
	}

	scheduler.Start()

	_, _ = io.Copy(io.Discard, os.Stdin)

	return errors.Join(scheduler.Shutdown(), leave(), locker.Close(context.Background()))
}

// distribute is the option of a scheduler for one way, the wrapper of its jobs, and what is to be done after its end.
func distribute(locker *pglocker.Locker, way string) (
	option gocron.SchedulerOption, under func(func(context.Context) error) func(context.Context) error, leave func() error, err error,
) {
	if way == wayLocker {
		jobs, err := pglockergocron.NewLocker(locker, "test: ", hold, hold)
		if err != nil {
			return nil, nil, nil, err
		}

		return gocron.WithDistributedLocker(jobs), jobs.Task, func() error { return nil }, nil
	}

	election, err := locker.NewElection(electionName, hold)
	if err != nil {
		return nil, nil, nil, err
	}

	elector := pglockergocron.StartElector(context.Background(), election, hold)

	return gocron.WithDistributedElector(elector), elector.Task, func() error { return elector.Stop(context.Background()) }, nil
}

// tickOf is the number of the tick that is nearest by a clock.
func tickOf(now time.Time) int64 { return now.Round(interval).Unix() / int64(interval/time.Second) }
