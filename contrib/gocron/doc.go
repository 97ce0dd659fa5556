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
// With an Elector, a tick may run twice if the leader leaves on purpose ([Elector.Stop], or a resignation): the next leads
// at once, and the same tick may be still to come by its clock. After a crash the lease keeps the next away for that long,
// if the election's TTL exceeds the difference of the clocks.
//
// A process that was paused over a tick runs its job late, when it goes on, if the lock is free then: gocron's timer has
// fired. With an Elector it doesn't, because its leadership is over. A job for which that matters should look at the time.
//
// # Losses
//
// gocron doesn't tell a job that its lock was lost. Wrap its function by [Locker.Task] or [Elector.Task]: it gets a
// context that ends then, and on shutdown. pglocker.Guard and pglocker.Token work in it.
package pglockergocron
