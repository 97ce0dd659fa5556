// Package pglockergocron lets several schedulers of github.com/go-co-op/gocron/v2, in as many processes, run each tick
// of a job once. There are two ways, of which a scheduler takes one:
//
//   - A [Locker] takes a lock for each run, so the processes share the jobs (gocron.WithDistributedLocker).
//   - An [Elector] has the leader run all jobs (gocron.WithDistributedElector). While there is none, after a crash for
//     example, ticks are left out: for as long as a lease lasts.
//
// # Clocks
//
// Each scheduler's tick comes by the clock of its machine. With a Locker, the process whose clock is ahead runs the job.
// The others must find the lock still held when their ticks come. So a lock is kept for a minimum hold that is longer
// than the clocks differ, even if the job ends earlier, and shorter than the time between two ticks less that
// difference. If the process is killed while it runs the job, the lock is free when its lease ends. So the TTL should
// exceed the difference of the clocks, too.
//
// Jobs by duration (gocron.DurationJob) tick from the start of each scheduler. Give them the same start, or take
// gocron.CronJob.
//
// With an Elector, the next leader must not lead before the last tick of the former has come by its clock, too, or that
// tick runs twice. How long that takes is an argument of [StartElector]:
//
//   - A leader that leaves on purpose ([Elector.Stop], a resignation) keeps the leadership for that long after its last
//     tick.
//   - A leader that crashes keeps it until its lease ends, two thirds of the election's TTL later or more, if its renewals
//     were answered. Let the TTL be at least twice the difference of the clocks.
//   - A leader that gets no answer from the database runs ticks until the lease's safety margin begins. A tick after which
//     the lease ends sooner than the clocks differ may run twice. If that matters, let pglocker.Config.SafetyMargin, by
//     default a tenth of the TTL, be longer than the clocks differ.
//
// A tick that comes while no process leads is left out. So is one that has come by the next leader's clock already, and
// not yet by that of the leader that leaves.
//
// A process that was paused over a tick runs its job late, when it goes on, if the lock is free then: gocron's timer has
// fired. With an Elector it doesn't, because its leadership is over. A job for which that matters should look at the time.
//
// # Errors
//
// gocron is silent when it skips a run, and when a job fails. Give each job two event listeners, as the example of [Locker]
// does. gocron.AfterLockError is told why a run was skipped: mostly pglocker.ErrAlreadyLocked, because another process
// runs the job, but also [ErrNoName], or what the database says. gocron.AfterJobRunsWithError is told what a job returns.
//
// # Losses
//
// gocron doesn't tell a job that its lock was lost. Wrap its function by [Locker.Task] or [Elector.Task]: it gets a
// context that ends then, and on shutdown. pglocker.Guard and pglocker.Token work in it.
package pglockergocron
